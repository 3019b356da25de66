//! Ranks that are processes which MPI joins: `mpirun` and `srun` start them, on one machine or several.
//!
//! Messages go from rank to rank, as an all-to-all of parts and an all-gather of sums: each rank adds up its part in the order of ranks.
//! MPI's own reductions may take any order, and its collectives must begin in the same order everywhere, which sums that overtake each
//! other can't promise. MPI advances messages only in calls: whoever waits for one thing lets everything else go on too.

use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ::mpi::Threading;
use ::mpi::environment::Universe;
use ::mpi::traits::Communicator;

use super::flight::{Comm, Flight};
use super::notice::{End, NOTICE};
use super::{Ranks, Sum, part};
use crate::error::{Error, Result};

/// Seconds without any message from a rank after which it is given up.
pub(super) const TIMEOUT: &str = "TPGM_RANK_TIMEOUT";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);
/// How long what a failed rank sent before may take to arrive.
const GRACE: Duration = Duration::from_millis(500);

/// How long to ask again at once, before sleeping in between.
const SPIN: Duration = Duration::from_millis(2);
const SLEEP: Duration = Duration::from_micros(50);

/// Sums under way have tags of their own; MPI has at least 32,768.
const TAGS: u64 = 1 << 14;

/// Bytes of the first message of a gather: the whole length, and as much of it as there is room for.
const HEAD: usize = 4096;
const LEN: usize = size_of::<u64>();

/// This process among those that MPI joins.
#[derive(Debug)]
pub(super) struct Mpi {
    rank: usize,
    size: usize,
    local_rank: usize,
    pub(super) local_size: usize,
    /// Of each rank, by which others know it.
    names: Vec<String>,
    pub(super) timeout: Duration,
    state: Mutex<State>,
}

/// What MPI has under way. Calls are made under its lock alone: `MPI_THREAD_SERIALIZED`.
pub(super) struct State {
    /// Dropping it finalises MPI, for which it waits for all ranks: only where all end.
    universe: Option<ManuallyDrop<Universe>>,
    sums: Comm,
    gathers: Comm,
    pub(super) ends: Comm,
    jobs: BTreeMap<u64, Job>,
    started: u64,
    /// What each other rank says when it ends.
    pub(super) told: Vec<Option<Flight<u8>>>,
    pub(super) ended: Vec<Option<End>>,
    /// Since when a failure of another rank is known.
    failed: Option<Instant>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "State {{ jobs: {} }}", self.jobs.len())
    }
}

/// One sum.
struct Job {
    own: Range<usize>,
    /// This rank's values, on their way to those who add them up.
    values: Flight<f32>,
    /// All ranks' values for the own part, until it is added up.
    rows: Option<Flight<f32>>,
    /// The own part's sums, on their way to all.
    added: Option<Flight<f32>>,
    /// The others' parts.
    sums: Flight<f32>,
    /// Nobody waits for it: it goes on because others need it.
    dropped: bool,
}

/// All ranks but `rank`.
pub(super) fn others(rank: usize, size: usize) -> impl Iterator<Item = usize> {
    (0..size).filter(move |peer| *peer != rank)
}

impl Job {
    fn start(comm: Comm, number: u64, values: Vec<f32>, rank: usize, size: usize) -> Result<Job> {
        let tag = (number % TAGS) as i32 * 2;
        let len = values.len();
        let own = part(len, rank, size);
        let mut rows = vec![0f32; size * own.len()];
        rows[rank * own.len()..][..own.len()].copy_from_slice(&values[own.clone()]);
        let peers = || others(rank, size);
        let sums = Flight::receive(comm, tag + 1, vec![0f32; len], peers().map(|peer| (peer, part(len, peer, size))))?;
        let row = |peer| (peer, peer * own.len()..(peer + 1) * own.len());
        let rows = Some(Flight::receive(comm, tag, rows, peers().map(row))?);
        let values = Flight::send(comm, tag, values, peers().map(|peer| (peer, part(len, peer, size))))?;
        Ok(Job { own, values, rows, added: None, sums, dropped: false })
    }

