//! Fused attention, forward and both halves of its backward; and the attention of one query. In f32 and f16.

use super::formats::{formats, prefix, rounded, stored_eps};
use super::harness::{Case, HALF_EPS, Launch, Random, narrow, sum_tolerance, wide};
use super::{Plan, Stem, Suite, stem};
use crate::cpu;
use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::gpu::tiles::Tile;
use crate::ops::attention::{Dims, Mask, Scores};
use crate::ops::{self, attention_pool};

pub(super) const STEMS: &[Stem] = &[
    stem(
        "attention",
        attention,
        &[
            "attention::forward",
            "attention::backward_query",
            "attention::backward_key",
            "attention::backward_scores",
            "attention::backward_table",
        ],
    ),
    stem(
        "attention_pool",
        attention_pool,
        &[
            "attention_pool::forward",
            "attention_pool::backward_query",
            "attention_pool::backward_key",
            "attention_pool::assemble",
            "attention_pool::backward_assemble",
            "column_sum::forward",
        ],
    ),
];

fn attention(p: &mut Plan) -> Result<()> {
    // Batch, tokens, heads, width of a head. Widths that are no multiple of four take scalar loads; those above 64 are
    // computed in several chunks, above 256 by several workgroups. Few widths, since each is a kernel to compile.
    let shapes = [
        (1, 1, 1, 4),
        (1, 9, 3, 4),
        (2, 3, 2, 5),
        (1, 66, 1, 5),
        (3, 64, 1, 1),
        (2, 7, 2, 12),
        (1, 8, 1, 12),
        (2, 65, 3, 12),
        (1, 197, 2, 12),
        (1, 63, 1, 64),
        (1, 65, 2, 64),
        (1, 70, 2, 80),
        (1, 33, 2, 128),
        (1, 5, 1, 130),
        (2, 35, 1, 300),
    ];
    for (dims, launch) in launched(p, &shapes, &[3, 7, 10, 14]) {
        // At 6 a few keys take all of the probability, and scores reach ±50: exponentials that overflow if not shifted.
        for (_, scale) in p.pick(&[1.0, 6.0], &[1]) {
            p.add(move |s| case(s, launch, dims, scale, Element::Word, Form::Plain));
        }
    }
    // A class token and a square grid of patches, with a bias for each offset.
    let relative =
        [(1, 2, 1, 4), (2, 5, 2, 5), (3, 10, 3, 4), (1, 17, 2, 32), (2, 65, 1, 12), (1, 197, 2, 12), (2, 82, 1, 64)];
    for (dims, launch) in launched(p, &relative, &[1, 3, 4]) {
        p.add(move |s| case(s, launch, dims, 1.0, Element::Word, Form::Relative));
    }
    // A token alone, an edge of a workgroup's columns, texts of 77 tokens; few widths, since each is a kernel for each mask.
    let [causal, padded, both] = MASKS;
    let masked: [(Mask, &[_], &[usize]); 3] = [
        (causal, &[(1, 1, 1, 4), (2, 33, 2, 5), (3, 63, 2, 12), (4, 77, 2, 12), (1, 130, 1, 64)], &[1, 2]),
        (padded, &[(3, 5, 2, 5), (2, 7, 1, 12), (3, 65, 3, 12)], &[0, 2]),
        (both, &[(3, 66, 1, 5), (4, 77, 2, 12)], &[1]),
    ];
    for (mask, shapes, quick) in masked {
        for (dims, launch) in launched(p, shapes, quick) {
            p.add(move |s| case(s, launch, dims, 2.0, Element::Word, Form::Masked(mask)));
        }
    }
    if p.gpu.check_f16().is_err() {
        return Ok(());
    }
    let shapes = [
        (1, 1, 1, 4),
        (2, 3, 2, 6),
        (2, 65, 3, 12),
        (1, 63, 1, 32),
        (1, 17, 2, 64),
        (1, 197, 2, 64),
        (1, 33, 2, 80),
        (2, 70, 1, 128),
    ];
    let mut halves = launched(p, &shapes, &[1, 2, 3]);
    if p.gpu.runs(Tile::Cooperative) && ops::attention::has_memory(p.gpu) {
        // In a quick run a head of each block of rows and columns.
        for (_, (batch, tokens, heads, head_dim)) in p.pick(&shapes, &[4, 6]) {
            if ops::attention::suits_matrices(head_dim) {
                halves.push((Dims { batch, tokens, heads, head_dim }, Launch::of(p.gpu, Tile::Cooperative)));
            }
        }
    }
    for (dims, launch) in halves {
        p.add(move |s| case(s, launch, dims, 2.0, Element::Half, Form::Plain));
        let masks: &[Mask] = match (launch.is_cooperative(), dims.head_dim) {
            (true, _) => &MASKS,
            (false, 12) => &MASKS[2..],
            _ => &[],
        };
        for &mask in masks {
            p.add(move |s| case(s, launch, dims, 2.0, Element::Half, Form::Masked(mask)));
        }
    }
    for (dims, launch) in launched(p, &relative, &[1, 4]) {
        p.add(move |s| case(s, launch, dims, 1.0, Element::Half, Form::Relative));
    }
    Ok(())
}

