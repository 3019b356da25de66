//! Training on several ranks: each takes its part of a batch, and what the parts come to is added up before the weights move.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wgpu::SubmissionIndex;

use super::Learner;
use crate::error::{Error, Result};
use crate::gpu::readback::Staging;
use crate::gpu::{Gpu, Program, View};
use crate::method::settings::{BatchNorm, WINDOW};
use crate::ops::cross_entropy::{CHANNELS, Channel};
use crate::ranks::{Ranks, part};
use crate::shapes::layout::ALIGN;

/// Elements of the gradient that leave the device at once: 4 MiB. While one segment is added up, the next is read back.
const SEGMENT: usize = 1 << 20;

/// A learner's place among the ranks.
#[derive(Debug)]
pub(super) struct Joined {
    ranks: Arc<dyn Ranks>,
    segment: usize,
    /// The trained tensors' parts of the gradient arena, and where each lands on its way to the host: the last come first, as in the
    /// backward pass.
    parts: Vec<(Range<usize>, Staging)>,
    /// How long steps took from when the whole gradient was here to when its sum was back on the device.
    exchange: Duration,
}

impl Joined {
    /// Runs the last pass of a step. Each part of the gradient leaves the device as soon as nothing more is added to it: the gradient of the
    /// last layers is on its way while that of the first is computed.
    pub(super) fn run_last(
        &mut self,
        (gpu, dw): (&Gpu, &View),
        clear: &[&View],
        programs: &[&Program],
    ) -> Result<SubmissionIndex> {
        let pass = programs.last().expect("a pass");
        let mut after = 0;
        let mut cuts = self.parts.iter_mut().map(|(range, staging)| {
            let part = dw.slice(range.start, range.len());
            after = pass.last_write(&part).max(after);
            (after, Box::new(move || staging.start(gpu, &part)) as Box<dyn FnOnce()>)
        });
        Program::run_to(gpu, clear, programs, &mut cuts)
    }

    /// Runs programs that exchange something with the other ranks.
    pub(super) fn run(&self, gpu: &Gpu, clear: &[&View], programs: &[&Program]) -> Result<SubmissionIndex> {
        Program::run_with(gpu, &*self.ranks, clear, programs)
    }
}

