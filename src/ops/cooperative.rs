//! Whether an adapter's cooperative matrices compute what the other kernels do: a driver's mistake there must not spoil a run.

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::gpu::tune::{Tile, Variant};
use crate::gpu::{Gpu, Program, View};
use crate::ops::{Recorder, cast, matmul};

/// Rows, outputs and inputs of the layers that are compared: whole tiles, edges, and a sum that is shared.
const SHAPES: [(usize, usize, usize); 3] = [(64, 64, 64), (70, 36, 100), (600, 68, 20)];

/// Sums of up to 600 products of values below 1, in f32 by both ways: they differ by roundings alone.
const TOLERANCE: f32 = 1e-4;

/// Lets the tuner choose cooperative matrices on `gpu` where it has them and they are right in all three products. Returns
/// whether it may now; false, too, where the driver can't compile or run them.
pub fn allow_if_right(gpu: &Gpu) -> bool {
    if gpu.offered_cooperative().is_none() {
        return false;
    }
    let right = SHAPES.into_iter().all(|(m, n, k)| match are_right(gpu, m, n, k) {
        Ok(right) => right,
        Err(e) => {
            tracing::warn!("cooperative matrices are not used: {e}");
            false
        }
    });
    if right {
        gpu.allow_cooperative();
    }
    right
}

/// Values in −1..1 that f16 holds exactly, none like its neighbours.
fn values(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 37 + i / 61 * 11 + seed * 17) % 127) as f32 / 64.0 - 1.0).collect()
}

fn half(gpu: &Gpu, r: &mut Recorder, label: &str, values: &[f32]) -> Result<View> {
    let view = gpu.buffer(label, Element::Half.words(values.len()))?.holding(Element::Half, values.len());
    cast::forward(r, &view, &gpu.upload(label, values)?)?;
    Ok(view)
}

fn are_right(gpu: &Gpu, m: usize, n: usize, k: usize) -> Result<bool> {
    let scratch = gpu.buffer("check: scratch", matmul::scratch_len(m, n, k).max(2 * (n * k + 64)))?;
    let mut r = Recorder::new(gpu, &scratch);
    let inp = half(gpu, &mut r, "check: input", &values(m * k, 1))?;
    let weight = half(gpu, &mut r, "check: weight", &values(n * k, 2))?;
    let dout = half(gpu, &mut r, "check: gradient", &values(m * n, 3))?;
    let bias = gpu.upload("check: bias", &values(n, 4))?;
    let mut outputs = Vec::new();
    for tile in [Tile::Tiled, Tile::Cooperative] {
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
            tracing::warn!(
                "cooperative matrices are not used: their {m}×{n}×{k} products are wrong on {}",
                gpu.info.name
            );
            return Ok(false);
        }
    }
    Ok(true)
}