/// The widest head of a quick run's kernels for CPUs: LLVM takes half a second for one of them, 25 where a head has 300.
const QUICK_WIDTH: usize = 32;

/// These shapes, batch, tokens, heads, and width of a head, in every variant. In a quick run those at the places `quick`: for
/// GPUs a head of each way to load and to cut it, for CPUs each width up to [`QUICK_WIDTH`] and each width of words.
fn launched(p: &Plan, shapes: &[(usize, usize, usize, usize)], quick: &[usize]) -> Vec<(Dims, Launch)> {
    let of = |(_, (batch, tokens, heads, head_dim))| {
        Launch::both(p.gpu).into_iter().map(move |launch| (Dims { batch, tokens, heads, head_dim }, launch))
    };
    let all = p.pick(shapes, quick).into_iter().flat_map(of).collect();
    p.thin(all, |(dims, launch)| match (launch.for_cpu, dims.head_dim) {
        // Other widths than multiples of four take the kernels for GPUs.
        (true, width) if width > QUICK_WIDTH || !width.is_multiple_of(4) => Vec::new(),
        (true, width) => vec![format!("{width}"), launch.word().to_string()],
        (false, width) => vec![format!("GPU, fours {}, wide {}", width.is_multiple_of(4), width > 256)],
    })
}

/// What becomes of scores besides their scale.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    Relative,
    Masked(Mask),
}

const MASKS: [Mask; 3] =
    [Mask { causal: true, padded: false }, Mask { causal: false, padded: true }, Mask { causal: true, padded: true }];

