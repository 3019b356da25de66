//! Processes that train one model together, each on a device of its own, and what they tell each other.
//!
//! Every rank keeps the same weights and the same optimiser state. Of every batch it takes its own part; what the parts add up
//! to is summed over all ranks before the weights move.

mod agree;
#[cfg(feature = "mpi")]
mod end;
mod failure;
#[cfg(feature = "mpi")]
mod flight;
pub mod launch;
mod launcher;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(feature = "mpi")]
mod notice;

pub use agree::{agree, same};
pub use failure::Failure;

use std::fmt::Debug;
use std::ops::Range;

use crate::error::Result;

/// All ranks, as one of them sees them. Each calls the same functions in the same order.
///
/// # Errors
/// All functions err where another rank is gone or can't be reached.
pub trait Ranks: Debug + Send + Sync {
    /// Which of them this process is, from 0 on.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Which of those on the same machine this process is, from 0 on.
    fn local_rank(&self) -> usize {
        self.rank()
    }

    /// A rank as messages name it, with its machine if that is known: `rank 2 on node7`.
    fn name(&self, rank: usize) -> String {
        format!("rank {rank}")
    }

    /// What each of them passes, of any length, by rank.
    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>>;

    /// Starts to add up `values` over all ranks, element by element and in the order of ranks: every rank gets the same bits. All pass
    /// as many elements.
    fn start_sum(&self, values: Vec<f32>) -> Result<Box<dyn Sum + '_>>;

    /// The sums of `values` over all ranks.
    fn sum(&self, values: Vec<f32>) -> Result<Vec<f32>> {
        self.start_sum(values)?.wait()
    }
}

/// A sum on its way.
pub trait Sum {
    /// Lets it go on, and if it is not done, all others that are under way: a rank may wait for any of them. Whether it is done.
    fn advance(&mut self) -> Result<bool>;

    /// The sums.
    fn wait(self: Box<Self>) -> Result<Vec<f32>>;
}

/// The part of `count` things that `rank` of `size` takes: parts differ by one thing at most, and lie in the order of ranks.
pub fn part(count: usize, rank: usize, size: usize) -> Range<usize> {
    let start = |rank: usize| rank * (count / size) + rank.min(count % size);
    start(rank)..start(rank + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_everything_once() {
        for count in [0, 1, 2, 5, 7, 64] {
            for size in 1..6 {
                let parts: Vec<Range<usize>> = (0..size).map(|rank| part(count, rank, size)).collect();
                let all: Vec<usize> = parts.iter().cloned().flatten().collect();
                assert_eq!(all, (0..count).collect::<Vec<_>>());
                let lens = || parts.iter().map(ExactSizeIterator::len);
                assert!(lens().max().unwrap() - lens().min().unwrap() <= 1);
            }
        }
    }
}
