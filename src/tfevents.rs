//! Event files as TensorBoard reads them: records with checksums (TFRecord), each of them an `Event` in protocol buffers.
//!
//! The messages are declared here, with the fields that are written alone; `prost` encodes them and `crc32c` sums them up. The crates
//! that write whole event files were looked at: tensorboard-rs 0.5.9 needs protobuf 2 and image 0.23, which nobody keeps any more, and
//! tfrecord 0.15 all of TensorFlow's messages and ndarray.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use crate::error::{Error, Result};

/// What a reader finds first in a file.
const FILE_VERSION: &str = "brain.Event:2";

/// `Event` of TensorFlow's event.proto.
#[derive(Clone, PartialEq, Message)]
pub struct Event {
    /// Seconds since the beginning of 1970.
    #[prost(double, tag = "1")]
    pub wall_time: f64,
    /// Steps before it.
    #[prost(int64, tag = "2")]
    pub step: i64,
    /// In the first event of a file.
    #[prost(string, optional, tag = "3")]
    pub file_version: Option<String>,
    /// Figures.
    #[prost(message, optional, tag = "5")]
    pub summary: Option<Summary>,
    /// That a process has begun.
    #[prost(message, optional, tag = "7")]
    pub session_log: Option<SessionLog>,
}

/// `SessionLog` of event.proto.
#[derive(Clone, PartialEq, Message)]
pub struct SessionLog {
    /// 1: a process has begun. Readers drop what earlier files have of this event's step and of later ones.
    #[prost(int32, tag = "1")]
    pub status: i32,
}

/// `Summary` of summary.proto.
#[derive(Clone, PartialEq, Message)]
pub struct Summary {
    /// The figures.
    #[prost(message, repeated, tag = "1")]
    pub value: Vec<Value>,
}

/// `Summary.Value` of summary.proto.
#[derive(Clone, PartialEq, Message)]
pub struct Value {
    /// Its name; the part before a `/` is a group.
    #[prost(string, tag = "1")]
    pub tag: String,
    /// A number,
    #[prost(float, optional, tag = "2")]
    pub simple_value: Option<f32>,
    /// or an image,
    #[prost(message, optional, tag = "4")]
    pub image: Option<Image>,
    /// or how values are distributed.
    #[prost(message, optional, tag = "5")]
    pub histo: Option<Histogram>,
}

/// `Summary.Image` of summary.proto.
#[derive(Clone, PartialEq, Message)]
pub struct Image {
    /// In pixels.
    #[prost(int32, tag = "1")]
    pub height: i32,
    /// In pixels.
    #[prost(int32, tag = "2")]
    pub width: i32,
    /// 3: red, green and blue.
    #[prost(int32, tag = "3")]
    pub colorspace: i32,
    /// A PNG.
    #[prost(bytes = "vec", tag = "4")]
    pub encoded_image_string: Vec<u8>,
}

/// `HistogramProto` of histogram.proto.
#[derive(Clone, PartialEq, Message)]
pub struct Histogram {
    /// The least value.
    #[prost(double, tag = "1")]
    pub min: f64,
    /// The largest value.
    #[prost(double, tag = "2")]
    pub max: f64,
    /// How many there are.
    #[prost(double, tag = "3")]
    pub num: f64,
    /// Their sum.
    #[prost(double, tag = "4")]
    pub sum: f64,
    /// The sum of their squares.
    #[prost(double, tag = "5")]
    pub sum_squares: f64,
    /// The upper ends of the buckets.
    #[prost(double, repeated, tag = "6")]
    pub bucket_limit: Vec<f64>,
    /// How many values are in each.
    #[prost(double, repeated, tag = "7")]
    pub bucket: Vec<f64>,
}

impl Value {
    /// A number.
    pub fn scalar(tag: impl Into<String>, value: f64) -> Value {
        Value { tag: tag.into(), simple_value: Some(value as f32), ..Value::default() }
    }

