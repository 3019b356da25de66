//! How much memory an adapter has, so that a run that can't fit is refused before it allocates or swaps.

use crate::gpu::Gpu;

impl Gpu {
    /// Bytes of memory of this adapter's own, or for a CPU adapter those free on this machine. None where no one tells: on
    /// Metal, DX12 and GL, and for a CPU adapter anywhere but on Linux.
    pub fn memory(&self) -> Option<u64> {
        if self.is_cpu() {
            return available(&std::fs::read_to_string("/proc/meminfo").ok()?);
        }
        device_local(&self.adapter)
    }
}

/// `MemAvailable` of Linux's `/proc/meminfo`, in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// The largest heap that Vulkan calls local to the device, in bytes.
#[cfg(any(windows, target_os = "linux"))]
fn device_local(adapter: &wgpu::Adapter) -> Option<u64> {
    /// `VK_MEMORY_HEAP_DEVICE_LOCAL_BIT`
    const DEVICE_LOCAL: u32 = 1;
    // SAFETY: the handle is asked for its properties and dropped.
    let heaps = unsafe {
        let adapter = adapter.as_hal::<wgpu::hal::api::Vulkan>()?;
        let instance = adapter.shared_instance().raw_instance();
        instance.get_physical_device_memory_properties(adapter.raw_physical_device())
    };
    let heaps = heaps.memory_heaps.iter().take(heaps.memory_heap_count as usize);
    heaps.filter(|heap| heap.flags.as_raw() & DEVICE_LOCAL != 0).map(|heap| heap.size).max()
}

#[cfg(not(any(windows, target_os = "linux")))]
fn device_local(_: &wgpu::Adapter) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_memory_is_read_from_linux() {
        let text = "MemTotal:       16318484 kB\nMemFree:         1000 kB\nMemAvailable:   2048 kB\n";
        assert_eq!(available(text), Some(2 << 20));
        assert_eq!(available("MemFree: 1 kB"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_vulkan_adapter_tells_its_memory() {
        let gpu = Gpu::open(std::env::var("TPGM_TEST_ADAPTER").ok().as_deref(), true).unwrap();
        assert!(gpu.memory().is_some_and(|bytes| bytes > 64 << 20), "{:?}", gpu.memory());
        if gpu.info.backend == wgpu::Backend::Vulkan {
            assert!(
                device_local(&gpu.adapter).is_some_and(|bytes| bytes > 64 << 20),
                "{:?}",
                device_local(&gpu.adapter)
            );
        }
    }
}
