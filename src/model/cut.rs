//! Where a pass may begin when much of a network stays as it is: behind the layers below all that is trained. What they give for an
//! image is the same in every step, so it need not be computed again.

use crate::gpu::buffer::Element;
use crate::model::tape::{Entry, Tape};
use crate::model::value::Act;

/// A place between two layers of a tape, and the values that cross it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The first layer behind it.
    pub(super) entry: usize,
    pub(super) values: Vec<Crossing>,
}

/// A value that is made before the cut and read behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Crossing {
    /// What its tensor is called.
    pub(super) label: String,
    /// Its elements for each image.
    pub(super) len: usize,
    pub(super) words: usize,
}

impl Cut {
    /// Below the first layer with a parameter for which `trained` holds, by its place, or that draws random numbers. None if no layer with parameters lies below it, or if a value read
    /// behind it isn't whole words of memory for each image. With `dropped`, backward computes segments below that one again, from
    /// values that may lie before the cut: then none of them may lie behind it.
    pub(super) fn below(tape: &Tape, dropped: usize, trained: &dyn Fn(usize) -> bool) -> Option<Cut> {
        let learns = |entry: &Entry| entry.params.iter().any(|param| param.places().any(trained));
        // Random drops differ from step to step.
        let draws = |entry: &Entry| tape.random.is_some_and(|random| entry.reads.contains(&random));
        let entry = tape.entries.iter().position(|entry| learns(entry) || draws(entry))?;
        let (before, behind) = tape.entries.split_at(entry);
        if behind.iter().any(|entry| entry.segment.is_some_and(|segment| segment < dropped)) {
            return None;
        }
        let mut crossing: Vec<Act> = Vec::new();
        for read in behind.iter().flat_map(|entry| &entry.reads) {
            if before.iter().any(|entry| entry.writes.contains(read)) && !crossing.contains(read) {
                crossing.push(*read);
            }
        }
        // Below it something has to be computed that is worth keeping.
        let idle = before.iter().all(|entry| entry.params.is_empty());
        let reads_images = behind.iter().any(|entry| entry.reads.iter().any(|read| Some(*read) == tape.images));
        if idle || crossing.is_empty() || reads_images {
            return None;
        }
        let values = crossing.into_iter().map(|act| {
            let (value, len) = (&tape.values[act.0], tape.shape(act).len() / tape.batch);
            let whole = value.element == Element::Word || len.is_multiple_of(2);
            let label = value.tensor().filter(|_| whole)?;
            Some(Crossing { label, len, words: value.element.words(len) })
        });
        Some(Cut { entry, values: values.collect::<Option<_>>()? })
    }

    /// Words that cross it for each image.
    pub fn words(&self) -> usize {
        self.values.iter().map(|value| value.words).sum()
    }
}
