//! Low-rank adapters of weights (LoRA, Hu et al., ICLR 2022): beside a weight `W [outputs, inputs]` stand `A [rank, inputs]` and
//! `B [outputs, rank]`, and the model uses `W + alpha/rank · B·A`.

use crate::random::Random;
use crate::shapes::ParamLayout;

/// What ends the name of each of an adapter's two tensors, in place of the weight's `.weight`, as in Hugging Face's peft.
const PARTS: [&str; 2] = [".lora_A.weight", ".lora_B.weight"];

/// The adapters of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapters {
    /// Columns of B and rows of A.
    pub rank: usize,
    /// The factor of their product, alpha/rank.
    pub scale: f32,
    /// The weights that have one.
    pub of: Vec<Adapter>,
}

/// Where one adapter lies in the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adapter {
    /// The weight.
    pub target: usize,
    /// A.
    pub a: usize,
    /// B.
    pub b: usize,
    /// Rows of the weight.
    pub outputs: usize,
    /// Its columns: all further dimensions.
    pub inputs: usize,
}

impl Adapters {
    /// Adapters for the tensors `targets` of `layout`, and the layout with theirs behind all others.
    pub(super) fn new(layout: &ParamLayout, rank: usize, scale: f32, targets: &[usize]) -> (Adapters, ParamLayout) {
        let mut tensors: Vec<(String, Vec<usize>)> =
            layout.params.iter().map(|param| (param.name.clone(), param.shape.clone())).collect();
        let mut of = Vec::new();
        for &target in targets {
            let param = &layout.params[target];
            let (outputs, inputs) = (param.shape[0], param.len / param.shape[0]);
            let [name_a, name_b] = Adapters::names(&param.name);
            let a = tensors.len();
            tensors.push((name_a, vec![rank, inputs]));
            tensors.push((name_b, vec![outputs, rank]));
            of.push(Adapter { target, a, b: a + 1, outputs, inputs });
        }
        (Adapters { rank, scale, of }, ParamLayout::new(&tensors))
    }

    /// The names of A and B of the weight called `target`.
    pub fn names(target: &str) -> [String; 2] {
        let stem = target.strip_suffix(".weight").unwrap_or(target);
        PARTS.map(|part| format!("{stem}{part}"))
    }

    /// Whether `name` is a tensor of an adapter.
    pub fn is_part(name: &str) -> bool {
        PARTS.iter().any(|part| name.ends_with(part))
    }

    /// Appends the adapters' first values to the weights `w` of the layout without them: those of peft. A is uniform within
    /// ±1/√inputs, which is Kaiming's with a slope of √5, and follows from `seed`; B is zero, so that nothing has moved.
    pub fn begin(&self, layout: &ParamLayout, mut w: Vec<f32>, seed: u64) -> Vec<f32> {
        w.resize(layout.len, 0.0);
        let mut random = Random::new(seed);
        for adapter in &self.of {
            let (a, bound) = (&layout.params[adapter.a], (adapter.inputs as f32).sqrt().recip());
            w[a.offset..a.offset + a.len].iter_mut().for_each(|value| *value = bound * random.value());
        }
        w
    }
}
