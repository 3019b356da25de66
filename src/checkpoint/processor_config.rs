//! transformers' image processors: `preprocessor_config.json`, or `image_processor` in `processor_config.json`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Note;
use super::json::{parse, quote, read_bytes};
use super::known::Keys;
use crate::data::preprocess::{CropMode, Preprocess, crop_share};
use crate::data::resize::Interpolation;
use crate::error::{Error, Result};

/// What ConvNeXt's processor, which ResNets have too, keeps where nothing is written.
const CONVNEXT_SHARE: f64 = 0.875;
/// From this size on ConvNeXt's processor resizes both sides and crops nothing.
const CONVNEXT_WHOLE: usize = 384;

/// What the names of a processor's class end in, whoever resizes.
const ENDINGS: [&str; 4] = ["ImageProcessorFast", "ImageProcessorPil", "ImageProcessor", "FeatureExtractor"];

/// transformers' processors that are followed, and what each takes for what its file leaves out, as JSON.
const CLASSES: [(&str, &str); 8] = [
    (
        "Beit",
        r#"{"size":224,"crop_size":224,"do_center_crop":false,"resample":3,"image_mean":[0.5,0.5,0.5],"image_std":[0.5,0.5,0.5]}"#,
    ),
    ("Bit", CLIP),
    ("CLIP", CLIP),
    (
        "ConvNext",
        r#"{"size":{"shortest_edge":384},"crop_pct":0.875,"do_center_crop":false,"resample":3,"image_mean":[0.5,0.5,0.5],"image_std":[0.5,0.5,0.5]}"#,
    ),
    (
        "DINOv3ViT",
        r#"{"size":{"height":224,"width":224},"do_center_crop":false,"resample":2,"image_mean":[0.485,0.456,0.406],"image_std":[0.229,0.224,0.225]}"#,
    ),
    (
        "DeiT",
        r#"{"size":{"height":256,"width":256},"crop_size":224,"resample":3,"image_mean":[0.5,0.5,0.5],"image_std":[0.5,0.5,0.5]}"#,
    ),
    (
        "Siglip",
        r#"{"size":{"height":224,"width":224},"do_center_crop":false,"resample":3,"image_mean":[0.5,0.5,0.5],"image_std":[0.5,0.5,0.5]}"#,
    ),
    (
        "ViT",
        r#"{"size":{"height":224,"width":224},"do_center_crop":false,"resample":2,"image_mean":[0.5,0.5,0.5],"image_std":[0.5,0.5,0.5]}"#,
    ),
];

const CLIP: &str = r#"{"size":{"shortest_edge":224},"crop_size":224,"resample":3,"image_mean":[0.48145466,0.4578275,0.40821073],"image_std":[0.26862954,0.26130258,0.27577711]}"#;

/// The keys of transformers' image processors. Images are made RGB in any case.
const KEYS: Keys = Keys {
    followed: &[
        "crop_pct",
        "crop_size",
        "do_center_crop",
        "do_normalize",
        "do_rescale",
        "feature_extractor_type",
        "image_mean",
        "image_processor_type",
        "image_std",
        "resample",
        "rescale_factor",
        "size",
    ],
    idle: &[
        "_name_or_path",
        "_valid_processor_keys",
        "data_format",
        "default_to_square",
        "device",
        "disable_grouping",
        "do_convert_rgb",
        "image_seq_length",
        "input_data_format",
        "processor_class",
        "return_tensors",
        "transformers_version",
        "use_fast",
    ],
    only: &[
        ("do_flip_channel_order", &["false"]),
        ("do_pad", &["false"]),
        ("do_reduce_labels", &["false"]),
        // An image that is not resized keeps its shape.
        ("do_resize", &["true"]),
        ("offset", &["false"]),
        ("reduce_labels", &["false"]),
    ],
};

/// How large an image is made.
#[derive(Clone, Copy)]
enum Size {
    /// The shorter side, in pixels.
    Shortest(usize),
    /// Both sides, whatever the shape.
    Square(usize),
}

/// The file's content.
pub(super) struct ProcessorConfig {
    path: PathBuf,
    root: Value,
}

