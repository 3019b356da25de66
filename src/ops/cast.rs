//! Host wrapper of `shaders/cast.wgsl`.

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::buffer::Element;
use crate::gpu::shaders::{Shader, shader};
use crate::ops::variants::Variants;
use crate::ops::{Len, Recorder, check, elementwise};

static SHADER: Shader = shader!("cast", FOLD);

fn tail(from: Element, to: Element, width: usize) -> String {
    let [from, to] = [from, to].map(|element| match width {
        4 => format!("vec4<{}>", element.scalar()),
        _ => element.scalar().to_string(),
    });
    format!("alias inp_t = {from};\nalias out_t = {to};\n")
}

/// Every variant that [`forward`] records.
pub fn variants() -> Vec<Variants> {
    vec![Variants::of(&SHADER).append([1, 4].map(|width| tail(Element::Word, Element::Half, width)))]
}

/// `out = inp` in `out`'s format, elementwise.
pub fn forward(r: &mut Recorder, out: &View, inp: &View) -> Result<()> {
    check("cast", "out", out, inp.len);
    let width = if inp.len.is_multiple_of(4) { 4 } else { 1 };
    let kernel = r.kernel_with(&SHADER, "forward", &[], &tail(inp.element, out.element, width))?;
    let len = inp.len / width;
    r.push(&kernel, &[("out", out), ("inp", inp)], &Len { len: len as u32 }, elementwise(len));
    Ok(())
}
