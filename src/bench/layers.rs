//! Kernels of layers that some networks have, alone, at the shapes that these have with four images of 224 pixels.
//!
//! Bytes are counted as in [`kernels`](super::kernels).

use crate::bench::kernels::{
    Alone, BATCH, CHANNELS_OUT, DIM, PIXELS, ROWS, Record, bytes, macs, record, tensor, tensors,
};
use crate::bench::peak::run;
use crate::bench::{Bench, Work};
use crate::cpu::avg_pool::Dims as AvgPool;
use crate::cpu::depthwise::Padding;
use crate::cpu::max_pool::Dims as MaxPool;
use crate::error::Result;
use crate::gpu::View;
use crate::gpu::buffer::Element;
use crate::ops::attention::{self, Scores};
use crate::ops::blur::{self, Filter};
use crate::ops::distill::On;
use crate::ops::gate::Kind;
use crate::ops::swiglu::Gate;
use crate::ops::{
    self, Recorder, attention_pool, gate, grn, group_norm, l2_normalize, layer_norm, rms_norm, rope, slice,
    split_attention, standardize, swiglu, unfold,
};

/// All of them by name.
pub(super) static LAYERS: &[(&str, Record)] = &[
    ("kernel_cast", cast),
    ("kernel_relu", |b| pointwise(b, ops::relu::forward)),
    ("kernel_relu_backward", |b| {
        pointwise_backward(b, |r, dinp, dout, out| ops::relu::backward(r, dinp, dout, out, false))
    }),
    ("kernel_relu6", |b| pointwise(b, ops::relu6::forward)),
    ("kernel_relu6_backward", |b| pointwise_backward(b, ops::relu6::backward_input)),
    ("kernel_silu", |b| pointwise(b, ops::silu::forward)),
    ("kernel_silu_backward", |b| pointwise_backward(b, ops::silu::backward_input)),
    ("kernel_hard_swish", |b| pointwise(b, ops::hard_swish::forward)),
    ("kernel_hard_swish_backward", |b| pointwise_backward(b, ops::hard_swish::backward_input)),
    ("kernel_max_pool", |b| max_pool(b, false)),
    ("kernel_max_pool_backward", |b| max_pool(b, true)),
    ("kernel_avg_pool", |b| avg_pool(b, false)),
    ("kernel_avg_pool_backward", |b| avg_pool(b, true)),
    ("kernel_blur", |b| blurred(b, false)),
    ("kernel_blur_backward", |b| blurred(b, true)),
    ("kernel_pool", pool),
    ("kernel_distill", |b| distilled(b, On::Features)),
    ("kernel_distill_logits", |b| distilled(b, On::Logits)),
    ("kernel_slice", |b| sliced(b, false)),
    ("kernel_slice_backward", |b| sliced(b, true)),
    ("kernel_unfold", |b| unfolded(b, false)),
    ("kernel_unfold_backward", |b| unfolded(b, true)),
    ("kernel_gate", |b| gated(b, false)),
    ("kernel_gate_backward", |b| gated(b, true)),
    ("kernel_split_attention", |b| split(b, false)),
    ("kernel_split_attention_backward", |b| split(b, true)),
    ("kernel_grn", |b| response_norm(b, false)),
    ("kernel_grn_backward", |b| response_norm(b, true)),
    ("kernel_group_norm", |b| norm_by_group(b, false)),
    ("kernel_group_norm_backward", |b| norm_by_group(b, true)),
    ("kernel_standardize", |b| standardized(b, false)),
    ("kernel_standardize_backward", |b| standardized(b, true)),
    ("kernel_rms_norm", |b| root_mean_square(b, false)),
    ("kernel_rms_norm_backward", |b| root_mean_square(b, true)),
    ("kernel_l2_normalize", |b| normalized(b, false)),
    ("kernel_l2_normalize_backward", |b| normalized(b, true)),
    ("kernel_swiglu", |b| swiglus(b, false)),
    ("kernel_swiglu_backward", |b| swiglus(b, true)),
    ("kernel_rope", |b| rotary(b, false)),
    ("kernel_rope_backward", |b| rotary(b, true)),
    ("kernel_attention_relative", |b| relative(b, false)),
    ("kernel_attention_relative_backward", |b| relative(b, true)),
    ("kernel_attention_pool", |b| pooled_attention(b, false)),
    ("kernel_attention_pool_backward", |b| pooled_attention(b, true)),
];

/// What leaves ResNet-18's first stage.
fn stage() -> String {
    format!("{PIXELS} × {CHANNELS_OUT}")
}