impl ProcessorConfig {
    /// That which stands beside a `config.json`. As in transformers, `processor_config.json` comes first.
    pub(super) fn beside(config: &Path) -> Result<Option<Self>> {
        for (name, key) in [("processor_config.json", Some("image_processor")), ("preprocessor_config.json", None)] {
            let path = config.with_file_name(name);
            if !path.is_file() {
                continue;
            }
            let root: Value = parse(&path, &read_bytes(&path)?)?;
            let root = key.map_or(Some(&root), |key| root.get(key));
            if let Some(root) = root.filter(|root| root.is_object()) {
                return Self { root: root.clone(), path }.completed().map(Some);
            }
        }
        Ok(None)
    }

    /// With its class's defaults for missing entries. An older file may name no class.
    fn completed(mut self) -> Result<Self> {
        let Some(named) = self.class() else { return Ok(self) };
        let start = ENDINGS.iter().find_map(|ending| named.strip_suffix(ending)).unwrap_or(named);
        let Some((_, usual)) = CLASSES.iter().find(|(class, _)| *class == start) else {
            let known = CLASSES.map(|(class, _)| class).join(", ");
            let what = format!("image_processor_type is {}: not supported yet, only those of {known}", quote(named));
            return Err(self.wrong(what));
        };
        let usual: serde_json::Map<String, Value> =
            serde_json::from_str(usual).expect("a processor's defaults are JSON");
        for (key, value) in usual {
            if self.entry(&key).is_none() {
                self.root[key] = value;
            }
        }
        Ok(self)
    }

    /// Checks that every key is understood.
    ///
    /// # Errors
    /// Names the first key that is not, and its value.
    pub(super) fn check(&self) -> Result<()> {
        let fault = self.root.as_object().and_then(|entries| KEYS.fault_in("", entries));
        fault.map_or(Ok(()), |fault| Err(self.wrong(fault)))
    }

    fn wrong(&self, what: impl Into<String>) -> Error {
        Error::checkpoint(&self.path, what)
    }

    /// The file's name.
    pub(super) fn file(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or("preprocessor_config.json")
    }

    /// An entry that is not null.
    fn entry(&self, key: &str) -> Option<&Value> {
        self.root.get(key).filter(|v| !v.is_null())
    }

    fn flag(&self, key: &str, usual: bool) -> bool {
        self.entry(key).and_then(Value::as_bool).unwrap_or(usual)
    }

    /// The name of its class, if it is written.
    fn class(&self) -> Option<&str> {
        ["image_processor_type", "feature_extractor_type"].iter().find_map(|key| self.entry(key)?.as_str())
    }

    /// Whether the class is one of these, by the start of its name.
    fn is(&self, classes: &[&str]) -> bool {
        self.class().is_some_and(|class| classes.iter().any(|start| class.starts_with(start)))
    }

    fn convnext(&self) -> bool {
        match self.class() {
            Some(class) => class.starts_with("ConvNext"),
            None => self.entry("crop_pct").is_some(),
        }
    }

    fn size(&self) -> Option<Size> {
        let value = self.entry("size")?;
        match (side(value), side(value.get("shortest_edge").unwrap_or(&Value::Null))) {
            // A bare number is an older file's: the class knows which side is meant.
            (Some(n), _) if value.is_number() => {
                let shortest = self.convnext() || (self.crop().is_some() && !self.is(&["ViT", "DeiT"]));
                Some(if shortest { Size::Shortest(n) } else { Size::Square(n) })
            }
            (Some(n), _) => Some(Size::Square(n)),
            (None, Some(n)) if value.get("longest_edge").is_none_or(Value::is_null) => Some(Size::Shortest(n)),
            _ => None,
        }
    }

    /// Height and width of the crop, if there is one.
    fn crop(&self) -> Option<usize> {
        let value = self.entry("crop_size").filter(|_| self.flag("do_center_crop", true))?;
        side(value)
    }

    /// Height and width of what the processor makes of an image.
    pub(super) fn image_size(&self) -> Option<usize> {
        self.crop().or_else(|| self.size().map(|(Size::Shortest(n) | Size::Square(n))| n))
    }

