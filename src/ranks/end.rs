//! How ranks end: all at once, with one error that is said once.

use std::time::{Duration, Instant};

use super::Ranks;
use super::failure::Failure;
use super::flight::Flight;
use super::mpi::{Mpi, others};
use super::notice::{End, NOTICE};

/// How long a failed rank waits for the others to hear of it and to end too: first the one that says the error, then the others.
const PATIENCE: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(12)];
/// How long MPI may take to finalise.
const FINALIZE: Duration = Duration::from_secs(30);

/// Tells all ranks that this one ends, and how. Returns its exit code where all have said so: the same on all ranks.
pub(super) fn end(mpi: &Mpi, own: Option<Failure>, say: &dyn Fn(&str)) -> u8 {
    let (rank, size) = (mpi.rank(), mpi.size());
    let own = End { failure: own };
    let send = |peer| Flight::send(mpi.lock().ends, 0, own.write(), [(peer, 0..NOTICE)]);
    // One who can't be reached is not waited for.
    let mut sent: Vec<_> = others(rank, size).filter_map(|peer| send(peer).ok()).collect();
    let (mut since, mut known, mut failed) = (Instant::now(), 0, None);
    loop {
        let mut state = mpi.lock();
        let heard = state.hear();
        state.ended[rank] = Some(own.clone());
        let ended = state.ended.clone();
        let all_sent = sent.iter_mut().fold(true, |all, flight| flight.test().unwrap_or(false) & all);
        drop(state);

        let said = said(&ended, |rank| mpi.name(rank));
        if ended.iter().all(Option::is_some) && all_sent && heard.is_ok() {
            let said = said.unwrap_or_default();
            if said.speaker == rank && !said.line.is_empty() {
                say(&said.line);
            }
            // A rank that dies meanwhile would let the others wait.
            std::thread::spawn(move || {
                std::thread::sleep(FINALIZE);
                std::process::exit(said.code.into());
            });
            mpi.lock().finalize();
            return said.code;
        }
        let count = ended.iter().flatten().count();
        if count > known {
            (since, known) = (Instant::now(), count);
        }
        if let Some(said) = said {
            let failed = *failed.get_or_insert_with(Instant::now);
            let patience = match (said.stopped, said.speaker == rank) {
                (true, _) => mpi.timeout,
                (false, true) => PATIENCE[0],
                (false, false) => PATIENCE[1],
            };
            if failed.elapsed() > patience {
                say(&said.line);
                mpi.lock().ends.abort(said.code);
            }
        } else if since.elapsed() > mpi.timeout || heard.is_err() {
            let silent: Vec<usize> = (0..size).filter(|rank| ended[*rank].is_none()).collect();
            say(&format!("error: {}: at its end, {}", mpi.name(rank), mpi.silent(&silent)));
            mpi.lock().ends.abort(1);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The message about failed ranks.
#[derive(Debug, Default, PartialEq)]
struct Said {
    /// Who says it.
    speaker: usize,
    code: u8,
    line: String,
    stopped: bool,
}

/// The message, if any rank has failed, from each rank's end as far as it is known.
fn said(ended: &[Option<End>], name: impl Fn(usize) -> String) -> Option<Said> {
    let speaker = ended.iter().position(Option::is_some)?;
    let failures = || ended.iter().enumerate().filter_map(|(rank, end)| Some((rank, end.as_ref()?.failure.as_ref()?)));
    let (rank, failure) = failures().find(|(_, failure)| !failure.elsewhere).or_else(|| failures().next())?;
    let line = failure.line((rank > 0 && !failure.elsewhere).then(|| name(rank)).as_deref());
    Some(Said { speaker, code: failure.code, line, stopped: failure.stopped })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn well() -> Option<End> {
        Some(End { failure: None })
    }

    fn failed(error: Error) -> Option<End> {
        Some(End { failure: Some(Failure::new(&error, error.to_string())) })
    }

    fn elsewhere(what: &str) -> Option<End> {
        failed(Error::Elsewhere { code: 1, what: what.into() })
    }

    fn of(ended: &[Option<End>]) -> Option<(usize, u8, String)> {
        said(ended, |rank| format!("rank {rank} on h")).map(|said| (said.speaker, said.code, said.line))
    }

    #[test]
    fn one_rank_says_the_lowest_ranks_own_error() {
        assert_eq!(of(&[well(), well()]), None);
        assert_eq!(of(&[None, well()]), None);
        let full = || failed(Error::Train("disk full".into()));
        let wrong = || failed(Error::Usage("wrong".into()));
        assert_eq!(of(&[full(), wrong()]), Some((0, 1, "error: disk full".into())));
        assert_eq!(of(&[well(), wrong(), full()]), Some((0, 2, "error: rank 1 on h: wrong".into())));
        let heard = || elsewhere("rank 2 on h: disk full");
        assert_eq!(of(&[heard(), heard(), full()]), Some((0, 1, "error: rank 2 on h: disk full".into())));
        assert_eq!(of(&[None, heard(), full()]), Some((1, 1, "error: rank 2 on h: disk full".into())));
        assert_eq!(of(&[None, heard(), None]), Some((1, 1, "error: rank 2 on h: disk full".into())));
        let stopped = || failed(Error::Stopped { signal: 15, what: "stopped by SIGTERM".into() });
        assert_eq!(of(&[stopped(), stopped()]), Some((0, 143, "stopped by SIGTERM".into())));
    }
}