/// To f16, as before and behind every layer of a step in f16 that computes in f32.
fn cast(b: &Bench) -> Result<Alone> {
    let len = PIXELS * CHANNELS_OUT;
    let inp = tensor(b.gpu, len)?;
    let out = b.gpu.buffer("half", Element::Half.words(len))?.holding(Element::Half, len);
    let program = record(b, 1, |r| ops::cast::forward(r, &out, &inp))?;
    Ok(Alone { shape: stage(), work: Work::Bytes(6.0 * len as f64), program })
}

fn pointwise(b: &Bench, forward: fn(&mut Recorder, &View, &View) -> Result<()>) -> Result<Alone> {
    let len = PIXELS * CHANNELS_OUT;
    let [out, inp] = tensors(b.gpu, len)?;
    let program = record(b, 1, |r| forward(r, &out, &inp))?;
    Ok(Alone { shape: stage(), work: bytes(2 * len), program })
}

/// `backward` assigns the first of three tensors from the others.
fn pointwise_backward(b: &Bench, backward: fn(&mut Recorder, &View, &View, &View) -> Result<()>) -> Result<Alone> {
    let len = PIXELS * CHANNELS_OUT;
    let [dinp, dout, saved] = tensors(b.gpu, len)?;
    let program = record(b, 1, |r| backward(r, &dinp, &dout, &saved))?;
    Ok(Alone { shape: stage(), work: bytes(3 * len), program })
}

fn max_pool(b: &Bench, backward: bool) -> Result<Alone> {
    let (height, width) = (112, 112);
    let dims = MaxPool {
        batch: BATCH,
        height,
        width,
        channels: 64,
        kernel: 3,
        stride: 2,
        padding: Padding::Even(1),
        zeros: false,
    };
    let [inp, out] = [tensor(b.gpu, dims.in_len())?, tensor(b.gpu, dims.out_len())?];
    // Backward reads where the values came from: forward says so first.
    let tap = b.gpu.buffer("taps", dims.out_len())?;
    let forward = record(b, 1, |r| ops::max_pool::forward(r, &out, &tap, &inp, dims))?;
    let program = if backward {
        run(b.gpu, &[&forward])?;
        record(b, 1, |r| ops::max_pool::backward(r, &inp, &out, &tap, dims))?
    } else {
        forward
    };
    let shape = format!("{BATCH} × {height} px, 64, 3 × 3 / 2");
    Ok(Alone { shape, work: bytes(dims.in_len() + 2 * dims.out_len()), program })
}

/// The 2 × 2 pool of a ResNet-D's shortcut.
fn avg_pool(b: &Bench, backward: bool) -> Result<Alone> {
    let (height, width, channels) = (56, 56, CHANNELS_OUT);
    let dims = AvgPool { batch: BATCH, height, width, channels, kernel: 2, stride: 2, padding: 0, ceil_mode: true };
    let [inp, out] = [tensor(b.gpu, dims.in_len())?, tensor(b.gpu, dims.out_len())?];
    let program = record(b, 1, |r| match backward {
        true => ops::avg_pool::backward(r, &inp, &out, dims),
        false => ops::avg_pool::forward(r, &out, &inp, dims),
    })?;
    let shape = format!("{BATCH} × {height} px, {channels}, 2 × 2 / 2");
    Ok(Alone { shape, work: bytes(dims.in_len() + dims.out_len()), program })
}

/// ViT-Tiny's features, or logits of ImageNet's classes, beside a teacher's.
fn distilled(b: &Bench, on: On) -> Result<Alone> {
    let cols = if on == On::Features { DIM } else { 1000 };
    let ([student, teacher, gradient], loss) = (tensors(b.gpu, BATCH * cols)?, tensor(b.gpu, BATCH)?);
    let dims = ops::distill::Dims { batch: BATCH, cols, weight: 1.0, temperature: 2.0, grad_scale: 1.0 / BATCH as f32 };
    let program = record(b, 1, |r| ops::distill::forward(r, on, (&loss, &gradient), (&student, &teacher), None, dims))?;
    let arrays = if on == On::Features { 3 } else { 4 };
    Ok(Alone { shape: format!("{BATCH} × {cols}, with its gradient"), work: bytes(arrays * BATCH * cols), program })
}

