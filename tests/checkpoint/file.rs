//! Opening and reading.

use std::collections::BTreeMap;
use std::fs;

use half::{bf16, f16};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tpgm::checkpoint::{
    Checkpoint, Dtype, Overrides, describe, fresh_model, recognise, tpgm_metadata, weights, write_safetensors,
};
use tpgm::error::Result;
use tpgm::model::config::VitConfig;

use crate::{Model, assert_error, preprocess, tiny};

fn open_bytes(bytes: &[u8]) -> Result<Checkpoint> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    fs::write(&path, bytes).unwrap();
    Checkpoint::open(path)
}

/// A file of a literal header and so many bytes of tensors.
fn literal(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; data]].concat()
}

#[test]
fn reads_every_float_type_and_our_integers() {
    let values = [1.5f32, -0.25, 0.0, 3.0];
    let mut model = Model::default();
    model.add("f32", Dtype::F32, &[2, 2], values.iter().flat_map(|v| v.to_le_bytes()).collect());
    model.add("f64", Dtype::F64, &[4], values.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect());
    model.add("f16", Dtype::F16, &[4], values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect());
    model.add("bf16", Dtype::BF16, &[4], values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect());
    model.add("i32", Dtype::I32, &[1], (-7i32).to_le_bytes().into());
    model.add("u64", Dtype::U64, &[], (1u64 << 40).to_le_bytes().into());
    model.add("empty", Dtype::F32, &[0, 3], vec![]);
    let (dir, checkpoint) = model.open(None);
    let checkpoint = checkpoint.unwrap();
    for name in ["f32", "f64", "f16", "bf16"] {
        assert_eq!(checkpoint.read_f32(name).unwrap(), values, "{name}");
    }
    assert_eq!(checkpoint.read_i32("i32").unwrap(), [-7]);
    assert_eq!(checkpoint.read_u64("u64").unwrap(), [1 << 40]);
    assert_eq!(checkpoint.read_f32("empty").unwrap(), [0.0; 0]);
    assert_eq!(checkpoint.tensor("f32").unwrap().shape, [2, 2]);
    assert_eq!(checkpoint.tensors().len(), 7);
    assert_eq!(checkpoint.path(), dir.path().join("model.safetensors"));

    assert_error(checkpoint.read_f32("i32"), &["model.safetensors", "tensor i32 is I32", "F32, F16, BF16 or F64"]);
    assert_error(checkpoint.read_i32("f32"), &["tensor f32 is F32, expected I32"]);
    assert_error(checkpoint.read_u32("f32"), &["tensor f32 is F32, expected U32"]);
    assert_error(checkpoint.read_f32("f8"), &["tensor f8 is missing"]);
}

#[test]
fn weights_longer_than_one_read_are_whole() {
    let values: Vec<f32> = (0..700_001).map(|i| i as f32).collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("long.safetensors");
    write_safetensors(&path, &[("x".into(), vec![values.len()], &values[..])], &BTreeMap::new()).unwrap();
    assert_eq!(Checkpoint::open(&path).unwrap().read_f32("x").unwrap(), values);
}

#[test]
fn values_that_are_not_finite_are_named() {
    let mut model = Model::default();
    for (name, value) in [("nan", f64::NAN), ("inf", f64::INFINITY), ("large", 1e300)] {
        model.add(name, Dtype::F64, &[2], [0.0, value].iter().flat_map(|v| v.to_le_bytes()).collect());
    }
    model.add("half", Dtype::F16, &[1], f16::NAN.to_le_bytes().into());
    let checkpoint = model.open(None).1.unwrap();
    assert_error(checkpoint.read_f32("nan"), &["tensor nan has NaN at element 1 (1 of its 2 values are no finite"]);
    assert_error(checkpoint.read_f32("inf"), &["tensor inf has inf at element 1"]);
    assert_error(checkpoint.read_f32("large"), &["tensor large has inf at element 1"]);
    assert_error(checkpoint.read_f32("half"), &["tensor half has NaN at element 0"]);
}

