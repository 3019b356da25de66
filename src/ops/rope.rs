//! Host wrapper of `shaders/rope.wgsl`.

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::buffer::Element;
use crate::gpu::program::fold;
use crate::gpu::shaders::{Shader, shader};
use crate::ops::elem::Elem;
use crate::ops::variants::{FLAG, LANES, Variants};
use crate::ops::{ROWS_PER_CHUNK, Recorder, WG, check, column_sum, flag};

pub use crate::cpu::rope::{Dims, Learned};

static SHADER: Shader = shader!("rope", FOLD);

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    tokens: u32,
    prefix: u32,
    heads: u32,
    head_dim: u32,
    len: u32,
    chunk: u32,
    table_heads: u32,
    sign: f32,
    block: u32,
    blocks: u32,
    grid: u32,
    transposed: u32,
}

impl Dims {
    fn elem(self, rotates: bool, stored: Element) -> Elem {
        Elem::of(if rotates && self.halves { self.head_dim / 2 } else { self.head_dim }, stored)
    }

    fn params(self, width: usize) -> Params {
        Params {
            rows: self.rows() as u32,
            tokens: self.tokens as u32,
            prefix: self.prefix as u32,
            heads: self.heads as u32,
            head_dim: (self.head_dim / width) as u32,
            len: (self.len() / width) as u32,
            chunk: ROWS_PER_CHUNK as u32,
            table_heads: 0,
            sign: 1.0,
            block: 0,
            blocks: 0,
            grid: 1,
            transposed: 0,
        }
    }

    fn learned(self, learned: Learned) -> Params {
        let Learned { block, blocks, grid, transposed } = learned;
        assert_eq!(grid * grid, self.tokens - self.prefix, "rope: the tokens are a square grid");
        Params {
            block: block as u32,
            blocks: blocks as u32,
            grid: grid as u32,
            transposed: u32::from(transposed),
            ..self.params(1)
        }
    }

    fn check_freqs(self, op: &str, freqs: &View, learned: Learned) {
        check(op, "freqs", freqs, learned.blocks * self.dim());
        assert!(learned.block < learned.blocks && !self.halves, "{op}: {learned:?}");
    }
}

fn tail(elem: Elem) -> String {
    let neighbour = match elem.width {
        4 => "return x.yxwz;",
        _ => "let j = column ^ 1u; return biased(at - column + j, j);",
    };
    format!(
        "{}alias held = {};\nfn neighbour(at: u32, column: u32, x: elem) -> elem {{ {neighbour} }}\n",
        elem.tail(),
        elem.scalar()
    )
}

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    let flags = |variants: Variants, name| variants.with_in(&["forward"], name, FLAG);
    let plain = Variants::of(&SHADER).append(Elem::ALL.map(tail)).with_in(&["forward"], "WG", LANES);
    vec![["ROTATE", "BIASED", "HALVES"].into_iter().fold(plain, flags)]
}

/// `out = ` `inp` with the biases (`[heads·head_dim]`) on query and value, if any, and query and key turned by `table`, if any:
/// cosines, then sines with their signs, `[tokens − prefix, 2, head_dim]` for all heads or for each. `inp` and `out`
/// `[batch, tokens, 3·heads·head_dim]`, both f32 or both f16.
pub fn forward(
    r: &mut Recorder,
    out: &View,
    inp: &View,
    table: Option<&View>,
    biases: Option<[&View; 2]>,
    dims: Dims,
) -> Result<()> {
    turn(r, out, inp, table, biases, 1.0, dims)
}

/// `dinp = ` from `dout`: turned back.
pub fn backward_input(r: &mut Recorder, dinp: &View, dout: &View, table: Option<&View>, dims: Dims) -> Result<()> {
    turn(r, dinp, dout, table, None, -1.0, dims)
}

