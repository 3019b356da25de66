//! What comes back from the device: figures of steps some time after them, and weights when they are asked for.

use super::Learner;
use crate::error::Result;
use crate::method::settings::BatchNorm;
use crate::method::snapshot::Snapshot;
use crate::method::step_record::StepRecord;

impl Learner<'_> {
    /// Has the losses of the steps since the last request, and the running statistics, copied for the host.
    pub(super) fn request_records(&mut self) {
        let count = self.steps - self.requested;
        let ring = self.gpu.read_later(&self.ring);
        let moves = self.stats.len > 0 && self.settings.batch_norm == BatchNorm::Train;
        let stats = moves.then(|| (self.gpu.read_later(&self.stats), self.batches));
        self.pending.push_back((self.requested, count, ring, stats));
        self.requested = self.steps;
    }

    /// The figures of steps whose numbers have arrived since the last call; with `wait`, of all steps taken.
    ///
    /// From the first [bad](StepRecord::is_bad) step on, weights and optimiser state are left as they were.
    pub fn records(&mut self, wait: bool) -> Result<Vec<StepRecord>> {
        if wait && self.requested < self.steps {
            self.request_records();
        }
        let mut records = Vec::new();
        while let Some((first, count, copy, stats)) = self.pending.front() {
            let sound = match stats {
                Some((copy, batches)) => {
                    let values = if wait { Some(copy.wait(self.gpu)?) } else { copy.poll(self.gpu)? };
                    let Some(values) = values else { break };
                    values.iter().all(|v| v.is_finite()).then_some((values, *batches))
                }
                None => None,
            };
            let values = match stats {
                // Copied before the statistics.
                Some(_) => Some(copy.arriving(self.gpu)?),
                None if wait => Some(copy.wait(self.gpu)?),
                None => copy.poll(self.gpu)?,
            };
            let Some(values) = values else { break };
            self.sound = sound.or(self.sound.take());
            records.extend((*first..first + count).map(|step| StepRecord::new(step, &values)));
            self.pending.pop_front();
        }
        Ok(records)
    }

    /// The weights and running statistics as they are. Waits.
    pub fn snapshot(&self) -> Result<Snapshot> {
        let stats = if self.stats.len == 0 { Vec::new() } else { self.gpu.read(&self.stats)? };
        Ok(Snapshot { w: self.gpu.read(&self.w)?, stats, batches: self.batches })
    }

    /// As [`Learner::snapshot`]; running statistics that a bad batch has spoilt are those of a few steps before. The
    /// optimiser has left the weights alone since.
    pub fn last_sound(&self) -> Result<Snapshot> {
        let mut values = self.snapshot()?;
        if let (Some((stats, batches)), false) = (&self.sound, values.stats.iter().all(|v| v.is_finite())) {
            (values.stats, values.batches) = (stats.clone(), *batches);
        }
        Ok(values)
    }
}