/// The filter before a ResNet-50's stride in its second stage, where it has one.
fn blurred(b: &Bench, backward: bool) -> Result<Alone> {
    let (size, channels) = (56, 128);
    let dims = blur::Dims { batch: BATCH, height: size, width: size, channels, stride: 2, filter: Filter::Reflected };
    let [inp, out] = [tensor(b.gpu, dims.in_len())?, tensor(b.gpu, dims.out_len())?];
    let program = record(b, 1, |r| match backward {
        true => blur::backward(r, &inp, &out, dims),
        false => blur::forward(r, &out, &inp, dims),
    })?;
    let shape = format!("{BATCH} × {size} px, {channels}, 3 × 3 / 2");
    Ok(Alone { shape, work: bytes(dims.in_len() + dims.out_len()), program })
}

/// The mean over what leaves ResNet-18's first stage.
fn pool(b: &Bench) -> Result<Alone> {
    let tokens = PIXELS / BATCH;
    let dims = ops::pool::Dims {
        batch: BATCH,
        tokens,
        dim: CHANNELS_OUT,
        first: 0,
        count: tokens,
        stride: CHANNELS_OUT,
        column: 0,
    };
    let [inp, out] = [tensor(b.gpu, PIXELS * CHANNELS_OUT)?, tensor(b.gpu, BATCH * CHANNELS_OUT)?];
    let program = record(b, 1, |r| ops::pool::forward(r, &out, &inp, dims))?;
    Ok(Alone { shape: stage(), work: bytes(PIXELS * CHANNELS_OUT), program })
}

/// One of two parts of MixNet-S's channels at 28 pixels.
fn sliced(b: &Bench, backward: bool) -> Result<Alone> {
    let dims = slice::Dims { rows: BATCH * 28 * 28, pitch: 240, first: 120, count: 120 };
    let [whole, part] = [tensor(b.gpu, dims.len())?, tensor(b.gpu, dims.part_len())?];
    let program = record(b, 1, |r| match backward {
        true => slice::backward(r, &whole, &part, dims, false),
        false => slice::forward(r, &part, &whole, dims),
    })?;
    let moved = dims.part_len() + if backward { dims.len() } else { dims.part_len() };
    Ok(Alone { shape: format!("{} × {} of {}", dims.rows, dims.count, dims.pitch), work: bytes(moved), program })
}

/// ConvNeXt-Tiny's windows before its second stage.
fn unfolded(b: &Bench, backward: bool) -> Result<Alone> {
    let dims = unfold::Dims {
        batch: BATCH,
        height: 56,
        width: 56,
        channels: 96,
        kernel: 2,
        stride: 2,
        padding: Padding::Even(0),
    };
    let [inp, out] = [tensor(b.gpu, dims.in_len())?, tensor(b.gpu, dims.out_len())?];
    let program = record(b, 1, |r| match backward {
        true => unfold::backward(r, &inp, &out, dims, false),
        false => unfold::forward(r, &out, &inp, dims),
    })?;
    Ok(Alone {
        shape: format!("{BATCH} × 56 px, 96, 2 × 2 / 2"), work: bytes(dims.in_len() + dims.out_len()), program
    })
}

/// EfficientNet-B0's squeeze and excitation at 28 pixels, its last step.
fn gated(b: &Bench, backward: bool) -> Result<Alone> {
    let dims = gate::Dims { batch: BATCH, rows: 28 * 28, cols: 240 };
    let [out, inp, dout] = tensors(b.gpu, dims.len())?;
    let [scale, dscale] = tensors(b.gpu, BATCH * dims.cols)?;
    let kind = Kind::Sigmoid;
    let program = record(b, gate::scratch_len(dims), |r| match backward {
        true => gate::backward(r, &out, &dscale, &dout, None, &inp, &scale, kind, dims),
        false => gate::forward(r, &out, &inp, &scale, None, false, kind, dims),
    })?;
    let arrays = if backward { 3 } else { 2 };
    Ok(Alone { shape: format!("{BATCH} × 28 px, {}", dims.cols), work: bytes(arrays * dims.len()), program })
}

/// ResNeSt-50's in its first stage.
fn split(b: &Bench, backward: bool) -> Result<Alone> {
    let dims = split_attention::Dims { batch: BATCH, pixels: 56 * 56, channels: 64, radix: 2, groups: 1 };
    let ([inp, dinp], [out, dout]) = (tensors(b.gpu, dims.in_len())?, tensors(b.gpu, dims.len())?);
    let [prob, logits, dlogits] = tensors(b.gpu, dims.weights_len())?;
    let program = record(b, 1, |r| match backward {
        true => split_attention::backward(r, &dinp, &dlogits, &dout, &inp, &prob, dims),
        false => split_attention::forward(r, &out, &prob, &inp, &logits, dims),
    })?;
    let read = if backward { 2 * dims.in_len() } else { dims.in_len() };
    Ok(Alone { shape: format!("{BATCH} × 56 px, 2 of 64"), work: bytes(read + dims.len()), program })
}

