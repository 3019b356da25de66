//! Ctrl-C and SIGTERM as a request: long work notices it at its next step, saves what it has, and ends. A second one ends the
//! process at once.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::error::{Error, Result};

/// The signal that came, 0 before.
static ASKED: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// From now on these signals are requests. Before that, they end the process.
///
/// # Errors
/// Where the system refuses.
pub fn listen() -> Result<()> {
    let asked = ASKED.get_or_init(Arc::default);
    static LISTENING: AtomicBool = AtomicBool::new(false);
    if LISTENING.swap(true, Ordering::SeqCst) {
        return Ok(());
    }
    let again: Arc<AtomicBool> = Arc::default();
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_default(signal, again.clone())
            .and_then(|_| flag::register(signal, again.clone()))
            .and_then(|_| flag::register_usize(signal, asked.clone(), signal as usize))
            .map_err(|e| Error::Train(format!("cannot wait for Ctrl-C: {e}")))?;
    }
    Ok(())
}

/// As if SIGTERM had come.
pub fn ask() {
    ASKED.get_or_init(Arc::default).store(SIGTERM as usize, Ordering::SeqCst);
}

/// Why this process must end its work, if it must.
static FAILED: OnceLock<String> = OnceLock::new();

/// From now on [`check`] is an error with this text: for threads that watch over the work.
pub fn fail(what: String) {
    let _ = FAILED.set(what);
}

/// Whether [`fail`] was called.
pub fn has_failed() -> bool {
    FAILED.get().is_some()
}

/// The signal that has come since [`listen`], 0 before.
///
/// # Errors
/// [`Error::Train`] after [`fail`].
pub fn asked() -> Result<u8> {
    match FAILED.get() {
        Some(what) => Err(Error::Train(what.clone())),
        None => Ok(ASKED.get().map_or(0, |asked| asked.load(Ordering::SeqCst)) as u8),
    }
}

/// # Errors
/// [`Error::Stopped`] if there is a `signal`.
pub fn by(signal: u8) -> Result<()> {
    if signal == 0 {
        return Ok(());
    }
    let name = if i32::from(signal) == SIGINT { "Ctrl-C" } else { "SIGTERM" };
    Err(Error::Stopped { signal, what: format!("stopped by {name}") })
}

/// # Errors
/// [`Error::Stopped`] if a signal has come since [`listen`]; [`Error::Train`] after [`fail`].
pub fn check() -> Result<()> {
    by(asked()?)
}
