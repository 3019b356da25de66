//! What a run tells on the way: a progress bar on a terminal, plain lines elsewhere; always on stderr.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::console::{self, is_quiet, note};
use crate::cli::table::percent;
use crate::train::Event;

/// Time between two plain lines about steps.
const QUIET: Duration = Duration::from_secs(5);

/// A bar of `unit`, where stderr is a terminal.
fn bar(unit: &str) -> Option<ProgressBar> {
    (std::io::stderr().is_terminal() && !is_quiet()).then(|| {
        let style = format!("{{prefix}}{{bar:30}} {{pos}}/{{len}} {unit}  {{msg}}  {{eta}} left");
        let style = ProgressStyle::with_template(&style).expect("a valid template");
        ProgressBar::new(0).with_style(style)
    })
}

/// Shows how many of a known number of things are done.
pub(super) struct Count {
    bar: Option<ProgressBar>,
    unit: &'static str,
    last: Instant,
}

impl Count {
    /// Of `unit`, in the plural.
    pub(super) fn new(unit: &'static str) -> Count {
        Count { bar: bar(unit), unit, last: Instant::now() }
    }

    /// So many of so many are done, and `what` is next.
    pub(super) fn show(&mut self, done: usize, of: usize, what: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_length(of as u64);
                bar.set_position(done as u64);
                bar.set_message(what.to_string());
            }
            None if self.last.elapsed() > QUIET => {
                self.last = Instant::now();
                note!("{done}/{of} {}: {what}", self.unit);
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

/// Shows [`Event`]s.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    prefix: String,
    last: Instant,
    /// The look at all images, while it goes on.
    checked: Option<Count>,
}

impl Progress {
    /// `prefix` begins every line, to tell runs apart.
    pub(super) fn new(prefix: &str) -> Progress {
        let bar = bar("steps").inspect(|bar| bar.set_prefix(prefix.to_string()));
        Progress { bar, prefix: prefix.to_string(), last: Instant::now(), checked: None }
    }

    fn line(&self, text: &str) {
        self.say(|| note!("{}{text}", self.prefix));
    }

    fn say(&self, say: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(say),
            None => say(),
        }
    }

    pub(super) fn show(&mut self, event: Event) {
        match event {
            Event::Note(text) => self.line(&text),
            Event::Planned(_) => {}
            Event::Checked { done, of } => {
                let count = self.checked.get_or_insert_with(|| Count::new("images"));
                count.show(done, of, "looked at");
                if done == of {
                    self.checked = None;
                }
            }
            Event::Warning(text) => self.say(|| console::always(format_args!("{}warning: {text}", self.prefix))),
            Event::Evaluated(r) => {
                let (top1, loss) = (percent(r.evaluation.top1), r.evaluation.loss);
                self.line(&format!("{} on {}: top-1 {top1} %, loss {loss:.4}", r.model, r.name));
            }
            Event::Progress { step, steps, loss, rate } => {
                let loss = (!loss.is_nan()).then(|| format!("loss {loss:.4}"));
                let rate = (!rate.is_nan()).then(|| format!("{rate:.1} images/s"));
                let text = loss.into_iter().chain(rate).collect::<Vec<_>>().join(", ");
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
