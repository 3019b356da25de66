//! What a run tells on the way: a progress bar on a terminal, plain lines elsewhere; always on stderr.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::checkpoint::Fetching;
use crate::cli::console::{self, is_quiet, note};
use crate::cli::sparkline::{shows_unicode, sparkline};
use crate::cli::table::percent;
use crate::compare::tables::time;
use crate::error::escaped;
use crate::gpu::buffer::mib;
use crate::train::events::EpochEnd;
use crate::train::{Event, TestResult};

/// Time between two plain lines about steps.
const QUIET: Duration = Duration::from_secs(5);

/// A bar of `unit`, where stderr is a terminal.
fn bar(unit: &str) -> Option<ProgressBar> {
    (std::io::stderr().is_terminal() && !is_quiet()).then(|| {
        let style = format!("{{prefix}}{{bar:30}} {{pos}}/{{len}} {unit}  {{msg}}");
        let style = ProgressStyle::with_template(&style).expect("a valid template");
        ProgressBar::new(0).with_style(style)
    })
}

/// How long the rest takes, at the mean pace since the first thing was done: what that one took, with all preparations, says
/// little about the others, and what comes in between (evaluations, saving) comes again.
#[derive(Debug, Default)]
struct Eta {
    first: Option<(Instant, u64)>,
}

impl Eta {
    /// In words, once `done` of `of` things are done.
    fn left(&mut self, done: u64, of: u64) -> Option<String> {
        self.first.get_or_insert((Instant::now(), done));
        self.at(done, of)
    }

    /// The same, without a beginning.
    fn at(&self, done: u64, of: u64) -> Option<String> {
        let (since, first) = self.first?;
        let passed = done.checked_sub(first).filter(|passed| *passed > 0 && of > done)?;
        Some(format!("{} left", time(since.elapsed().as_secs_f64() / passed as f64 * (of - done) as f64)))
    }
}

/// Words that are there, with commas.
fn joined(parts: [Option<String>; 3]) -> String {
    parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}

/// Shows how many of a known number of things are done.
pub(super) struct Count {
    bar: Option<ProgressBar>,
    unit: &'static str,
    done: usize,
    last: Instant,
    eta: Eta,
}

impl Count {
    /// Of `unit`, in the plural.
    pub(super) fn new(unit: &'static str) -> Count {
        Count { bar: bar(unit), unit, done: 0, last: Instant::now(), eta: Eta::default() }
    }

    /// So many of so many are done, of what `what` names. One that begins anew counts anew.
    pub(super) fn show(&mut self, done: usize, of: usize, what: &str) {
        if self.done > done {
            self.eta = Eta::default();
        }
        self.done = done;
        let left = self.eta.left(done as u64, of as u64);
        let text = joined([Some(what.to_string()), left, None]);
        match &self.bar {
            Some(bar) => {
                bar.set_length(of as u64);
                bar.set_position(done as u64);
                bar.set_message(escaped(&text).into_owned());
            }
            None if self.last.elapsed() > QUIET => {
                self.last = Instant::now();
                note!("{done}/{of} {}: {text}", self.unit);
            }
            None => {}
        }
    }

    /// Calls `print`, which writes to stdout or stderr, with the bar out of its way.
    pub(super) fn beside<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Shows a file of so many bytes on its way from the hub.
pub(super) fn fetching(name: &str, bytes: u64) -> Fetching {
    note!("fetching {name}, {:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let (mut count, what) = (Count::new("MiB"), format!("of {name}"));
    Box::new(move |done| count.show((done >> 20) as usize, (bytes >> 20) as usize, &what))
}

/// Shows [`Event`]s.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    prefix: String,
    last: Instant,
    eta: Eta,
    /// Bytes on the device, as planned.
    memory: u64,
    /// What comes between two steps, while it goes on: a look at all images, an evaluation.
    count: Option<Count>,
}

impl Progress {
    /// `prefix` begins every line, to tell runs apart.
    pub(super) fn new(prefix: &str) -> Progress {
        let bar = bar("steps").inspect(|bar| bar.set_prefix(prefix.to_string()));
        Progress { bar, prefix: prefix.to_string(), last: Instant::now(), eta: Eta::default(), memory: 0, count: None }
    }

