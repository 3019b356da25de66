//! Methods side by side: every method with every seed on every data set, its grid chosen on validation images alone.
//!
//! [`config`] and `entries` read CONFIG.toml; [`plan`] says which runs that makes; [`run`] and `rounds` make those that are missing
//! and go on with those that were stopped; `claim` keeps several processes out of each other's runs; `blends` and [`post`] make the entries that train nothing; [`select`] chooses grid points, and [`choice`] says
//! how sure that is, by the tests of [`paired`]; [`stats`] and
//! [`results`] turn it all into the numbers that `report::compare` shows.

mod advice;
mod blends;
pub mod choice;
mod claim;
pub mod config;
mod entries;
pub mod entry_runs;
pub mod event;
pub mod outcome;
pub mod paired;
pub mod plan;
pub mod post;
pub mod results;
mod rounds;
pub mod run;
pub mod select;
pub mod spec;
pub mod stats;
pub mod tables;

pub use config::CompareConfig;
pub use event::Event;
pub use results::Results;
pub use run::{Ended, Part, Share, compare};
