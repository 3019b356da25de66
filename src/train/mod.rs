//! The host's part of training: configuration, learning-rate schedules, evaluation, the run directory, resuming, and
//! the loop that ties a learner and a method together.

pub mod adapter;
pub mod blend;
pub mod calibration;
pub mod config;
pub mod corrupted;
pub mod data_args;
mod effect;
pub mod evaluate;
pub mod evaluations;
pub mod events;
pub mod exclude;
pub mod fit;
pub mod given;
pub mod heads;
pub mod help;
pub mod inputs;
pub mod interval;
pub mod json_lines;
pub mod leaks;
pub mod lines;
mod lock;
pub mod memory_args;
pub mod model_args;
pub mod optim_args;
pub mod project;
pub mod records;
pub mod resolve;
mod run;
pub mod run_dir;
pub mod schedule;
pub mod source;
pub mod splits;
pub mod state;
mod steps;
pub mod subset;
mod throughput;
pub mod trainer;
pub mod tuning;
pub mod verify;

pub use calibration::{Calibration, Temperature};
pub use config::TrainConfig;
pub use evaluate::{Evaluation, Predictor};
pub use events::{Event, Start, Summary, TestResult};
pub use given::{FileSettings, Flags};
pub use trainer::train;
