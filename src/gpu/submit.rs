//! How many steps go into the next submission of a device, by its [`Pace`].

use crate::gpu::Gpu;
use crate::gpu::pace::{Pace, Stopwatch, part};
use crate::gpu::program::Step;

impl Gpu {
    /// Submits at most so much [work](Step::work) at once, on any adapter: how a test has many submissions of a short run.
    pub fn force_submissions(&self, most: Option<u64>) {
        self.pacer.force(most);
    }

    /// The pace as far as it is known.
    pub fn pace(&self) -> Pace {
        self.pacer.pace()
    }

    /// Submissions of programs so far.
    pub fn submissions(&self) -> u64 {
        self.pacer.submitted()
    }

    /// Whether a submission's work has a limit: not on a CPU adapter, which no driver watches, unless a test wants it.
    fn cuts_submissions(&self) -> bool {
        !self.is_cpu() || self.pacer.is_forced()
    }

    /// How many of `steps`, which are not empty, go into the next submission. Never waits for the device.
    pub(super) fn next_part(&self, steps: &[&Step]) -> usize {
        let most = self.pacer.next(self.queue.get_timestamp_period());
        if !self.cuts_submissions() {
            return steps.len();
        }
        let pace = self.pacer.pace();
        if let Some((step, seconds)) = steps.iter().find_map(|step| Some((step, pace.too_long(step.work())?)))
            && self.pacer.warns()
        {
            tracing::warn!(
                "one dispatch of {} may take {seconds:.1} s on {}, and Windows resets a GPU after 2 s: a smaller batch, or one \
                 that is split into micro-batches, takes less",
                step.kernel.label,
                self.info.name,
            );
        }
        part(steps.iter().map(|step| step.work()), most)
    }

    /// The clock for a submission of these steps: none where the adapter has no timestamps, nobody cuts submissions, or an
    /// earlier one is still being timed.
    pub(super) fn stopwatch(&self, steps: &[&Step]) -> Option<Stopwatch<'_>> {
        let able = self.features.contains(wgpu::Features::TIMESTAMP_QUERY) && self.cuts_submissions();
        if !able || steps.is_empty() {
            return None;
        }
        self.pacer.stopwatch(steps.iter().map(|step| step.work()).sum(), &self.device)
    }
}
