//! Measures the variants of products on the adapter at hand: a few replays each, on buffers of the products' own shapes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::gpu::tune::{Choices, Variant};
use crate::gpu::{Gpu, Program, View};
use crate::ops::conv2d;
use crate::ops::product::{Pass, Product};
use crate::ops::{Recorder, matmul};

/// Floating-point operations of one measured product: a CPU, a GPU. Larger ones are cut to fewer rows or images.
const FLOPS: [f64; 2] = [2e8, 2e10];
/// Recorded in a row, so that what a submission costs is shared: a CPU, a GPU.
const IN_A_ROW: [usize; 2] = [1, 10];
/// Timed replays, after one that is not; the fastest counts.
const REPLAYS: usize = 3;

/// How long a product took in one variant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// The variant.
    pub variant: Variant,
    /// Seconds, the fastest of a few replays.
    pub seconds: f64,
}

/// The fastest variant of each class among `products`, measured on `gpu`, until `limit` is over: what is left then keeps its
/// default. `each` hears of every class as it is decided.
pub fn measure(
    gpu: &Gpu,
    products: &[Product],
    limit: Duration,
    each: &mut dyn FnMut(&str, &[Measured]),
) -> Result<Choices> {
    let started = Instant::now();
    let mut classes: BTreeMap<String, Product> = BTreeMap::new();
    for product in products {
        classes.entry(product.class()).or_insert(*product);
    }
    // The products that take longest have most to win, and are measured first.
    let mut classes: Vec<_> = classes.into_iter().collect();
    classes.sort_by(|(_, a), (_, b)| b.flops().total_cmp(&a.flops()));
    let mut choices = Choices::new();
    for (class, product) in classes {
        let candidates = product.candidates(gpu);
        if candidates.len() < 2 {
            continue;
        }
        if started.elapsed() > limit {
            break;
        }
        // What was recorded before may still be building on other threads.
        gpu.finish_pipelines();
        let bench = Bench::new(gpu, product)?;
        let measured = candidates
            .into_iter()
            .map(|variant| Ok(Measured { variant, seconds: bench.time(variant)? }))
            .collect::<Result<Vec<_>>>()?;
        each(&class, &measured);
        let fastest = measured.iter().min_by(|a, b| a.seconds.total_cmp(&b.seconds));
        choices.extend(fastest.map(|m| (class, m.variant)));
    }
    Ok(choices)
}

/// Floating-point operations of what [`measure`] runs for `product` on `gpu`: it cuts large products.
pub fn measured_flops(gpu: &Gpu, product: Product) -> f64 {
    cut(product, FLOPS[usize::from(!gpu.is_cpu())]).flops()
}

/// The product with so few rows or images that it takes no more than `flops`, but a few tiles' worth.
fn cut(product: Product, flops: f64) -> Product {
    let share = (flops / product.flops()).min(1.0);
    match product {
        Product::Linear { pass, rows, out, inp, element } => {
            let fewer = ((rows as f64 * share) as usize).next_multiple_of(128);
            Product::Linear { pass, rows: fewer.min(rows), out, inp, element }
        }
        Product::Conv2d { pass, dims, element } => {
            let batch = ((dims.batch as f64 * share).ceil() as usize).max(1);
            Product::Conv2d { pass, dims: conv2d::Dims { batch, ..dims }, element }
        }
    }
}

/// A product with buffers to run it on.
struct Bench<'g> {
    gpu: &'g Gpu,
    product: Product,
    inp: View,
    out: View,
    weight: View,
    scratch: View,
}

impl<'g> Bench<'g> {
    fn new(gpu: &'g Gpu, whole: Product) -> Result<Bench<'g>> {
        let product = cut(whole, FLOPS[usize::from(!gpu.is_cpu())]);
        let (inp, out, weight) = match product {
            Product::Linear { rows, out, inp, .. } => (rows * inp, rows * out, out * inp),
            Product::Conv2d { dims, .. } => (dims.in_len(), dims.out_len(), dims.weight_len()),
        };
        // Splits are those of the whole product.
        let scratch = match whole {
            Product::Linear { rows, out, inp, .. } => matmul::scratch_len(rows, out, inp),
            Product::Conv2d { dims, .. } => conv2d::scratch_len(dims),
        };
        let (Product::Linear { element, .. } | Product::Conv2d { element, .. }) = product;
        // The gradient of a weight is f32 whatever the operands are.
        let of_weight = if product.pass() == Pass::BackwardWeight { Element::Word } else { element };
        // Zeros, as buffers are when new: what is computed doesn't matter, and is never a NaN or a denormal.
        let buffer = |label: &str, element: Element, len: usize| {
            Ok(gpu.buffer(label, element.words(len))?.holding(element, len))
        };
        Ok(Bench {
            gpu,
            product,
            inp: buffer("tuning: input", element, inp)?,
            out: buffer("tuning: output", element, out)?,
            weight: buffer("tuning: weight", of_weight, weight)?,
            scratch: gpu.buffer("tuning: scratch", scratch.max(1))?,
        })
    }

    fn record(&self, r: &mut Recorder) -> Result<()> {
        let (inp, out, weight) = (&self.inp, &self.out, &self.weight);
        match self.product {
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

    /// Seconds that one product takes.
    fn time(&self, variant: Variant) -> Result<f64> {
        let mut r = Recorder::new(self.gpu, &self.scratch);
        r.forced = Some(variant);
        let in_a_row = IN_A_ROW[usize::from(!self.gpu.is_cpu())];
        for _ in 0..in_a_row {
            self.record(&mut r)?;
        }
        let mut fastest = f64::INFINITY;
        for replay in 0..=REPLAYS {
            let started = Instant::now();
            Program::run(self.gpu, &[], &[&r.program])?;
            self.gpu.wait()?;
            if replay > 0 {
                fastest = fastest.min(started.elapsed().as_secs_f64());
            }
        }
        Ok(fastest / in_a_row as f64)
    }
}
