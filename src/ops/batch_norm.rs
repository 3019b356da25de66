//! Host wrapper of `shaders/batch_norm.wgsl`.

use std::sync::Arc;

use crate::error::Result;
use crate::gpu::buffer::{Element, align};
use crate::gpu::shaders::{Shader, shader};
use crate::gpu::{Kernel, View, program::MAX_GROUPS, program::fold};
use crate::ops::elem::Elem;
use crate::ops::variants::{FLAG, LANES, Variants};
use crate::ops::words::{all_elems, elems};
use crate::ops::{Recorder, WG, check, flag};
use crate::shapes::Pointwise;

static SHADER: Shader = shader!("batch_norm", REDUCE, FOLD, SEAT);

/// Shape of a batch norm: statistics over `rows`, for each of `cols`.
#[derive(Clone, Copy, Debug)]
pub struct Dims {
    /// Rows: pixels of all images. In train mode at least 2, or the running variance would be that of nothing.
    pub rows: usize,
    /// Columns: channels.
    pub cols: usize,
    /// Added to the variance.
    pub eps: f32,
    /// Weight of this batch in the running statistics.
    pub momentum: f32,
}

/// Whose statistics normalise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The batch's own, through which the gradient flows; they move the running ones.
    Train,
    /// Those of the batches of so many ranks together. Each needs one row, and all two.
    Shared(usize),
    /// The running ones: an affine map of each channel.
    Eval,
}

/// What backward takes from forward, and the running statistics: `[cols]` each.
#[derive(Clone, Copy, Debug)]
pub struct Stats<'a> {
    /// Assigned by forward. In train mode it is relative to row 0 of `inp` (see the shader).
    pub mean: &'a View,
    /// Assigned by forward: 1 / √(var + eps).
    pub rstd: &'a View,
    /// Read in eval mode, moved in train mode.
    pub running_mean: &'a View,
    /// Read in eval mode, moved in train mode; unbiased, as PyTorch keeps it.
    pub running_var: &'a View,
}

/// The activation behind a norm, as its gradients need it.
#[derive(Clone, Copy, Debug)]
pub enum Behind<'a> {
    /// Nothing.
    Nothing,
    /// A ReLU: its saved output, since the gradient counts where that is positive.
    Relu(&'a View),
    /// Another activation that [`fuses`]: the norm's bias, since its slope is computed anew.
    Curve(Pointwise, &'a View),
}

/// `ACT` of the shader.
const CURVES: &[f64] = &[2.0, 3.0, 4.0];

/// Whether the activation can be computed in the norm's kernels.
pub fn fuses(kind: Pointwise) -> bool {
    number(kind).is_some()
}

fn number(kind: Pointwise) -> Option<f64> {
    match kind {
        Pointwise::Relu => Some(1.0),
        Pointwise::Relu6 => Some(2.0),
        Pointwise::Silu => Some(3.0),
        Pointwise::HardSwish => Some(4.0),
        Pointwise::Gelu => None,
    }
}

/// The override for an activation. Panics on one that the kernels don't have: the caller asks [`fuses`].
fn act(kind: Option<Pointwise>) -> (&'static str, f64) {
    let number = |kind| number(kind).unwrap_or_else(|| panic!("batch_norm: {kind:?} in its kernels"));
    ("ACT", kind.map_or(0.0, number))
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    cols: u32,
    chunk: u32,
    partials: u32,
    eps: f32,
    momentum: f32,
}

/// Partial results of a column that are left for the last stage, at most, for each row of lanes.
const MAX_CHUNKS: usize = 256;
/// Rows that a lane takes at least.
const LANE_ROWS: usize = 64;

/// How `lanes` of a workgroup share the matrix.
#[derive(Clone, Copy)]
struct Split {
    dims: Dims,
    elem: Elem,
    element: Element,
    lanes: usize,
    /// Lanes side by side, and rows of them.
    across: usize,
    subs: usize,
}

fn tail(elem: Elem, element: Element, wide: bool) -> String {
    format!("{}alias single = {};\n", elems(elem, element, wide), element.scalar())
}

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    let formats = all_elems().into_iter().map(|(elem, element, wide)| tail(elem, element, wide));
    let curved = &["backward_partials_curved", "backward_input_curved"];
    let flags = Variants::of(&SHADER).append(formats).with("WG", LANES).with("TRAIN", FLAG);
    let flags = flags.with_in(&["backward_partials", "backward_input"], "RELU", FLAG);
    let flags = flags.with_in(&["forward"], "SHORTCUT", FLAG).with_in(curved, "ACT", CURVES);
    vec![flags.with_in(&["forward"], "ACT", &[0.0, 1.0, 2.0, 3.0, 4.0])]
}

