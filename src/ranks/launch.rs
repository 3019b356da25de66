//! The beginning and the end of a process that may be one of several.

use std::sync::Arc;
#[cfg(feature = "mpi")]
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Ranks;
use super::failure::Failure;
use super::launcher::{Launched, launched, rank};
#[cfg(feature = "mpi")]
use crate::error::Error;
use crate::error::Result;

/// How long a process waits for its launcher to end it: a loaded machine may take seconds from rank 0's error to that.
const FIRST_SPEAKS: Duration = Duration::from_secs(10);

/// The ranks of this process, if it is one of several: those of `mpirun` or `srun`, in a program with the feature `mpi`. Without a
/// launcher of several processes, MPI is not touched. Called again, it gives the same ranks. Before [`crate::stop::listen`]; [`end`] follows,
/// on the same thread.
///
/// # Errors
/// [`crate::error::Error::Usage`] for several processes without the feature, or if each of them would be alone in its MPI; MPI's own.
pub fn start() -> Result<Option<Arc<dyn Ranks>>> {
    of_environment()?.map_or(Ok(None), |launched| join(&launched))
}

fn of_environment() -> Result<Option<Launched>> {
    launched(|name| std::env::var(name).ok())
}

/// Whether another process of the same launcher says what this one would say too.
pub fn follows() -> bool {
    rank(|name| std::env::var(name).ok()) > 0
}

/// Lets rank 0 speak first, if this process follows: before MPI has started, most errors are those of all. A launcher ends the others where
/// one has failed; a process that still runs after that has an error of its own, or a launcher that ends none.
pub fn let_first_speak() {
    if follows() {
        std::thread::sleep(FIRST_SPEAKS);
    }
}

/// Refuses several processes for a `command` that one does: each would do all of it, and write the same files.
///
/// # Errors
/// [`crate::error::Error::Usage`].
pub fn refuse(command: &str) -> Result<()> {
    match of_environment()? {
        Some(launched) if launched.size.is_some_and(|size| size > 1) => Err(launched.for_one(command)),
        _ => Ok(()),
    }
}

/// Ends this process's part: says its failure, if it is the rank to say it, ends the other ranks where they don't end too, and gives the
/// exit code, which is the same on all ranks. A failed rank waits up to two seconds for the others; a process without started MPI says its
/// own failure, and lets rank 0 speak first.
pub fn end(failure: Option<Failure>, say: impl Fn(&str)) -> u8 {
    #[cfg(feature = "mpi")]
    if let Some(mpi) = STARTED.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return super::end::end(&mpi, failure, &say);
    }
    failure.map_or(0, |failure| {
        if !failure.stopped {
            let_first_speak();
        }
        say(&failure.line(None));
        failure.code
    })
}

#[cfg(not(feature = "mpi"))]
fn join(launched: &Launched) -> Result<Option<Arc<dyn Ranks>>> {
    launched.refused().map_or(Ok(None), Err)
}

#[cfg(feature = "mpi")]
static STARTED: Mutex<Option<Arc<super::mpi::Mpi>>> = Mutex::new(None);

#[cfg(feature = "mpi")]
fn join(launched: &Launched) -> Result<Option<Arc<dyn Ranks>>> {
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if started.is_none() {
        let host = gethostname::gethostname().to_string_lossy().into_owned();
        let Some(mpi) = super::mpi::Mpi::start(&host)? else {
            return if launched.size.unwrap_or(1) > 1 { Err(alone(launched)) } else { Ok(None) };
        };
        hint_at_binding(&mpi);
        *started = Some(Arc::new(mpi));
    }
    Ok(started.clone().map(|mpi| mpi as Arc<dyn Ranks>))
}

/// The error of a process that is not alone, but alone in its MPI.
#[cfg(feature = "mpi")]
fn alone(launched: &Launched) -> Error {
    let library = ::mpi::environment::library_version().unwrap_or_default();
    let library = library.split(['\0', ',', '\n']).next().unwrap_or_default().trim().to_string();
    Error::Usage(format!(
        "{}, but each finds itself alone in the MPI that tpgm was built with ({library}): start them by the mpirun of that MPI, or by \
         srun --mpi=pmix (srun --mpi=list names what there is); or set {}=off for runs that have nothing to do with each other",
        launched.what(),
        super::launcher::SWITCH
    ))
}

/// Warns if the launcher keeps each process on fewer cores than its share: Open MPI keeps each of two on one core.
#[cfg(feature = "mpi")]
fn hint_at_binding(mpi: &super::mpi::Mpi) {
    let status = |process: &str| std::fs::read_to_string(format!("/proc/{process}/status")).ok();
    let field = |status: &str, name: &str| {
        Some(status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?.trim().to_string())
    };
    let cores = |status: &str| count(&field(status, "Cpus_allowed_list")?);
    let both = || {
        let own = status("self")?;
        Some((cores(&own)?, cores(&status(&field(&own, "PPid")?)?)?))
    };
    if let Some((own, launchers)) = both().filter(|(own, all)| mpi.local_rank() == 0 && own * mpi.local_size < *all) {
        tracing::warn!(
            "the launcher keeps each of {} processes on {own} of {launchers} cores, and reading images takes more: mpirun --bind-to none \
             leaves the cores to all",
            mpi.local_size
        );
    }
}

/// The members of a list of numbers and ranges, as in `0-3,8`.
#[cfg(any(feature = "mpi", test))]
fn count(list: &str) -> Option<usize> {
    let range = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(last.parse::<usize>().ok()?.checked_sub(first.parse().ok()?)? + 1)
    };
    list.split(',').map(range).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_counted_in_lists_of_ranges() {
        assert_eq!((count("0"), count("0-3"), count("0-3,8,10-11")), (Some(1), Some(4), Some(7)));
        assert_eq!((count(""), count("0-x"), count("3-1")), (None, None, None));
    }
}
