//! Runs the stems' cases on several threads. A case makes its data, computes its f64 references and runs its kernels: while
//! one waits for the device, others compute. Outcomes come in the order of the list, whatever thread was faster.
//!
//! A CPU adapter compiles a kernel as it first runs, on the one thread of its queue: there every thread has a device of its own.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use super::{CaseResult, Job, Plan, Stem, Suite, stems};
use crate::error::{Error, Result};
use crate::gpu::Gpu;

/// Which cases to run.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Every kernel, and every value of what makes its variants (tile, words, format, epilogue), but not every combination of
    /// them, at fewer sizes.
    pub quick: bool,
    /// Names of stems or kernels, or parts of them; without any, all run.
    pub names: Vec<String>,
}

/// What a run tells on the way.
#[derive(Debug)]
pub enum Event<'a> {
    /// So many of so many jobs are done; the stem is the one whose turn it is.
    Done {
        /// The stem's name.
        stem: &'static str,
        /// Jobs done.
        done: usize,
        /// All jobs of the run.
        of: usize,
    },
    /// A case has run.
    CaseResult(&'a CaseResult),
    /// All cases of a stem have; these are they.
    Stem(&'static str, &'a [CaseResult]),
}

impl Selection {
    /// Everything.
    pub fn all() -> Selection {
        Selection::default()
    }

    /// Errors with [`Error::Usage`], listing the names, where one of `names` is a part of none.
    pub fn check(&self) -> Result<()> {
        let known = |name: &&String| stems().iter().any(|s| s.name.contains(&name[..]) || s.has(name));
        let Some(unknown) = self.names.iter().find(|name| name.is_empty() || !known(name)) else { return Ok(()) };
        let names: Vec<&str> = stems().iter().map(|stem| stem.name).collect();
        Err(Error::Usage(format!(
            "no kernel is called '{unknown}': give one of {}, a kernel such as matmul::backward_weight, or a part of a name",
            names.join(", ")
        )))
    }

    /// Whether some outcomes of `stem` are wanted.
    fn wants(&self, stem: &Stem) -> bool {
        self.names.is_empty() || self.names.iter().any(|name| stem.name.contains(&name[..]) || stem.has(name))
    }

    /// Whether this outcome of `stem` is wanted: a kernel's name finds it in other stems too, where it is one of several.
    fn wants_outcome(&self, stem: &Stem, outcome: &CaseResult) -> bool {
        let named = |name: &String| stem.name.contains(&name[..]) || outcome.kernel.contains(&name[..]);
        self.names.is_empty() || self.names.iter().any(named)
    }
}

impl Stem {
    fn has(&self, name: &str) -> bool {
        self.kernels.iter().any(|kernel| kernel.contains(name))
    }

    fn jobs(&self, gpu: &Gpu, quick: bool) -> Result<Vec<Job>> {
        let mut plan = Plan { gpu, quick, jobs: Vec::new() };
        (self.list)(&mut plan)?;
        Ok(plan.jobs)
    }
}

/// Runs the selected cases on `gpu`; `each` hears of them in order. Errors when the device fails, or with
/// [`Error::Usage`] for a name that is none; a wrong result is an outcome that has not [passed](CaseResult::passed).
pub fn run(gpu: &Gpu, selection: &Selection, each: &mut dyn FnMut(Event)) -> Result<Vec<CaseResult>> {
    selection.check()?;
    let mut jobs = Vec::new();
    for stem in stems().iter().filter(|stem| selection.wants(stem)) {
        jobs.extend(stem.jobs(gpu, selection.quick)?.into_iter().map(|job| (stem, job)));
    }
    run_jobs(gpu, jobs, threads(gpu), &|stem, outcome| selection.wants_outcome(stem, outcome), each)
}

/// Runs the cases of the stem called `name`.
///
/// # Panics
/// When there is none.
pub fn run_stem(gpu: &Gpu, name: &str) -> Result<Vec<CaseResult>> {
    let stem = stems().iter().find(|stem| stem.name == name).unwrap_or_else(|| panic!("no stem {name}"));
    let jobs = stem.jobs(gpu, false)?.into_iter().map(|job| (stem, job)).collect();
    run_jobs(gpu, jobs, threads(gpu), &|_, _| true, &mut |_| {})
}

/// One per core. GL has one context, which threads would only wait for.
fn threads(gpu: &Gpu) -> usize {
    if gpu.info.backend == wgpu::Backend::Gl { 1 } else { std::thread::available_parallelism().map_or(1, NonZero::get) }
}

fn run_jobs(
    gpu: &Gpu,
    jobs: Vec<(&'static Stem, Job)>,
    threads: usize,
    wanted: &dyn Fn(&Stem, &CaseResult) -> bool,
    each: &mut dyn FnMut(Event),
) -> Result<Vec<CaseResult>> {
    let of = jobs.len();
    let own = if gpu.is_cpu() { threads.min(of).max(1) - 1 } else { 0 };
    let others = (0..own).map(|_| gpu.another()).collect::<Result<Vec<Gpu>>>()?;
    let order: Vec<&'static Stem> = jobs.iter().map(|(stem, _)| *stem).collect();
    let queue = Mutex::new(jobs.into_iter().enumerate());
    let mut outcomes: Vec<CaseResult> = Vec::new();
    std::thread::scope(|scope| {
        // Outcomes are a few words each; what takes memory belongs to the jobs, one per thread at a time.
        let (send, results) = channel();
        for thread in 0..threads.min(of) {
            let gpu = if thread == 0 { gpu } else { others.get(thread - 1).unwrap_or(gpu) };
            let (send, queue) = (send.clone(), &queue);
            scope.spawn(move || {
                loop {
                    let next = queue.lock().unwrap_or_else(|e| e.into_inner()).next();
                    let Some((i, (_, job))) = next else { return };
                    let mut suite = Suite { gpu, outcomes: Vec::new() };
                    let result = job(&mut suite).map(|()| suite.outcomes);
                    // Nobody listens any more after an error.
                    if send.send((i, result)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        // What came before its turn.
        let mut early = BTreeMap::new();
        let (mut next, mut begun) = (0, 0);
        for (done, (i, result)) in results.iter().enumerate() {
            early.insert(i, result);
            while let Some(result) = early.remove(&next) {
                let stem = order[next];
                next += 1;
                for outcome in result?.into_iter().filter(|outcome| wanted(stem, outcome)) {
                    each(Event::CaseResult(&outcome));
                    outcomes.push(outcome);
                }
                if order.get(next).is_none_or(|following| following.name != stem.name) {
                    each(Event::Stem(stem.name, &outcomes[begun..]));
                    begun = outcomes.len();
                }
            }
            each(Event::Done { stem: order[next.min(of - 1)].name, done: done + 1, of });
        }
        Ok(())
    })?;
    Ok(outcomes)
}
