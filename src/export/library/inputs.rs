//! How the input is made, in the words of each library.

use serde_json::{Value, json};

use crate::data::preprocess::{CropMode, Preprocess};
use crate::data::resize::Interpolation;

/// timm's `pretrained_cfg`, and what it can't say.
pub(super) fn timm(input: &Preprocess, classes: usize) -> Result<(Value, Option<String>), String> {
    let (mode, remark) = match input.crop_mode {
        CropMode::Center => ("center", None),
        CropMode::Squash => ("squash", None),
        CropMode::Border => ("border", None),
        CropMode::CenterFloor => {
            ("center", Some("timm rounds the place of the crop to even, this model's transform down"))
        }
        CropMode::SquashFloor => {
            ("squash", Some("timm resizes the axis first that shrinks more, this model's transform the width"))
        }
        CropMode::Longest => return Err("timm's transforms can't fill images up with black".into()),
    };
    let filter = match input.interpolation {
        Interpolation::Bilinear => "bilinear",
        Interpolation::Bicubic => "bicubic",
        Interpolation::Lanczos => "lanczos",
    };
    let channels = if input.grey { 1 } else { 3 };
    let size = input.image_size;
    let config = json!({
        "num_classes": classes,
        "input_size": [channels, size, size],
        "interpolation": filter,
        "crop_pct": input.crop_pct,
        "crop_mode": mode,
        "mean": &input.mean[..channels],
        "std": &input.std[..channels],
    });
    Ok((config, remark.map(String::from)))
}

/// transformers' `preprocessor_config.json`, and what it can't say.
pub(super) fn transformers(input: &Preprocess) -> Result<(Value, Option<String>), String> {
    let size = json!({"height": input.image_size, "width": input.image_size});
    let scaled = input.scale_size();
    let (class, resized, crops) = match input.crop_mode {
        CropMode::Center | CropMode::CenterFloor => ("CLIPImageProcessor", json!({"shortest_edge": scaled}), true),
        CropMode::Squash | CropMode::SquashFloor if scaled == input.image_size => {
            ("ViTImageProcessor", size.clone(), false)
        }
        CropMode::Squash | CropMode::SquashFloor => {
            ("DeiTImageProcessor", json!({"height": scaled, "width": scaled}), true)
        }
        CropMode::Border | CropMode::Longest => {
            return Err("transformers' processors can't fill images up at their edges".into());
        }
    };
    let floors = matches!(input.crop_mode, CropMode::CenterFloor | CropMode::SquashFloor);
    let remark = "transformers rounds the place of the crop down and resizes the width first, this model's transform rounds to even";
    let resample = match input.interpolation {
        Interpolation::Lanczos => 1,
        Interpolation::Bilinear => 2,
        Interpolation::Bicubic => 3,
    };
    let mut config = json!({
        "image_processor_type": class,
        "do_resize": true,
        "size": resized,
        "resample": resample,
        "do_center_crop": crops,
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "do_convert_rgb": true,
        "image_mean": input.mean,
        "image_std": input.std,
    });
    if crops {
        config["crop_size"] = size;
    }
    Ok((config, (!floors).then(|| remark.into())))
}
