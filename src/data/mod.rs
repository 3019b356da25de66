//! From files to batches: everything between a path on the command line and a `[B, 3, H, W]` tensor.
//!
//! In reading order:
//!
//! 1. [`dataset`]: which images there are and which class each has (class folders, list files, CSV, metadata,
//!    archives, WebDataset's shards, Parquet); [`class_map`]: which
//!    class is which output of a model; [`overlap`]: whether two data sets share an image.
//!    [`check`] looks at every image before any work begins, [`summary`] says what there is, [`split`] sets a part apart.
//! 2. [`mod@decode`]: one file to 8-bit RGB, upright, as Pillow gives it.
//! 3. [`mod@resize`]: Pillow's antialiased bilinear, bicubic and Lanczos.
//! 4. [`preprocess`]: the evaluation transform that a checkpoint was trained for: resize, crop, normalise.
//! 5. [`augment`]: the training transforms, each drawn from (seed, epoch, image or batch) and nothing else.
//! 6. [`corrupt`]: test images made worse: noise, blur, weather and compression at five severities.
//! 7. [`picture`]: what of it people are shown.
//! 8. [`loader`]: batches in a fixed order, decoded ahead on other threads, with a cache of decoded images.
//!
//! Evaluation follows timm's, torchvision's, OpenCLIP's and transformers' transforms on Pillow images, bit for bit, because
//! a pre-trained model's accuracy depends on the pixels that it was trained on.

mod archive;
pub mod augment;
mod beside;
pub mod check;
mod check_cache;
mod class_file;
pub mod class_map;
mod columns;
pub mod corrupt;
pub mod dataset;
pub mod decode;
mod header;
mod item;
mod jpeg;
mod label;
mod label_sets;
pub mod loader;
mod look;
mod names;
pub mod overlap;
mod packed;
mod parquet;
mod parse;
mod pattern;
pub mod picture;
pub mod preprocess;
mod read;
pub mod resize;
mod sampler;
pub mod split;
pub mod summary;
mod walk;

pub use augment::{Augment, ColorJitter, Mix, Mixed, Policy, RandomResizedCrop, Transforms, flip_doubt, item_rng};
pub use check::{Broken, Check, Looks};
pub use class_file::Class;
pub use class_map::{ClassMap, Outputs};
pub use columns::Columns;
pub use corrupt::Corruption;
pub use dataset::Dataset;
pub use decode::{RgbImage, decode};
pub use item::Item;
pub use label_sets::LabelSets;
pub use loader::{Batch, EvalBatches, ImageCache, Loader, LoaderConfig, Rest, blocks, eval_batches};
pub use look::Look;
pub use names::name_some;
pub use overlap::{Overlap, Same, overlaps};
pub use preprocess::{CropMode, Preprocess};
pub use read::{exists, size_of};
pub use resize::{Interpolation, resize};
pub use sampler::Sampler;
pub use split::{FOLD, Fold, hold_out, split_off};
pub use summary::Summary;
pub use walk::{LeftOut, is_image};
