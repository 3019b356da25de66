//! Kernels alone, at the shapes of ViT-Tiny, ResNet-18, ConvNeXt-Tiny and EfficientNet-B0 with four images of 224 pixels.
//!
//! Of bytes the fewest are counted: every input read once, every output written once. An output that is added to
//! counts as written.

use std::time::Instant;

use crate::bench::peak::{repeats, run};
use crate::bench::{Bench, Figures, Work, models};
use crate::cpu::conv2d::Dims as Conv;
use crate::cpu::depthwise::{Dims as Depthwise, Padding};
use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::gpu::{Gpu, Program, View};
use crate::ops::adamw::{self, AdamW};
use crate::ops::attention::Scores;
use crate::ops::batch_norm::Behind;
use crate::ops::cross_entropy::CHANNELS;
use crate::ops::dropout::Each;
use crate::ops::sgd::{self, Sgd};
use crate::ops::step_state::StepState;
use crate::ops::{
    self, Recorder, attention, batch_norm, conv2d, cross_entropy, gelu, l2_sp, layer_norm, lerp, norm_clip,
};
use crate::shapes::Prefix;
use crate::shapes::Segment;
use crate::shapes::{Activation, Pointwise};
use crate::suite::harness::Random;

/// Dispatches of one kernel or of the few that belong together.
#[derive(Debug)]
pub struct Alone {
    pub(super) shape: String,
    pub(super) work: Work,
    pub(super) program: Program,
}

/// Records a kernel on random tensors.
pub type Record = fn(&Bench) -> Result<Alone>;

/// Images per batch.
pub(super) const BATCH: usize = 4;
/// ViT-Tiny's tokens of a batch, its width, its MLP's.
pub(super) const ROWS: usize = BATCH * 197;
pub(super) const DIM: usize = 192;
const HIDDEN: usize = 768;
/// What leaves ResNet-18's first stage: pixels of a batch, channels.
pub(super) const PIXELS: usize = BATCH * 56 * 56;
pub(super) const CHANNELS_OUT: usize = 64;

const fn conv(size: usize, in_channels: usize, out_channels: usize, kernel: usize, stride: usize) -> Conv {
    let (height, width, padding) = (size, size, kernel / 2);
    Conv {
        batch: BATCH,
        height,
        width,
        in_channels,
        out_channels,
        kernel,
        stride,
        padding: Padding::Even(padding),
        groups: 1,
    }
}

/// ResNet-18's convolutions: its stem, in its first stage, into its second, in its last, and a shortcut.
const STEM: Conv = conv(224, 3, 64, 7, 2);
const WIDE: Conv = conv(56, 64, 64, 3, 1);
const STRIDED: Conv = conv(56, 64, 128, 3, 2);
const DEEP: Conv = conv(7, 512, 512, 3, 1);
const SHORTCUT: Conv = conv(56, 64, 128, 1, 2);
/// ResNeXt-50's in its first stage, of 32 groups, and RegNetY-1.6GF's in its third, of 14.
const GROUPED: Conv = Conv { groups: 32, ..conv(56, 128, 128, 3, 1) };
const GROUPED_WIDE: Conv = Conv { groups: 14, ..conv(14, 336, 336, 3, 1) };

const fn by_channel(size: usize, channels: usize, kernel: usize, stride: usize) -> Depthwise {
    let padding = Padding::Even(kernel / 2);
    Depthwise { batch: BATCH, height: size, width: size, channels, kernel, stride, padding }
}

/// Depth-wise convolutions: ConvNeXt-Tiny's in its first stage, EfficientNet-B0's in its third, second, fifth and third block.
const CONVNEXT: Depthwise = by_channel(56, 96, 7, 1);
const MOBILE_3: Depthwise = by_channel(56, 144, 3, 1);
const MOBILE_3_STRIDED: Depthwise = by_channel(112, 96, 3, 2);
const MOBILE_5: Depthwise = by_channel(28, 240, 5, 1);
const MOBILE_5_STRIDED: Depthwise = by_channel(56, 144, 5, 2);

