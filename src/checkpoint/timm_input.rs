//! How a timm model's input is made: `pretrained_cfg`, or the top of older files.

use serde_json::Value;

use super::Note;
use super::json::quote;
use super::known::Keys;
use super::timm_config::TimmConfig;
use crate::data::preprocess::{CropMode, Preprocess};
use crate::data::resize::Interpolation;
use crate::error::Result;

/// The keys of timm's `PretrainedCfg`.
const KEYS: Keys = Keys {
    followed: &[
        "architecture",
        "crop_mode",
        "crop_pct",
        "input_size",
        "interpolation",
        "label_names",
        "mean",
        "num_classes",
        "std",
    ],
    idle: &[
        "classifier",
        "custom_load",
        "description",
        "file",
        "first_conv",
        "fixed_input_size",
        "hf_hub_filename",
        "hf_hub_id",
        "label_descriptions",
        "license",
        "min_input_size",
        "notes",
        "origin_url",
        "paper_ids",
        "paper_name",
        "pool_size",
        "source",
        "tag",
        "test_crop_pct",
        "test_input_size",
        "test_pool_size",
        "url",
    ],
    // An offset drops the head's first rows on loading.
    only: &[("label_offset", &["0"])],
};

/// What else may stand at the top of an older file, beside the keys of `PretrainedCfg`.
const TOP: Keys =
    Keys { followed: &["global_pool", "id2label", "labels", "model_args"], idle: &["num_features"], only: &[] };

/// What timm takes if nothing is written.
const USUAL: [(&str, &str); 4] = [
    ("mean", "[0.485, 0.456, 0.406]"),
    ("std", "[0.229, 0.224, 0.225]"),
    ("interpolation", "bicubic"),
    ("crop_pct", "0.875"),
];

impl TimmConfig {
    /// The input, where anything is written about it; missing entries are as timm has them.
    ///
    /// # Errors
    /// Where a key or its value is not understood.
    pub(super) fn preprocess(&self, usual: Preprocess, notes: &mut Vec<Note>) -> Result<Option<Preprocess>> {
        self.check_input()?;
        let keys = ["mean", "std", "interpolation", "crop_pct", "crop_mode"];
        if keys.iter().all(|key| self.input(key).is_none()) {
            return Ok(None);
        }
        let missing = USUAL.iter().filter(|(key, _)| self.input(key).is_none());
        let missing: Vec<String> = missing.map(|(key, usual)| format!("{key} {usual}")).collect();
        if !missing.is_empty() {
            let missing = missing.join(", ");
            notes.push(format!("config.json leaves out what timm then takes to be {missing}").into());
        }
        let crop_pct = match self.input("crop_pct") {
            None => 0.875,
            Some(value) => {
                let wrong = || self.error(format!("crop_pct is {}, expected a number", quote(&value.to_string())));
                value.as_f64().ok_or_else(wrong)?
            }
        };
        let unknown = |key: &str, value: &Value, words: &str| {
            self.error(format!("{key} is {}: not supported, only {words}", quote(&value.to_string())))
        };
        let crop_mode = match self.input("crop_mode").map(|value| (value, value.as_str())) {
            None | Some((_, Some("center"))) => CropMode::Center,
            Some((_, Some("squash"))) => CropMode::Squash,
            Some((_, Some("border"))) => CropMode::Border,
            Some((other, _)) => return Err(unknown("crop_mode", other, "center, squash and border")),
        };
        let interpolation = match self.input("interpolation").map(|value| (value, value.as_str())) {
            None | Some((_, Some("bicubic"))) => Interpolation::Bicubic,
            Some((_, Some("bilinear"))) => Interpolation::Bilinear,
            Some((_, Some("lanczos"))) => Interpolation::Lanczos,
            Some((other, _)) => return Err(unknown("interpolation", other, "bicubic, bilinear and lanczos")),
        };
        let out = Preprocess {
            mean: self.triple("mean", [0.485, 0.456, 0.406])?,
            std: self.triple("std", [0.229, 0.224, 0.225])?,
            crop_pct,
            crop_mode,
            interpolation,
            ..usual
        };
        out.validate().map_err(|e| self.error(e.to_string()))?;
        Ok(Some(out))
    }

    fn check_input(&self) -> Result<()> {
        let fault = match self.root.get("pretrained_cfg") {
            // timm reads nothing else at the top of such a file.
            Some(Value::Object(entries)) => KEYS.fault_in("pretrained_cfg.", entries),
            None | Some(Value::Null) => self.root.as_object().and_then(|entries| {
                let own = |key: &str| KEYS.lists(key) || !TOP.lists(key);
                entries.iter().filter(|(key, _)| own(key)).find_map(|(key, value)| KEYS.fault("", key, value))
            }),
            Some(other) => Some(format!("pretrained_cfg is {}, expected an object", quote(&other.to_string()))),
        };
        fault.map_or(Ok(()), |fault| Err(self.error(fault)))
    }

    /// Height and width of the input that the file was written for, `[C, H, W]` in `input_size`.
    pub(super) fn input_size(&self) -> Option<[u64; 2]> {
        let size = self.input("input_size")?.as_array()?;
        Some([size.get(1)?.as_u64()?, size.get(2)?.as_u64()?])
    }

    fn triple(&self, key: &str, usual: [f32; 3]) -> Result<[f32; 3]> {
        let Some(value) = self.input(key) else { return Ok(usual) };
        let numbers: Option<Vec<f32>> =
            value.as_array().and_then(|list| list.iter().map(|v| v.as_f64().map(|x| x as f32)).collect());
        // One number is that of a grey image.
        let channels = self.input("input_size").and_then(|size| size.get(0)?.as_u64());
        match numbers.as_deref() {
            Some(&[one]) if channels == Some(1) => Ok([one; 3]),
            Some(&[r, g, b]) => Ok([r, g, b]),
            _ => Err(self.error(format!("{key} is {}, expected three numbers", quote(&value.to_string())))),
        }
    }
}

/// What timm's ViTs are trained on where nothing says otherwise.
pub(super) fn timm_vit_preprocess(image_size: usize) -> Preprocess {
    Preprocess {
        image_size,
        crop_pct: 0.9,
        crop_mode: CropMode::Center,
        interpolation: Interpolation::Bicubic,
        mean: [0.5; 3],
        std: [0.5; 3],
        grey: false,
    }
}
