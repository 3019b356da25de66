//! A process's place among the ranks that make a run: it is alone, or one of several, of which the first alone writes and speaks.

use std::sync::Arc;

use crate::error::Result;
use crate::method::Snapshot;
use crate::ranks::{Ranks, agree, same};
use crate::stop;

/// Where this process is among the ranks that make a run.
#[derive(Clone, Debug, Default)]
pub struct Place(Option<Arc<dyn Ranks>>);

impl Place {
    /// Among these `ranks`, if there are any.
    pub fn among(ranks: Option<Arc<dyn Ranks>>) -> Place {
        Place(ranks.filter(|ranks| ranks.size() > 1))
    }

    /// The ranks, if there are several.
    pub fn ranks(&self) -> Option<&Arc<dyn Ranks>> {
        self.0.as_ref()
    }

    /// Which rank this is, of how many.
    pub fn of(&self) -> (usize, usize) {
        self.0.as_ref().map_or((0, 1), |ranks| (ranks.rank(), ranks.size()))
    }

    /// How many ranks there are.
    pub fn size(&self) -> usize {
        self.of().1
    }

    /// Whether this process is the one that writes the run's files and tells how it goes.
    pub fn writes(&self) -> bool {
        self.of().0 == 0
    }

    /// Returns when all ranks are here.
    ///
    /// # Errors
    /// Where a rank is gone, as in all that follows.
    pub fn wait(&self) -> Result<()> {
        self.0.as_ref().map_or(Ok(()), |ranks| ranks.gather(&[]).map(drop))
    }

    /// [`stop::check`] for all ranks: if one was asked to stop, all stop here.
    pub fn check_stop(&self) -> Result<()> {
        self.joined(&[]).map(drop)
    }

    /// The values of all ranks, one after the other. If one was asked to stop, all stop here.
    pub fn joined(&self, own: &[f32]) -> Result<Vec<f32>> {
        let Some(ranks) = &self.0 else {
            stop::check()?;
            return Ok(own.to_vec());
        };
        let signal = u32::from(stop::asked()?);
        let told = [bytemuck::bytes_of(&signal), bytemuck::cast_slice(own)].concat();
        let mut all = Vec::new();
        for told in ranks.gather(&told)? {
            stop::by(told[0])?;
            all.extend(bytemuck::pod_collect_to_vec::<u8, f32>(&told[4..]));
        }
        Ok(all)
    }

    /// The smallest `count` of all ranks.
    pub fn least(&self, count: usize) -> Result<usize> {
        let Some(ranks) = &self.0 else { return Ok(count) };
        let all = ranks.gather(&(count as u64).to_le_bytes())?;
        let counts = all.iter().map(|told| u64::from_le_bytes(told.as_slice().try_into().expect("8 bytes")));
        Ok(counts.min().map_or(count, |least| least as usize))
    }

    /// What each rank tells, by rank.
    pub fn told(&self, own: &str) -> Result<Vec<String>> {
        let Some(ranks) = &self.0 else { return Ok(vec![own.into()]) };
        Ok(ranks.gather(own.as_bytes())?.iter().map(|told| String::from_utf8_lossy(told).into_owned()).collect())
    }

    /// What the first rank `tells`, which the others do not call.
    pub fn from_first(&self, tells: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
        let own = if self.writes() { tells()? } else { Vec::new() };
        match &self.0 {
            None => Ok(own),
            Some(ranks) => Ok(ranks.gather(&own)?.swap_remove(0)),
        }
    }

    /// The `values` of the first rank: another adapter may round them in another way.
    pub fn values_of_first(&self, values: Snapshot) -> Result<Snapshot> {
        if self.0.is_none() {
            return Ok(values);
        }
        let array = |own: &[f32]| {
            let bytes = self.from_first(|| Ok(bytemuck::cast_slice(own).to_vec()))?;
            Ok(bytemuck::pod_collect_to_vec(&bytes))
        };
        Ok(Snapshot { w: array(&values.w)?, stats: array(&values.stats)?, ..values })
    }

    /// What this rank has come to, as all of them: an error of one is an error of all, which the lowest of them says.
    pub fn agree<T>(&self, own: Result<T>) -> Result<T> {
        match &self.0 {
            None => own,
            Some(ranks) => agree(&**ranks, own),
        }
    }

    /// Errors where another rank has other things than the first: pairs of a name and a value or its digest.
    pub fn same(&self, what: &[(&str, &str)]) -> Result<()> {
        self.0.as_ref().map_or(Ok(()), |ranks| same(&**ranks, what))
    }
}
