//! Saving.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use half::f16;
use safetensors::tensor::TensorView;
use tpgm::atomic::AtomicFile;
use tpgm::checkpoint::{Checkpoint, Dtype, Values, atomic_write, save, write_safetensors};
use tpgm::error::Error;

use crate::{Model, assert_error};

/// The files of a folder, hidden ones included.
fn listing(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Every kind of tensor that a source may hold.
fn mixed() -> Model {
    let mut model = Model::default();
    model.metadata.extend([("format".into(), "pt".into()), ("license".into(), "free".into())]);
    let halves: Vec<u8> = (0..6u16).flat_map(|i| f16::from_f32(f32::from(i)).to_le_bytes()).collect();
    model.add("half", Dtype::F16, &[2, 3], halves.clone());
    model.add("brain", Dtype::BF16, &[2], vec![0x80, 0x3f, 0, 0]);
    model.add("kept", Dtype::F16, &[2, 3], halves);
    model.add("nan", Dtype::F32, &[1], vec![1, 2, 0xc0, 0x7f]);
    model.add("bn.num_batches_tracked", Dtype::I64, &[], 12345i64.to_le_bytes().into());
    model.add("mask", Dtype::BOOL, &[3], vec![1, 0, 1]);
    model.add("single", Dtype::F32, &[2], vec![0; 8]);
    model.add("double", Dtype::F64, &[1], vec![0; 8]);
    model.add("none", Dtype::F32, &[0], vec![]);
    model
}

#[test]
fn saving_replaces_in_the_source_type_and_carries_the_rest() {
    let model = mixed();
    let (dir, source) = model.open(None);
    let source = source.unwrap();
    // Ties go to the even neighbour: 2049 lies between 2048 and 2050 in F16, 257 between 256 and 258 in BF16.
    let replaced = BTreeMap::from([
        ("half".into(), (vec![2, 3], vec![2049.0, 2051.0, 1.0 + f32::EPSILON, 6e-8, -0.0, 65504.0])),
        ("brain".into(), (vec![2], vec![257.0, 259.0])),
        ("single".into(), (vec![3], vec![0.1, 0.2, 0.3])),
        ("double".into(), (vec![1], vec![0.1])),
        ("added".into(), (vec![1], vec![0.7])),
    ]);
    let extra = BTreeMap::from([("license".into(), "freer".into()), ("tpgm.heads".into(), "3".into())]);
    let out = dir.path().join("out.safetensors");
    save(&out, &source, &replaced, &extra).unwrap();

    let saved = Checkpoint::open(&out).unwrap();
    assert_eq!(saved.read_f32("half").unwrap(), [2048.0, 2052.0, 1.0, 5.9604645e-8, -0.0, 65504.0]);
    assert_eq!(saved.read_f32("brain").unwrap(), [256.0, 260.0]);
    assert_eq!(saved.read_f32("single").unwrap(), [0.1, 0.2, 0.3]);
    assert_eq!(saved.tensor("single").unwrap().shape, [3]);
    assert_eq!(saved.read_f32("added").unwrap(), [0.7]);
    for (name, dtype) in [("half", Dtype::F16), ("brain", Dtype::BF16), ("double", Dtype::F64), ("added", Dtype::F32)] {
        assert_eq!(saved.tensor(name).unwrap().dtype, dtype, "{name}");
    }
    let metadata = [("format", "pt"), ("license", "freer"), ("tpgm.heads", "3")];
    assert_eq!(*saved.metadata(), metadata.map(|(k, v)| (k.to_string(), v.to_string())).into());
    // The library as a second opinion, and as the view of the carried bytes.
    let bytes = fs::read(&out).unwrap();
    let by_library = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(by_library.len(), model.tensors.len() + 1);
    for name in ["kept", "nan", "bn.num_batches_tracked", "mask", "none"] {
        let (dtype, shape, bytes) = &model.tensors[name];
        assert_eq!(by_library.tensor(name).unwrap(), TensorView::new(*dtype, shape.clone(), bytes).unwrap(), "{name}");
    }
    for (name, view) in by_library.tensors() {
        let at = view.data().as_ptr() as usize - bytes.as_ptr() as usize;
        assert!(at.is_multiple_of(view.dtype().bitsize() / 8), "{name} lies at {at}");
    }

    let again = dir.path().join("again.safetensors");
    save(&again, &source, &replaced, &extra).unwrap();
    assert_eq!(fs::read(&again).unwrap(), bytes);
    assert_eq!(listing(dir.path()), ["again.safetensors", "model.safetensors", "out.safetensors"]);
}

#[test]
fn saving_nothing_new_over_the_source_keeps_every_byte() {
    let mut model = mixed();
    // The library writes metadata in no fixed order.
    model.metadata.remove("license");
    let (dir, source) = model.open(None);
    let path = dir.path().join("model.safetensors");
    let before = fs::read(&path).unwrap();
    save(&path, &source.unwrap(), &BTreeMap::new(), &BTreeMap::new()).unwrap();
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_new_tensor_takes_the_type_that_the_floats_share() {
    let mut model = Model::default();
    model.add("a", Dtype::F16, &[1], vec![0; 2]);
    model.add("steps", Dtype::I64, &[1], vec![0; 8]);
    let (dir, source) = model.open(None);
    let out = dir.path().join("out.safetensors");
    save(&out, &source.unwrap(), &BTreeMap::from([("b".into(), (vec![1], vec![2.0]))]), &BTreeMap::new()).unwrap();
    assert_eq!(Checkpoint::open(&out).unwrap().tensor("b").unwrap().dtype, Dtype::F16);
}

#[test]
fn an_unusual_order_of_tensors_is_kept() {
    let entry = |name: &str, dtype: &str, len: usize, start: usize, end: usize| {
        format!(r#""{name}":{{"dtype":"{dtype}","shape":[{len}],"data_offsets":[{start},{end}]}}"#)
    };
    let entries = [entry("z", "F32", 2, 0, 8), entry("a", "F32", 1, 8, 12), entry("h", "F16", 2, 12, 16)];
    let header = format!(r#"{{"__metadata__":{{"a":"b"}},{}}}"#, entries.join(","));
    let header = format!("{header:<width$}", width = header.len().next_multiple_of(8));
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &(0..16).collect::<Vec<u8>>()].concat();
    let dir = tempfile::tempdir().unwrap();
    let (path, out) = (dir.path().join("in.safetensors"), dir.path().join("out.safetensors"));
    fs::write(&path, &bytes).unwrap();
    let source = Checkpoint::open(&path).unwrap();
    save(&out, &source, &BTreeMap::new(), &BTreeMap::new()).unwrap();
    assert_eq!(fs::read(&out).unwrap(), bytes);
    // A new one of a wide type stands before the narrow ones.
    save(&out, &source, &BTreeMap::from([("new".into(), (vec![1], vec![1.0]))]), &BTreeMap::new()).unwrap();
    let names: Vec<String> = Checkpoint::open(&out).unwrap().tensors().iter().map(|t| t.name.clone()).collect();
    assert_eq!(names, ["z", "a", "new", "h"]);
}

#[test]
fn what_cannot_be_saved_leaves_the_old_file() {
    let (dir, source) = mixed().open(None);
    let source = source.unwrap();
    let out = dir.path().join("out.safetensors");
    fs::write(&out, "old").unwrap();
    for (name, values, what) in [
        ("single", vec![0.0, f32::NAN], "not written: tensor single has NaN at element 1"),
        ("double", vec![f32::NEG_INFINITY], "not written: tensor double has -inf at element 0"),
        ("brain", vec![0.0, f32::MAX], "not written: tensor brain has values too large for BF16"),
        ("half", vec![65520.0], "not written: tensor half has values too large for F16"),
        ("mask", vec![1.0], "tensor mask is BOOL and can't take weights"),
    ] {
        let replaced = BTreeMap::from([(name.to_string(), (vec![values.len()], values))]);
        assert_error(save(&out, &source, &replaced, &BTreeMap::new()), &[what]);
        assert_eq!(fs::read(&out).unwrap(), b"old");
        assert_eq!(listing(dir.path()), ["model.safetensors", "out.safetensors"]);
    }
}

#[test]
fn an_unwritable_place_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "old").unwrap();
    for path in [file.join("out"), dir.path().join("none/out"), dir.path().to_path_buf()] {
        let error = assert_error(atomic_write(&path, b"new"), &["cannot write", &path.display().to_string()]);
        assert!(matches!(error, Error::Io { .. }));
        assert_eq!(listing(dir.path()), ["file"]);
    }
    #[cfg(unix)]
    assert_error(AtomicFile::create("/dev/null"), &["/dev/null: cannot write: it is not a regular file"]);

    let mut abandoned = AtomicFile::create(&file).unwrap();
    abandoned.write(b"half of it").unwrap();
    assert_eq!(listing(dir.path()).len(), 2);
    drop(abandoned);
    assert_eq!((listing(dir.path()), fs::read(&file).unwrap()), (vec!["file".into()], b"old".to_vec()));
    atomic_write(&file, b"new").unwrap();
    assert_eq!((listing(dir.path()), fs::read(&file).unwrap()), (vec!["file".into()], b"new".to_vec()));
}

/// The system refuses to let the file grow, as it does on a full disk. The limit holds for a whole process, so this
/// test runs itself once more under a limit.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_nothing() {
    let values = vec![1.0f32; 1 << 20];
    let large = [("x".to_string(), vec![values.len()], &values[..])];
    if let Some(out) = std::env::var_os("TPGM_TEST_OUT_UNDER_LIMIT") {
        assert_error(write_safetensors(&out, &large, &BTreeMap::new()), &["cannot write", "File too large"]);
        assert_error(atomic_write(&out, &vec![0; 1 << 20]), &["cannot write", "File too large"]);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.safetensors");
    fs::write(&out, "old").unwrap();
    let limited = r#"trap "" XFSZ; ulimit -f 64; exec "$0" --exact saved::a_full_disk_leaves_nothing"#;
    let run = std::process::Command::new("sh")
        .args(["-c", limited])
        .arg(std::env::current_exe().unwrap())
        .env("TPGM_TEST_OUT_UNDER_LIMIT", &out)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && text.contains("1 passed"), "{text}");
    assert_eq!((listing(dir.path()), fs::read(&out).unwrap()), (vec!["out.safetensors".into()], b"old".to_vec()));
}

