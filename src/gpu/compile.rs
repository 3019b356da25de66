//! The kernels of a device: each is made once, and its pipeline is built by another thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::error::Result;
use crate::gpu::Gpu;
use crate::gpu::kernel::{Kernel, Maker};
use crate::gpu::shaders::Shader;

impl Gpu {
    /// The kernel for `entry` of `shader` with these override constants and appended text. At its first use another thread
    /// begins its pipeline.
    ///
    /// Errors where the driver is known to refuse the shader; [`Kernel::pipeline`] finds out.
    pub fn kernel(
        &self,
        shader: &'static Shader,
        entry: &str,
        constants: &[(&str, f64)],
        tail: &str,
    ) -> Result<Arc<Kernel>> {
        let constants: BTreeMap<&str, f64> = constants.iter().copied().collect();
        let bits = constants.iter().map(|(k, v)| (k.to_string(), v.to_bits())).collect();
        let key = (shader.name, entry.to_string(), bits, tail.to_string());
        let mut kernels = self.kernels.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(kernel) = kernels.get(&key) {
            return kernel.known().map(|()| kernel.clone());
        }
        tracing::debug!(kernel = %format!("{}::{entry}", shader.name), ?constants, "compile");
        let kernel = Arc::new(self.maker().kernel(shader, entry, &constants, tail));
        self.begin(kernel.clone());
        kernels.insert(key, kernel.clone());
        Ok(kernel)
    }

    /// Waits until no thread builds a pipeline: before something is timed that it would slow down. What the driver refuses is
    /// told where it is needed.
    pub fn finish_pipelines(&self) {
        let kernels: Vec<_> = self.kernels.lock().unwrap_or_else(|e| e.into_inner()).values().cloned().collect();
        kernels.iter().for_each(|kernel| drop(kernel.pipeline()));
    }

    /// Waits until no thread builds a pipeline or holds one; those that none has begun are not built. A driver must not go away under
    /// such a thread, and whoever drops the last reference to a device takes it down: a process that ends meanwhile crashes.
    pub(super) fn abandon_pipelines(&mut self) {
        let kernels = self.kernels.get_mut().unwrap_or_else(|e| e.into_inner());
        kernels.values().for_each(|kernel| kernel.abandon());
        while self.building.load(Ordering::Acquire) > 0 {
            // On a thread of the pool its jobs need this one.
            if rayon::yield_now().is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn maker(&self) -> Maker<'_> {
        let Gpu { device, info, checked, pipelines, .. } = self;
        Maker { device, adapter: &info.name, checked: *checked, cache: pipelines.get() }
    }

    /// Has the pipeline built on rayon's pool.
    fn begin(&self, kernel: Arc<Kernel>) {
        let jobs = self.building.clone();
        jobs.fetch_add(1, Ordering::Relaxed);
        rayon::spawn(move || {
            drop(kernel.pipeline());
            drop(kernel);
            jobs.fetch_sub(1, Ordering::Release);
        });
    }
}
