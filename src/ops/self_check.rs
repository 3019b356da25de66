//! Whether an adapter's less common ways compute what the ordinary kernels do: a driver's mistake there must not spoil a run.

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::gpu::tune::{Tile, Variant};
use crate::gpu::{Gpu, Program, View};
use crate::ops::{Recorder, cast, matmul};

/// Rows, outputs and inputs of the layers that are compared: whole tiles, edges, a sum that is shared, and, in f32, widths
/// that 4 does not divide.
const SHAPES: [(usize, usize, usize); 4] = [(64, 64, 64), (70, 36, 100), (600, 68, 20), (70, 37, 101)];

/// Sums of up to 600 products of values below 1, in f32 by both ways: they differ by roundings alone.
const TOLERANCE: f32 = 1e-4;

/// Lets the tuner choose cooperative matrices on `gpu` where it has them and they are right in all three products. Returns
/// whether it may now; false, too, where the driver can't compile or run them.
pub fn allow_cooperative(gpu: &Gpu) -> bool {
    let allowed = gpu.offered_cooperative().is_some() && agrees(gpu, Tile::Cooperative, Element::Half);
    if allowed {
        gpu.allow(Tile::Cooperative);
    }
    allowed
}

/// The same for products through the registers of a subgroup, whose lanes are taken to be those of the workgroup in order.
pub fn allow_subgroups(gpu: &Gpu) -> bool {
    let allowed = gpu.has_subgroups() && agrees(gpu, Tile::Subgroup, Element::Word);
    if allowed {
        gpu.allow(Tile::Subgroup);
    }
    allowed
}

/// Whether `tile` computes what [`Tile::Tiled`] does.
fn agrees(gpu: &Gpu, tile: Tile, element: Element) -> bool {
    let suited = SHAPES.into_iter().filter(|(_, n, k)| element == Element::Word || (n % 4, k % 4) == (0, 0));
    suited.into_iter().all(|shape| match are_right(gpu, tile, element, shape) {
        Ok(true) => true,
        Ok(false) => {
            tracing::warn!("{tile:?} is not used: its products of {shape:?} are wrong on {}", gpu.info.name);
            false
        }
        Err(e) => {
            tracing::warn!("{tile:?} is not used: {e}");
            false
        }
    })
}

/// Values in −1..1 that f16 holds exactly, none like its neighbours.
fn values(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 37 + i / 61 * 11 + seed * 17) % 127) as f32 / 64.0 - 1.0).collect()
}

fn operand(gpu: &Gpu, r: &mut Recorder, element: Element, label: &str, values: &[f32]) -> Result<View> {
    if element == Element::Word {
        return gpu.upload(label, values);
    }
    let view = gpu.buffer(label, Element::Half.words(values.len()))?.holding(Element::Half, values.len());
    cast::forward(r, &view, &gpu.upload(label, values)?)?;
    Ok(view)
}

fn are_right(gpu: &Gpu, tile: Tile, element: Element, (m, n, k): (usize, usize, usize)) -> Result<bool> {
    let scratch = gpu.buffer("check: scratch", matmul::scratch_len(m, n, k).max(2 * (n * k + 64)))?;
    let mut r = Recorder::new(gpu, &scratch);
    let inp = operand(gpu, &mut r, element, "check: input", &values(m * k, 1))?;
    let weight = operand(gpu, &mut r, element, "check: weight", &values(n * k, 2))?;
    let dout = operand(gpu, &mut r, element, "check: gradient", &values(m * n, 3))?;
    let bias = gpu.upload("check: bias", &values(n, 4))?;
    let mut outputs = Vec::new();
    for tile in [Tile::Tiled, tile] {
        r.forced = Some(Variant { tile, split: if m > 512 { 2 } else { 1 } });
        let [out, dinp, dweight] =
            [("out", m * n), ("dinp", m * k), ("dweight", n * k)].map(|(name, len)| gpu.buffer(name, len));
        let (out, dinp, dweight) = (out?, dinp?, dweight?);
        matmul::forward(&mut r, &out, &inp, &weight, Some(&bias), m, n, k)?;
        matmul::backward_input(&mut r, &dinp, &dout, &weight, m, n, k)?;
        matmul::backward_weight(&mut r, &dweight, &dout, &inp, m, n, k)?;
        outputs.push([out, dinp, dweight]);
    }
    Program::run(gpu, &[], &[&r.program])?;
    for (want, got) in outputs[0].iter().zip(&outputs[1]) {
        let (want, got): (Vec<f32>, Vec<f32>) = (gpu.read(want)?, gpu.read(got)?);
        let largest = want.iter().fold(0.0, |a: f32, x| a.max(x.abs()));
        if !want.iter().zip(&got).all(|(want, got)| (want - got).abs() <= TOLERANCE * largest) {
            return Ok(false);
        }
    }
    Ok(true)
}
