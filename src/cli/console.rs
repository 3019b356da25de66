//! What commands say beside their results, on stderr. A closed stderr (`2>&1 | head`) or a full disk behind it loses the words, not
//! the work. `--quiet` leaves warnings and errors.

use std::fmt::Display;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{escaped, shortened};

/// [`say`] with a format.
macro_rules! note {
    ($($text:tt)*) => { $crate::cli::console::say(format_args!($($text)*)) };
}

/// Says what may spoil the result.
macro_rules! warning {
    ($($text:tt)*) => { $crate::cli::console::always(format_args!("warning: {}", format_args!($($text)*))) };
}

pub(super) use {note, warning};

static QUIET: AtomicBool = AtomicBool::new(false);

/// Leaves out notes and progress from now on.
pub(super) fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// Whether notes and progress are left out.
pub(super) fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Says a note: about the work, its assumptions, its progress.
pub(super) fn say(text: impl Display) {
    if !is_quiet() {
        always(text);
    }
}

/// Says this, whatever was asked for: an error, or the end of a run.
pub fn always(text: impl Display) {
    // One line, and no more of the names in it than a terminal shows.
    let _ = writeln!(std::io::stderr().lock(), "{}", escaped(&shortened(&text.to_string())));
}
