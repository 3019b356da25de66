//! The JSON header of a safetensors file, read with suspicion: it comes from anywhere, and every length in it decides
//! where we read.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::fmt;

use safetensors::tensor::{Dtype, Metadata, TensorInfo as RawInfo};
use serde::de::value::StrDeserializer;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::json::quote;

/// What a header may take at most; the format's own limit.
pub(super) const MAX_LEN: u64 = 100_000_000;
/// Tensors of a file, and entries of its metadata, at most: fifty times what the largest models have. It bounds what a
/// header takes in memory once it is read.
const MAX_ENTRIES: usize = 100_000;
/// Bytes of a tensor's name, at most.
const MAX_NAME: usize = 1000;
/// Dimensions of a tensor, at most.
const MAX_DIMS: usize = 16;

/// One tensor of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The name as it stands in the file.
    pub name: String,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// Element type.
    pub dtype: Dtype,
}

/// A checked header: the tensors lie one after the other from 0 to `data_len`, in this order.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) tensors: Vec<TensorInfo>,
    /// First byte of each tensor after the header, and one past its last.
    pub(super) ranges: Vec<(u64, u64)>,
    pub(super) metadata: BTreeMap<String, String>,
}

/// Reads the header of a file that has `data_len` bytes after it. The error is what to tell the user.
pub(super) fn parse(json: &[u8], data_len: u64) -> Result<Header, String> {
    let text = std::str::from_utf8(json).map_err(|_| "damaged: its header is not UTF-8; download it again")?;
    let Entries { mut tensors, metadata } = serde_json::from_str(text)
        .map_err(|e| format!("damaged: its header can't be read: {}", quote(&e.to_string())))?;

    // Empty tensors first where offsets are equal, and in the format's usual order among those.
    tensors.sort_by(|(a, x), (b, y)| (x.data_offsets, Reverse(x.dtype), a).cmp(&(y.data_offsets, Reverse(y.dtype), b)));
    let mut end = 0;
    for (name, info) in &tensors {
        let (start, stop) = info.data_offsets;
        let bytes = (info.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)))
            .and_then(|n| n.checked_mul(info.dtype.bitsize()))
            .filter(|bits| bits.is_multiple_of(8))
            .map(|bits| bits / 8)
            .ok_or_else(|| format!("damaged: tensor {name} has an impossible shape {:?}", info.shape))?;
        if stop.checked_sub(start) != Some(bytes) {
            return Err(format!(
                "damaged: tensor {name} of shape {:?} and type {} takes {bytes} bytes, but lies at {start}..{stop}",
                info.shape, info.dtype
            ));
        }
        if start != end {
            let what = if start < end { "overlaps the tensor before it" } else { "leaves a gap before it" };
            return Err(format!("damaged: tensor {name} at {start}..{stop} {what}, which ends at {end}"));
        }
        end = stop;
    }
    let end = end as u64;
    if end > data_len {
        return Err(format!(
            "truncated: the header promises {end} bytes of tensors, the file has {data_len}; download it again"
        ));
    }
    if end < data_len {
        let surplus = data_len - end;
        return Err(format!("damaged: {surplus} bytes follow the {end} bytes of tensors that the header promises"));
    }

    let ranges = tensors.iter().map(|(_, i)| (i.data_offsets.0 as u64, i.data_offsets.1 as u64)).collect();
    // The library's own checks come last: they are the format's reference, but name neither the numbers nor the remedy.
    let checked = Metadata::new(None, tensors.clone()).map_err(|e| format!("damaged: {e}"))?;
    debug_assert_eq!(checked.data_len() as u64, end);
    let tensors =
        tensors.into_iter().map(|(name, info)| TensorInfo { name, shape: info.shape, dtype: info.dtype }).collect();
    Ok(Header { tensors, ranges, metadata })
}

/// The header's entries in the order of the file, no name twice.
struct Entries {
    tensors: Vec<(String, RawInfo)>,
    metadata: BTreeMap<String, String>,
}

/// One entry before its type is known to exist.
#[derive(serde::Deserialize)]
struct Entry {
    dtype: String,
    shape: Shape,
    data_offsets: (usize, usize),
}

/// A shape of so few dimensions that it can be printed.
struct Shape(Vec<usize>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ShapeVisitor;

        impl<'de> Visitor<'de> for ShapeVisitor {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a list of dimensions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Shape, A::Error> {
                let mut shape = Vec::new();
                while let Some(dim) = list.next_element()? {
                    if shape.len() == MAX_DIMS {
                        return Err(A::Error::custom(format!("more than {MAX_DIMS} dimensions")));
                    }
                    shape.push(dim);
                }
                Ok(Shape(shape))
            }
        }

        deserializer.deserialize_seq(ShapeVisitor)
    }
}

/// `__metadata__`, of a bounded number of entries.
struct Strings(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Strings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StringsVisitor;

        impl<'de> Visitor<'de> for StringsVisitor {
            type Value = Strings;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a map of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Strings, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some((key, value)) = map.next_entry()? {
                    entries.insert(key, value);
                    if entries.len() > MAX_ENTRIES {
                        return Err(A::Error::custom(format!("more than {MAX_ENTRIES} entries")));
                    }
                }
                Ok(Strings(entries))
            }
        }

        deserializer.deserialize_map(StringsVisitor)
    }
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;

        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a map of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Entries { tensors: Vec::new(), metadata: BTreeMap::new() };
                let mut seen = HashSet::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name.len() > MAX_NAME {
                        return Err(A::Error::custom(format!("a name of {} bytes", name.len())));
                    }
                    if seen.len() >= MAX_ENTRIES {
                        return Err(A::Error::custom(format!("more than {MAX_ENTRIES} tensors")));
                    }
                    if name.chars().any(char::is_control) {
                        return Err(A::Error::custom(format!("the name {name:?} has control characters")));
                    }
                    if !seen.insert(name.clone()) {
                        return Err(A::Error::custom(format!("the name {name} stands there twice")));
                    }
                    let wrong = |e: A::Error| A::Error::custom(format!("{name}: {e}"));
                    if name == "__metadata__" {
                        let read = map.next_value::<Option<Strings>>().map_err(wrong)?;
                        entries.metadata = read.map(|Strings(entries)| entries).unwrap_or_default();
                        continue;
                    }
                    let Entry { dtype, shape: Shape(shape), data_offsets } = map.next_value().map_err(wrong)?;
                    let known: Result<Dtype, serde::de::value::Error> =
                        Dtype::deserialize(StrDeserializer::new(dtype.as_str()));
                    let dtype = known.map_err(|_| {
                        A::Error::custom(format!("tensor {name} has the unknown type {:?}", quote(&dtype)))
                    })?;
                    entries.tensors.push((name, RawInfo { dtype, shape, data_offsets }));
                }
                Ok(entries)
            }
        }

        deserializer.deserialize_map(EntriesVisitor)
    }
}