impl Learner<'_> {
    /// From now on every step is one of all `ranks` together: each passes its own part of the batch. Before the methods start. The model
    /// is [across](crate::model::Model::across) as many ranks, or its batch norms take their statistics over the own part.
    pub fn join(&mut self, ranks: Arc<dyn Ranks>) {
        self.join_by(ranks, SEGMENT);
    }

    /// As [`Learner::join`], with `segment` elements of the gradient at once, a multiple of 64.
    pub fn join_by(&mut self, ranks: Arc<dyn Ranks>, segment: usize) {
        assert!(segment > 0 && segment.is_multiple_of(ALIGN), "segments start where bindings may");
        assert!([1, ranks.size()].contains(&self.model.ranks()), "batch norm over as many ranks as there are");
        self.joined = Some(Joined { ranks, segment, parts: Vec::new(), exchange: Duration::ZERO });
        self.cut_gradient();
    }

    /// The part of a batch of `count` images that this learner takes.
    pub fn part(&self, count: usize) -> Range<usize> {
        self.joined.as_ref().map_or(0..count, |joined| part(count, joined.ranks.rank(), joined.ranks.size()))
    }

    /// The ranks that it trains with, if there are others.
    pub fn ranks(&self) -> Option<&Arc<dyn Ranks>> {
        self.joined.as_ref().map(|joined| &joined.ranks)
    }

    /// How long steps have waited for the sums of other ranks, with the whole gradient on this host; none alone.
    pub fn exchange_time(&self) -> Option<Duration> {
        self.joined.as_ref().map(|joined| joined.exchange)
    }

    /// Whether the gradient of a tensor is needed: it is trained, or it is the weight of an adapter, whose gradient follows from it.
    pub(super) fn is_trained(&self, tensor: usize) -> bool {
        let adapted = |tensor| self.model.adapters().iter().any(|all| all.of.iter().any(|one| one.target == tensor));
        self.stage.rates[tensor] != 0.0 || adapted(tensor)
    }

    /// Cuts the gradient of what the stage trains into segments.
    pub(super) fn cut_gradient(&mut self) {
        let Some(mut joined) = self.joined.take() else { return };
        let params = &self.model.layout().params;
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for (tensor, param) in params.iter().enumerate().filter(|(tensor, _)| self.is_trained(*tensor)) {
            let end = params.get(tensor + 1).map_or(self.dw.len, |next| next.offset);
            match ranges.last_mut().filter(|last| last.end == param.offset) {
                Some(last) => last.end = end,
                None => ranges.push(param.offset..end),
            }
        }
        let cut = |range: Range<usize>| {
            let (end, step) = (range.end, joined.segment);
            range.step_by(step).map(move |start| start..end.min(start + step)).collect::<Vec<_>>()
        };
        let cut = ranges.into_iter().flat_map(cut);
        joined.parts = cut.map(|range| (range.clone(), Staging::new(self.gpu, range.len()))).collect();
        joined.parts.reverse();
        self.joined = Some(joined);
    }

    /// Adds up over all ranks what the passes over `of` images have left: the gradient, and with `figures` the loss of the step and the
    /// running statistics, whose mean over the ranks that had images counts. Waits.
    pub(super) fn add_up(&mut self, of: usize, figures: bool) -> Result<()> {
        let Some(mut joined) = self.joined.take() else { return Ok(()) };
        let added = self.add_up_among(&mut joined, of, figures);
        self.joined = Some(joined);
        added
    }

    fn add_up_among(&self, joined: &mut Joined, of: usize, figures: bool) -> Result<()> {
        let Joined { ranks, parts, exchange, .. } = joined;
        let has_images = !part(of, ranks.rank(), ranks.size()).is_empty();
        for (range, staging) in parts.iter_mut().filter(|(_, staging)| !staging.is_under_way()) {
            staging.start(self.gpu, &self.dw.slice(range.start, range.len()));
        }
        let mut sums = VecDeque::new();
        for (range, staging) in parts.iter_mut() {
            sums.push_back((range.clone(), ranks.start_sum(staging.take(self.gpu)?)?));
            for (_, sum) in &mut sums {
                sum.advance()?;
            }
            // Those that are done go back while the others are on their way.
            while let Some((_, sum)) = sums.front_mut() {
                if !sum.advance()? {
                    break;
                }
                let (range, sum) = sums.pop_front().expect("it is there");
                self.gpu.write(&self.dw.slice(range.start, range.len()), &sum.wait()?);
            }
        }
        let here = Instant::now();
        for (range, sum) in sums {
            self.gpu.write(&self.dw.slice(range.start, range.len()), &sum.wait()?);
        }
        if !figures {
            *exchange += here.elapsed();
            return Ok(());
        }

        let mut ring: Vec<f32> = self.gpu.read(&self.ring)?;
        let loss = (self.steps % WINDOW as u64) as usize * CHANNELS + Channel::Train as usize;
        // Statistics over all ranks' images are the same everywhere.
        let moves = self.stats.len > 0 && self.settings.batch_norm == BatchNorm::Train && self.model.ranks() == 1;
        let mut small = vec![if has_images { ring[loss] } else { 0.0 }];
        if moves {
            let stats: Vec<f32> = self.gpu.read(&self.stats)?;
            small.extend(stats.iter().map(|value| if has_images { *value } else { 0.0 }));
        }
        let small = ranks.sum(small)?;
        ring[loss] = small[0];
        self.gpu.write(&self.ring, &ring);
        if moves {
            let with_images = of.min(ranks.size()) as f32;
            let means: Vec<f32> = small[1..].iter().map(|sum| sum / with_images).collect();
            self.gpu.write(&self.stats, &means);
        }
        *exchange += here.elapsed();
        Ok(())
    }

    /// Errors where batch norm takes its statistics over the images of all ranks, and these can't pass a batch of `count` images in step.
    pub fn check_in_step(&self, count: usize) -> Result<()> {
        let Some(joined) = self.joined.as_ref().filter(|_| self.model.ranks() > 1) else { return Ok(()) };
        let size = joined.ranks.size();
        let passes = |rank| part(count, rank, size).len().div_ceil(self.settings.micro_batch);
        if self.settings.batch_norm == BatchNorm::Frozen || (passes(0) == passes(size - 1) && passes(size - 1) > 0) {
            return Ok(());
        }
        let what = format!(
            "a batch of {count} images on {size} ranks, {} at once, takes some of them more passes than others, and batch norm over all \
             ranks needs as many: choose a batch size that all batches can have",
            self.settings.micro_batch
        );
        Err(Error::Usage(what))
    }

    /// A step of a rank whose part of the batch has no image: its gradient is zero.
    pub(super) fn pass_over_nothing(&mut self) -> Result<()> {
        let index = Program::run(self.gpu, &[&self.dw], &[&self.cast])?;
        self.submitted(index)
    }
}
