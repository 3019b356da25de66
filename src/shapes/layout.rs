//! The layout of all parameters of a model in one arena. Weights, anchor, gradients and optimiser state are separate
//! buffers that share these offsets.

use crate::error::{Error, Help, Result};
use crate::shapes::norm::rows_of;

/// Views start at multiples of this many 4-byte elements: 256 bytes, the largest storage-binding alignment that WebGPU
/// allows an adapter to ask for.
pub const ALIGN: usize = 64;

/// `len` rounded up to the next multiple of [`ALIGN`].
pub fn align(len: usize) -> usize {
    len.div_ceil(ALIGN) * ALIGN
}

/// A size in bytes as people read it.
pub fn mib(bytes: u64) -> String {
    let mib = bytes as f64 / (1024.0 * 1024.0);
    match mib {
        0.0..1.0 => format!("{:.1} KiB", mib * 1024.0),
        1.0..100.0 => format!("{mib:.1} MiB"),
        _ => format!("{mib:.0} MiB"),
    }
}

/// One tensor of the arena.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// Canonical (timm's) name.
    pub name: String,
    /// Shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// First element in the arena, a multiple of 64 (256 bytes) unless the tensor is read in one product with those before it.
    pub offset: usize,
    /// Number of elements.
    pub len: usize,
}

impl Param {
    /// Rows as the projection sees them: dimension 0, a 1-D tensor being one row (docs/methods.md, pins 1 and 2).
    pub fn rows(&self) -> usize {
        rows_of(&self.shape)
    }
}

/// Whether `name` is the key behind the query `previous`, or the value behind the key, of one attention: one product reads all
/// three.
fn follows(previous: &str, name: &str) -> bool {
    [(".attn.q.", ".attn.k."), (".attn.k.", ".attn.v.")].iter().any(|(one, next)| {
        let (one, next) = (previous.split_once(one), name.split_once(next));
        one.is_some() && one == next
    })
}

/// Where every tensor lies.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamLayout {
    /// The tensors in order.
    pub params: Vec<Param>,
    /// Length of the arena in elements, padding included.
    pub len: usize,
}

/// A run of whole tensors that fits one binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First element.
    pub offset: usize,
    /// Number of elements.
    pub len: usize,
}

impl ParamLayout {
    /// Lays out tensors given by name and shape. Query, key and value of an attention follow each other without a gap.
    pub fn new(tensors: &[(String, Vec<usize>)]) -> ParamLayout {
        let mut params: Vec<Param> = Vec::new();
        let mut end = 0;
        for (name, shape) in tensors {
            let joined = params.last().is_some_and(|last| follows(&last.name, name));
            let (offset, len) = (if joined { end } else { align(end) }, shape.iter().product::<usize>());
            params.push(Param { name: name.clone(), shape: shape.clone(), offset, len });
            end = offset + len;
        }
        ParamLayout { params, len: align(end) }
    }

    /// The position of a tensor. Panics when there is none of that name: models only ask for what they listed.
    pub fn index(&self, name: &str) -> usize {
        self.params.iter().position(|p| p.name == name).unwrap_or_else(|| panic!("no parameter {name}"))
    }

    /// Number of trainable values, without padding.
    pub fn count(&self) -> usize {
        self.params.iter().map(|p| p.len).sum()
    }

    /// The arena cut at tensor boundaries into runs of at most `max_bytes`.
    ///
    /// Errors when a single tensor is larger than that.
    pub fn segments(&self, max_bytes: u64) -> Result<Vec<Segment>> {
        Ok(self.segments_of(max_bytes, |_| Some(()))?.into_iter().map(|(_, segment)| segment).collect())
    }

    /// As [`ParamLayout::segments`], each of tensors that `kind` gives one value for; tensors of no kind are left out.
    ///
    /// Also errors when tensors without a gap between them are of different kinds.
    pub fn segments_of<K: PartialEq>(
        &self,
        max_bytes: u64,
        kind: impl Fn(usize) -> Option<K>,
    ) -> Result<Vec<(K, Segment)>> {
        let max = (max_bytes / 4) as usize / ALIGN * ALIGN;
        let mut segments: Vec<(K, Segment)> = Vec::new();
        let mut next = 0;
        while next < self.params.len() {
            let (i, param) = (next, &self.params[next]);
            next += 1;
            while self.params.get(next).is_some_and(|p| !p.offset.is_multiple_of(ALIGN)) {
                next += 1;
            }
            let last = &self.params[next - 1];
            if let Some(other) = (i + 1..next).find(|other| kind(*other) != kind(i)) {
                let (one, other) = (&param.name, &self.params[other].name);
                let what = format!("{one} and {other} lie in one block of memory: train both alike, or freeze both");
                return Err(Error::Usage(what));
            }
            let len = align(last.offset + last.len - param.offset);
            if len > max {
                let (name, size) = (&param.name, mib(len as u64 * 4));
                let what = format!("tensor {name} needs a binding of {size}, this adapter allows {}", mib(max_bytes));
                return Err(Error::Limit(what).with_help(Help::TensorTooLarge));
            }
            let Some(kind) = kind(i) else { continue };
            match segments.last_mut() {
                Some((own, last))
                    if *own == kind && last.offset + last.len == param.offset && last.len + len <= max =>
                {
                    last.len += len;
                }
                _ => segments.push((kind, Segment { offset: param.offset, len })),
            }
        }
        Ok(segments)
    }

