//! A product on buffers of its own, where its variants show how fast they are and whether they compute the right thing.

use std::time::Instant;

use crate::error::Result;
use crate::gpu::buffer::{Element, align};
use crate::gpu::tiles::Variant;
use crate::gpu::{Gpu, Program, View};
use crate::ops::attention::Scores;
use crate::ops::product::{Pass, Product};
use crate::ops::{Recorder, agreement, attention, conv2d, matmul};

/// Recorded in a row to be timed, so that what a submission costs is shared: a CPU, a GPU.
const IN_A_ROW: [usize; 2] = [1, 10];
/// Timed replays, after one that is not; the fastest counts.
const REPLAYS: usize = 3;
/// Runs whose results must be right, and the same to the bit.
const RUNS: usize = 2;

/// What a product reads and writes: a layer's input and output, or their gradients, and its weight, or its gradient.
#[derive(Debug)]
pub struct Operands {
    /// The layer's input, or the gradient of it.
    pub inp: View,
    /// The layer's output, or the gradient of it.
    pub out: View,
    /// The layer's weight, or the gradient of it; of attention nothing.
    pub weight: View,
    /// What attention has besides.
    pub saved: Option<Saved>,
}

/// What forward of attention leaves for backward, and what backward reads of forward.
#[derive(Debug)]
pub struct Saved {
    /// Queries, keys and values.
    pub qkv: View,
    /// Their attention.
    pub attended: View,
    /// Logarithms of the sums of exponentials.
    pub lse: View,
    /// Scratch.
    pub delta: View,
    /// Tokens of each sequence, which a mask of padding reads.
    pub lengths: View,
}

/// How a product is recorded. [`compute`], unless a test wants wrong results.
pub type Way<'a> = &'a dyn Fn(&mut Recorder, Product, &Operands) -> Result<()>;

/// Records the product, in the variant that the recorder is [forced](Recorder::forced) to.
pub fn compute(r: &mut Recorder, product: Product, Operands { inp, out, weight, saved }: &Operands) -> Result<()> {
    match product {
        Product::Attention { pass, dims, mask, .. } => {
            let Saved { qkv, attended, lse, delta, lengths } =
                saved.as_ref().expect("attention has more operands than a product");
            let scores = scores(mask, lengths);
            match pass {
                Pass::Forward => attention::forward(r, out, lse, inp, scores, dims),
                _ => attention::backward(r, inp, delta, out, attended, qkv, lse, scores, dims),
            }
        }
        Product::Linear { pass, rows: m, out: n, inp: k, .. } => match pass {
            Pass::Forward => matmul::forward(r, out, inp, weight, None, m, n, k),
            Pass::BackwardInput => matmul::backward_input(r, inp, out, weight, m, n, k),
            Pass::BackwardWeight => matmul::backward_weight(r, weight, out, inp, m, n, k),
        },
        Product::Conv2d { pass, dims, .. } => match pass {
            Pass::Forward => conv2d::forward(r, out, inp, weight, dims),
            Pass::BackwardInput => conv2d::backward_input(r, inp, out, weight, dims, false),
            Pass::BackwardWeight => conv2d::backward_weight(r, weight, out, inp, dims),
        },
    }
}

fn scores(mask: attention::Mask, lengths: &View) -> Scores<'_> {
    match mask.hides() {
        true => Scores::Masked { causal: mask.causal, lengths: mask.padded.then_some(lengths) },
        false => Scores::Plain,
    }
}

impl Saved {
    /// Of random queries, keys and values, by the kernel that this adapter takes if nothing was measured.
    fn of(gpu: &Gpu, dims: attention::Dims, element: Element, mask: attention::Mask) -> Result<Saved> {
        let saved = Saved {
            qkv: agreement::random(gpu, "trial: qkv", element, 3 * dims.len(), 4)?,
            attended: agreement::random(gpu, "trial: attended", element, dims.len(), 5)?,
            lse: gpu.buffer("trial: lse", dims.stats())?,
            delta: gpu.buffer("trial: delta", dims.stats())?,
            lengths: gpu.buffer("trial: lengths", dims.batch)?,
        };
        // Of all lengths, as far as there are images.
        let lengths: Vec<u32> = (0..dims.batch).map(|b| (1 + (b + 1) * 7 % dims.tokens) as u32).collect();
        gpu.write(&saved.lengths, &lengths);
        let product = Product::Attention { pass: Pass::Forward, dims, element, mask };
        let mut r = Recorder::new(gpu, &saved.delta);
        r.forced = Some(product.reference(gpu));
        attention::forward(&mut r, &saved.attended, &saved.lse, &saved.qkv, scores(mask, &saved.lengths), dims)?;
        Program::run(gpu, &[], &[&r.program])?;
        Ok(saved)
    }
}

