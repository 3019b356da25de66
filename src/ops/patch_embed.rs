//! Host wrapper of `shaders/patch_embed.wgsl`.

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::gpu::shaders::{Shader, shader};
use crate::gpu::{View, program::fold};
use crate::ops::elem::{FORMATS, stored};
use crate::ops::variants::Variants;
use crate::ops::{Recorder, WG, check, elementwise};

pub use crate::shapes::Prefix;

static SHADER: Shader = shader!("patch_embed", FOLD);

/// Shape of a patch embedding of square images.
#[derive(Clone, Copy, Debug)]
pub struct Dims {
    /// Images.
    pub batch: usize,
    /// Height and width of an image.
    pub size: usize,
    /// Channels of an image that are read, the first of its three.
    pub channels: usize,
    /// Height and width of a patch. The rest of `size` at the bottom and on the right is not read.
    pub patch: usize,
    /// Width of a token.
    pub dim: usize,
    /// What comes before the patches.
    pub prefix: Prefix,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    batch: u32,
    size: u32,
    patch: u32,
    dim: u32,
    cls_tokens: u32,
    registers: u32,
    cls_pos: u32,
    reg_pos: u32,
    first: u32,
    count: u32,
    patch_pos: u32,
    channels: u32,
}

impl Dims {
    /// Patches of an image.
    pub fn patches(self) -> usize {
        (self.size / self.patch) * (self.size / self.patch)
    }

    /// Elements of an unfolded patch.
    pub fn patch_len(self) -> usize {
        self.channels * self.patch * self.patch
    }

    /// Tokens of an image.
    pub fn tokens(self) -> usize {
        self.patches() + self.prefix.tokens()
    }

    /// Rows of the position embedding.
    pub fn positions(self) -> usize {
        self.patches() + self.prefix.positions()
    }

    fn params(self) -> Params {
        self.params_of(0, 0)
    }

    /// Whether the prefix has positions, too: without any, nothing has.
    fn check_positions(self, op: &str, name: &str, pos: Option<&View>) {
        match pos {
            Some(pos) => check(op, name, pos, self.positions() * self.dim),
            None => assert_eq!(self.prefix.positions(), 0, "{op}: {name} is not there, and the prefix has positions"),
        }
    }

    /// For the gradient of `count` tokens from `first`.
    fn params_of(self, first: usize, count: usize) -> Params {
        let Prefix { class_token, registers, class_position, register_positions } = self.prefix;
        Params {
            batch: self.batch as u32,
            size: self.size as u32,
            patch: self.patch as u32,
            dim: self.dim as u32,
            cls_tokens: u32::from(class_token),
            registers: registers as u32,
            cls_pos: u32::from(class_position),
            reg_pos: u32::from(register_positions),
            first: first as u32,
            count: count as u32,
            patch_pos: 1,
            channels: self.channels as u32,
        }
    }
}

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    vec![Variants::of(&SHADER).append(FORMATS.map(stored))]
}

/// `patches` `[batch·N, channels·patch²] = ` the pixels of `images` `[batch, 3, size, size]`, in a convolution weight's order,
/// as f32 or f16.
pub fn unfold(r: &mut Recorder, patches: &View, images: &View, dims: Dims) -> Result<()> {
    check("patch_embed::unfold", "patches", patches, dims.batch * dims.patches() * dims.patch_len());
    check("patch_embed::unfold", "images", images, dims.batch * 3 * dims.size * dims.size);
    let kernel = r.kernel_with(&SHADER, "unfold", &[], &stored(patches.element))?;
    r.push(&kernel, &[("patches", patches), ("images", images)], &dims.params(), elementwise(patches.len));
    Ok(())
}

/// `tokens` `[batch, T, dim] = ` class token (`[dim]`), registers (`[R, dim]`) and `embedded` `[batch·N, dim]`, plus `pos`
/// (a row for each token that has a position), if given.
pub fn assemble(
    r: &mut Recorder,
    tokens: &View,
    embedded: &View,
    pos: Option<&View>,
    cls: Option<&View>,
    reg: Option<&View>,
    dims: Dims,
) -> Result<()> {
    check("patch_embed::assemble", "tokens", tokens, dims.batch * dims.tokens() * dims.dim);
    check("patch_embed::assemble", "embedded", embedded, dims.batch * dims.patches() * dims.dim);
    dims.check_positions("patch_embed::assemble", "pos", pos);
    assert_eq!(cls.is_some(), dims.prefix.class_token, "patch_embed::assemble: cls");
    assert_eq!(reg.map_or(0, |reg| reg.len), dims.prefix.registers * dims.dim, "patch_embed::assemble: reg");
    let kernel = r.kernel_with(&SHADER, "assemble", &[], &stored(Element::Word))?;
    // An absent tensor is never read: any buffer will do.
    let [rows, cls, reg] = [pos, cls, reg].map(|view| view.unwrap_or(embedded));
    let views = [("tokens", tokens), ("embedded", embedded), ("pos", rows), ("cls", cls), ("reg", reg)];
    let params = Params { patch_pos: u32::from(pos.is_some()), ..dims.params() };
    r.push(&kernel, &views, &params, elementwise(tokens.len));
    Ok(())
}

/// `dembedded = ` (f32 or f16), `dpos += `, `dcls += `, `dreg += ` from `dtokens`. Shapes as in [`assemble`].
pub fn backward(
    r: &mut Recorder,
    dembedded: &View,
    dpos: Option<&View>,
    dcls: Option<&View>,
    dreg: Option<&View>,
    dtokens: &View,
    dims: Dims,
) -> Result<()> {
    check("patch_embed::backward", "dembedded", dembedded, dims.batch * dims.patches() * dims.dim);
    dims.check_positions("patch_embed::backward", "dpos", dpos);
    check("patch_embed::backward", "dtokens", dtokens, dims.batch * dims.tokens() * dims.dim);
    let embedded = r.kernel_with(&SHADER, "backward_embedded", &[], &stored(dembedded.element))?;
    let grid = elementwise(dembedded.len);
    r.push(&embedded, &[("dembedded", dembedded), ("dtokens", dtokens)], &dims.params(), grid);
    if let Some(dpos) = dpos {
        let pos = r.kernel_with(&SHADER, "backward_pos", &[], &stored(Element::Word))?;
        r.push(&pos, &[("dpos", dpos), ("dtokens", dtokens)], &dims.params(), fold(dpos.len.div_ceil(WG)));
    }
    let cls_tokens = usize::from(dims.prefix.class_token);
    for (name, own, first, count) in [("dcls", dcls, 0, cls_tokens), ("dreg", dreg, cls_tokens, dims.prefix.registers)]
    {
        let Some(own) = own else { continue };
        check("patch_embed::backward", name, own, count * dims.dim);
        let kernel = r.kernel_with(&SHADER, "backward_prefix", &[], &stored(Element::Word))?;
        let views = [("dprefix", own), ("dtokens", dtokens)];
        r.push(&kernel, &views, &dims.params_of(first, count), fold(own.len.div_ceil(WG)));
    }
    Ok(())
}
