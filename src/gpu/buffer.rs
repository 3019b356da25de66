//! Buffers on the device and views into them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Help, Result};
use crate::gpu::Gpu;
pub use crate::shapes::layout::{ALIGN, align, mib};

/// Bytes that every binding's offset is a multiple of.
const ALIGN_BYTES: usize = 4 * ALIGN;

/// What the elements of a [`View`] are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Element {
    /// Four bytes: f32 or u32.
    #[default]
    Word,
    /// Two bytes: f16. Shaders need [`wgpu::Features::SHADER_F16`] to bind it.
    Half,
}

impl Element {
    /// Size in bytes.
    pub fn bytes(self) -> usize {
        match self {
            Element::Word => 4,
            Element::Half => 2,
        }
    }

    /// Words that hold `len` of them.
    pub fn words(self, len: usize) -> usize {
        (len * self.bytes()).div_ceil(4)
    }

    /// The shaders' name for a float of this size.
    pub fn scalar(self) -> &'static str {
        match self {
            Element::Word => "f32",
            Element::Half => "f16",
        }
    }
}

/// A buffer on the device. Its length counts 4-byte words, whatever its views hold.
#[derive(Debug)]
pub struct Buffer {
    /// wgpu's handle.
    pub raw: wgpu::Buffer,
    /// Distinguishes buffers when a [`crate::gpu::Program`] checks for conflicts.
    pub id: u64,
    /// Length in words.
    pub len: usize,
    /// The device's count of allocated bytes; none for a placeholder, which has no memory of its own.
    allocated: Option<Arc<AtomicU64>>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(allocated) = &self.allocated {
            allocated.fetch_sub(self.len as u64 * 4, Ordering::Relaxed);
        }
    }
}

/// A range of a [`Buffer`], in elements; what a step binds.
#[derive(Clone, Debug)]
pub struct View {
    /// The buffer.
    pub buffer: Arc<Buffer>,
    /// First element, at a multiple of 4·[`ALIGN`] bytes.
    pub offset: usize,
    /// Number of elements.
    pub len: usize,
    /// What they are.
    pub element: Element,
}

impl View {
    /// Whether both have bytes in common.
    pub fn overlaps(&self, other: &View) -> bool {
        let end = |view: &View| view.byte_offset() + view.byte_len();
        let apart = end(self) <= other.byte_offset() || end(other) <= self.byte_offset();
        self.buffer.id == other.buffer.id && !apart
    }

    /// The part of this view from `offset`, `len` elements long.
    pub fn slice(&self, offset: usize, len: usize) -> View {
        assert!(offset + len <= self.len, "view of {} elements sliced at {offset}..{}", self.len, offset + len);
        let bytes = offset * self.element.bytes();
        assert!(
            bytes.is_multiple_of(ALIGN_BYTES),
            "view sliced at byte {bytes}, which is no multiple of {ALIGN_BYTES}"
        );
        View { buffer: self.buffer.clone(), offset: self.offset + offset, len, element: self.element }
    }

    /// The first `len` elements of another kind in the place of these words.
    pub fn holding(&self, element: Element, len: usize) -> View {
        assert_eq!(self.element, Element::Word, "only words are looked at as something else");
        assert!(element.words(len) <= self.len, "{len} elements of {} bytes in {} words", element.bytes(), self.len);
        View { buffer: self.buffer.clone(), offset: self.offset * 4 / element.bytes(), len, element }
    }

    /// The words that this view lies in.
    pub fn words(&self) -> View {
        let (offset, len) = (self.offset * self.element.bytes() / 4, self.element.words(self.len));
        View { buffer: self.buffer.clone(), offset, len, element: Element::Word }
    }

    /// The first `len` elements.
    pub fn first(&self, len: usize) -> View {
        self.slice(0, len)
    }

