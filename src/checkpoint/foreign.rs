//! Files that are no safetensors file: what they are, by their first bytes, and what to do about it. Nothing of them is
//! ever read further, let alone executed.

use std::fs;
use std::path::Path;

/// How many of a file's bytes [`what_is_it`] wants to see: tar's mark stands at 257.
pub(super) const LOOK: usize = 512;

/// Where the way from each of these formats to safetensors is written down.
pub(super) const GUIDE: &str = "docs/from-pytorch.md";

/// What a file is that is no safetensors file; nothing where its first bytes are none that we know.
pub(super) fn what_is_it(first: &[u8], path: &Path) -> Option<String> {
    let convert = |kind: &str| {
        Some(format!("not a safetensors file but {kind}, which is never opened here: convert it as {GUIDE} shows"))
    };
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or("");
    match first {
        [b'P', b'K', 3, 4, ..] => convert(zip(first)),
        [0x80, 2..=5, ..] => convert("a pickle (PyTorch's older .pt/.pth/.bin)"),
        [0x89, b'H', b'D', b'F', ..] => convert("an HDF5 checkpoint (Keras's .h5)"),
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => convert("a NumPy array (.npy)"),
        [b'G', b'G', b'U', b'F', ..] => convert("a GGUF model"),
        [0x1f, 0x8b, ..] => convert("a gzip archive"),
        _ if first.get(257..262) == Some(b"ustar") => convert("a tar archive"),
        _ if first.get(4..8) == Some(b"TFL3") => convert("a TensorFlow Lite model"),
        // Field 1 (ir_version), then one of the fields that may follow it: protobuf has no mark of its own.
        [8, 1..=20, 0x12 | 0x1a | 0x22 | 0x3a | 0x42, ..] => convert("an ONNX model"),
        [b'<', ..] => Some("not a safetensors file but a web page; download it again".into()),
        _ if first.starts_with(b"version https://git-lfs") => {
            Some("not the weights but a Git LFS pointer to them; run git lfs pull".into())
        }
        _ if OTHER.contains(&ending) => convert(&format!("a .{ending} file")),
        _ => None,
    }
}

/// Endings of other formats' checkpoints.
const OTHER: [&str; 13] =
    ["bin", "pt", "pth", "ckpt", "tar", "npz", "npy", "h5", "keras", "onnx", "gguf", "msgpack", "tflite"];

/// Whether a file's name ends as another format's do.
pub(super) fn is_other(name: &str) -> bool {
    OTHER.iter().any(|ending| name.strip_suffix(ending).is_some_and(|stem| stem.ends_with('.')))
}

/// A zip archive tells what it is by the name of its first entry, at byte 30.
fn zip(first: &[u8]) -> &'static str {
    let length = first.get(26..28).map_or(0, |b| usize::from(u16::from_le_bytes([b[0], b[1]])));
    let name = first.get(30..).map_or(&[][..], |rest| &rest[..length.min(rest.len())]);
    if name.ends_with(b".npy") {
        "a NumPy archive (.npz)"
    } else if name == b"metadata.json" || name == b"config.json" {
        "a Keras archive (.keras)"
    } else {
        "a zip archive, as torch.save writes .pt/.pth/.bin"
    }
}

/// Why a folder is no checkpoint, from what else lies in it.
pub(super) fn no_model_in(folder: &Path) -> String {
    let names = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = names.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let ending = |endings: &[&str]| names.iter().find(|n| endings.iter().any(|e| n.ends_with(e)));
    if let Some(other) = ending(&[".safetensors", ".safetensors.index.json"]) {
        return format!("no model.safetensors in this folder; name the file itself, such as {other}");
    }
    match names.iter().find(|name| is_other(name)) {
        Some(other) => {
            format!("no model.safetensors in this folder; convert {other} to safetensors first, as {GUIDE} shows")
        }
        None => "no model.safetensors in this folder".into(),
    }
}

/// The name on the Hugging Face hub that `path` may be meant as: `timm/vit_small_patch16_224.augreg_in1k`, the same without `timm/`,
/// or with the hub's address before it.
pub(super) fn hub_name(path: &Path) -> Option<String> {
    let text = path.to_str()?;
    let prefixes = ["hf-hub:", "https://huggingface.co/", "http://huggingface.co/", "huggingface.co/"];
    let prefix = prefixes.iter().find(|prefix| text.starts_with(*prefix));
    let name = prefix.map_or(text, |prefix| &text[prefix.len()..]).trim_end_matches('/');
    let parts: Vec<&str> = name.split('/').collect();
    let word = |part: &&str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.chars().all(fits)
    };
    // A file's name is no model's; and a single word must look like one of timm's.
    let file = [".safetensors", ".json", ".pt", ".pth", ".bin", ".onnx"].iter().any(|ending| name.ends_with(ending));
    match parts.as_slice() {
        _ if file || !parts.iter().all(word) => None,
        [_, _] => Some(name.into()),
        [one] if prefix.is_none() && one.contains('_') => Some(format!("timm/{one}")),
        _ => None,
    }
}

/// What to do about a model that is not on this machine, but perhaps on the hub under `name`.
pub(super) fn not_here(name: &str) -> String {
    format!("there is no such file or folder; if it is the model {name} of the Hugging Face hub, give hf://{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_hub_are_recognised() {
        let name = |text: &str| hub_name(Path::new(text));
        let vit = Some("timm/vit_small_patch16_224.augreg_in1k".to_string());
        for text in [
            "vit_small_patch16_224.augreg_in1k",
            "timm/vit_small_patch16_224.augreg_in1k",
            "hf-hub:timm/vit_small_patch16_224.augreg_in1k",
            "https://huggingface.co/timm/vit_small_patch16_224.augreg_in1k/",
        ] {
            assert_eq!(name(text), vit, "{text}");
        }
        assert_eq!(name("google/vit-base-patch16-224"), Some("google/vit-base-patch16-224".into()));
        for text in [
            "model.safetensors",
            "runs/best.safetensors",
            "/models/vit",
            "../vit_small",
            "models",
            "a/b/c",
            "x y/z",
            "",
        ] {
            assert_eq!(name(text), None, "{text}");
        }
    }
}
