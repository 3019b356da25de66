//! Timing by the host's clock: warm-up, then repeats until a budget is spent. Every repeat ends when the device is done.

use std::time::Instant;

use crate::error::Result;

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Seconds per workload, after its warm-up.
    pub seconds: f64,
    /// Repeats that don't count: pipelines are built, buffers touched.
    pub warmup: usize,
    /// Repeats that are timed at least, whatever they take.
    pub min_reps: usize,
    /// Repeats that are timed at most.
    pub max_reps: usize,
}

impl Default for Budget {
    /// Five seconds, two repeats of warm-up, 3 to 1,000 timed.
    fn default() -> Self {
        Budget { seconds: 5.0, warmup: 2, min_reps: 3, max_reps: 1000 }
    }
}

impl Budget {
    /// Runs `f` without timing it, then again and again, timed by `f` itself: it returns milliseconds, of `N` things
    /// per repeat.
    pub fn spend<const N: usize>(&self, mut f: impl FnMut() -> Result<[f64; N]>) -> Result<[Times; N]> {
        for _ in 0..self.warmup {
            f()?;
        }
        let mut times: [Vec<f64>; N] = std::array::from_fn(|_| Vec::new());
        let (start, mut reps) = (Instant::now(), 0);
        while reps < self.min_reps.max(1) || (reps < self.max_reps && start.elapsed().as_secs_f64() < self.seconds) {
            for (list, ms) in times.iter_mut().zip(f()?) {
                list.push(ms);
            }
            reps += 1;
        }
        Ok(times.map(Times::new))
    }

    /// As [`Budget::spend`], of the whole of `f`.
    pub fn time(&self, mut f: impl FnMut() -> Result<()>) -> Result<Times> {
        let [times] = self.spend(|| Ok([timed(&mut f)?]))?;
        Ok(times)
    }
}

/// The milliseconds that `f` takes.
pub fn timed(f: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    f()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// The milliseconds of one thing, repeat by repeat.
#[derive(Clone, Debug)]
pub struct Times {
    sorted: Vec<f64>,
}

impl Times {
    /// Of one repeat or more.
    pub fn new(mut ms: Vec<f64>) -> Times {
        assert!(!ms.is_empty(), "times of no repeat");
        ms.sort_by(f64::total_cmp);
        Times { sorted: ms }
    }

    /// The median, of an even number the mean of the middle two.
    pub fn median(&self) -> f64 {
        let n = self.sorted.len();
        (self.sorted[(n - 1) / 2] + self.sorted[n / 2]) / 2.0
    }

    /// The shortest.
    pub fn min(&self) -> f64 {
        self.sorted[0]
    }

    /// How many.
    pub fn reps(&self) -> usize {
        self.sorted.len()
    }

    /// The same where `parts` equal things were done per repeat.
    pub fn divided(mut self, parts: usize) -> Times {
        self.sorted.iter_mut().for_each(|ms| *ms /= parts as f64);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let times = |ms: &[f64]| Times::new(ms.to_vec());
        assert_eq!(times(&[3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(times(&[4.0, 1.0, 2.0, 3.0]).median(), 2.5);
        assert_eq!((times(&[4.0, 1.0]).min(), times(&[4.0, 1.0]).divided(2).min()), (1.0, 0.5));
    }

    #[test]
    fn warm_up_is_not_counted_and_repeats_are_bounded() {
        let count = |budget: Budget| {
            let mut calls = 0;
            let times = budget.spend(|| {
                calls += 1;
                Ok([f64::from(calls)])
            });
            (times.unwrap()[0].sorted.clone(), calls)
        };
        let budget = Budget { seconds: 0.0, warmup: 2, min_reps: 3, max_reps: 5 };
        assert_eq!(count(budget), (vec![3.0, 4.0, 5.0], 5));
        assert_eq!(count(Budget { seconds: 1e9, ..budget }).1, 7);
    }
}