    /// Whether it is done.
    fn advance(&mut self, comm: Comm, number: u64, rank: usize, size: usize) -> Result<bool> {
        if let Some(rows) = &mut self.rows {
            if !rows.test()? {
                return Ok(false);
            }
            let rows = self.rows.take().expect("it was there").land();
            let len = self.own.len();
            let mut sums = vec![0f32; len];
            for row in rows.chunks_exact(len.max(1)) {
                sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            }
            let tag = (number % TAGS) as i32 * 2 + 1;
            self.added = Some(Flight::send(comm, tag, sums, others(rank, size).map(|peer| (peer, 0..len)))?);
        }
        let added = self.added.as_mut().expect("it follows the rows").test()?;
        Ok(self.values.test()? & self.sums.test()? & added)
    }

    /// The ranks that it waits for.
    fn waits_for(&self) -> impl Iterator<Item = usize> {
        let sent = self.added.iter().flat_map(Flight::waits_for).chain(self.values.waits_for());
        self.rows.iter().flat_map(Flight::waits_for).chain(self.sums.waits_for()).chain(sent)
    }

    fn land(self) -> Vec<f32> {
        let mut sums = self.sums.land();
        sums[self.own].copy_from_slice(&self.added.expect("it is done").land());
        sums
    }
}

impl Mpi {
    /// Initialises MPI, where all processes do so together. `host` is this machine's name. `None` if this process is alone in its world.
    pub(super) fn start(host: &str) -> Result<Option<Mpi>> {
        let timeout = timeout(std::env::var(TIMEOUT).ok().as_deref())?;
        let (universe, threading) = ::mpi::initialize_with_threading(Threading::Serialized)
            .ok_or_else(|| Error::Train("MPI: it was initialised before".into()))?;
        let world = universe.world();
        let (rank, size) = (world.rank() as usize, world.size() as usize);
        if threading < Threading::Serialized {
            // `MPI_THREAD_SERIALIZED`: batches are trained on by one thread, but it need not be the one that began.
            return Err(Error::Train(format!("MPI: this library takes calls of one thread alone ({threading:?})")));
        }
        if size == 1 {
            return Ok(None);
        }
        let universe = Some(ManuallyDrop::new(universe));
        let local = world.split_shared(rank as i32);
        let (local_rank, local_size) = (local.rank() as usize, local.size() as usize);
        let (sums, gathers, ends) = (Comm::of_world()?, Comm::of_world()?, Comm::of_world()?);
        let listen = |peer| Flight::receive(ends, 0, vec![0u8; NOTICE], [(peer, 0..NOTICE)]);
        let told = (0..size).map(|peer| (peer != rank).then(|| listen(peer)).transpose()).collect::<Result<_>>()?;
        let ended = (0..size).map(|_| None).collect();
        let jobs = BTreeMap::new();
        let state = State { universe, sums, gathers, ends, jobs, started: 0, told, ended, failed: None };
        let mut mpi = Mpi { rank, size, local_rank, local_size, names: Vec::new(), timeout, state: Mutex::new(state) };
        let hosts = mpi.gather(host.as_bytes())?;
        let name = |(rank, host): (usize, Vec<u8>)| format!("rank {rank} on {}", String::from_utf8_lossy(&host));
        mpi.names = hosts.into_iter().enumerate().map(name).collect();
        Ok(Some(mpi))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `ask` until it gives something; it lists the ranks that it waits for, one for each message.
    fn until<T>(&self, mut ask: impl FnMut(&mut State, &mut Vec<usize>) -> Result<Option<T>>) -> Result<T> {
        let (mut since, mut before, mut waits) = (Instant::now(), usize::MAX, Vec::new());
        loop {
            waits.clear();
            let mut state = self.lock();
            state.check_open()?;
            if let Some(given) = ask(&mut state, &mut waits)? {
                return Ok(given);
            }
            if waits.len() != before {
                (since, before) = (Instant::now(), waits.len());
            }
            if since.elapsed() < SPIN {
                drop(state);
                std::thread::yield_now();
                continue;
            }
            state.advance(self)?;
            self.check_ended(&mut state)?;
            drop(state);
            if since.elapsed() > self.timeout {
                return Err(self.silent(&waits));
            }
            std::thread::sleep(SLEEP);
        }
    }

    /// The error of ranks that send nothing.
    pub(super) fn silent(&self, waits: &[usize]) -> Error {
        let mut waits = waits.to_vec();
        waits.sort_unstable();
        waits.dedup();
        let mut names: Vec<String> = waits.iter().take(3).map(|rank| self.name(*rank)).collect();
        if waits.len() > names.len() {
            names.push(format!("{} more", waits.len() - names.len()));
        }
        let (names, seconds) = (names.join(" and "), self.timeout.as_secs_f64());
        let what = format!("nothing has come from {names} for {seconds} s ({TIMEOUT}=SECONDS waits longer)");
        Error::Train(what)
    }

    /// An error if another rank has failed, and what it sent before should have come.
    fn check_ended(&self, state: &mut State) -> Result<()> {
        state.hear()?;
        let failures =
            || state.ended.iter().enumerate().filter_map(|(rank, end)| Some((rank, end.as_ref()?.failure.as_ref()?)));
        let Some((rank, failure)) = failures().find(|(_, failure)| !failure.elsewhere).or_else(|| failures().next())
        else {
            return Ok(());
        };
        let (code, own) = (failure.code, failure.text.clone());
        let what = if failure.elsewhere { own } else { format!("{}: {own}", self.name(rank)) };
        let since = *state.failed.get_or_insert_with(Instant::now);
        if since.elapsed() < GRACE { Ok(()) } else { Err(Error::Elsewhere { code, what }) }
    }
}

/// The time after which a rank is given up, as the environment has it.
fn timeout(value: Option<&str>) -> Result<Duration> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(DEFAULT_TIMEOUT) };
    let seconds = value.parse().ok().filter(|seconds: &f64| *seconds > 0.0);
    let timeout = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    timeout.ok_or_else(|| Error::Usage(format!("{TIMEOUT}={value}: it must be a number of seconds greater than 0")))
}