    /// Tensors in this layout's order packed into one arena image, padding zero.
    pub fn pack<'a>(&self, tensors: impl Iterator<Item = &'a [f32]>) -> Vec<f32> {
        let mut packed = vec![0.0; self.len];
        let mut count = 0;
        for (param, values) in self.params.iter().zip(tensors) {
            assert_eq!(values.len(), param.len, "{}: {} values for shape {:?}", param.name, values.len(), param.shape);
            packed[param.offset..param.offset + param.len].copy_from_slice(values);
            count += 1;
        }
        assert_eq!(count, self.params.len(), "one slice per tensor");
        packed
    }

    /// The tensors of an arena image, in order.
    pub fn unpack<'a>(&'a self, packed: &'a [f32]) -> impl Iterator<Item = (&'a Param, &'a [f32])> {
        self.params.iter().map(move |p| (p, &packed[p.offset..p.offset + p.len]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(lens: &[usize]) -> ParamLayout {
        ParamLayout::new(&lens.iter().enumerate().map(|(i, l)| (format!("t{i}"), vec![*l])).collect::<Vec<_>>())
    }

    #[test]
    fn tensors_are_aligned_and_round_trip() {
        let layout = layout(&[1, 64, 65, 3]);
        assert_eq!(layout.params.iter().map(|p| p.offset).collect::<Vec<_>>(), [0, 64, 128, 256]);
        assert_eq!((layout.len, layout.count()), (320, 133));
        let tensors: Vec<Vec<f32>> = layout.params.iter().map(|p| vec![p.offset as f32; p.len]).collect();
        let packed = layout.pack(tensors.iter().map(Vec::as_slice));
        assert!(layout.unpack(&packed).zip(&tensors).all(|((_, got), want)| got == want));
    }

    /// Of a width that is no multiple of 64.
    #[test]
    fn query_key_and_value_lie_without_a_gap() {
        let names = ["norm", "b.attn.q.weight", "b.attn.k.weight", "b.attn.v.weight", "b.attn.q.bias", "c.attn.k.bias"];
        let layout = ParamLayout::new(&names.map(|name| (name.to_string(), vec![36])));
        assert_eq!(layout.params.iter().map(|p| p.offset).collect::<Vec<_>>(), [0, 64, 100, 136, 192, 256]);
        assert_eq!((layout.len, layout.count()), (320, 216));
        let cut = |bytes| layout.segments(bytes).unwrap().iter().map(|s| (s.offset, s.len)).collect::<Vec<_>>();
        assert_eq!(cut(1 << 20), [(0, 320)]);
        assert_eq!(cut(128 * 4), [(0, 64), (64, 128), (192, 128)]);
        assert!(layout.segments(64 * 4).unwrap_err().to_string().contains("b.attn.q.weight"));
        let frozen = layout.segments_of(1 << 20, |t| (t != 0).then_some(())).unwrap();
        assert_eq!(frozen.iter().map(|(_, s)| (s.offset, s.len)).collect::<Vec<_>>(), [(64, 256)]);
        let apart = layout.segments_of(1 << 20, |t| (t != 2).then_some(())).unwrap_err().to_string();
        assert!(apart.contains("b.attn.q.weight and b.attn.k.weight"), "{apart}");
    }

    #[test]
    fn segments_are_cut_at_tensor_boundaries() {
        let layout = layout(&[64, 64, 100, 64]);
        let cut = |bytes| layout.segments(bytes).unwrap().iter().map(|s| (s.offset, s.len)).collect::<Vec<_>>();
        assert_eq!(cut(1 << 20), [(0, 320)]);
        assert_eq!(cut(128 * 4), [(0, 128), (128, 128), (256, 64)]);
        let error = layout.segments(64 * 4).unwrap_err().to_string();
        assert!(error.contains("t2"), "{error}");
    }
}
