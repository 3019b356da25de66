//! What every soup is made of, and what it gives.

use std::fmt;

use crate::error::Result;
use crate::method::Snapshot;
use crate::model::Model;

/// What a soup is made of: models of one network that were fine-tuned from the same weights.
pub struct Ingredients<'a> {
    /// How many there are, at least one.
    pub count: usize,
    /// Gives one of them.
    pub load: &'a mut dyn FnMut(usize) -> Result<Snapshot>,
    /// Their accuracies on held-out images, for a soup that [asks for them](Soup::needs_images).
    pub accuracies: &'a [f64],
    /// Gives any model's accuracy there.
    pub evaluate: &'a mut dyn FnMut(&Snapshot) -> Result<f64>,
    /// What they were fine-tuned from, for a soup that [asks for it](Soup::needs_anchor).
    pub origin: Option<Origin>,
}

/// The weights that models were fine-tuned from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The model, whose layouts the values have.
    pub model: Model,
    /// The values; those of tensors without a pre-trained counterpart are any model's own.
    pub values: Snapshot,
    /// Whether a tensor has no pre-trained counterpart, a flag each.
    pub is_new: Vec<bool>,
}

/// What came of [`Soup::mix`].
#[derive(Clone, Debug, PartialEq)]
pub struct Mixed {
    /// The soup.
    pub values: Snapshot,
    /// The ingredients in it, in the order in which they were added.
    pub kept: Vec<usize>,
    /// Its accuracy on held-out images, if it was looked at.
    pub accuracy: Option<f64>,
    /// The length of its drift over that of their mean's, of all tensors with a pre-trained counterpart together; none for a mean.
    pub share: Option<f64>,
}

/// A way to make one model of several: add it to [`SOUPS`](crate::method::soups::SOUPS).
pub trait Soup: fmt::Debug + Sync {
    /// What `--kind` calls it.
    fn name(&self) -> &'static str;

    /// Whether it is made with held-out images.
    fn needs_images(&self) -> bool {
        false
    }

    /// Whether it asks for the weights that the models were fine-tuned from.
    fn needs_anchor(&self) -> bool {
        false
    }

    /// Makes it. An ingredient that can't be loaded or evaluated is its error.
    fn mix(&self, of: Ingredients) -> Result<Mixed>;
}