fn case(s: &mut Suite, launch: Launch, dims: Dims, scale: f32, element: Element, form: Form) -> Result<()> {
    let Dims { batch, tokens, heads, head_dim } = dims;
    let (dim, stats) = (heads * head_dim, batch * heads * tokens);
    let mut random = Random::new((tokens * dim) as u64);
    let mut qkv = random.vec(batch * tokens * 3 * dim);
    // Queries and keys alone: large values would only scale the result.
    for row in qkv.chunks_mut(3 * dim) {
        row[..2 * dim].iter_mut().for_each(|x| *x *= scale);
    }
    let (qkv, dout) = (rounded(qkv, element), rounded(random.vec(batch * tokens * dim), element));
    let (qkv64, dout64) = (wide(&qkv), wide(&dout));
    let (mut want, mut want_lse) = (vec![0.0; batch * tokens * dim], vec![0.0; stats]);
    let table = (form == Form::Relative).then(|| random.vec(dims.offsets() * heads));
    let table64 = table.as_deref().map(wide);
    let mask = if let Form::Masked(mask) = form { mask } else { Mask::default() };
    // A whole sequence, a single token, and half of one.
    let lengths: Option<Vec<u32>> =
        mask.padded.then(|| (0..batch).map(|b| [tokens, 1, tokens / 2 + 1][b % 3] as u32).collect());
    let scores =
        cpu::attention::Scores { relative: table64.as_deref(), causal: mask.causal, lengths: lengths.as_deref() };
    cpu::attention::forward_scored(&mut want, &mut want_lse, &qkv64, scores, batch, tokens, heads, head_dim);
    // Backward starts from the same rounded values as the reference.
    let (saved, lse32) = (rounded(narrow(&want), element), narrow(&want_lse));
    let mut want_grad = vec![0.0; qkv.len()];
    let (out64, lse64) = (wide(&saved), wide(&lse32));
    let before = random.vec(table.as_ref().map_or(0, Vec::len));
    let mut want_table = wide(&before);
    let grads = (&mut want_grad, &mut want_table);
    cpu::attention::backward_scored(
        grads.0, grads.1, &dout64, &out64, &qkv64, &lse64, scores, batch, tokens, heads, head_dim,
    );
    let mut want_delta = vec![0.0; stats];
    for (i, delta) in want_delta.iter_mut().enumerate() {
        let (image, head, token) = (i / (heads * tokens), i / tokens % heads, i % tokens);
        let start = (image * tokens + token) * dim + head * head_dim;
        *delta = (start..start + head_dim).map(|j| dout64[j] * out64[j]).sum();
    }

    let (kind, suffix) = (prefix(element), launch.suffix());
    let biased = match form {
        Form::Plain => String::new(),
        Form::Relative => "relative, ".into(),
        Form::Masked(Mask { causal, padded }) => {
            format!("{}{}", if causal { "causal, " } else { "" }, if padded { "padded, " } else { "" })
        }
    };
    let name = format!("{kind}{biased}{batch}×{tokens}, {heads} heads of {head_dim}, scale {scale}, {suffix}");
    let mut c = Case::new(s.gpu, name, 0)?;
    let [qkv, dout] = [c.input_as("qkv", element, &qkv)?, c.input_as("dout", element, &dout)?];
    let (saved_out, saved_lse) = (c.input_as("saved out", element, &saved)?, c.input("saved lse", &lse32)?);
    let [out, dqkv] = [c.output_as("out", element, want.len())?, c.output_as("dqkv", element, want_grad.len())?];
    let [lse, delta] = [c.output("lse", stats)?, c.output("delta", stats)?];
    let table = table.map(|table| c.input("relative", &table)).transpose()?;
    let lengths = lengths.as_ref().map(|lengths| c.words("lengths", lengths)).transpose()?;
    let on_device = match (form, &table) {
        (Form::Relative, Some(table)) => Scores::Relative(table),
        (Form::Masked(Mask { causal, .. }), _) => Scores::Masked { causal, lengths: lengths.as_ref() },
        _ => Scores::Plain,
    };
    c.run(launch, |r| {
        ops::attention::forward(r, &out, &lse, &qkv, on_device, dims)?;
        ops::attention::backward(r, &dqkv, &delta, &dout, &saved_out, &qkv, &saved_lse, on_device, dims)
    })?;

    // Sums over keys (or queries) and over the head's width. A score is off by as many units of itself as its sum has
    // roundings, and exp turns that absolute error into a relative one: hence the factor of the largest score.
    let sharp = 1.0 + want_lse.iter().fold(0.0, |a: f64, l| a.max(l.abs()));
    // Matrices take weights of f16, too.
    let weights = if launch.is_cooperative() { HALF_EPS } else { 0.0 };
    let (eps, tolerance) = (stored_eps(element), sum_tolerance(tokens + head_dim, 8.0) * sharp + weights);
    c.expect("attention::forward", &out, &want, eps + tolerance);
    c.expect("attention::forward", &lse, &want_lse, sum_tolerance(tokens + head_dim, 8.0));
    // Gradients of queries, keys and values. Errors are relative to the mean as well, and zeros, as of queries that see a single key and
    // of keys that nobody sees, make that smaller without making the others' rounded weights any better.
    for (kernel, offset) in
        [("attention::backward_query", 0), ("attention::backward_key", dim), ("attention::backward_key", 2 * dim)]
    {
        let rows = (0..batch * tokens).map(|row| row * 3 * dim + offset..row * 3 * dim + offset + dim);
        let rows: Vec<_> = rows.collect();
        let values = || rows.iter().cloned().flatten().map(|i| want_grad[i].abs());
        let largest = values().fold(0.0, f64::max);
        let some = values().filter(|value| *value > 1e-9 * largest).count();
        let diluted = values().count() as f64 / some.max(1) as f64;
        let tolerance = tolerance + weights * (diluted - 1.0);
        c.expect_at(kernel, &dqkv, &rows, &want_grad, eps + 2.0 * tolerance);
    }
    c.expect("attention::backward_query", &delta, &want_delta, sum_tolerance(head_dim, 4.0));
    if let Some(table) = table {
        let mut want_scores = vec![0.0; dims.scores()];
        cpu::attention::score_gradients(
            &mut want_scores,
            &dout64,
            &out64,
            &qkv64,
            &lse64,
            scores,
            batch,
            tokens,
            heads,
            head_dim,
        );
        let delta = c.input("saved delta", &narrow(&want_delta))?;
        let (drelative, dscores) = (c.input("drelative", &before)?, c.output("dscores", dims.scores())?);
        c.run(launch, |r| {
            ops::attention::backward_relative(r, &drelative, &dscores, &dout, &qkv, &saved_lse, &delta, &table, dims)
        })?;
        let depth = batch * (tokens + head_dim);
        c.expect("attention::backward_scores", &dscores, &want_scores, 2.0 * sum_tolerance(depth, 8.0) * sharp);
        c.expect(
            "attention::backward_table",
            &drelative,
            &want_table,
            2.0 * sum_tolerance(depth * tokens, 8.0) * sharp,
        );
    }
    s.finish(c)
}

