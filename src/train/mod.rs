//! The host's part of training: configuration, learning-rate schedules, evaluation, the run directory, resuming, and
//! the loop that ties a learner and a method together.

pub mod blend;
pub mod config;
pub mod evaluate;
pub mod events;
pub mod exclude;
pub mod fit;
pub mod project;
pub mod run_dir;
pub mod schedule;
pub mod source;
pub mod splits;
pub mod state;
pub mod trainer;
pub mod tuning;
pub mod verify;

pub use config::TrainConfig;
pub use evaluate::{Evaluation, Predictor};
pub use events::{Event, Start, Summary, TestResult};
pub use trainer::train;