/// All of them by name.
pub static KERNELS: &[(&str, Record)] = &[
    ("kernel_linear", |b| linear(b, Pass::Forward)),
    ("kernel_linear_backward_input", |b| linear(b, Pass::Input)),
    ("kernel_linear_backward_weight", |b| linear(b, Pass::Weight)),
    ("kernel_linear_gelu", |b| fused(b, false)),
    ("kernel_linear_residual", |b| fused(b, true)),
    ("kernel_column_sum", column_sum),
    ("kernel_layer_norm", layer_norm_forward),
    ("kernel_layer_norm_backward", layer_norm_backward),
    ("kernel_attention", |b| attend(b, false)),
    ("kernel_attention_backward", |b| attend(b, true)),
    ("kernel_gelu", |b| gelus(b, false)),
    ("kernel_gelu_backward", |b| gelus(b, true)),
    ("kernel_residual", |b| residual(b, ROWS, DIM)),
    ("kernel_dropout", |b| dropped(b, Each::Value)),
    ("kernel_stochastic_depth", |b| dropped(b, Each::Image)),
    ("kernel_conv2d_stem", |b| convolve(b, STEM, Pass::Forward)),
    ("kernel_conv2d_stem_backward_weight", |b| convolve(b, STEM, Pass::Weight)),
    ("kernel_conv2d_wide", |b| convolve(b, WIDE, Pass::Forward)),
    ("kernel_conv2d_wide_backward_input", |b| convolve(b, WIDE, Pass::Input)),
    ("kernel_conv2d_wide_backward_weight", |b| convolve(b, WIDE, Pass::Weight)),
    ("kernel_conv2d_strided", |b| convolve(b, STRIDED, Pass::Forward)),
    ("kernel_conv2d_strided_backward_input", |b| convolve(b, STRIDED, Pass::Input)),
    ("kernel_conv2d_strided_backward_weight", |b| convolve(b, STRIDED, Pass::Weight)),
    ("kernel_conv2d_deep", |b| convolve(b, DEEP, Pass::Forward)),
    ("kernel_conv2d_deep_backward_input", |b| convolve(b, DEEP, Pass::Input)),
    ("kernel_conv2d_deep_backward_weight", |b| convolve(b, DEEP, Pass::Weight)),
    ("kernel_conv2d_shortcut", |b| convolve(b, SHORTCUT, Pass::Forward)),
    ("kernel_conv2d_shortcut_backward_input", |b| convolve(b, SHORTCUT, Pass::Input)),
    ("kernel_conv2d_shortcut_backward_weight", |b| convolve(b, SHORTCUT, Pass::Weight)),
    ("kernel_conv2d_grouped", |b| convolve(b, GROUPED, Pass::Forward)),
    ("kernel_conv2d_grouped_backward_input", |b| convolve(b, GROUPED, Pass::Input)),
    ("kernel_conv2d_grouped_backward_weight", |b| convolve(b, GROUPED, Pass::Weight)),
    ("kernel_conv2d_grouped_wide", |b| convolve(b, GROUPED_WIDE, Pass::Forward)),
    ("kernel_conv2d_grouped_wide_backward_input", |b| convolve(b, GROUPED_WIDE, Pass::Input)),
    ("kernel_conv2d_grouped_wide_backward_weight", |b| convolve(b, GROUPED_WIDE, Pass::Weight)),
    ("kernel_depthwise", |b| depthwise(b, CONVNEXT, Pass::Forward)),
    ("kernel_depthwise_backward_input", |b| depthwise(b, CONVNEXT, Pass::Input)),
    ("kernel_depthwise_backward_weight", |b| depthwise(b, CONVNEXT, Pass::Weight)),
    ("kernel_depthwise_3", |b| depthwise(b, MOBILE_3, Pass::Forward)),
    ("kernel_depthwise_3_backward_input", |b| depthwise(b, MOBILE_3, Pass::Input)),
    ("kernel_depthwise_3_backward_weight", |b| depthwise(b, MOBILE_3, Pass::Weight)),
    ("kernel_depthwise_3_strided", |b| depthwise(b, MOBILE_3_STRIDED, Pass::Forward)),
    ("kernel_depthwise_3_strided_backward_input", |b| depthwise(b, MOBILE_3_STRIDED, Pass::Input)),
    ("kernel_depthwise_3_strided_backward_weight", |b| depthwise(b, MOBILE_3_STRIDED, Pass::Weight)),
    ("kernel_depthwise_5", |b| depthwise(b, MOBILE_5, Pass::Forward)),
    ("kernel_depthwise_5_backward_input", |b| depthwise(b, MOBILE_5, Pass::Input)),
    ("kernel_depthwise_5_backward_weight", |b| depthwise(b, MOBILE_5, Pass::Weight)),
    ("kernel_depthwise_5_strided", |b| depthwise(b, MOBILE_5_STRIDED, Pass::Forward)),
    ("kernel_depthwise_5_strided_backward_input", |b| depthwise(b, MOBILE_5_STRIDED, Pass::Input)),
    ("kernel_depthwise_5_strided_backward_weight", |b| depthwise(b, MOBILE_5_STRIDED, Pass::Weight)),
    ("kernel_batch_norm", |b| norm_by_batch(b, Pointwise::Relu, false)),
    ("kernel_batch_norm_backward", |b| norm_by_batch(b, Pointwise::Relu, true)),
    ("kernel_batch_norm_silu", |b| norm_by_batch(b, Pointwise::Silu, false)),
    ("kernel_batch_norm_silu_backward", |b| norm_by_batch(b, Pointwise::Silu, true)),
    ("kernel_cross_entropy", loss),
    ("kernel_binary_cross_entropy", label_loss),
    ("kernel_patch_embed", patch_embed),
    ("kernel_norm_clip", |b| update(b, Update::NormClip)),
    ("kernel_sgd", |b| update(b, Update::Sgd)),
    ("kernel_adamw", |b| update(b, Update::AdamW)),
    ("kernel_lerp", |b| update(b, Update::Lerp)),
    ("kernel_l2_sp", |b| update(b, Update::L2Sp)),
];

