//! Ranks that are threads of one process: what a test needs to hold training on several ranks against training on one.

use std::sync::{Arc, Condvar, Mutex};

use tpgm::error::{Error, Result};
use tpgm::ranks::{Ranks, Sum};

#[derive(Debug)]
struct Shared {
    here: Mutex<Here>,
    changed: Condvar,
    told: Mutex<Vec<Vec<u8>>>,
}

/// Who waits for the others.
#[derive(Debug, Default)]
struct Here {
    waiting: usize,
    round: u64,
    gone: bool,
}

impl Shared {
    /// Returns when all are here; errs where one has ended instead.
    fn meet(&self, size: usize) -> Result<()> {
        let mut here = self.here.lock().unwrap();
        let round = here.round;
        here.waiting += 1;
        if here.waiting == size {
            (here.waiting, here.round) = (0, round + 1);
            self.changed.notify_all();
        }
        while here.round == round {
            if here.gone {
                return Err(Error::Train("another rank is gone".into()));
            }
            here = self.changed.wait(here).unwrap();
        }
        Ok(())
    }
}

/// One of several threads.
#[derive(Debug)]
pub struct Thread {
    rank: usize,
    size: usize,
    shared: Arc<Shared>,
}

/// `size` of them.
pub fn threads(size: usize) -> Vec<Thread> {
    let told = Mutex::new(vec![Vec::new(); size]);
    let shared = Arc::new(Shared { here: Mutex::default(), changed: Condvar::new(), told });
    (0..size).map(|rank| Thread { rank, size, shared: shared.clone() }).collect()
}

/// What `run` gives on each of `size` ranks, by rank.
pub fn on_ranks<T: Send>(size: usize, run: impl Fn(Thread) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let all: Vec<_> = threads(size).into_iter().map(|thread| scope.spawn(|| run(thread))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.shared.here.lock().unwrap().gone = true;
        self.shared.changed.notify_all();
    }
}

impl Ranks for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.shared.told.lock().unwrap()[self.rank] = own.to_vec();
        self.shared.meet(self.size)?;
        let all = self.shared.told.lock().unwrap().clone();
        // Nobody writes again before everyone has read.
        self.shared.meet(self.size)?;
        Ok(all)
    }

    fn start_sum(&self, values: Vec<f32>) -> Result<Box<dyn Sum + '_>> {
        let all = self.gather(bytemuck::cast_slice(&values))?;
        let mut sums = vec![0f32; values.len()];
        for one in &all {
            let one: Vec<f32> = bytemuck::pod_collect_to_vec(one);
            assert_eq!(one.len(), sums.len(), "every rank sums as many elements");
            sums.iter_mut().zip(one).for_each(|(sum, value)| *sum += value);
        }
        Ok(Box::new(Done(sums)))
    }
}

struct Done(Vec<f32>);

impl Sum for Done {
    fn advance(&mut self) -> Result<bool> {
        Ok(true)
    }

    fn wait(self: Box<Self>) -> Result<Vec<f32>> {
        Ok(self.0)
    }
}
