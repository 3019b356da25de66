//! Methods side by side: every method with every seed on every data set, its grid chosen on validation images alone.
//!
//! [`config`] and `entries` read CONFIG.toml; [`plan`] says which runs that makes; [`run`] makes those that are missing and goes on with
//! those that were stopped; `blends` and [`post`] make the entries that train nothing; [`select`] chooses grid points; [`stats`] and
//! [`results`] turn it all into the numbers that `report::compare` shows.

mod advice;
mod blends;
pub mod config;
mod entries;
pub mod entry_runs;
pub mod event;
pub mod outcome;
pub mod plan;
pub mod post;
pub mod results;
pub mod run;
pub mod select;
pub mod spec;
pub mod stats;
pub mod tables;

pub use config::CompareConfig;
pub use event::Event;
pub use results::Results;
pub use run::compare;