impl Split {
    fn new(dims: Dims, element: Element, lanes: usize) -> Split {
        let elem = Elem::of(dims.cols, element);
        let across = lanes.min(dims.cols / elem.width);
        Split { dims, elem, element, lanes, across, subs: lanes / across }
    }

    /// Rows of a workgroup of a reduction.
    fn chunk(self) -> usize {
        self.dims.rows.div_ceil(MAX_CHUNKS).max(LANE_ROWS * self.subs)
    }

    fn partials(self) -> usize {
        self.dims.rows.div_ceil(self.chunk()) * self.subs
    }

    fn params(self, chunk: usize, width: usize) -> Params {
        Params {
            rows: self.dims.rows as u32,
            cols: (self.dims.cols / width) as u32,
            chunk: chunk as u32,
            partials: self.partials() as u32,
            eps: self.dims.eps,
            momentum: self.dims.momentum,
        }
    }

    fn kernel(self, r: &Recorder, entry: &str, constants: &[(&str, f64)]) -> Result<Arc<Kernel>> {
        let constants = [constants, &[("WG", self.lanes as f64)]].concat();
        let wide = self.elem.width == 4 && r.for_cpu && r.wide_words;
        r.kernel_with(&SHADER, entry, &constants, &tail(self.elem, self.element, wide))
    }

    /// Runs an entry whose lanes walk down columns, `chunk` rows per workgroup.
    fn columns(
        self,
        r: &mut Recorder,
        entry: &str,
        constants: &[(&str, f64)],
        views: &[(&str, &View)],
        chunk: usize,
        partials: usize,
    ) -> Result<()> {
        let kernel = self.kernel(r, entry, constants)?;
        let across = (self.dims.cols / self.elem.width).div_ceil(self.across);
        let grid = [across as u32, self.dims.rows.div_ceil(chunk) as u32, 1];
        let params = Params { partials: partials as u32, ..self.params(chunk, self.elem.width) };
        r.push(&kernel, views, &params, grid);
        Ok(())
    }

    /// Runs an entry with one workgroup per channel.
    fn channels(self, r: &mut Recorder, entry: &str, views: &[(&str, &View)]) -> Result<()> {
        let kernel = self.kernel(r, entry, &[])?;
        r.push(&kernel, views, &self.params(self.chunk(), 1), fold(self.dims.cols));
        Ok(())
    }

    /// Runs an entry with one lane per channel, over the results of `ranks` ranks.
    fn lanes(self, r: &mut Recorder, entry: &str, views: &[(&str, &View)], ranks: usize) -> Result<()> {
        let kernel = self.kernel(r, entry, &[])?;
        let params = Params { partials: ranks as u32, ..self.params(self.chunk(), 1) };
        r.push(&kernel, views, &params, fold(self.dims.cols.div_ceil(self.lanes)));
        Ok(())
    }

    /// Rows of a workgroup of an elementwise entry.
    fn elementwise(self) -> usize {
        self.dims.rows.div_ceil(MAX_GROUPS).max(LANE_ROWS * self.subs)
    }
}

/// Elements of scratch that a batch norm over `rows` and `cols` needs, whose statistics are those of `ranks` ranks.
pub fn scratch_len(rows: usize, cols: usize, ranks: usize) -> usize {
    let dims = Dims { rows, cols, eps: 0.0, momentum: 0.0 };
    let lens = [8, WG].map(|lanes| 2 * Split::new(dims, Element::Word, lanes).partials() * cols);
    let told = if ranks > 1 { align(3 * cols + 1) + align(ranks * (3 * cols + 1)) } else { 0 };
    align(lens[0].max(lens[1])) + told
}