/// A kernel as often in one submit as takes some milliseconds, so that the submit and the wait don't count.
pub fn alone(b: &Bench, record: Record) -> Result<Figures> {
    let Alone { shape, work, program } = record(b)?;
    run(b.gpu, &[&program])?;
    let start = Instant::now();
    run(b.gpu, &[&program])?;
    let programs = vec![&program; repeats(start.elapsed())];
    let times = b.budget.time(|| run(b.gpu, &programs))?;
    Ok(Figures::new(shape, times.divided(programs.len()), work))
}

/// A program with its submit and the wait for it.
fn submitted(b: &Bench, Alone { shape, work, program }: Alone) -> Result<Figures> {
    let times = b.budget.time(|| run(b.gpu, &[&program]))?;
    Ok(Figures::new(shape, times, work))
}

/// The smallest piece of work, from the call to its end: what any wait for the device costs.
pub fn launch(b: &Bench) -> Result<Figures> {
    submitted(b, Alone { work: Work::None, ..residual(b, 1, 64)? })
}

/// The sum of two tensors of 2²⁴ elements.
pub fn add_16m(b: &Bench) -> Result<Figures> {
    submitted(b, residual(b, 1 << 12, 1 << 12)?)
}

/// A linear layer without a bias, `[m, k]` by `[n, k]`, in the benchmark's precision.
pub fn matmul(b: &Bench, shape: [usize; 3]) -> Result<Figures> {
    Ok(submitted(b, layer(b, shape)?)?.in_precision(b.precision))
}

/// Records what [`matmul`] measures.
pub fn layer(b: &Bench, shape: [usize; 3]) -> Result<Alone> {
    product(b, Pass::Forward, shape, b.precision.element())
}

pub(super) fn tensor(gpu: &Gpu, len: usize) -> Result<View> {
    gpu.upload("benchmark", &Random::new(len as u64).vec(len))
}

pub(super) fn tensors<const N: usize>(gpu: &Gpu, len: usize) -> Result<[View; N]> {
    let views: Vec<View> = (0..N).map(|_| tensor(gpu, len)).collect::<Result<_>>()?;
    Ok(views.try_into().unwrap_or_else(|_| unreachable!("as many as were made")))
}