    /// The input; missing entries are as in `usual`.
    pub(super) fn preprocess(&self, usual: Preprocess, notes: &mut Vec<Note>) -> Result<Preprocess> {
        let file = self.file();
        let missing: Vec<&str> =
            ["image_mean", "image_std", "resample", "size"].into_iter().filter(|k| self.entry(k).is_none()).collect();
        if !missing.is_empty() {
            let missing = missing.join(", ");
            notes.push(format!("{file} does not give {missing}: the family's usual one was assumed").into());
        }
        let (crop_mode, crop_pct) = self.geometry(&usual)?;
        let (mean, std) = self.statistics(&usual)?;
        let interpolation = match self.entry("resample").map(|code| (code, code.as_u64())) {
            None => usual.interpolation,
            Some((_, Some(1))) => Interpolation::Lanczos,
            Some((_, Some(2))) => Interpolation::Bilinear,
            Some((_, Some(3))) => Interpolation::Bicubic,
            Some((other, _)) => {
                let what = "not supported, only 1, 2 and 3 (Lanczos, bilinear and bicubic)";
                return Err(self.wrong(format!("resample is {}: {what}", quote(&other.to_string()))));
            }
        };
        let out = Preprocess { crop_pct, crop_mode, interpolation, mean, std, ..usual };
        out.validate().map_err(|e| self.wrong(e.to_string()))?;
        Ok(out)
    }

    /// The way to a square, and the share that the crop keeps.
    fn geometry(&self, usual: &Preprocess) -> Result<(CropMode, f64)> {
        let as_usual = (usual.crop_mode, usual.crop_pct);
        Ok(match (self.size(), self.crop()) {
            (None, _) => match self.entry("size") {
                Some(size) => {
                    let size = quote(&size.to_string());
                    return Err(self.wrong(format!("size is {size}: not supported, only squares and shortest_edge")));
                }
                None => as_usual,
            },
            (Some(Size::Shortest(size)), _) if self.convnext() => match size {
                CONVNEXT_WHOLE.. => (CropMode::SquashFloor, 1.0),
                _ => {
                    let share = self.entry("crop_pct").and_then(Value::as_f64).unwrap_or(CONVNEXT_SHARE);
                    (CropMode::CenterFloor, share)
                }
            },
            (Some(Size::Shortest(size)), Some(crop)) => (CropMode::CenterFloor, crop_share(crop, size)),
            (Some(Size::Shortest(size)), None) => {
                let what = "without a centre crop it keeps each image's shape, which is not supported: set do_center_crop and \
                            crop_size";
                return Err(self.wrong(format!("size is shortest_edge {size}: {what}")));
            }
            (Some(Size::Square(size)), Some(crop)) => (CropMode::SquashFloor, crop_share(crop, size)),
            (Some(Size::Square(_)), None) => (CropMode::SquashFloor, 1.0),
        })
    }

    /// Mean and std where white is 1, whatever the processor scales levels by.
    fn statistics(&self, usual: &Preprocess) -> Result<([f32; 3], [f32; 3])> {
        let (mean, std) = match self.flag("do_normalize", true) {
            true => {
                (self.triple("image_mean", usual.mean, usual.grey)?, self.triple("image_std", usual.std, usual.grey)?)
            }
            false => ([0.0; 3], [1.0; 3]),
        };
        let factor = match self.flag("do_rescale", true) {
            true => self.entry("rescale_factor").and_then(Value::as_f64).unwrap_or(1.0 / 255.0),
            false => 1.0,
        };
        let white = factor * 255.0;
        if (white - 1.0).abs() < 1e-6 {
            return Ok((mean, std));
        }
        let rescaled = |list: [f32; 3]| list.map(|v| (f64::from(v) / white) as f32);
        Ok((rescaled(mean), rescaled(std)))
    }

    fn triple(&self, key: &str, usual: [f32; 3], grey: bool) -> Result<[f32; 3]> {
        let Some(value) = self.entry(key) else { return Ok(usual) };
        let list: Option<Vec<f32>> =
            value.as_array().and_then(|list| list.iter().map(|v| v.as_f64().map(|x| x as f32)).collect());
        // One number is that of a grey image.
        match list.as_deref() {
            Some(&[one]) if grey => Ok([one; 3]),
            Some(&[r, g, b]) => Ok([r, g, b]),
            _ => Err(self.wrong(format!("{key} is {}, expected three numbers", quote(&value.to_string())))),
        }
    }
}

/// The pixels of both sides: a number, a pair or `height` and `width`, where they are the same.
fn side(value: &Value) -> Option<usize> {
    let number = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0);
    let pair = match value {
        Value::Array(pair) if pair.len() == 2 => (number(&pair[0])?, number(&pair[1])?),
        Value::Object(sides) => (number(sides.get("height")?)?, number(sides.get("width")?)?),
        value => return number(value),
    };
    (pair.0 == pair.1).then_some(pair.0)
}