/// A product with buffers to run it on, of random values.
pub(super) struct Trial<'a> {
    gpu: &'a Gpu,
    product: Product,
    operands: Operands,
    scratch: View,
    way: Way<'a>,
    /// What the reference computed.
    want: Option<Vec<f32>>,
}

impl<'a> Trial<'a> {
    /// Buffers for `product`, and for sums that are split as any variant would those of `whole`, the same one with more rows,
    /// or in two.
    pub(super) fn new(gpu: &'a Gpu, product: Product, whole: Product, way: Way<'a>) -> Result<Trial<'a>> {
        let (inp, out, weight) = match product {
            Product::Linear { rows, out, inp, .. } => (rows * inp, rows * out, out * inp),
            Product::Conv2d { dims, .. } => (dims.in_len(), dims.out_len(), dims.weight_len()),
            Product::Attention { dims, .. } => (3 * dims.len(), dims.len(), 1),
        };
        let scratch = match whole {
            Product::Linear { rows, out, inp, .. } => matmul::scratch_len(rows, out, inp),
            Product::Conv2d { dims, .. } => conv2d::scratch_len(dims),
            Product::Attention { .. } => 0,
        };
        let element = product.element();
        // The gradient of a weight is f32 whatever the operands are.
        let of_weight = if product.pass() == Pass::BackwardWeight { Element::Word } else { element };
        let operands = Operands {
            inp: agreement::random(gpu, "trial: input", element, inp, 1)?,
            out: agreement::random(gpu, "trial: output", element, out, 2)?,
            weight: agreement::random(gpu, "trial: weight", of_weight, weight, 3)?,
            saved: match product {
                Product::Attention { dims, mask, .. } => Some(Saved::of(gpu, dims, element, mask)?),
                Product::Linear { .. } | Product::Conv2d { .. } => None,
            },
        };
        let scratch = gpu.buffer("trial: scratch", scratch.max(2 * align(weight)))?;
        Ok(Trial { gpu, product, operands, scratch, way, want: None })
    }

    fn result(&self) -> &View {
        match self.product.pass() {
            Pass::Forward => &self.operands.out,
            Pass::BackwardInput => &self.operands.inp,
            Pass::BackwardWeight => &self.operands.weight,
        }
    }

    fn recorded(&self, variant: Variant, in_a_row: usize) -> Result<Program> {
        let mut r = Recorder::new(self.gpu, &self.scratch);
        r.forced = Some(variant);
        for _ in 0..in_a_row {
            (self.way)(&mut r, self.product, &self.operands)?;
        }
        Ok(r.program)
    }

    /// Seconds that one product takes in this variant.
    pub(super) fn time(&self, variant: Variant) -> Result<f64> {
        let in_a_row = IN_A_ROW[usize::from(!self.gpu.is_cpu())];
        let program = self.recorded(variant, in_a_row)?;
        let mut fastest = f64::INFINITY;
        for replay in 0..=REPLAYS {
            let started = Instant::now();
            Program::run(self.gpu, &[], &[&program])?;
            self.gpu.wait()?;
            if replay > 0 {
                fastest = fastest.min(started.elapsed().as_secs_f64());
            }
        }
        Ok(fastest / in_a_row as f64)
    }

    /// What this variant makes of the product.
    fn computed(&self, program: &Program) -> Result<Vec<f32>> {
        agreement::prepare(self.gpu, self.result(), self.product.pass() == Pass::BackwardWeight);
        Program::run(self.gpu, &[], &[program])?;
        agreement::read(self.gpu, self.result())
    }

    /// Has the [reference](Product::reference) compute the product, to which the others are held, if it has not yet.
    pub(super) fn prepare(&mut self) -> Result<()> {
        if self.want.is_none() {
            let reference = self.product.reference(self.gpu);
            self.want = Some(self.computed(&self.recorded(reference, 1)?)?);
        }
        Ok(())
    }

    /// The fault in this variant's results, if there is any: they differ from those of the product's
    /// [reference](Product::reference), or from run to run.
    pub(super) fn fault(&mut self, variant: Variant) -> Result<Option<String>> {
        self.prepare()?;
        let program = self.recorded(variant, 1)?;
        let runs = (0..RUNS).map(|_| self.computed(&program)).collect::<Result<Vec<_>>>()?;
        let want = self.want.as_deref().unwrap_or_default();
        let mut tolerance = agreement::tolerance(self.product.terms(), self.result().element);
        if let Product::Attention { .. } = self.product {
            tolerance += agreement::HALF_EPS; // its weights are rounded on their way to matrices
        }
        let wrong = runs.iter().find_map(|got| agreement::difference(got, want, tolerance));
        Ok(wrong.or_else(|| runs.windows(2).find_map(|two| agreement::change(&two[0], &two[1]))))
    }
}
