//! Host wrapper of `shaders/cast.wgsl`.

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::gpu::{View, shaders};
use crate::ops::{Len, Recorder, check, elementwise};

/// `out = inp` in `out`'s format, elementwise.
pub fn forward(r: &mut Recorder, out: &View, inp: &View) -> Result<()> {
    check("cast", "out", out, inp.len);
    let (width, types) = match inp.len.is_multiple_of(4) {
        true => (4, [inp, out].map(|view| format!("vec4<{}>", view.element.scalar()))),
        false => (1, [inp, out].map(|view| view.element.scalar().to_string())),
    };
    let [from, to] = types;
    let kernel =
        r.gpu.kernel(&shaders::CAST, "forward", &[], &format!("alias inp_t = {from};\nalias out_t = {to};\n"))?;
    let len = inp.len / width;
    r.push(&kernel, &[("out", out), ("inp", inp)], &Len { len: len as u32 }, elementwise(len));
    Ok(())
}

/// What is appended to a shader that leaves it to the host what its activations hold.
pub(super) fn stored(element: Element) -> String {
    format!("alias stored = {};\n", element.scalar())
}
