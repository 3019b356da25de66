//! How much a submission holds: a display shares the GPU, and drivers reset one that a submission keeps busy for too long, after
//! two seconds on Windows. What a device does in a second is known once it has done something.
//!
//! Where a run is cut into submissions changes no result: dispatches and their order stay as they were recorded.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

/// Seconds that a submission is meant to take, at most.
const TARGET: f64 = 0.5;
/// Work of a submission before anything was measured: half a second of a device that does 10 GFLOP/s, a quarter of what the
/// slowest integrated GPUs do.
const FIRST: u64 = 5_000_000_000;
/// What takes less says nothing of a device's speed: launches and memory's latency are most of it.
const SHORT: f64 = 0.02;
/// Share of a measured gain in speed that is believed at once, and the factor that is, at most: kernels that bind more than they
/// touch seem faster than others are. A loss is believed whole.
const GAIN: f64 = 0.5;
const GROWTH: f64 = 4.0;
/// Seconds from which a single dispatch is too long: it can't be cut, and two is what Windows allows.
const LONG: f64 = 1.5;

/// The work that a submission may hold, by what earlier ones have shown. Work is in floating-point operations, a byte of memory
/// counted as some of them ([`Step::work`](crate::gpu::program::Step::work)).
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// Work per second.
    rate: Option<f64>,
}

impl Pace {
    /// The most that a submission may hold.
    pub fn most(self) -> u64 {
        self.rate.map_or(FIRST, |rate| ((TARGET * rate) as u64).max(1))
    }

    /// Work per second, as far as it was measured.
    pub fn rate(self) -> Option<f64> {
        self.rate
    }

    /// Takes notice that a submission of so much work took the device so many seconds.
    pub fn note(&mut self, work: u64, seconds: f64) {
        if work == 0 || seconds <= 0.0 || !seconds.is_finite() {
            return;
        }
        let (found, old) = (work as f64 / seconds, self.rate.unwrap_or(FIRST as f64 / TARGET));
        self.rate = Some(match found > old {
            true => (old + GAIN * (found - old)).min(old * GROWTH),
            false if seconds < SHORT => old,
            false => found,
        });
    }

    /// Seconds that a dispatch of so much work takes, if it is too long.
    pub fn too_long(self, work: u64) -> Option<f64> {
        self.rate.map(|rate| work as f64 / rate).filter(|seconds| *seconds > LONG)
    }
}

/// How many of these steps, of so much work each, go into one submission of at most `most`: one at least.
pub fn part(work: impl Iterator<Item = u64>, most: u64) -> usize {
    let mut sum = 0u64;
    let fits = |(i, own): &(usize, u64)| {
        sum = sum.saturating_add(*own);
        *i == 0 || sum <= most
    };
    work.enumerate().take_while(fits).count()
}

/// The pace of a device, and the clock by which it is taken.
#[derive(Debug, Default)]
pub(super) struct Pacer {
    state: Mutex<State>,
    clock: OnceLock<Clock>,
}

#[derive(Debug, Default)]
struct State {
    pace: Pace,
    /// A submission on its way whose time will be known: its work, and whether the timestamps have arrived.
    measured: Option<(u64, Arc<AtomicBool>)>,
    forced: Option<u64>,
    warned: bool,
    submitted: u64,
}

/// Two timestamps and their way to the host.
#[derive(Debug)]
struct Clock {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    staging: wgpu::Buffer,
}

/// Bytes of the two.
const STAMPS: u64 = 16;

impl Clock {
    fn new(device: &wgpu::Device) -> Clock {
        let label = Some("pace");
        let buffer = |usage| {
            device.create_buffer(&wgpu::BufferDescriptor { label, size: STAMPS, usage, mapped_at_creation: false })
        };
        Clock {
            queries: device.create_query_set(&wgpu::QuerySetDescriptor {
                label,
                ty: wgpu::QueryType::Timestamp,
                count: 2,
            }),
            resolved: buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
            staging: buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST),
        }
    }

    /// Ticks between the two, which have arrived.
    fn read(&self) -> Option<u64> {
        let ticks = self.staging.get_mapped_range(..).ok().map(|bytes| {
            let [start, end] = [0, 8].map(|at| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i])));
            end.saturating_sub(start)
        });
        self.staging.unmap();
        ticks
    }
}

impl Pacer {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Submits at most so much work at once from now on, whatever was measured.
    pub(super) fn force(&self, most: Option<u64>) {
        self.state().forced = most;
    }

    /// Whether submissions are cut although no driver watches.
    pub(super) fn is_forced(&self) -> bool {
        self.state().forced.is_some()
    }

    /// The pace as far as it is known.
    pub(super) fn pace(&self) -> Pace {
        self.state().pace
    }

    /// Submissions so far.
    pub(super) fn submitted(&self) -> u64 {
        self.state().submitted
    }

    /// Counts a submission, and takes notice of what an earlier one took, if that has arrived; a tick of the clock is `period`
    /// nanoseconds. The most work that the submission may hold.
    pub(super) fn next(&self, period: f32) -> u64 {
        let mut state = self.state();
        state.submitted += 1;
        if let (Some((work, _)), Some(clock)) =
            (state.measured.take_if(|(_, arrived)| arrived.load(Ordering::Acquire)), self.clock.get())
            && let Some(ticks) = clock.read()
        {
            state.pace.note(work, ticks as f64 * f64::from(period) * 1e-9);
        }
        state.forced.unwrap_or_else(|| state.pace.most())
    }

    /// Whether nobody was warned yet; from now on, somebody was.
    pub(super) fn warns(&self) -> bool {
        !std::mem::replace(&mut self.state().warned, true)
    }