/// Records `ops` with the kernels that are fastest for them.
pub(super) fn record(b: &Bench, scratch: usize, ops: impl Fn(&mut Recorder) -> Result<()>) -> Result<Program> {
    let scratch = b.gpu.buffer("scratch", scratch.max(1))?;
    let recorded = || {
        let mut r = Recorder::new(b.gpu, &scratch);
        ops(&mut r).map(|()| r)
    };
    b.tune(&recorded()?.untuned)?;
    Ok(recorded()?.program)
}

/// Bytes of elements.
pub(super) fn bytes(elements: usize) -> Work {
    Work::Bytes(4.0 * elements as f64)
}

pub(super) fn macs(count: usize) -> Work {
    Work::Flop(2.0 * count as f64)
}

/// Which of a layer's products.
#[derive(Clone, Copy)]
enum Pass {
    Forward,
    Input,
    Weight,
}

/// A random tensor of these elements.
fn tensor_of(gpu: &Gpu, element: Element, len: usize) -> Result<View> {
    let values = tensor(gpu, len)?;
    if element == Element::Word {
        return Ok(values);
    }
    let view = gpu.buffer("benchmark", element.words(len))?.holding(element, len);
    let scratch = gpu.buffer("scratch", 1)?;
    let mut r = Recorder::new(gpu, &scratch);
    ops::cast::forward(&mut r, &view, &values)?;
    run(gpu, &[&r.program])?;
    Ok(view)
}

/// A product whose operands and result are of `element`.
fn product(b: &Bench, pass: Pass, [m, k, n]: [usize; 3], element: Element) -> Result<Alone> {
    let of = |len| tensor_of(b.gpu, element, len);
    let [inp, weight, out] = [of(m * k)?, of(n * k)?, of(m * n)?];
    let program = record(b, ops::matmul::scratch_len(m, n, k), |r| match pass {
        Pass::Forward => ops::matmul::forward(r, &out, &inp, &weight, None, m, n, k),
        Pass::Input => ops::matmul::backward_input(r, &inp, &out, &weight, m, n, k),
        Pass::Weight => ops::matmul::backward_weight(r, &weight, &out, &inp, m, n, k),
    })?;
    Ok(Alone { shape: format!("{m} × {k} × {n}"), work: macs(m * k * n), program })
}

/// ViT-Tiny's widest layer.
fn linear(b: &Bench, pass: Pass) -> Result<Alone> {
    product(b, pass, [ROWS, DIM, HIDDEN], Element::Word)
}

/// The MLP's layers with fused operations: the activation behind the first, the residual behind the second.
fn fused(b: &Bench, second: bool) -> Result<Alone> {
    let (m, n, k) = if second { (ROWS, DIM, HIDDEN) } else { (ROWS, HIDDEN, DIM) };
    let ([inp, weight, bias], [out, other]) =
        ([tensor(b.gpu, m * k)?, tensor(b.gpu, n * k)?, tensor(b.gpu, n)?], tensors(b.gpu, m * n)?);
    let branch = tensor(b.gpu, m * n)?;
    let bias = Some(&bias);
    let program = record(b, 1, |r| match second {
        true => ops::matmul::forward_residual(r, &out, &branch, &other, None, &inp, &weight, bias, m, n, k),
        false => ops::matmul::forward_gelu(r, &out, &other, &inp, &weight, bias, Activation::Gelu, m, n, k),
    })?;
    Ok(Alone { shape: format!("{m} × {k} × {n}"), work: macs(m * k * n), program })
}

fn column_sum(b: &Bench) -> Result<Alone> {
    let [inp, out] = [tensor(b.gpu, ROWS * HIDDEN)?, tensor(b.gpu, HIDDEN)?];
    let scratch = ops::scratch_len(ROWS, HIDDEN);
    let program = record(b, scratch, |r| ops::column_sum::forward(r, &out, &inp, ROWS, HIDDEN))?;
    Ok(Alone { shape: format!("{ROWS} × {HIDDEN}"), work: bytes(ROWS * HIDDEN), program })
}

const NORM: layer_norm::Dims = layer_norm::Dims { rows: ROWS, cols: DIM, eps: 1e-6 };

