//! What a comparison tells on the way.

/// What a comparison tells on the way.
#[derive(Clone, Debug)]
pub enum Event {
    /// Something worth knowing, one sentence.
    Note(String),
    /// Something that may spoil a result, one sentence.
    Warning(String),
    /// Images that were looked at before the first run, and how many there are.
    Checked {
        /// Images done.
        done: usize,
        /// Images in all.
        of: usize,
    },
    /// How far a run has come: steps done and steps in all, or what else it does and how many images of how many are done.
    Running {
        /// Data set, method, grid point and seed.
        name: String,
        /// The work that is counted.
        what: Work,
        /// Done.
        done: usize,
        /// In all.
        of: usize,
    },
    /// A run has ended.
    Done {
        /// Its number, from 1.
        index: usize,
        /// Runs in all.
        total: usize,
        /// Data set, method, grid point and seed.
        name: String,
        /// How it ended.
        end: End,
        /// Seconds that the rest will take, as far as can be told.
        left: Option<f64>,
    },
}

/// What a run is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Its steps.
    Steps,
    /// Images of an evaluation.
    Images,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub enum End {
    /// It was there already.
    Skipped,
    /// With these accuracies, after so many seconds.
    Finished {
        /// Mean top-1 over ID test sets.
        id: f64,
        /// Mean top-1 over OOD test sets.
        ood: f64,
        /// Seconds.
        seconds: f64,
        /// Whether it was gone on with.
        resumed: bool,
    },
    /// With this error.
    Failed(String),
}

impl Event {
    /// With the name of the data set that a sentence is about before it.
    pub(super) fn about(self, data: &str) -> Event {
        match self {
            Event::Note(text) => Event::Note(format!("{data}: {text}")),
            Event::Warning(text) => Event::Warning(format!("{data}: {text}")),
            other => other,
        }
    }
}