    /// One line about an epoch; in a terminal with the loss so far.
    fn epoch(&self, end: &EpochEnd) -> String {
        let number = |value: f64, text: String| (!value.is_nan()).then_some(text);
        let mut parts = vec![number(end.train_loss.into(), format!("train loss {:.4}", end.train_loss))];
        if let Some(TestResult { name, evaluation, .. }) = &end.held_out {
            let (loss, figure, main) = (evaluation.loss, evaluation.figure().name(), percent(evaluation.main()));
            parts.push(Some(format!("{name} loss {loss:.4}")));
            parts.push(Some(format!("{name} {figure} {main} %")));
        }
        parts.push(number(end.rate, format!("{:.1} images/s", end.rate)));
        parts.push(self.eta.at(end.step, end.steps));
        parts.push((self.memory > 0).then(|| mib(self.memory)));
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        let curve = match self.bar.is_some() {
            true => format!("  {}", sparkline(&end.course, shows_unicode())),
            false => String::new(),
        };
        format!("epoch {}/{}: {}{curve}", end.epoch, end.epochs, parts.join(", "))
    }

    fn line(&self, text: &str) {
        self.say(|| note!("{}{text}", self.prefix));
    }

    fn say(&self, say: impl FnOnce()) {
        let say = || match &self.bar {
            Some(bar) => bar.suspend(say),
            None => say(),
        };
        match &self.count {
            Some(count) => count.beside(say),
            None => say(),
        }
    }

    /// Images of something that comes between two steps.
    fn between(&mut self, done: usize, of: usize, what: &str) {
        let bar = &self.bar;
        let count = self.count.get_or_insert_with(|| {
            // One bar at a time: that of the steps comes back with the next step.
            bar.iter().for_each(|bar| bar.set_draw_target(ProgressDrawTarget::hidden()));
            Count::new("images")
        });
        count.show(done, of, what);
        if done == of {
            self.end_count();
        }
    }

    fn end_count(&mut self) {
        if self.count.take().is_some() {
            self.bar.iter().for_each(|bar| bar.set_draw_target(ProgressDrawTarget::stderr()));
        }
    }

    pub(super) fn show(&mut self, event: Event) {
        match event {
            Event::Note(text) => self.line(&text),
            Event::Planned(planned) => self.memory = planned.total(),
            Event::Epoch(end) => {
                let text = self.epoch(&end);
                self.line(&text);
            }
            Event::Checked { done, of } => self.between(done, of, "looked at"),
            Event::Evaluating { name, done, of } => self.between(done, of, &format!("evaluated on {name}")),
            Event::Warning(text) | Event::Advice(text) => {
                self.say(|| console::always(format_args!("{}warning: {text}", self.prefix)))
            }
            Event::Evaluated(r) => {
                let e = &r.evaluation;
                let (figure, main, loss) = (e.figure().name(), percent(e.main()), e.loss);
                self.line(&format!("{} on {}: {figure} {main} %, loss {loss:.4}", r.model, r.name));
            }
            Event::Progress { step, steps, loss, rate } => {
                self.end_count();
                let loss = (!loss.is_nan()).then(|| format!("loss {loss:.4}"));
                let rate = (!rate.is_nan()).then(|| format!("{rate:.1} images/s"));
                let text = joined([loss, rate, self.eta.left(step, steps)]);
                match &self.bar {
                    Some(bar) => {
                        bar.set_length(steps);
                        bar.set_position(step);
                        bar.set_message(text);
                    }
                    None if self.last.elapsed() > QUIET || step == steps => {
                        self.last = Instant::now();
                        let colon = if text.is_empty() { "" } else { ": " };
                        self.line(&format!("step {step}/{steps}{colon}{text}"));
                    }
                    None => {}
                }
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