#[test]
fn our_own_files_hold_integers_and_do_not_depend_on_order() {
    let dir = tempfile::tempdir().unwrap();
    let (logits, steps, labels) = ([1.0f32, f32::NAN], [1u64 << 50], [-1i32, 2, 3]);
    let mut tensors: Vec<(String, Vec<usize>, Values)> = vec![
        ("logits".into(), vec![1, 2], logits[..].into()),
        ("step".into(), vec![], steps[..].into()),
        ("labels".into(), vec![3], labels[..].into()),
        ("seed".into(), vec![1], [7u32][..].into()),
    ];
    let metadata = BTreeMap::from([("b".into(), "2".into()), ("a".into(), "\"1\"\n".into())]);
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    write_safetensors(&one, &tensors, &metadata).unwrap();
    tensors.reverse();
    write_safetensors(&two, &tensors, &metadata).unwrap();
    assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap());
    let read = Checkpoint::open(&one).unwrap();
    assert_eq!(*read.metadata(), metadata);
    assert_eq!(read.read_u64("step").unwrap(), steps);
    assert_eq!(read.read_i32("labels").unwrap(), labels);
    assert_eq!(read.read_u32("seed").unwrap(), [7]);
    assert_eq!(read.tensor("logits").unwrap().shape, [1, 2]);
}