/// ConvNeXt V2-Tiny's in its first stage.
fn response_norm(b: &Bench, backward: bool) -> Result<Alone> {
    let dims = grn::Dims { batch: BATCH, rows: 56 * 56, cols: 384 };
    let [out, inp, dout] = tensors(b.gpu, dims.len())?;
    let [norm, slope, share1, share2] = tensors(b.gpu, BATCH * dims.cols)?;
    let ([weight, bias, dweight, dbias], inverse) = (tensors(b.gpu, dims.cols)?, tensor(b.gpu, BATCH)?);
    let room = [&slope, &share1, &share2];
    let program = record(b, grn::scratch_len(dims), |r| match backward {
        true => grn::backward(r, &out, &dweight, &dbias, room, &dout, &inp, &weight, &norm, &inverse, dims),
        false => grn::forward(r, &out, &norm, &inverse, &inp, &weight, &bias, 1e-6, dims),
    })?;
    let arrays = if backward { 3 } else { 2 };
    Ok(Alone { shape: format!("{BATCH} × 56 px, {}", dims.cols), work: bytes(arrays * dims.len()), program })
}

/// BiT-50's in its first stage, with its ReLU.
fn norm_by_group(b: &Bench, backward: bool) -> Result<Alone> {
    let dims = group_norm::Dims { batch: BATCH, rows: 56 * 56, cols: 256, groups: 32, eps: 1e-5 };
    let [out, inp, dout, dinp] = tensors(b.gpu, dims.batch * dims.rows * dims.cols)?;
    let [mean, rstd, share1, share2] = tensors(b.gpu, BATCH * dims.cols)?;
    let slope = tensor(b.gpu, 2 * BATCH * dims.cols)?;
    let [weight, bias, dweight, dbias] = tensors(b.gpu, dims.cols)?;
    let room = [&slope, &share1, &share2];
    let program = record(b, group_norm::scratch_len(dims), |r| match backward {
        true => {
            let out = Some(&out);
            group_norm::backward(r, &dinp, &dweight, &dbias, room, &dout, out, &inp, &weight, &mean, &rstd, dims)
        }
        false => group_norm::forward(r, &out, &mean, &rstd, &inp, &weight, &bias, true, dims),
    })?;
    let arrays = if backward { 4 } else { 2 };
    let shape = format!("{BATCH} × 56 px, {} in {} groups, with Relu", dims.cols, dims.groups);
    Ok(Alone { shape, work: bytes(arrays * out.len), program })
}

/// Weights of BiT-50's last 3 × 3 convolution.
fn standardized(b: &Bench, backward: bool) -> Result<Alone> {
    let dims = standardize::Dims { rows: 512, cols: 9 * 512, eps: 1e-8 };
    let [out, inp, dout] = tensors(b.gpu, dims.rows * dims.cols)?;
    let program = record(b, 1, |r| match backward {
        true => standardize::backward(r, &out, &dout, &inp, dims),
        false => standardize::forward(r, &out, &inp, dims),
    })?;
    let arrays = if backward { 3 } else { 2 };
    Ok(Alone { shape: format!("{} × {}", dims.rows, dims.cols), work: bytes(arrays * out.len), program })
}

fn root_mean_square(b: &Bench, backward: bool) -> Result<Alone> {
    let dims = layer_norm::Dims { rows: ROWS, cols: DIM, eps: 1e-5 };
    let [out, inp, dout] = tensors(b.gpu, ROWS * DIM)?;
    let (rstd, [weight, dweight]) = (tensor(b.gpu, ROWS)?, tensors(b.gpu, DIM)?);
    let program = record(b, ops::scratch_len(ROWS, DIM), |r| {
        if !backward {
            return rms_norm::forward(r, &out, &rstd, &inp, &weight, dims);
        }
        rms_norm::backward_params(r, &dweight, &dout, &inp, &rstd, dims)?;
        rms_norm::backward_input(r, &out, &dout, &inp, &weight, &rstd, dims, false)
    })?;
    let arrays = if backward { 3 } else { 2 };
    Ok(Alone { shape: format!("{ROWS} × {DIM}"), work: bytes(arrays * ROWS * DIM), program })
}