    /// An image: a PNG of `width` × `height` pixels.
    pub fn image(tag: impl Into<String>, [width, height]: [u32; 2], png: Vec<u8>) -> Value {
        let [width, height] = [width, height].map(|side| i32::try_from(side).unwrap_or(i32::MAX));
        let image = Image { height, width, colorspace: 3, encoded_image_string: png };
        Value { tag: tag.into(), image: Some(image), ..Value::default() }
    }

    /// A distribution.
    pub fn histogram(tag: impl Into<String>, histogram: Histogram) -> Value {
        Value { tag: tag.into(), histo: Some(histogram), ..Value::default() }
    }
}

/// The upper ends of TensorFlow's buckets above zero: from 1e-12 on each is 1.1 times the one before, up to 1e20.
fn ends() -> Vec<f64> {
    std::iter::successors(Some(1e-12), |end| Some(end * 1.1)).take_while(|end| *end < 1e20).collect()
}

impl Histogram {
    /// Of finite `values`, in TensorFlow's buckets, without empty ones at both ends. None without a value.
    pub fn new(values: impl IntoIterator<Item = f64>) -> Option<Histogram> {
        let positive = ends();
        let edges: Vec<f64> =
            positive.iter().rev().map(|end| -end).chain([0.0]).chain(positive.iter().copied()).collect();
        let mut counts = vec![0.0; edges.len() - 1];
        let mut all = Histogram { min: f64::INFINITY, max: f64::NEG_INFINITY, ..Histogram::default() };
        for value in values {
            all.min = all.min.min(value);
            all.max = all.max.max(value);
            all.num += 1.0;
            all.sum += value;
            all.sum_squares += value * value;
            // A bucket has its lower end and not its upper one; the last has both.
            let at = edges.partition_point(|edge| *edge <= value).saturating_sub(1).min(counts.len() - 1);
            counts[at] += 1.0;
        }
        let first = counts.iter().position(|count| *count > 0.0)?;
        let last = counts.iter().rposition(|count| *count > 0.0)?;
        // An empty bucket comes first, which says where the next one begins.
        (all.bucket, all.bucket_limit) = match first {
            0 => ([&[0.0], &counts[..=last]].concat(), edges[..=last + 1].to_vec()),
            _ => (counts[first - 1..=last].to_vec(), edges[first..=last + 1].to_vec()),
        };
        Some(all)
    }
}

/// The checksum of TFRecord: CRC-32C, turned by 15 bits, plus a constant.
fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// `data` as a record: its length with a checksum, then itself with a checksum.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let sums = [masked(&length), masked(data)].map(u32::to_le_bytes);
    [&length[..], &sums[0], data, &sums[1]].concat()
}

/// An event file under way.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: File,
}

/// What all event files' names have, which readers look for.
const NAME: &str = "events.out.tfevents.";

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl EventFile {
    /// Starts a file in `folder` that sorts behind all that are there. If there are some, readers drop what they have of step `since`
    /// and of later ones.
    ///
    /// # Errors
    /// A folder that can't be made or read, a file that can't be written.
    pub fn create(folder: &Path, since: u64) -> Result<EventFile> {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, "cannot create this folder", e))?;
        let names = std::fs::read_dir(folder).map_err(|e| Error::io(folder, "cannot read", e))?;
        let names = names.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let before: Option<u64> =
            names.filter_map(|name| name.strip_prefix(NAME)?.split('.').next()?.parse().ok()).max();
        let second = before.map_or(0, |second| second + 1).max(now() as u64);
        let path = folder.join(format!("{NAME}{second:010}.tpgm"));
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let mut events = EventFile { file: file.map_err(|e| Error::io(&path, "cannot write", e))?, path };
        let wall_time = now();
        events.append(&Event { wall_time, file_version: Some(FILE_VERSION.into()), ..Event::default() })?;
        if before.is_some() {
            let (step, session_log) = (step_of(since), Some(SessionLog { status: 1 }));
            events.append(&Event { wall_time, step, session_log, ..Event::default() })?;
        }
        Ok(events)
    }

    /// Whether `folder` has an event file.
    pub fn is_in(folder: &Path) -> bool {
        let mut names = std::fs::read_dir(folder).into_iter().flatten().flatten();
        names.any(|entry| entry.file_name().to_string_lossy().starts_with(NAME))
    }

    fn append(&mut self, event: &Event) -> Result<()> {
        let bytes = record(&event.encode_to_vec());
        self.file.write_all(&bytes).map_err(|e| Error::io(&self.path, "cannot write", e))
    }

    /// Adds figures after `step` steps.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn write(&mut self, step: u64, value: Vec<Value>) -> Result<()> {
        if value.is_empty() {
            return Ok(());
        }
        self.append(&Event {
            wall_time: now(),
            step: step_of(step),
            summary: Some(Summary { value }),
            ..Event::default()
        })
    }
}