    /// A view of `len` words that counts as a buffer of its own but must not be run on: there is no memory behind it.
    pub fn placeholder(&self, len: usize) -> View {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let buffer = Buffer { raw: self.buffer.raw.clone(), id, len: align(len), allocated: None };
        View { buffer: Arc::new(buffer), offset: 0, len, element: Element::Word }
    }

    /// Bytes from the buffer's start.
    pub fn byte_offset(&self) -> u64 {
        (self.offset * self.element.bytes()) as u64
    }

    /// Length in bytes, in whole words: bindings and copies come in no other lengths.
    pub fn byte_len(&self) -> u64 {
        self.element.words(self.len) as u64 * 4
    }
}

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

impl Gpu {
    /// A zeroed buffer of `len` 4-byte elements, named `label` in errors and captures.
    ///
    /// Errors when it is larger than the adapter's largest binding or buffer, or when the device is out of memory.
    pub fn buffer(&self, label: &str, len: usize) -> Result<View> {
        self.check_binding(label, len)?;
        self.large_buffer(label, len)
    }

    /// Errors when a buffer of `len` elements is more than one binding can hold.
    pub fn check_binding(&self, label: &str, len: usize) -> Result<()> {
        let (size, limit) = (len as u64 * 4, self.limits.max_storage_buffer_binding_size);
        if size <= limit {
            return Ok(());
        }
        let what = format!("{label} needs a binding of {}, this adapter allows {}", mib(size), mib(limit));
        Err(Error::Limit(what).with_help(Help::BindingTooLarge))
    }

    /// Errors when an arena of `len` elements, `label` in the plural, is more than one buffer can hold.
    pub fn check_arena(&self, label: &str, len: usize) -> Result<()> {
        let (size, limit) = (align(len.max(1)) as u64 * 4, self.limits.max_buffer_size);
        if size <= limit {
            return Ok(());
        }
        let what = format!("{label} need a buffer of {}, {} allows {}", mib(size), self.info.name, mib(limit));
        Err(Error::Limit(what).with_help(Help::ModelTooLarge))
    }

    /// As [`Gpu::buffer`], for an arena: it may be larger than one binding, and is then bound in segments.
    pub fn large_buffer(&self, label: &str, len: usize) -> Result<View> {
        self.check_arena(label, len)?;
        let padded = align(len.max(1));
        let size = padded as u64 * 4;
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let raw = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        if pollster::block_on(scope.pop()).is_some() {
            let what = format!(
                "out of memory on {} while allocating {} for {label} beside {}{}",
                self.info.name,
                mib(size),
                mib(self.allocated()),
                self.memory().map(|bytes| format!(" of {}", mib(bytes))).unwrap_or_default(),
            );
            return Err(Error::Limit(what).with_help(Help::BatchTooLarge));
        }
        self.check()?;
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        self.allocated.fetch_add(size, Ordering::Relaxed);
        let buffer = Buffer { raw, id, len: padded, allocated: Some(self.allocated.clone()) };
        Ok(View { buffer: Arc::new(buffer), offset: 0, len, element: Element::Word })
    }

    /// Bytes of this device's buffers that are alive, without those on their way to or from the host.
    pub fn allocated(&self) -> u64 {
        self.allocated.load(Ordering::Relaxed)
    }

    /// A buffer holding `data`.
    pub fn upload<T: bytemuck::Pod>(&self, label: &str, data: &[T]) -> Result<View> {
        let view = self.large_buffer(label, data.len())?;
        self.write(&view, data);
        Ok(view)
    }

    /// Writes `data` (4-byte elements) to the start of `view`, before whatever is submitted next.
    pub fn write<T: bytemuck::Pod>(&self, view: &View, data: &[T]) {
        assert_eq!((size_of::<T>(), view.element), (4, Element::Word), "the host writes 4-byte elements");
        assert!(data.len() <= view.len, "{} elements written to a view of {}", data.len(), view.len);
        tracing::trace!(bytes = size_of_val(data), "to the device");
        self.queue.write_buffer(&view.buffer.raw, view.byte_offset(), bytemuck::cast_slice(data));
    }
}
