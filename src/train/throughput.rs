//! Images per second, of batches that the adapter is done with: the host runs ahead of it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::method::learner::IN_FLIGHT;

/// Counts batches as they are submitted.
#[derive(Debug)]
pub(super) struct Throughput {
    started: Instant,
    paused: Duration,
    /// Images of the last batches, which may not be done.
    ahead: VecDeque<usize>,
    done: usize,
}

impl Throughput {
    /// Starts now.
    pub(super) fn start() -> Throughput {
        Throughput { started: Instant::now(), paused: Duration::ZERO, ahead: VecDeque::new(), done: 0 }
    }

    /// Counts a batch of `images` that was just submitted. Returns images per second since the start; NaN as long as no batch
    /// is sure to be done.
    pub(super) fn submitted(&mut self, images: usize) -> f64 {
        self.ahead.push_back(images);
        if self.ahead.len() <= IN_FLIGHT {
            return f64::NAN;
        }
        self.done += self.ahead.pop_front().unwrap_or(0);
        self.done as f64 / (self.started.elapsed().saturating_sub(self.paused)).as_secs_f64().max(1e-9)
    }

    /// Leaves out time that was spent on something else.
    pub(super) fn pause(&mut self, spent: Duration) {
        self.paused += spent;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_batches_that_are_done_count() {
        let mut throughput = Throughput::start();
        throughput.started -= Duration::from_secs(10);
        for _ in 0..IN_FLIGHT {
            assert!(throughput.submitted(64).is_nan());
        }
        let rate = throughput.submitted(8);
        assert!((6.0..6.41).contains(&rate), "{rate}");
        throughput.pause(Duration::from_secs(8));
        let rate = throughput.submitted(8);
        assert!((60.0..64.01).contains(&rate), "{rate}");
    }
}