fn layer_norm_forward(b: &Bench) -> Result<Alone> {
    let [out, inp] = tensors(b.gpu, ROWS * DIM)?;
    let ([mean, rstd], [weight, bias]) = (tensors(b.gpu, ROWS)?, tensors(b.gpu, DIM)?);
    let program = record(b, 1, |r| layer_norm::forward(r, &out, &mean, &rstd, &inp, &weight, &bias, NORM))?;
    Ok(Alone { shape: format!("{ROWS} × {DIM}"), work: bytes(2 * ROWS * DIM), program })
}

fn layer_norm_backward(b: &Bench) -> Result<Alone> {
    let [dinp, dout, inp] = tensors(b.gpu, ROWS * DIM)?;
    let ([mean, rstd], [weight, dweight, dbias]) = (tensors(b.gpu, ROWS)?, tensors(b.gpu, DIM)?);
    let program = record(b, ops::scratch_len(ROWS, DIM), |r| {
        layer_norm::backward_params(r, &dweight, &dbias, &dout, &inp, &mean, &rstd, NORM)?;
        layer_norm::backward_input(r, &dinp, &dout, &inp, &weight, &mean, &rstd, NORM, false)
    })?;
    Ok(Alone { shape: format!("{ROWS} × {DIM}"), work: bytes(3 * ROWS * DIM), program })
}

fn attend(b: &Bench, backward: bool) -> Result<Alone> {
    let (tokens, heads) = (ROWS / BATCH, DIM / 64);
    let dims = attention::Dims { batch: BATCH, tokens, heads, head_dim: 64 };
    let ([qkv, dqkv], [out, dout], [lse, delta]) =
        (tensors(b.gpu, 3 * ROWS * DIM)?, tensors(b.gpu, ROWS * DIM)?, tensors(b.gpu, ROWS * heads)?);
    let program = record(b, 1, |r| {
        if backward {
            attention::backward(r, &dqkv, &delta, &dout, &out, &qkv, &lse, Scores::Plain, dims)
        } else {
            attention::forward(r, &out, &lse, &qkv, Scores::Plain, dims)
        }
    })?;
    // Two products forward, four backward; the scores that backward computes anew are not counted.
    let products = if backward { 4 } else { 2 };
    let shape = format!("{BATCH} × {tokens} tokens, {heads} heads of 64");
    Ok(Alone { shape, work: macs(products * BATCH * tokens * tokens * DIM), program })
}

fn gelus(b: &Bench, backward: bool) -> Result<Alone> {
    let [out, inp, dout] = tensors(b.gpu, ROWS * HIDDEN)?;
    let program = record(b, 1, |r| {
        if backward {
            gelu::backward(r, &out, &dout, &inp, Activation::Gelu)
        } else {
            gelu::forward(r, &out, &inp, Activation::Gelu)
        }
    })?;
    let arrays = if backward { 3 } else { 2 };
    Ok(Alone { shape: format!("{ROWS} × {HIDDEN}"), work: bytes(arrays * ROWS * HIDDEN), program })
}

fn residual(b: &Bench, rows: usize, cols: usize) -> Result<Alone> {
    let [out, inp, branch] = tensors(b.gpu, rows * cols)?;
    let program = record(b, 1, |r| ops::residual::forward(r, &out, &inp, &branch, None, rows, cols))?;
    Ok(Alone { shape: format!("{rows} × {cols}"), work: bytes(3 * rows * cols), program })
}

fn dropped(b: &Bench, each: Each) -> Result<Alone> {
    let ([out, inp], random) = (tensors(b.gpu, ROWS * DIM)?, b.gpu.upload("random", &[1u32, 2, 3, 0])?);
    let dims = ops::dropout::Dims { batch: BATCH, per: ROWS / BATCH * DIM, each, layer: 0, rate: 0.2 };
    let program = record(b, 1, |r| ops::dropout::forward(r, &out, &inp, &random, dims))?;
    Ok(Alone { shape: format!("{ROWS} × {DIM}"), work: bytes(2 * ROWS * DIM), program })
}

