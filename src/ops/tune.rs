//! Measures the variants of products on the adapter at hand, a few replays each, on buffers of the products' own shapes; and
//! compares the fastest with the plainest before it may compute anything.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::gpu::Gpu;
use crate::gpu::tiles::{Choices, Variant};
use crate::ops::product::Product;
use crate::ops::trial::{Trial, Way, compute};
use crate::ops::{attention, conv2d};

/// Floating-point operations of one measured product: a CPU, a GPU. Larger ones are cut to fewer rows or images.
const FLOPS: [f64; 2] = [2e8, 2e10];

/// How a product did in one variant.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The variant.
    pub variant: Variant,
    /// Seconds, the fastest of a few replays; infinite if the adapter could not run it.
    pub seconds: f64,
    /// Why it must not compute this product: its results are wrong, or the driver has refused it.
    pub refused: Option<String>,
}

/// The fastest right variant of each class among `products`, measured on `gpu`, until `limit` is over: classes that are left
/// then keep their defaults. `each` hears of every class as it is decided.
///
/// # Errors
/// Where the device fails, or can't run a product's [reference](Product::reference).
pub fn measure(
    gpu: &Gpu,
    products: &[Product],
    limit: Duration,
    each: &mut dyn FnMut(&str, &[Measured]),
) -> Result<Choices> {
    measure_by(gpu, products, limit, &compute, each)
}

/// As [`measure`], of products that are recorded in this `way`.
pub fn measure_by(
    gpu: &Gpu,
    products: &[Product],
    limit: Duration,
    way: Way,
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
        if product.candidates(gpu).len() < 2 {
            continue;
        }
        if started.elapsed() > limit {
            break;
        }
        // Kernels that were recorded before may still be building on other threads.
        gpu.finish_pipelines();
        let (chosen, measured) = decide(gpu, product, way)?;
        each(&class, &measured);
        choices.insert(class, chosen);
    }
    Ok(choices)
}

/// Choices that were measured on another adapter, or under another driver: of those for `products` the ones that `gpu` can run,
/// each after a comparison with its product's [reference](Product::reference), which takes its place where it is wrong. `each`
/// hears of the wrong ones: class, variant, and fault.
///
/// # Errors
/// Where the device fails, or can't run a product's reference.
pub fn confirm(
    gpu: &Gpu,
    products: &[Product],
    choices: &Choices,
    each: &mut dyn FnMut(&str, Variant, &str),
) -> Result<Choices> {
    confirm_by(gpu, products, choices, &compute, each)
}

/// As [`confirm`], of products that are recorded in this `way`.
pub fn confirm_by(
    gpu: &Gpu,
    products: &[Product],
    choices: &Choices,
    way: Way,
    each: &mut dyn FnMut(&str, Variant, &str),
) -> Result<Choices> {
    let mut confirmed = Choices::new();
    for whole in products {
        let (class, reference) = (whole.class(), whole.reference(gpu));
        let Some(&variant) = choices.get(&class).filter(|variant| whole.candidates(gpu).contains(variant)) else {
            continue;
        };
        if confirmed.contains_key(&class) {
            continue;
        }
        let product = cut(*whole, FLOPS[usize::from(!gpu.is_cpu())]);
        let fault = if variant == reference {
            None
        } else {
            let mut trial = Trial::new(gpu, product, *whole, way)?;
            trial.prepare()?;
            // A variant that the driver refuses is no more use than a wrong one.
            let fault = trial.fault(variant).unwrap_or_else(|e| Some(e.to_string()));
            gpu.check()?;
            fault
        };
        if let Some(why) = &fault {
            each(&class, variant, why);
        }
        confirmed.insert(class, if fault.is_none() { variant } else { reference });
    }
    Ok(confirmed)
}

/// Floating-point operations of what [`measure`] runs for `product` on `gpu`: it cuts large products.
pub fn measured_flops(gpu: &Gpu, product: Product) -> f64 {
    cut(product, FLOPS[usize::from(!gpu.is_cpu())]).flops()
}

/// Times all candidates, then goes from the fastest on to the first that is right.
fn decide(gpu: &Gpu, whole: Product, way: Way) -> Result<(Variant, Vec<Measured>)> {
    let product = cut(whole, FLOPS[usize::from(!gpu.is_cpu())]);
    let reference = product.reference(gpu);
    let mut trial = Trial::new(gpu, product, whole, way)?;
    let mut measured = Vec::new();
    for variant in whole.candidates(gpu) {
        let (seconds, refused) = match trial.time(variant) {
            Ok(seconds) => (seconds, None),
            Err(e) if variant == reference => return Err(e),
            Err(e) => (f64::INFINITY, Some(e.to_string())),
        };
        gpu.check()?;
        measured.push(Measured { variant, seconds, refused });
    }
    let mut by_time: Vec<&mut Measured> = measured.iter_mut().filter(|m| m.refused.is_none()).collect();
    by_time.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let mut chosen = reference;
    for m in by_time {
        if m.variant == reference {
            break;
        }
        m.refused = trial.fault(m.variant)?;
        if m.refused.is_none() {
            chosen = m.variant;
            break;
        }
    }
    Ok((chosen, measured))
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
        Product::Attention { pass, dims, element, mask } => {
            let batch = ((dims.batch as f64 * share).ceil() as usize).max(1);
            Product::Attention { pass, dims: attention::Dims { batch, ..dims }, element, mask }
        }
    }
}