impl State {
    /// Lets all sums go on.
    fn advance(&mut self, mpi: &Mpi) -> Result<()> {
        let mut done = Vec::new();
        for (number, job) in &mut self.jobs {
            if job.advance(self.sums, *number, mpi.rank, mpi.size)? && job.dropped {
                done.push(*number);
            }
        }
        done.iter().for_each(|number| drop(self.jobs.remove(number)));
        Ok(())
    }

    /// Takes what other ranks have said at their end.
    pub(super) fn hear(&mut self) -> Result<()> {
        for (told, ended) in self.told.iter_mut().zip(&mut self.ended) {
            if let Some(mut flight) = told.take() {
                match flight.test()? {
                    true => *ended = Some(End::read(&flight.land())),
                    false => *told = Some(flight),
                }
            }
        }
        Ok(())
    }

    /// # Errors
    /// After MPI was finalised.
    fn check_open(&self) -> Result<()> {
        if self.universe.is_some() { Ok(()) } else { Err(Error::Train("MPI: it has ended".into())) }
    }

    /// Finalises MPI, when every rank does. Nothing else may be called after it.
    pub(super) fn finalize(&mut self) {
        drop(self.universe.take().map(ManuallyDrop::into_inner));
    }
}

impl Ranks for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn local_rank(&self) -> usize {
        self.local_rank
    }

    fn name(&self, rank: usize) -> String {
        self.names.get(rank).cloned().unwrap_or_else(|| format!("rank {rank}"))
    }

    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        let (rank, size) = (self.rank, self.size);
        let peers = || others(rank, size);
        let comm = {
            let state = self.lock();
            state.check_open()?;
            state.gathers
        };
        let inline = |len: usize| len.min(HEAD - LEN);
        let head = [&(own.len() as u64).to_le_bytes(), &own[..inline(own.len())]].concat();
        let len = head.len();
        let (mut sent, mut heads) = {
            let _state = self.lock();
            let heads = vec![0u8; size * HEAD];
            let heads = Flight::receive(comm, 0, heads, peers().map(|peer| (peer, peer * HEAD..(peer + 1) * HEAD)))?;
            (Flight::send(comm, 0, head, peers().map(|peer| (peer, 0..len)))?, heads)
        };
        self.until(|_, waits| {
            let done = heads.test()? & sent.test()?;
            waits.extend(heads.waits_for().chain(sent.waits_for()));
            Ok(done.then_some(()))
        })?;
        let heads = heads.land();
        let head = |peer: usize| &heads[peer * HEAD..(peer + 1) * HEAD];
        let len = |peer: usize| match peer == rank {
            true => own.len(),
            false => u64::from_le_bytes(head(peer)[..LEN].try_into().expect("8 bytes")) as usize,
        };

        // What had no room follows.
        let rest = own[inline(own.len())..].to_vec();
        let mut ends = Vec::with_capacity(size);
        let mut end = 0;
        for peer in 0..size {
            let len = len(peer);
            end += if peer == rank { 0 } else { len - inline(len) };
            ends.push(end);
        }
        let place = |peer: usize| (if peer == 0 { 0 } else { ends[peer - 1] })..ends[peer];
        let sending = rest.len();
        let (mut sent, mut rests) = {
            let _state = self.lock();
            let rests = Flight::receive(comm, 1, vec![0u8; end], peers().map(|peer| (peer, place(peer))))?;
            (Flight::send(comm, 1, rest, peers().map(|peer| (peer, 0..sending)))?, rests)
        };
        self.until(|_, waits| {
            let done = rests.test()? & sent.test()?;
            waits.extend(rests.waits_for().chain(sent.waits_for()));
            Ok(done.then_some(()))
        })?;
        let rests = rests.land();
        let all = (0..size).map(|peer| match peer == rank {
            true => own.to_vec(),
            false => [&head(peer)[LEN..][..inline(len(peer))], &rests[place(peer)]].concat(),
        });
        Ok(all.collect())
    }

    fn start_sum(&self, values: Vec<f32>) -> Result<Box<dyn Sum + '_>> {
        let mut state = self.lock();
        state.check_open()?;
        let number = state.started;
        state.started += 1;
        let job = Job::start(state.sums, number, values, self.rank, self.size)?;
        state.jobs.insert(number, job);
        Ok(Box::new(Underway { mpi: self, number }))
    }
}