fn convolve(b: &Bench, dims: Conv, pass: Pass) -> Result<Alone> {
    // Images are stored with four channels, as the model has them.
    let inp = tensor(b.gpu, dims.in_pixels() * dims.in_channels.next_multiple_of(4))?;
    let [out, weight] = [tensor(b.gpu, dims.out_len())?, tensor(b.gpu, dims.weight_len())?];
    let program = record(b, conv2d::scratch_len(dims), |r| match pass {
        Pass::Forward => conv2d::forward(r, &out, &inp, &weight, dims),
        Pass::Input => conv2d::backward_input(r, &inp, &out, &weight, dims, false),
        Pass::Weight => conv2d::backward_weight(r, &weight, &out, &inp, dims),
    })?;
    let Conv { batch, height, in_channels, out_channels, kernel, stride, groups, .. } = dims;
    let mut shape = format!("{batch} × {height} px, {in_channels} to {out_channels}, {kernel} × {kernel} / {stride}");
    if groups > 1 {
        shape += &format!(", {groups} groups");
    }
    Ok(Alone { shape, work: macs(dims.out_pixels() * dims.weight_len()), program })
}

fn depthwise(b: &Bench, dims: Depthwise, pass: Pass) -> Result<Alone> {
    let Depthwise { height, channels, kernel, stride, .. } = dims;
    let [inp, out] = [tensor(b.gpu, dims.in_len())?, tensor(b.gpu, dims.out_len())?];
    let ([weight], [bias]) = (tensors(b.gpu, dims.weight_len())?, tensors(b.gpu, channels)?);
    let program = record(b, ops::depthwise::scratch_len(dims), |r| match pass {
        Pass::Forward => ops::depthwise::forward(r, &out, &inp, &weight, Some(&bias), dims),
        Pass::Input => ops::depthwise::backward_input(r, &inp, &out, &weight, dims, false),
        Pass::Weight => ops::depthwise::backward_weight(r, &weight, &out, &inp, dims),
    })?;
    let shape = format!("{BATCH} × {height} px, {channels}, {kernel} × {kernel} / {stride}");
    let flop = (2 * dims.out_len() * kernel * kernel) as f64;
    Ok(Alone { shape, work: Work::Both { flop, bytes: 4.0 * (dims.in_len() + dims.out_len()) as f64 }, program })
}

fn norm_by_batch(b: &Bench, kind: Pointwise, backward: bool) -> Result<Alone> {
    let (rows, cols) = (PIXELS, CHANNELS_OUT);
    let dims = batch_norm::Dims { rows, cols, eps: 1e-5, momentum: 0.1 };
    let [out, inp, dout, dinp] = tensors(b.gpu, rows * cols)?;
    let [mean, rstd, running_mean, running_var] = tensors(b.gpu, cols)?;
    let [weight, bias, dweight, dbias] = tensors(b.gpu, cols)?;
    let stats = batch_norm::Stats { mean: &mean, rstd: &rstd, running_mean: &running_mean, running_var: &running_var };
    let mode = batch_norm::Mode::Train;
    let program = record(b, batch_norm::scratch_len(rows, cols, 1), |r| {
        if backward {
            let behind = match kind {
                Pointwise::Relu => Behind::Relu(&out),
                curve => Behind::Curve(curve, &bias),
            };
            batch_norm::backward(r, &dinp, &dweight, &dbias, &dout, behind, &inp, &weight, &mean, &rstd, mode, dims)
        } else {
            batch_norm::forward(r, &out, stats, &inp, &weight, &bias, None, Some(kind), mode, dims)
        }
    })?;
    let saved = usize::from(kind == Pointwise::Relu);
    let arrays = if backward { 3 + saved } else { 2 };
    Ok(Alone { shape: format!("{rows} × {cols}, with {kind:?}"), work: bytes(arrays * rows * cols), program })
}

/// Images to patches, a row each.
fn patch_embed(b: &Bench) -> Result<Alone> {
    let prefix = Prefix { class_token: true, class_position: true, ..Prefix::default() };
    let dims = ops::patch_embed::Dims { batch: BATCH, size: 224, channels: 3, patch: 16, dim: DIM, prefix };
    let [images, patches] = tensors(b.gpu, BATCH * 3 * 224 * 224)?;
    let program = record(b, 1, |r| ops::patch_embed::unfold(r, &patches, &images, dims))?;
    Ok(Alone { shape: format!("{BATCH} × 224 px, patch 16"), work: bytes(2 * images.len), program })
}

