//! Numbers back from the device: at once for an evaluation, or later for a training run that must not wait.

use std::marker::PhantomData;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::gpu::{Gpu, View};

/// How long a copy that is done may take to tell us so.
const CALLBACK: Duration = Duration::from_secs(10);

/// Tells when a buffer is mapped.
type Mapped = Receiver<Result<(), wgpu::BufferAsyncError>>;

/// A copy on its way to the host.
#[derive(Debug)]
pub struct Readback<T> {
    staging: wgpu::Buffer,
    mapped: Mapped,
    len: usize,
    element: PhantomData<T>,
}

/// A buffer that copies to the host land in, again and again.
#[derive(Debug)]
pub struct Staging {
    buffer: wgpu::Buffer,
    len: usize,
    /// When it is mapped, the submission with the copy, and the elements of that.
    under_way: Option<(Mapped, wgpu::SubmissionIndex, usize)>,
}

impl Staging {
    /// For up to `len` 4-byte elements.
    pub fn new(gpu: &Gpu, len: usize) -> Staging {
        let buffer = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("staging"),
            size: len as u64 * 4,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        Staging { buffer, len, under_way: None }
    }

    /// Whether a copy was started that has not been taken.
    pub fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Starts copying `view` as it is after everything submitted so far. Does not wait. The copy before it has been taken.
    pub fn start(&mut self, gpu: &Gpu, view: &View) {
        assert_eq!(view.element, Element::Word, "the host reads 4-byte elements");
        assert!(view.len <= self.len && self.under_way.is_none(), "a staging buffer that is free and long enough");
        tracing::trace!(bytes = view.byte_len(), "from the device");
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&view.buffer.raw, view.byte_offset(), &self.buffer, 0, view.byte_len());
        let index = gpu.queue.submit([encoder.finish()]);
        let (send, mapped) = channel();
        self.buffer.map_async(wgpu::MapMode::Read, ..view.byte_len(), move |result| drop(send.send(result)));
        self.under_way = Some((mapped, index, view.len));
    }

    /// Waits for the elements of the copy that was started last, and for nothing that was submitted after it.
    pub fn take<T: bytemuck::Pod>(&mut self, gpu: &Gpu) -> Result<Vec<T>> {
        let (mapped, index, len) = self.under_way.take().expect("a copy was started");
        let failed = |e: String| gpu.failed("reading back from the GPU", e);
        let poll = wgpu::PollType::Wait { submission_index: Some(index), timeout: None };
        gpu.device.poll(poll).map_err(|e| failed(e.to_string()))?;
        gpu.check()?;
        let result = mapped.recv_timeout(CALLBACK).map_err(|e| e.to_string());
        elements(gpu, &self.buffer, len, result)
    }
}

impl Gpu {
    /// Starts copying `view` as it is after everything submitted so far. Does not wait.
    pub fn read_later<T: bytemuck::Pod>(&self, view: &View) -> Readback<T> {
        assert_eq!((size_of::<T>(), view.element), (4, Element::Word), "the host reads 4-byte elements");
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("readback"),
            size: view.byte_len(),
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        tracing::trace!(bytes = view.byte_len(), "from the device");
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&view.buffer.raw, view.byte_offset(), &staging, 0, view.byte_len());
        self.queue.submit([encoder.finish()]);
        let (send, mapped) = channel();
        // The receiver is gone when the readback was dropped unread: nobody to tell.
        staging.map_async(wgpu::MapMode::Read, .., move |result| drop(send.send(result)));
        Readback { staging, mapped, len: view.len, element: PhantomData }
    }

    /// The elements of `view` after everything submitted so far; waits for them.
    pub fn read<T: bytemuck::Pod>(&self, view: &View) -> Result<Vec<T>> {
        self.read_later(view).wait(self)
    }
}

impl<T: bytemuck::Pod> Readback<T> {
    /// The elements if they have arrived.
    pub fn poll(&self, gpu: &Gpu) -> Result<Option<Vec<T>>> {
        // A failed poll shows up as a fault of the device, which `check` reports.
        drop(gpu.device.poll(wgpu::PollType::Poll));
        gpu.check()?;
        match self.mapped.try_recv() {
            Err(TryRecvError::Empty) => Ok(None),
            result => self.take(gpu, result.map_err(|e| e.to_string())).map(Some),
        }
    }

    /// The elements of a copy that was started before another one that has arrived: this one is done, but where several threads poll, the
    /// news of it may be with one of them for a moment longer.
    pub fn arriving(&self, gpu: &Gpu) -> Result<Vec<T>> {
        self.take(gpu, self.mapped.recv_timeout(CALLBACK).map_err(|e| e.to_string()))
    }

    /// Waits for the elements.
    pub fn wait(&self, gpu: &Gpu) -> Result<Vec<T>> {
        gpu.wait()?;
        // Where several threads wait, another one's poll may be what calls back, a moment after ours has returned.
        self.arriving(gpu)
    }

    fn take(&self, gpu: &Gpu, result: Result<Result<(), wgpu::BufferAsyncError>, String>) -> Result<Vec<T>> {
        elements(gpu, &self.staging, self.len, result)
    }
}

/// The first `len` elements of `staging` once it is mapped, which `result` tells; then it is unmapped.
fn elements<T: bytemuck::Pod>(
    gpu: &Gpu,
    staging: &wgpu::Buffer,
    len: usize,
    result: Result<Result<(), wgpu::BufferAsyncError>, String>,
) -> Result<Vec<T>> {
    let failed = |e: String| gpu.failed("reading back from the GPU", e);
    result.map_err(failed)?.map_err(|e| failed(e.to_string()))?;
    let range = staging.get_mapped_range(..len as u64 * 4).map_err(|e| failed(e.to_string()))?;
    let elements: Vec<T> = bytemuck::pod_collect_to_vec(&range);
    drop(range);
    staging.unmap();
    Ok(elements)
}