/// One of the sums under way.
struct Underway<'a> {
    mpi: &'a Mpi,
    number: u64,
}

impl Underway<'_> {
    fn advance(&self, state: &mut State) -> Result<bool> {
        state.check_open()?;
        let comm = state.sums;
        let job = state.jobs.get_mut(&self.number).expect("it lasts until it is taken");
        job.advance(comm, self.number, self.mpi.rank, self.mpi.size)
    }
}

impl Sum for Underway<'_> {
    fn advance(&mut self) -> Result<bool> {
        let mut state = self.mpi.lock();
        let done = Underway::advance(self, &mut state)?;
        if !done {
            // Another rank may wait for one of the others.
            state.advance(self.mpi)?;
        }
        Ok(done)
    }

    fn wait(self: Box<Self>) -> Result<Vec<f32>> {
        self.mpi.until(|state, waits| {
            if Underway::advance(&self, state)? {
                return Ok(state.jobs.remove(&self.number).map(Job::land));
            }
            waits.extend(state.jobs[&self.number].waits_for());
            Ok(None)
        })
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        if let Some(job) = self.mpi.lock().jobs.get_mut(&self.number) {
            job.dropped = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_is_a_number_of_seconds() {
        assert_eq!(timeout(None).unwrap(), DEFAULT_TIMEOUT);
        assert_eq!(timeout(Some("2.5")).unwrap(), Duration::from_millis(2500));
        for wrong in ["0", "-1", "soon", "inf", "nan", "1e300"] {
            let error = timeout(Some(wrong)).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().starts_with(&format!("TPGM_RANK_TIMEOUT={wrong}: ")), "{error}");
        }
    }
}