fn loss(b: &Bench) -> Result<Alone> {
    let dims = cross_entropy::Dims { batch: BATCH, classes: 1000, smoothing: 0.0, grad_scale: 1.0 / BATCH as f32 };
    let ([logits, dlogits], loss) = (tensors(b.gpu, BATCH * 1000)?, tensor(b.gpu, BATCH)?);
    let labels = b.gpu.upload("labels", &Random::new(1).indices(BATCH, 1000))?;
    let program = record(b, 1, |r| cross_entropy::forward(r, &loss, &dlogits, &logits, &labels, dims))?;
    Ok(Alone { shape: format!("{BATCH} × 1000, with its gradient"), work: bytes(2 * BATCH * 1000), program })
}

/// Of 80 labels per image, as COCO has.
fn label_loss(b: &Bench) -> Result<Alone> {
    let (batch, classes) = (BATCH, 80);
    let dims = ops::binary_cross_entropy::Dims { batch, classes, grad_scale: 1.0 / batch as f32 };
    let ([logits, dlogits, targets], loss) = (tensors(b.gpu, batch * classes)?, tensor(b.gpu, batch)?);
    let positive = b.gpu.upload("positive", &vec![1f32; classes])?;
    let both = (&targets, &positive);
    let program = record(b, 1, |r| ops::binary_cross_entropy::forward(r, &loss, &dlogits, &logits, both, None, dims))?;
    Ok(Alone { shape: format!("{batch} × {classes}, with its gradient"), work: bytes(3 * batch * classes), program })
}

/// What runs over the whole arena once per step.
#[derive(Clone, Copy, PartialEq)]
enum Update {
    NormClip,
    Sgd,
    AdamW,
    Lerp,
    L2Sp,
}

/// Over ViT-Tiny's parameters.
fn update(b: &Bench, which: Update) -> Result<Alone> {
    let layout = models::net("vit_tiny").fresh().0.layout().clone();
    let segments: Vec<Segment> = layout.segments(b.gpu.limits.max_storage_buffer_binding_size)?;
    let [w, dw, m, v] = tensors(b.gpu, layout.len)?;
    // A step so small that nothing runs away however often it is taken; no bias correction; nothing clipped or bad.
    let step =
        StepState { lr: 1e-9, bias_correction1: 1.0, bias_correction2_sqrt: 1.0, step: 1, ..StepState::default() };
    let (state, health) = (b.gpu.upload("step state", &step.words())?, b.gpu.upload("health", &[1f32.to_bits(), 0])?);
    let ring = b.gpu.buffer("ring", crate::method::settings::WINDOW * CHANNELS)?;
    let partials = b.gpu.buffer("partial sums", norm_clip::partials_len(&segments))?;
    // Second moments are not negative.
    b.gpu.write(&v, &vec![1e-2f32; layout.len]);
    let program = record(b, 1, |r| match which {
        Update::NormClip => norm_clip::forward(r, &health, &ring, &dw, &state, &partials, &segments, 1.0),
        Update::Sgd => {
            let hyper = Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.0 };
            sgd::step(r, &w, Some(&m), &dw, &state, &health, &segments, hyper)
        }
        Update::AdamW => {
            let hyper = AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };
            adamw::step(r, &w, &m, &v, &dw, &state, &health, &segments, hyper)
        }
        Update::Lerp => lerp::forward(r, &w, &m, &segments, 1e-4),
        Update::L2Sp => l2_sp::backward(r, &dw, &w, &m, None, &segments, 1e-9),
    })?;
    let arrays = match which {
        Update::NormClip => 1,
        Update::Lerp => 3,
        Update::L2Sp => 4,
        Update::Sgd => 5,
        Update::AdamW => 7,
    };
    Ok(Alone { shape: format!("{} parameters", layout.count()), work: bytes(arrays * layout.count()), program })
}