/// Scratch of a pass: partial results, which have their place whatever follows, what this rank tells the others of each channel, and what all tell.
fn shared_scratch(r: &Recorder, op: &str, partials: usize, told: usize, ranks: usize) -> [View; 3] {
    let [whole] = r.scratch(op, align(partials) + align(told) + ranks * told);
    let own = align(partials);
    [whole.first(partials), whole.slice(own, told), whole.slice(own + align(told), ranks * told)]
}

fn check_all(op: &str, matrices: &[(&str, &View)], columns: &[(&str, &View)], dims: Dims) {
    for (name, view) in matrices {
        check(op, name, view, dims.rows * dims.cols);
        assert_eq!(view.element, matrices[0].1.element, "{op}: {name} and {} of one kind", matrices[0].0);
    }
    for (name, view) in columns {
        check(op, name, view, dims.cols);
    }
}

/// `out = x̂·weight + bias`, plus `shortcut` if there is one, then through `activation`, one that [`fuses`]. Assigns
/// `stats.mean` and `stats.rstd`, and in train mode moves the running statistics. Matrices are `[rows, cols]`, all f32
/// or all f16; the rest is `[cols]`, f32.
pub fn forward(
    r: &mut Recorder,
    out: &View,
    stats: Stats,
    inp: &View,
    weight: &View,
    bias: &View,
    shortcut: Option<&View>,
    activation: Option<Pointwise>,
    mode: Mode,
    dims: Dims,
) -> Result<()> {
    let op = "batch_norm";
    let Stats { mean, rstd, running_mean, running_var } = stats;
    check_all(op, &[("inp", inp)], &[("mean", mean), ("rstd", rstd)], dims);
    check_all(op, &[], &[("running_mean", running_mean), ("running_var", running_var)], dims);
    let split = Split::new(dims, inp.element, r.reduce_lanes());
    let moved = [("mean", mean), ("rstd", rstd), ("running_mean", running_mean), ("running_var", running_var)];
    let first_row = inp.first(dims.cols);
    let own_sums = 2 * split.partials() * dims.cols;
    if mode != Mode::Eval {
        let [partials] = r.scratch(op, own_sums);
        let views = [("inp", inp), ("partials", &partials)];
        split.columns(r, "statistics", &[], &views, split.chunk(), split.partials())?;
    }
    if let Mode::Shared(ranks) = mode {
        let [partials, told, all] = shared_scratch(r, op, own_sums, 3 * dims.cols + 1, ranks);
        let views = [("first_row", &first_row), ("sums", &partials), ("told", &told)];
        split.channels(r, "own_statistics", &views)?;
        r.gather(&told, &all);
        let views = [&[("first_row", &first_row), ("all", &all)], &moved[..]].concat();
        split.lanes(r, "shared_statistics", &views, ranks)?;
    } else if mode == Mode::Train {
        assert!(dims.rows > 1, "{op}: one row has no variance");
        let [partials] = r.scratch(op, own_sums);
        let views = [&[("first_row", &first_row), ("sums", &partials)], &moved[..]].concat();
        split.channels(r, "finish_statistics", &views)?;
    } else {
        let kernel = split.kernel(r, "running_statistics", &[])?;
        let views =
            [("saved_running_mean", running_mean), ("saved_running_var", running_var), ("mean", mean), ("rstd", rstd)];
        r.push(&kernel, &views, &split.params(split.chunk(), 1), fold(dims.cols.div_ceil(split.lanes)));
    }
    normalize(r, out, inp, weight, bias, mean, rstd, shortcut, activation, mode, dims)
}