fn attention_pool(p: &mut Plan) -> Result<()> {
    // Batch, tokens, heads, width of a head: one token alone, more and fewer than lanes of either variant, of both.
    let shapes =
        [(1, 1, 1, 1), (2, 3, 2, 5), (3, 50, 2, 64), (1, 65, 3, 12), (2, 197, 1, 63), (1, 7, 4, 65), (5, 2, 3, 1)];
    for (_, (batch, tokens, heads, head_dim)) in p.pick(&shapes, &[2, 5]) {
        let dims = attention_pool::Dims { batch, tokens, heads, head_dim };
        let formats = formats(p.gpu);
        for (launch, &element) in
            Launch::reductions(p.gpu).into_iter().flat_map(|l| formats.iter().map(move |e| (l, e)))
        {
            // As for attention: at 6 a few keys take all of the probability.
            for (_, scale) in p.pick(&[1.0, 6.0], &[1]) {
                p.add(move |s| one_query(s, launch, dims, scale, element));
            }
            if tokens > 1 {
                p.add(move |s| assembled(s, launch, dims, element));
            }
        }
    }
    Ok(())
}

fn pool_name(dims: attention_pool::Dims, launch: Launch, element: Element) -> String {
    let attention_pool::Dims { batch, tokens, heads, head_dim } = dims;
    format!("{}{batch}×{tokens}, {heads} heads of {head_dim}, {}", prefix(element), launch.suffix())
}

