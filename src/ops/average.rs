//! Host wrapper of `shaders/average.wgsl`.

use crate::error::Result;
use crate::gpu::{View, shaders};
use crate::ops::{Len, Recorder, check, elementwise};

/// `out = (a + b) / 2`, all of one length.
pub fn forward(r: &mut Recorder, out: &View, a: &View, b: &View) -> Result<()> {
    check("average", "a", a, out.len);
    check("average", "b", b, out.len);
    let kernel = r.kernel(&shaders::AVERAGE, "forward", &[])?;
    r.push(&kernel, &[("a", a), ("b", b), ("out", out)], &Len { len: out.len as u32 }, elementwise(out.len));
    Ok(())
}

/// `dinp = dout / 2`, the gradient of both.
pub fn backward(r: &mut Recorder, dinp: &View, dout: &View) -> Result<()> {
    check("average::backward", "dinp", dinp, dout.len);
    let kernel = r.kernel(&shaders::AVERAGE, "backward", &[])?;
    r.push(&kernel, &[("dout", dout), ("dinp", dinp)], &Len { len: dout.len as u32 }, elementwise(dout.len));
    Ok(())
}