/// Queries of four images by head, as where they are normalised.
fn normalized(b: &Bench, backward: bool) -> Result<Alone> {
    let (rows, cols) = (ROWS * DIM / 64, 64);
    let ([out, inp, dout], scale) = (tensors(b.gpu, rows * cols)?, tensor(b.gpu, rows)?);
    let program = record(b, 1, |r| match backward {
        true => l2_normalize::backward(r, &inp, &dout, &out, &scale, rows, cols),
        false => l2_normalize::forward(r, &out, &scale, &inp, rows, cols),
    })?;
    let arrays = if backward { 3 } else { 2 };
    Ok(Alone { shape: format!("{rows} × {cols}"), work: bytes(arrays * rows * cols), program })
}

/// EVA-02-Tiny's MLP.
fn swiglus(b: &Bench, backward: bool) -> Result<Alone> {
    let cols = 512;
    let [out, gate, value, dgate, dvalue] = tensors(b.gpu, ROWS * cols)?;
    let program = record(b, 1, |r| match backward {
        true => swiglu::backward_pair(r, &dgate, &dvalue, &out, &gate, &value, Gate::Silu, ROWS, cols),
        false => swiglu::forward_pair(r, &out, &gate, &value, Gate::Silu, ROWS, cols),
    })?;
    let arrays = if backward { 5 } else { 3 };
    Ok(Alone { shape: format!("{ROWS} × {cols}"), work: bytes(arrays * ROWS * cols), program })
}

/// EVA-02-Tiny's queries and keys.
fn rotary(b: &Bench, backward: bool) -> Result<Alone> {
    let dims =
        rope::Dims { batch: BATCH, tokens: ROWS / BATCH, prefix: 1, heads: DIM / 64, head_dim: 64, halves: false };
    let ([out, inp], table) = (tensors(b.gpu, dims.len())?, tensor(b.gpu, dims.table_len())?);
    let program = record(b, 1, |r| match backward {
        true => rope::backward_input(r, &inp, &out, Some(&table), dims),
        false => rope::forward(r, &out, &inp, Some(&table), None, dims),
    })?;
    let shape = format!("{BATCH} × {} tokens, {} heads of 64", dims.tokens, dims.heads);
    Ok(Alone { shape, work: bytes(2 * dims.len()), program })
}

/// ViT-Tiny's attention with BEiT's biases.
fn relative(b: &Bench, backward: bool) -> Result<Alone> {
    let dims = attention::Dims { batch: BATCH, tokens: ROWS / BATCH, heads: DIM / 64, head_dim: 64 };
    let ([qkv, dqkv], [out, dout], [lse, delta]) =
        (tensors(b.gpu, 3 * ROWS * DIM)?, tensors(b.gpu, ROWS * DIM)?, tensors(b.gpu, ROWS * dims.heads)?);
    let table = tensor(b.gpu, dims.offsets() * dims.heads)?;
    let program = record(b, 1, |r| match backward {
        true => attention::backward(r, &dqkv, &delta, &dout, &out, &qkv, &lse, Scores::Relative(&table), dims),
        false => attention::forward(r, &out, &lse, &qkv, Scores::Relative(&table), dims),
    })?;
    let products = if backward { 4 } else { 2 };
    let shape = format!("{BATCH} × {} tokens, {} heads of 64", dims.tokens, dims.heads);
    Ok(Alone { shape, work: macs(products * ROWS * dims.tokens * DIM), program })
}

/// CLIP's ResNet-50: the mean asks 7 × 7 pixels.
fn pooled_attention(b: &Bench, backward: bool) -> Result<Alone> {
    let dims = attention_pool::Dims { batch: BATCH, tokens: 50, heads: 32, head_dim: 64 };
    let [q, out, dq, dout] = tensors(b.gpu, dims.query_len())?;
    let [k, v, dk, dv] = tensors(b.gpu, dims.token_len())?;
    let [prob, ds] = tensors(b.gpu, dims.prob_len())?;
    let program = record(b, 1, |r| match backward {
        true => attention_pool::backward(r, &dq, &dk, &dv, &ds, &dout, &q, &k, &v, &prob, dims),
        false => attention_pool::forward(r, &out, &prob, &q, &k, &v, dims),
    })?;
    let arrays = if backward { 4 } else { 2 };
    Ok(Alone {
        shape: format!("{BATCH} × 50 tokens, 32 heads of 64"), work: bytes(arrays * dims.token_len()), program
    })
}