/// The last part of [`forward`], with statistics that it has saved: `out` once more, and nothing else moves.
pub fn normalize(
    r: &mut Recorder,
    out: &View,
    inp: &View,
    weight: &View,
    bias: &View,
    mean: &View,
    rstd: &View,
    shortcut: Option<&View>,
    activation: Option<Pointwise>,
    mode: Mode,
    dims: Dims,
) -> Result<()> {
    let op = "batch_norm";
    check_all(op, &[("out", out), ("inp", inp), ("shortcut", shortcut.unwrap_or(inp))], &[], dims);
    check_all(op, &[], &[("weight", weight), ("bias", bias), ("mean", mean), ("rstd", rstd)], dims);
    let split = Split::new(dims, inp.element, r.reduce_lanes());
    let views = [
        ("out", out),
        ("inp", inp),
        ("saved_mean", mean),
        ("saved_rstd", rstd),
        ("weight", weight),
        ("bias", bias),
        ("shortcut", shortcut.unwrap_or(inp)),
    ];
    let constants = [("TRAIN", flag(mode != Mode::Eval)), act(activation), ("SHORTCUT", flag(shortcut.is_some()))];
    split.columns(r, "forward", &constants, &views, split.elementwise(), split.partials())
}

/// `dinp = `, `dweight += `, `dbias += `, where `dout` is the gradient of the activation `behind` the norm. A shortcut's gradient,
/// where a ReLU is, is [`crate::ops::relu::backward`] of its output, without one `dout` itself.
pub fn backward(
    r: &mut Recorder,
    dinp: &View,
    dweight: &View,
    dbias: &View,
    dout: &View,
    behind: Behind,
    inp: &View,
    weight: &View,
    mean: &View,
    rstd: &View,
    mode: Mode,
    dims: Dims,
) -> Result<()> {
    let op = "batch_norm::backward";
    check_all(op, &[("dinp", dinp), ("dout", dout), ("inp", inp)], &[], dims);
    let columns = [("dweight", dweight), ("dbias", dbias), ("weight", weight), ("mean", mean), ("rstd", rstd)];
    check_all(op, &[], &columns, dims);
    let split = Split::new(dims, inp.element, r.reduce_lanes());
    let [partials] = r.scratch(op, 2 * split.partials() * dims.cols);
    let train = ("TRAIN", flag(mode != Mode::Eval));
    let mut common = vec![("dout", dout), ("inp", inp), ("saved_mean", mean), ("saved_rstd", rstd)];
    let relu = ("RELU", flag(matches!(behind, Behind::Relu(_))));
    let (entries, constants) = match behind {
        Behind::Nothing | Behind::Relu(_) => (["backward_partials", "backward_input"], [train, relu]),
        Behind::Curve(kind, _) => (["backward_partials_curved", "backward_input_curved"], [train, act(Some(kind))]),
    };
    match behind {
        Behind::Nothing => common.push(("saved_out", dout)),
        Behind::Relu(out) => {
            check_all(op, &[("out", out), ("dout", dout)], &[], dims);
            common.push(("saved_out", out));
        }
        Behind::Curve(_, bias) => {
            check_all(op, &[], &[("bias", bias)], dims);
            common.push(("own_bias", bias));
        }
    }
    let mut views = [&common[..], &[("dpartials", &partials)]].concat();
    if let Behind::Curve(..) = behind {
        views.push(("weight", weight));
    }
    split.columns(r, entries[0], &constants, &views, split.chunk(), split.partials())?;
    let grads = [("dweight", dweight), ("dbias", dbias)];
    let Mode::Shared(ranks) = mode else {
        split.channels(r, "backward_params", &[&[("sums", &partials)], &grads[..]].concat())?;
        let views = [&common[..], &[("totals", &partials), ("weight", weight), ("dinp", dinp)]].concat();
        return split.columns(r, entries[1], &constants, &views, split.elementwise(), split.partials());
    };
    let [partials, told, all] = shared_scratch(r, op, partials.len, 2 * dims.cols + 1, ranks);
    split.channels(r, "backward_own", &[&[("sums", &partials), ("told", &told)], &grads[..]].concat())?;
    r.gather(&told, &all);
    split.lanes(r, "backward_shared", &[("all", &all), ("told", &told)], ranks)?;
    let totals = told.first(2 * dims.cols);
    let views = [&common[..], &[("totals", &totals), ("weight", weight), ("dinp", dinp)]].concat();
    split.columns(r, entries[1], &constants, &views, split.elementwise(), 1)
}