fn one_query(s: &mut Suite, launch: Launch, dims: attention_pool::Dims, scale: f32, element: Element) -> Result<()> {
    let mut random = Random::new((dims.token_len() + dims.heads) as u64);
    let scaled = |values: Vec<f32>| rounded(values.iter().map(|x| scale * x).collect(), element);
    let (q, k) = (scaled(random.vec(dims.query_len())), scaled(random.vec(dims.token_len())));
    let [v, dout] = [dims.token_len(), dims.query_len()].map(|len| rounded(random.vec(len), element));
    let (q64, k64, v64) = (wide(&q), wide(&k), wide(&v));
    let (mut want, mut want_prob) = (vec![0.0; q.len()], vec![0.0; dims.prob_len()]);
    cpu::attention_pool::forward(&mut want, &mut want_prob, &q64, &k64, &v64, dims);
    // Backward starts from the same rounded values as the reference.
    let prob32 = narrow(&want_prob);
    let (mut want_q, mut want_k, mut want_v) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
    let (dout64, prob64) = (wide(&dout), wide(&prob32));
    let mut want_ds = vec![0.0; prob32.len()];
    let [dq, dk, dv, ds] = [&mut want_q, &mut want_k, &mut want_v, &mut want_ds];
    cpu::attention_pool::backward(dq, dk, dv, ds, &dout64, &q64, &k64, &v64, &prob64, dims);

    let mut c = Case::new(s.gpu, format!("{}, scale {scale}", pool_name(dims, launch, element)), 0)?;
    let [q, k, v] = [c.input_as("q", element, &q)?, c.input_as("k", element, &k)?, c.input_as("v", element, &v)?];
    let [dout, saved] = [c.input_as("dout", element, &dout)?, c.input("saved prob", &prob32)?];
    let out = c.output_as("out", element, want.len())?;
    let [prob, ds] = [c.output("prob", prob32.len())?, c.output("ds", prob32.len())?];
    let [dq, dk] = [c.output_as("dq", element, q.len)?, c.output_as("dk", element, k.len)?];
    let dv = c.output_as("dv", element, v.len)?;
    c.run(launch, |r| {
        ops::attention_pool::forward(r, &out, &prob, &q, &k, &v, dims)?;
        ops::attention_pool::backward(r, &dq, &dk, &dv, &ds, &dout, &q, &k, &v, &saved, dims)
    })?;

    // A probability is off by as many units of the largest score as that sum has roundings: exp makes them relative.
    let sharp = 1.0 + f64::from(scale * scale) * (dims.head_dim as f64).sqrt();
    let depth = dims.tokens + dims.head_dim;
    let (tolerance, stored) = (sum_tolerance(depth, 8.0) * sharp, stored_eps(element));
    c.expect("attention_pool::forward", &prob, &want_prob, tolerance);
    c.expect("attention_pool::forward", &out, &want, stored + tolerance);
    // From given probabilities: sums over tokens and over the head's width, a difference, products.
    c.expect("attention_pool::backward_query", &dq, &want_q, stored + 2.0 * tolerance);
    c.expect("attention_pool::backward_key", &dk, &want_k, stored + 2.0 * tolerance);
    c.expect("attention_pool::backward_key", &dv, &want_v, stored + sum_tolerance(1, 2.0));
    c.expect("attention_pool::backward_query", &ds, &want_ds, 2.0 * tolerance);
    s.finish(c)
}

fn assembled(s: &mut Suite, launch: Launch, dims: attention_pool::Dims, element: Element) -> Result<()> {
    let mut random = Random::new((dims.token_len() * 3) as u64);
    let (inp, pos) = (rounded(random.vec(dims.pixel_len()), element), random.vec(dims.tokens * dims.dim()));
    let (dtokens, before) = (rounded(random.vec(dims.token_len()), element), random.vec(pos.len()));
    let mut want = vec![0.0; dims.token_len()];
    cpu::attention_pool::assemble(&mut want, &wide(&inp), &wide(&pos), dims);
    let (mut want_inp, mut want_pos) = (vec![0.0; inp.len()], wide(&before));
    cpu::attention_pool::assemble_backward(&mut want_inp, &mut want_pos, &wide(&dtokens), dims);

    let mut c = Case::new(s.gpu, pool_name(dims, launch, element), 0)?;
    let [inp, dtokens] = [c.input_as("inp", element, &inp)?, c.input_as("dtokens", element, &dtokens)?];
    let pos = c.input("pos", &pos)?;
    let tokens = c.output_as("tokens", element, want.len())?;
    let dinp = c.output_as("dinp", element, want_inp.len())?;
    let stored = stored_eps(element);
    let dpos = c.input("dpos", &before)?;
    c.run(launch, |r| {
        ops::attention_pool::assemble(r, &tokens, &inp, &pos, dims)?;
        ops::attention_pool::assemble_backward(r, &dinp, &dpos, &dtokens, dims)
    })?;
    c.expect("attention_pool::assemble", &tokens, &want, stored + sum_tolerance(dims.tokens, 3.0));
    c.expect("attention_pool::backward_assemble", &dinp, &want_inp, stored + sum_tolerance(1, 3.0));
    c.expect("column_sum::forward", &dpos, &want_pos, sum_tolerance(dims.batch, 4.0));
    s.finish(c)
}