fn turn(
    r: &mut Recorder,
    out: &View,
    inp: &View,
    table: Option<&View>,
    biases: Option<[&View; 2]>,
    sign: f32,
    dims: Dims,
) -> Result<()> {
    check("rope", "out", out, dims.len());
    check("rope", "inp", inp, dims.len());
    assert_eq!(out.element, inp.element, "rope: out holds other elements than inp");
    biases.iter().flatten().for_each(|bias| check("rope", "bias", bias, dims.dim()));
    let per_head = table.is_some_and(|table| table.len != dims.table_len());
    if let Some(table) = table {
        check("rope", "table", table, dims.table_len() * if per_head { dims.heads } else { 1 });
        assert!(dims.head_dim.is_multiple_of(2), "rope: a head of {} elements has no pairs", dims.head_dim);
    }
    let elem = dims.elem(table.is_some(), inp.element);
    let flags = [("ROTATE", table.is_some()), ("BIASED", biases.is_some()), ("HALVES", dims.halves)];
    let flags = flags.map(|(name, on)| (name, flag(on)));
    // An absent tensor is never read: any buffer will do.
    let table = table.unwrap_or(inp);
    let [query, value] = biases.unwrap_or([table; 2]);
    let views = [("out", out), ("inp", inp), ("table", table), ("query_bias", query), ("value_bias", value)];
    let params = |len| Params { len, sign, table_heads: u32::from(per_head), ..dims.params(elem.width) };
    r.push_spread((&SHADER, "forward", &flags, &tail(elem)), &views, dims.len(), elem.width, params)
}

/// `dquery += `, `dvalue += ` (`[heads·head_dim]`), the biases' gradients, from what [`backward_input`] wrote.
pub fn backward_bias(r: &mut Recorder, dquery: &View, dvalue: &View, dinp: &View, dims: Dims) -> Result<()> {
    check("rope::backward_bias", "dquery", dquery, dims.dim());
    check("rope::backward_bias", "dvalue", dvalue, dims.dim());
    check("rope::backward_bias", "dinp", dinp, dims.len());
    let chunks = dims.rows().div_ceil(ROWS_PER_CHUNK);
    let partial: [View; 2] = r.scratch("rope::backward_bias", chunks * dims.dim());
    let elem = dims.elem(false, dinp.element);
    let kernel = r.kernel_with(&SHADER, "backward_bias", &[], &tail(elem))?;
    let views = [("dquery", &partial[0]), ("dvalue", &partial[1]), ("dinp", dinp)];
    let grid = [(2 * dims.dim() / elem.width).div_ceil(WG) as u32, chunks as u32, 1];
    r.push(&kernel, &views, &dims.params(elem.width), grid);
    column_sum::add_rows(r, dquery, &partial[0], chunks, dims.dim())?;
    column_sum::add_rows(r, dvalue, &partial[1], chunks, dims.dim())
}

/// `table` `[heads, tokens − prefix, 2, head_dim] = ` of the angles that `freqs` `[2, blocks, heads, head_dim/2]` give the block.
pub fn angles(r: &mut Recorder, table: &View, freqs: &View, learned: Learned, dims: Dims) -> Result<()> {
    check("rope::angles", "table", table, dims.heads * dims.table_len());
    dims.check_freqs("rope::angles", freqs, learned);
    let kernel = r.kernel_with(&SHADER, "angles", &[], &tail(Elem::of(1, Element::Word)))?;
    let grid = fold(dims.angles_len().div_ceil(WG));
    r.push(&kernel, &[("angle_table", table), ("freqs", freqs)], &dims.learned(learned), grid);
    Ok(())
}

/// `dfreqs += ` for one block, from `dout` and forward's `out`; `dangles` `[tokens − prefix, heads·head_dim/2]` is scratch.
pub fn backward_freqs(
    r: &mut Recorder,
    dfreqs: &View,
    dangles: &View,
    dout: &View,
    out: &View,
    learned: Learned,
    dims: Dims,
) -> Result<()> {
    dims.check_freqs("rope::backward_freqs", dfreqs, learned);
    check("rope::backward_freqs", "dangles", dangles, dims.angles_len());
    check("rope::backward_freqs", "dout", dout, dims.len());
    check("rope::backward_freqs", "out", out, dims.len());
    let params = dims.learned(learned);
    let kernel = r.kernel_with(&SHADER, "backward_angles", &[], &tail(Elem::of(1, dout.element)))?;
    let views = [("dangles", dangles), ("dout", dout), ("saved_out", out)];
    r.push(&kernel, &views, &params, fold(dangles.len.div_ceil(WG)));
    let kernel = r.kernel_with(&SHADER, "backward_freqs", &[], &tail(Elem::of(1, Element::Word)))?;
    r.push(&kernel, &[("dfreqs", dfreqs), ("saved_dangles", dangles)], &params, fold(dims.dim().div_ceil(WG)));
    Ok(())
}