fn step_of(step: u64) -> i64 {
    i64::try_from(step).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From RFC 3720, B.4.
    #[test]
    fn checksums_are_crc_32c() {
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c::crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c::crc32c(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
    }

    /// Against tests/fixtures/generate_tensorboard.py.
    #[test]
    fn records_are_those_of_tensorboard_byte_for_byte() {
        let values: Vec<f64> = (0..200).map(|k| f64::from(k * k % 97 - 48) / 1024.0).collect();
        let value = vec![
            Value::scalar("train/loss", 0.1),
            Value::scalar("zero", 0.0),
            Value::image("augmented", [300, 2], b"\x89PNG".to_vec()),
            Value::histogram("drift/blocks.0", Histogram::new(values).unwrap()),
            Value::histogram("drift/none", Histogram::new([0.0; 5]).unwrap()),
        ];
        let events = [
            Event { wall_time: 1.5, file_version: Some(FILE_VERSION.into()), ..Event::default() },
            Event { wall_time: 2.5, step: 7, session_log: Some(SessionLog { status: 1 }), ..Event::default() },
            Event { wall_time: 3.25, step: 300, summary: Some(Summary { value }), ..Event::default() },
        ];
        let ours: Vec<u8> = events.iter().flat_map(|event| record(&event.encode_to_vec())).collect();
        let theirs: &[u8] = include_bytes!("../tests/fixtures/tensorboard.tfevents");
        let first = ours.iter().zip(theirs).position(|(a, b)| a != b);
        assert!(ours == theirs, "{} and {} bytes, first different {first:?}", ours.len(), theirs.len());
    }

    #[test]
    fn a_histogram_has_all_values_and_no_more() {
        assert_eq!(Histogram::new([]), None);
        let extreme = Histogram::new([-1e30, -1e-30, 0.0, 1e-30, 5.0, 1e30]).unwrap();
        assert_eq!((extreme.num, extreme.bucket.iter().sum::<f64>()), (6.0, 6.0));
        assert_eq!(extreme.bucket.len(), extreme.bucket_limit.len());
    }

    #[test]
    fn a_later_file_sorts_behind_and_says_where_it_begins() {
        let folder = tempfile::tempdir().unwrap();
        let mut names = Vec::new();
        for _ in 0..3 {
            EventFile::create(folder.path(), 5).unwrap().write(6, vec![Value::scalar("x", 1.0)]).unwrap();
            let mut all: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            all.sort();
            names.push(all.last().cloned().unwrap());
        }
        assert!(names.is_sorted() && names[0] != names[1] && names[1] != names[2], "{names:?}");
        let has_start = |name: &std::ffi::OsString| {
            let start =
                Event { step: 5, session_log: Some(SessionLog { status: 1 }), ..Event::default() }.encode_to_vec();
            let bytes = std::fs::read(folder.path().join(name)).unwrap();
            bytes.windows(start.len()).any(|part| part == start)
        };
        assert_eq!(names.iter().map(has_start).collect::<Vec<_>>(), [false, true, true]);
        assert!(EventFile::is_in(folder.path()) && !EventFile::is_in(&folder.path().join("none")));
    }
}
