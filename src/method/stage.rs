//! What a run trains, and how fast: a rate and a weight decay for each tensor.

use crate::error::Result;
use crate::method::settings::{BatchNorm, Settings};
use crate::model::ModelConfig;
use crate::shapes::ParamLayout;
use crate::shapes::Segment;

/// A stretch of a run in which the same tensors are trained at the same rates.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// Factor on the learning rate, one per tensor in layout order; 0 for a tensor that is not trained.
    /// Backward ends at the lowest tensor that is.
    pub rates: Vec<f32>,
    /// Weight decay, one per tensor.
    pub weight_decays: Vec<f32>,
    /// What batch norm does in training.
    pub batch_norm: BatchNorm,
    /// Steps of the run before it. The learning-rate schedule begins with it.
    pub since: u64,
    /// The learning rate that the schedule starts from; none for the run's.
    pub lr: Option<f64>,
}

/// What stages are made for.
#[derive(Clone, Copy, Debug)]
pub struct Trained<'a> {
    /// The model.
    pub config: &'a ModelConfig,
    /// Its parameters.
    pub layout: &'a ParamLayout,
    /// Tensors that have no anchor, a flag each.
    pub excluded: &'a [bool],
    /// The weights and biases of batch norms, by their place in the layout.
    pub norms: &'a [usize],
    /// Steps of the run.
    pub steps: u64,
    /// Steps before the last stage, in a run that has begun it: it goes on in it, however long it becomes.
    pub begun: Option<u64>,
}

/// Tensors that are updated alike.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) rate: f32,
    pub(super) weight_decay: f32,
    pub(super) segments: Vec<Segment>,
}

impl Stage {
    /// Every tensor, as the optimiser of `settings` has it.
    pub fn whole(layout: &ParamLayout, settings: &Settings) -> Stage {
        let tensors = layout.params.len();
        Stage {
            rates: vec![1.0; tensors],
            weight_decays: vec![settings.optimizer.weight_decay(); tensors],
            batch_norm: settings.batch_norm,
            since: 0,
            lr: None,
        }
    }

    /// The same with these rates.
    pub fn with_rates(self, rate: impl Fn(&str) -> f32, layout: &ParamLayout) -> Stage {
        Stage { rates: layout.params.iter().map(|p| rate(&p.name)).collect(), ..self }
    }

    /// The same with rates that fall by the factor `decay` from each layer to the one below. Layers are counted as timm's
    /// `param_groups_layer_decay` does: a layer is a block, the stem is one, and the head with what stands behind the last block
    /// is one, which keeps its rates.
    pub(super) fn decayed(mut self, decay: f64, of: &Trained) -> Stage {
        let last = of.config.blocks() + 1;
        for (rate, param) in self.rates.iter_mut().zip(&of.layout.params) {
            *rate *= decay.powi((last - of.config.layer(&param.name)) as i32) as f32;
        }
        self
    }

    /// The same without these tensors, by their place in the layout.
    pub(super) fn without(mut self, tensors: &[usize]) -> Stage {
        tensors.iter().for_each(|tensor| self.rates[*tensor] = 0.0);
        self
    }

    /// The tensors that are trained, those of one rate and decay together.
    pub(super) fn groups(&self, layout: &ParamLayout, max_bytes: u64) -> Result<Vec<Group>> {
        let alike = |t: usize| (self.rates[t] != 0.0).then(|| (self.rates[t], self.weight_decays[t]));
        let mut groups: Vec<Group> = Vec::new();
        for ((rate, weight_decay), segment) in layout.segments_of(max_bytes, alike)? {
            match groups.iter_mut().find(|g| (g.rate, g.weight_decay) == (rate, weight_decay)) {
                Some(group) => group.segments.push(segment),
                None => groups.push(Group { rate, weight_decay, segments: vec![segment] }),
            }
        }
        Ok(groups)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_that_are_updated_alike_share_a_group() {
        let layout = ParamLayout::new(&[64, 64, 64, 64, 64].map(|len| ("t".to_string(), vec![len])));
        let (rates, weight_decays) = (vec![1.0, 1.0, 0.0, 0.5, 1.0], vec![0.1; 5]);
        let stage = Stage { rates, weight_decays, batch_norm: BatchNorm::Train, since: 0, lr: None };
        let groups = stage.groups(&layout, 1 << 20).unwrap();
        let of = |g: &Group| (g.rate, g.segments.iter().map(|s| (s.offset, s.len)).collect::<Vec<_>>());
        assert_eq!(
            groups.iter().map(of).collect::<Vec<_>>(),
            [(1.0, vec![(0, 128), (256, 64)]), (0.5, vec![(192, 64)])]
        );
    }
}
