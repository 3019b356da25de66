//! What a network gives for images below all that is trained. It stays the same as long as the images do, so it is computed once and
//! kept in memory, and the steps of a linear probe take no longer than its head.

use std::sync::Arc;

use crate::data::{Batch, ImageCache, Preprocess};
use crate::error::Result;
use crate::gpu::buffer::mib;
use crate::method::Learner;
use crate::model::Cut;
use crate::train::classifier::Classifier;
use crate::train::evaluate::in_blocks;
use crate::train::events::Event;

/// The most bytes that features may take.
const MOST: u64 = 2 << 30;

/// Features of the images of a stage.
pub(super) struct Features {
    /// Where passes over them begin.
    pub(super) cut: Cut,
    /// Of the training images.
    pub(super) train: Arc<ImageCache>,
    /// Of the images that weights are chosen by.
    pub(super) select: Arc<ImageCache>,
}

impl Features {
    /// Features for the stage that `learner` is in; none if all layers are trained, or if they take too much memory. The images are
    /// training's and those for selection, called `name`. If training images are `augmented`, they are others every time, and have none.
    ///
    /// # Errors
    /// As those of a batch of images.
    pub(super) fn of(
        learner: &Learner,
        (train, select): (&Arc<ImageCache>, &Arc<ImageCache>),
        (name, augmented): (&str, bool),
        preprocess: &Preprocess,
        events: &mut dyn FnMut(Event),
    ) -> Result<Option<Features>> {
        let Some(cut) = learner.cut() else { return Ok(None) };
        let images = [train, select].map(|images| images.dataset().items.len()).iter().sum::<usize>();
        let bytes = 4 * cut.words() as u64 * images as u64;
        if bytes > MOST {
            return Ok(None);
        }
        if augmented {
            let what = "images are augmented, so every step runs the layers that are not trained as well; with --augment none they run \
                        once for each image, and the steps are faster";
            events(Event::Note(what.into()));
            return Ok(None);
        }
        let mut known = |name: &str, images: &Arc<ImageCache>| {
            let (mut features, of) = (Vec::new(), images.dataset().items.len());
            let mut give = |batch: &Batch| learner.features(&batch.images, batch.len(), &cut);
            in_blocks(&learner.place(), images, preprocess, learner.capacity(), &mut give, &mut |block, rows| {
                features.extend(rows.chunks(cut.words()).map(<[f32]>::to_vec));
                events(Event::Evaluating { name: name.into(), done: block.end, of });
            })?;
            Ok(images.with_features(features))
        };
        let (train, select) = (known("train", train)?, known(name, select)?);
        let what =
            format!("the layers that are not trained run once for each of {images} images: {} are kept", mib(bytes));
        events(Event::Note(what));
        Ok(Some(Features { cut, train, select }))
    }
}
