//! Host wrapper of `shaders/relu.wgsl`.

use crate::error::Result;
use crate::gpu::{View, shaders};
use crate::ops::{Len, Recorder, check, elem, stored};

/// `out = max(inp, 0)`, as long as `inp`; both f32 or both f16.
pub fn forward(r: &mut Recorder, out: &View, inp: &View) -> Result<()> {
    check("relu", "out", out, inp.len);
    let (width, alias) = elem(inp.len);
    let len = inp.len / width;
    let (constants, grid) = r.spread(len, width);
    let kernel =
        r.gpu.kernel(&shaders::RELU, "forward", &constants, &(alias.to_string() + stored(inp.element, width)))?;
    r.push(&kernel, &[("out", out), ("inp", inp)], &Len { len: len as u32 }, grid);
    Ok(())
}

/// `dinp = dout` where `out`, saved by forward, is positive, else 0; with `accumulate` it is added. All f32 or all f16.
pub fn backward(r: &mut Recorder, dinp: &View, dout: &View, out: &View, accumulate: bool) -> Result<()> {
    check("relu::backward", "dinp", dinp, out.len);
    check("relu::backward", "dout", dout, out.len);
    let (width, alias) = elem(out.len);
    let tail = alias.to_string() + stored(out.element, width);
    let len = out.len / width;
    let ([lanes, per_lane], grid) = r.spread(len, width);
    let constants = [lanes, per_lane, ("ACCUMULATE", f64::from(u8::from(accumulate)))];
    let kernel = r.gpu.kernel(&shaders::RELU, "backward", &constants, &tail)?;
    let views = [("dinp", dinp), ("dout", dout), ("saved_out", out)];
    r.push(&kernel, &views, &Len { len: len as u32 }, grid);
    Ok(())
}