#[test]
fn a_truncated_file_is_an_error_at_every_length() {
    let whole = Model::vit(&tiny()).bytes();
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize + 8;
    // Every length up to the first tensors, then in strides that reach the last byte.
    let lengths = (0..header + 64).chain((header + 64..whole.len()).step_by(997)).chain([whole.len() - 1]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    for len in lengths {
        fs::write(&path, &whole[..len]).unwrap();
        let what = match len {
            0 => "the file is empty",
            1..8 => "truncated: the file has",
            _ if len < header => "truncated: its header is",
            _ => "truncated: the header promises",
        };
        assert_error(Checkpoint::open(&path), &[what, "download it again", "x.safetensors"]);
    }
    let small = literal(r#"{"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}}"#, 9);
    assert_eq!(open_bytes(&small).unwrap().tensors().len(), 1);
    for len in 0..small.len() {
        assert_error(open_bytes(&small[..len]), &["download it again"]);
    }
}

/// The first bytes of a zip archive with an entry of that name.
fn zip(name: &str) -> Vec<u8> {
    [b"PK\x03\x04", &[0; 22][..], &(name.len() as u16).to_le_bytes(), &[0, 0], name.as_bytes()].concat()
}

#[test]
fn files_of_another_kind_are_told() {
    let filler = [7; 200];
    for (first, what) in [
        (&b"PK\x03\x04"[..], "a zip archive, as torch.save writes"),
        (&zip("archive/data.pkl"), "a zip archive, as torch.save writes"),
        (&zip("arr_0.npy"), "a NumPy archive (.npz)"),
        (&zip("metadata.json"), "a Keras archive"),
        (b"\x93NUMPY\x01\0v\0{'descr'", "a NumPy array"),
        (b"GGUF\x03\0\0\0", "a GGUF model"),
        (b"\x1f\x8b\x08\0", "a gzip archive"),
        (b"\x1c\0\0\0TFL3", "a TensorFlow Lite model"),
        (b"\x08\x08\x12\x07pytorch", "an ONNX model"),
        (&[&[b'm'; 257][..], b"ustar\x0000"].concat(), "a tar archive"),
        (b"\x80\x02\x8a\x0alF\xf9", "a pickle (PyTorch's older .pt/.pth/.bin)"),
        (b"\x80\x02\0\0\0\0\0\0}q\0", "a pickle (PyTorch's older .pt/.pth/.bin)"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"<!DOCTYPE html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"\x10\0\0\0\0\0\0\0[1, 2, 3]", "not a safetensors file"),
        (b"\0\0\0\0\0\0\0\0{}", "not a safetensors file"),
        (&(1u64 << 63).to_le_bytes(), "not a safetensors file (its header would be 9223372036854775808 bytes long)"),
        (&u64::MAX.to_le_bytes(), "not a safetensors file"),
        (b"\0\0\0\x01\0\0\0\0{", "truncated: its header is 16777216 bytes long"),
    ] {
        let error = assert_error(open_bytes(&[first, &filler].concat()), &[what, "x.safetensors"]).to_string();
        let is_foreign = error.contains("not a safetensors file but");
        assert_eq!(is_foreign && !error.contains("web page"), error.contains("docs/from-pytorch.md"), "{error}");
    }
    // Without a mark, the name's ending counts.
    let dir = tempfile::tempdir().unwrap();
    for ending in ["pt", "pth", "bin", "ckpt", "tar", "npz", "onnx", "gguf", "h5", "msgpack"] {
        let path = dir.path().join(format!("model.{ending}"));
        fs::write(&path, [0xff; 64]).unwrap();
        assert_error(Checkpoint::open(&path), &[&format!("a .{ending} file"), "convert it as docs/from-pytorch.md"]);
        // Whatever its ending, a safetensors file is one.
        fs::write(&path, literal(r#"{"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}}"#, 9)).unwrap();
        assert_eq!(Checkpoint::open(&path).unwrap().tensors().len(), 1);
    }
}

#[test]
fn a_header_that_lies_is_an_error() {
    let tensor = |name: &str, dtype: &str, shape: &str, start: u64, end: u64| {
        format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}"#)
    };
    let a = tensor("a", "F32", "[2]", 0, 8);
    let b = |start, end| tensor("b", "F32", "[2]", start, end);
    assert_eq!(open_bytes(&literal(&format!("{{{a},{}}}", b(8, 16)), 16)).unwrap().tensors().len(), 2);
    let max = u64::MAX;
    for (entries, parts) in [
        (format!("{a},{}", b(4, 12)), &["tensor b at 4..12 overlaps the tensor before it"][..]),
        (format!("{a},{}", b(0, 8)), &["tensor b at 0..8 overlaps"]),
        (format!("{a},{}", b(12, 20)), &["tensor b at 12..20 leaves a gap"]),
        (format!("{a},{}", b(16, 8)), &["tensor b of shape [2] and type F32 takes 8 bytes, but lies at 16..8"]),
        (format!("{a},{}", b(8, 12)), &["tensor b of shape [2]", "takes 8 bytes"]),
        (a.clone(), &["damaged: 8 bytes follow the 8 bytes of tensors"]),
        (
            format!("{a},{},{}", b(8, 16), tensor("c", "F32", "[2]", 16, 24)),
            &["truncated: the header promises 24 bytes of tensors, the file has 16"],
        ),
        (format!("{a},{a}"), &["the name a stands there twice"]),
        (tensor("c", "F31", "[2]", 0, 8), &["tensor c has the unknown type \"F31\""]),
        (tensor("c", "F32", "[-2]", 0, 8), &["c: ", "-2"]),
        (tensor("c", "F32", "[2.5]", 0, 8), &["c: ", "2.5"]),
        (tensor("c", "F32", "[4294967296,4294967296,4]", 0, 8), &["tensor c has an impossible shape"]),
        (tensor("c", "F32", "[4294967296,4294967296,0]", 0, 0), &["tensor c has an impossible shape"]),
        (tensor("c", "F64", "[2305843009213693952]", 0, 8), &["tensor c has an impossible shape"]),
        (tensor("c", "F4", "[3]", 0, 1), &["tensor c has an impossible shape"]),
        // One whose end wraps around to the file's true length when header and offsets are added carelessly.
        (tensor("c", "U8", &format!("[{}]", max / 8), 0, max / 8), &["truncated"]),
        (tensor("c", "U8", &format!("[{max}]"), 0, max), &["tensor c has an impossible shape"]),
        (r#""c\u000ad":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}"#.into(), &["control characters"]),
        (r#""__metadata__":{"a":1}"#.into(), &["__metadata__: "]),
        (r#""__metadata__":{},"__metadata__":{}"#.into(), &["the name __metadata__ stands there twice"]),
        (r#""c":7"#.into(), &["c: "]),
        (r#""c":{"dtype":"F32","shape":[4]}"#.into(), &["c: ", "data_offsets"]),
        (format!(r#""c":{}"#, "[".repeat(5000)), &["header can't be read"]),
        (r#""c":"#.into(), &["header can't be read"]),
        (tensor(&"n".repeat(1001), "U8", "[0]", 0, 0), &["a name of 1001 bytes"]),
        (tensor("c", "U8", &format!("[{}1]", "1,".repeat(16)), 0, 1), &["c: more than 16 dimensions"]),
        (tensor("c", &"F".repeat(100_000), "[1]", 0, 1), &["tensor c has the unknown type \"FFF", "..."]),
        (format!(r#""c":"{}""#, "x".repeat(100_000)), &["c: ", "..."]),
    ] {
        let error =
            assert_error(open_bytes(&literal(&format!("{{{entries}}}"), 16)), &[parts, &["x.safetensors"]].concat());
        assert!(error.to_string().len() < 500, "{} characters", error.to_string().len());
    }
    // A thousand million tensors do not fit into a header; as many as do are refused before they take much memory.
    let many: Vec<String> = (0..=100_000).map(|i| tensor(&i.to_string(), "U8", "[0]", 0, 0)).collect();
    assert_error(open_bytes(&literal(&format!("{{{}}}", many.join(",")), 0)), &["more than 100000 tensors"]);
    let many: Vec<String> = (0..=100_000).map(|i| format!(r#""{i}":"""#)).collect();
    let many = format!(r#"{{"__metadata__":{{{}}}}}"#, many.join(","));
    assert_error(open_bytes(&literal(&many, 0)), &["__metadata__: more than 100000 entries"]);
    let mut not_utf8 = literal(&format!("{{{a}}}"), 8);
    not_utf8[10] = 0xff;
    assert_error(open_bytes(&not_utf8), &["not UTF-8"]);
}

#[test]
fn a_dimension_of_nothing_is_refused_where_a_weight_has_it() {
    for (name, (_, shape, _)) in Model::vit(&tiny()).tensors {
        for i in 0..shape.len() {
            let mut model = Model::vit(&tiny());
            let mut shape = shape.clone();
            shape[i] = 0;
            model.add(&name, Dtype::F32, &shape, Vec::new());
            // Where the other tensors' shapes follow from this one, theirs may be what does not fit.
            let error = model.recognise(None, &Overrides::default()).expect_err(&name).to_string();
            assert!(error.contains("tensor ") && error.contains("has shape ["), "{error}");
        }
    }
}

#[test]
fn mutated_headers_never_panic() {
    let mut model = Model::vit(&VitConfig { depth: 1, ..tiny() });
    model.metadata.extend(tpgm_metadata(&fresh_model(tiny(), &preprocess(), &["a".into(), "b".into(), "c".into()])));
    let whole = model.bytes();
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize + 8;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let (mut refused, mut opened) = (0, 0);
    for _ in 0..2000 {
        let mut bytes = whole.clone();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..header);
            let digit = b'0' + rng.random_range(0..10u8);
            match rng.random_range(0..5) {
                0 => bytes[at] = rng.random(),
                1 => bytes[at] ^= 1 << rng.random_range(0..8),
                2 => bytes[at] = digit,
                3 => bytes.insert(at, digit),
                _ => drop(bytes.remove(at)),
            }
        }
        fs::write(&path, &bytes).unwrap();
        let Ok(checkpoint) = Checkpoint::open(&path) else {
            refused += 1;
            continue;
        };
        opened += 1;
        for tensor in checkpoint.tensors() {
            if let Ok(values) = checkpoint.read_f32(&tensor.name) {
                assert_eq!(values.len(), tensor.shape.iter().product::<usize>());
            }
        }
        if let Ok(recognised) = recognise(&checkpoint, &Overrides::default()) {
            // NaN where a type was changed to BF16 and the like is an error as well.
            let _ = weights(&checkpoint, &recognised);
            assert!(!describe(&checkpoint, &recognised).to_string().is_empty());
        }
    }
    assert!(refused > 500 && opened > 20, "the mutations must reach both sides: {refused} refused, {opened} opened");
}

#[test]
fn a_path_that_is_no_checkpoint_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    assert_error(Checkpoint::open(at.join("none.safetensors")), &["none.safetensors: cannot read: No such file"]);
    assert_error(Checkpoint::open(at), &["no model.safetensors in this folder"]);
    fs::write(at.join("pytorch_model.bin"), "x").unwrap();
    assert_error(Checkpoint::open(at), &["convert pytorch_model.bin to safetensors first, as docs/"]);
    fs::write(at.join("best.safetensors"), "x").unwrap();
    assert_error(Checkpoint::open(at), &["name the file itself, such as best.safetensors"]);
    fs::write(at.join("model.safetensors.index.json"), "{}").unwrap();
    assert_error(Checkpoint::open(at), &["index.json: can't be understood: missing field `weight_map`"]);
    fs::create_dir(at.join("model.safetensors")).unwrap();
    assert_error(Checkpoint::open(at), &["neither a file nor a folder"]);
    #[cfg(unix)]
    assert_error(Checkpoint::open("/dev/null"), &["neither a file nor a folder"]);
    assert_error(Model::vit(&tiny()).open(Some("{")).1, &["config.json: not valid JSON"]);
    let long = format!("{}{}", " ".repeat(8 << 20), "{}");
    assert_error(Model::vit(&tiny()).open(Some(&long)).1, &["config.json: longer than 8 MiB"]);
}
