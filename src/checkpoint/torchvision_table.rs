//! torchvision's published weights, as `torchvision_table.jsonl` has them. `tools/zoo/make_torchvision_table.py` writes that
//! file. torchvision has no configuration beside its weights: their file's name tells which they are.

use std::path::Path;

use serde::Deserialize;

use crate::data::preprocess::{CropMode, Preprocess, crop_share};
use crate::data::resize::Interpolation;

const TABLE: &str = include_str!("torchvision_table.jsonl");

/// A file of torchvision's: its name without the ending, the architecture, and how its images are made.
#[derive(Debug, Deserialize)]
pub(super) struct Weights(String, String, usize, usize, Interpolation, [f32; 3], [f32; 3]);

impl Weights {
    /// Those that a file holds by its name, whatever its ending.
    pub(super) fn of(path: &Path) -> Option<Weights> {
        let stem = path.file_stem()?.to_str()?;
        let rows = TABLE.lines().filter_map(|line| serde_json::from_str::<Weights>(line).ok());
        rows.into_iter().find(|row| row.0 == stem)
    }

    /// The architecture's name.
    pub(super) fn architecture(&self) -> &str {
        &self.1
    }

    /// The input.
    pub(super) fn preprocess(&self) -> Preprocess {
        let &Weights(_, _, image_size, resize, interpolation, mean, std) = self;
        let crop_pct = crop_share(image_size, resize);
        Preprocess { image_size, crop_pct, crop_mode: CropMode::Center, interpolation, mean, std, grey: false }
    }
}

/// Which of torchvision's architectures a file of its holds, by its name.
pub fn architecture(path: impl AsRef<Path>) -> Option<String> {
    Weights::of(path.as_ref()).map(|weights| weights.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_names() {
        assert!(TABLE.lines().all(|line| serde_json::from_str::<Weights>(line).is_ok()));
        assert_eq!(Weights::of(Path::new("vit_b_16_swag-9ac1b537.safetensors")).unwrap().architecture(), "vit_b_16");
        let second = Weights::of(Path::new("models/resnet50-11ad3fa6.safetensors")).unwrap();
        let p = second.preprocess();
        assert_eq!((p.image_size, p.crop_pct, p.interpolation), (224, 224.0 / 232.0, Interpolation::Bilinear));
        assert_eq!(Weights::of(Path::new("resnet50-0676ba61.safetensors")).unwrap().preprocess().crop_pct, 0.875);
        assert!(Weights::of(Path::new("resnet50.safetensors")).is_none());
        assert!(Weights::of(Path::new("model.safetensors")).is_none());
    }
}
