//! What timm's architectures are built from, as `timm_table.jsonl` has it. `tools/zoo/make_table.py` writes that file.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

const TABLE: &str = include_str!("timm_table.jsonl");

/// The release that the table is made from.
pub(super) const RELEASE: &str = "1.0.31";

/// An architecture of timm's.
#[derive(Debug)]
pub(super) struct Architecture {
    /// The Python class that computes it.
    pub(super) class: String,
    /// What it hands to the class, without what equals the class's default.
    pub(super) args: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Row {
    Built(IgnoredAny, IgnoredAny, String, Map<String, Value>),
    Renamed(IgnoredAny, String),
}

#[derive(Deserialize)]
struct Defaults {
    defaults: Map<String, Value>,
}

/// The architecture of this name, without a tag.
pub(super) fn architecture(name: &str) -> Option<Architecture> {
    match serde_json::from_str(line(&format!("[{},", quoted(name)?))?).ok()? {
        Row::Built(_, _, class, args) => Some(Architecture { class, args }),
        Row::Renamed(_, present) => architecture(&present),
    }
}

/// What a class takes for each of its arguments if nothing is said.
pub(super) fn defaults(class: &str) -> Option<Map<String, Value>> {
    let row: Defaults = serde_json::from_str(line(&format!("{{\"class\":{},", quoted(class)?))?).ok()?;
    Some(row.defaults)
}

fn line(start: &str) -> Option<&'static str> {
    TABLE.lines().find(|line| line.starts_with(start))
}

/// As JSON. No name in the table needs an escape.
fn quoted(name: &str) -> Option<String> {
    name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_').then(|| format!("\"{name}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read() {
        let mut count = 0;
        for line in TABLE.lines() {
            let row: Value = serde_json::from_str(line).unwrap();
            let Some(name) = row.get(0).and_then(Value::as_str) else {
                assert!(defaults(row["class"].as_str().unwrap()).is_some(), "{line}");
                continue;
            };
            let built = architecture(name).unwrap_or_else(|| panic!("{name}"));
            assert!(defaults(&built.class).is_some(), "{name}: {}", built.class);
            count += 1;
        }
        assert!(count > 1500, "{count}");
    }

    #[test]
    fn names_are_found_exactly() {
        let heads = |name: &str| architecture(name).unwrap().args["num_heads"].as_u64().unwrap();
        assert_eq!(heads("vit_giant_patch14_reg4_dinov2"), 24);
        assert_eq!(heads("vit_giant_patch14_224"), 16);
        assert_eq!(architecture("tv_resnet50").unwrap().class, "ResNet");
        for none in ["", "vit_", "vit_giant_patch14_224\",\"x", "vit_base_patch16_224.augreg"] {
            assert!(architecture(none).is_none(), "{none}");
        }
        assert_eq!(defaults("VisionTransformer").unwrap()["num_heads"], 12);
    }
}