    /// The clock for a submission of so much work, unless an earlier one is still being timed.
    pub(super) fn stopwatch(&self, work: u64, device: &wgpu::Device) -> Option<Stopwatch<'_>> {
        let mut state = self.state();
        if state.measured.is_some() {
            return None;
        }
        let arrived = Arc::new(AtomicBool::new(false));
        state.measured = Some((work, arrived.clone()));
        Some(Stopwatch { clock: self.clock.get_or_init(|| Clock::new(device)), arrived })
    }
}

/// The clock while it takes the time of one submission.
#[derive(Debug)]
pub(super) struct Stopwatch<'a> {
    clock: &'a Clock,
    arrived: Arc<AtomicBool>,
}

impl Stopwatch<'_> {
    /// For the pass that is timed.
    pub(super) fn writes(&self) -> wgpu::ComputePassTimestampWrites<'_> {
        wgpu::ComputePassTimestampWrites {
            query_set: &self.clock.queries,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        }
    }

    /// Behind that pass.
    pub(super) fn resolve(&self, encoder: &mut wgpu::CommandEncoder) {
        let Clock { queries, resolved, staging } = self.clock;
        encoder.resolve_query_set(queries, 0..2, resolved, 0);
        encoder.copy_buffer_to_buffer(resolved, 0, staging, 0, STAMPS);
    }

    /// After the submission: a later one finds what it took. Of a failed one nobody ever hears.
    pub(super) fn expect(self) {
        let arrived = self.arrived;
        self.clock
            .staging
            .map_async(wgpu::MapMode::Read, .., move |mapped| arrived.store(mapped.is_ok(), Ordering::Release));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a step of 100 dispatches of `own` work each, again and again, on a device that does `rate(t)` per second after `t`
    /// seconds of work; a measurement arrives one submission late. Seconds of the longest submission from the `after`th step
    /// on, and submissions of the last step.
    fn drive(own: u64, after: usize, rate: impl Fn(f64) -> f64) -> (f64, usize) {
        let (mut pace, mut clock, mut late) = (Pace::default(), 0.0, None);
        let (mut longest, mut submissions) = (0.0_f64, 0);
        for step in 0..after + 10 {
            let mut left = vec![own; 100];
            submissions = 0;
            while !left.is_empty() {
                let count = part(left.iter().copied(), pace.most());
                let work = left.drain(..count).sum::<u64>();
                let seconds = work as f64 / rate(clock);
                clock += seconds;
                if let Some((work, seconds)) = late.replace((work, seconds)) {
                    pace.note(work, seconds);
                }
                submissions += 1;
                longest = longest.max(if step >= after { seconds } else { 0.0 });
            }
        }
        (longest, submissions)
    }

    #[test]
    fn a_slow_device_gets_half_a_second_at_once_from_the_first_submission_on() {
        // 10 GFLOP/s, 20 s per step.
        let (longest, submissions) = drive(2_000_000_000, 0, |_| 1e10);
        assert!(longest <= TARGET, "{longest} s");
        assert!((40..=60).contains(&submissions), "{submissions}");
    }

    #[test]
    fn a_fast_device_gets_a_step_at_once() {
        assert_eq!(drive(2_000_000_000, 10, |_| 1e13).1, 1);
        // Steps so short that nothing can be measured but that they are: no more is cut than before anything was known.
        assert_eq!(drive(1_000, 1, |_| 1e7).1, 1);
    }

    #[test]
    fn a_device_that_slows_down_gets_less_at_once() {
        // A tenth of its speed after a minute. Two submissions are too long: the one that is running, and the one behind it.
        let rate = |t: f64| if t < 60.0 { 1e12 } else { 1e11 };
        let (longest, submissions) = drive(10_000_000_000, 100, rate);
        assert!(longest <= TARGET, "{longest} s");
        assert!((20..=30).contains(&submissions), "{submissions}");
    }

    #[test]
    fn a_gain_is_believed_in_steps_and_a_short_submission_slows_nothing_down() {
        let mut pace = Pace::default();
        pace.note(1_000_000_000, 0.1);
        assert_eq!(pace.most(), 5_000_000_000);
        pace.note(3_000_000_000, 0.1);
        assert_eq!(pace.most(), 10_000_000_000);
        // Small kernels, whose launches take longer than their work.
        pace.note(1_000, 0.01);
        assert_eq!(pace.most(), 10_000_000_000);
        for (work, seconds) in [(0, 1.0), (1_000, 0.0), (1_000, f64::NAN)] {
            pace.note(work, seconds);
            assert_eq!(pace.most(), 10_000_000_000);
        }
    }

    #[test]
    fn a_dispatch_is_too_long_by_what_was_measured() {
        let mut pace = Pace::default();
        assert_eq!(pace.too_long(u64::MAX), None);
        pace.note(1_000_000_000, 0.2);
        assert_eq!(pace.too_long(7_000_000_000), None);
        assert_eq!(pace.too_long(10_000_000_000), Some(2.0));
    }

    #[test]
    fn a_part_ends_before_it_is_too_long() {
        let parts = |work: &[u64], most| {
            let (mut left, mut parts) = (work, Vec::new());
            while !left.is_empty() {
                let count = part(left.iter().copied(), most);
                parts.push(count);
                left = &left[count..];
            }
            parts
        };
        assert_eq!(parts(&[3, 4, 0, 9, 1], 7), [3, 1, 1]);
        assert_eq!(parts(&[3, 4, 0, 9, 1], u64::MAX), [5]);
        assert_eq!(parts(&[u64::MAX, u64::MAX], u64::MAX), [2]);
        assert_eq!(parts(&[9, 9], 0), [1, 1]);
    }
}
