//! Host wrapper of `shaders/patch_embed.wgsl`.

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::gpu::{View, program::fold, shaders};
use crate::ops::{Recorder, WG, check, elementwise};

/// Shape of a patch embedding of square images.
#[derive(Clone, Copy, Debug)]
pub struct Dims {
    /// Images.
    pub batch: usize,
    /// Height and width of an image.
    pub size: usize,
    /// Height and width of a patch, which divides `size`.
    pub patch: usize,
    /// Width of a token.
    pub dim: usize,
    /// Whether a class token comes first.
    pub class_token: bool,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    batch: u32,
    size: u32,
    patch: u32,
    dim: u32,
    cls_tokens: u32,
}

impl Dims {
    /// Patches of an image.
    pub fn patches(self) -> usize {
        (self.size / self.patch) * (self.size / self.patch)
    }

    /// Elements of an unfolded patch.
    pub fn patch_len(self) -> usize {
        3 * self.patch * self.patch
    }

    fn tokens(self) -> usize {
        self.patches() + usize::from(self.class_token)
    }

    fn params(self) -> Params {
        Params {
            batch: self.batch as u32,
            size: self.size as u32,
            patch: self.patch as u32,
            dim: self.dim as u32,
            cls_tokens: u32::from(self.class_token),
        }
    }
}

/// `patches` `[batch·N, 3·patch²] = ` the pixels of `images` `[batch, 3, size, size]`, in a convolution weight's order,
/// as f32 or f16.
pub fn unfold(r: &mut Recorder, patches: &View, images: &View, dims: Dims) -> Result<()> {
    check("patch_embed::unfold", "patches", patches, dims.batch * dims.patches() * dims.patch_len());
    check("patch_embed::unfold", "images", images, dims.batch * 3 * dims.size * dims.size);
    let kernel = r.stored_kernel(&shaders::PATCH_EMBED, "unfold", &[], patches.element)?;
    r.push(&kernel, &[("patches", patches), ("images", images)], &dims.params(), elementwise(patches.len));
    Ok(())
}

/// `tokens` `[batch, T, dim] = ` class token and `embedded` `[batch·N, dim]`, plus `pos` `[T, dim]`.
pub fn assemble(
    r: &mut Recorder,
    tokens: &View,
    embedded: &View,
    pos: &View,
    cls: Option<&View>,
    dims: Dims,
) -> Result<()> {
    check("patch_embed::assemble", "tokens", tokens, dims.batch * dims.tokens() * dims.dim);
    check("patch_embed::assemble", "embedded", embedded, dims.batch * dims.patches() * dims.dim);
    check("patch_embed::assemble", "pos", pos, dims.tokens() * dims.dim);
    assert_eq!(cls.is_some(), dims.class_token, "patch_embed::assemble: cls");
    let kernel = r.stored_kernel(&shaders::PATCH_EMBED, "assemble", &[], Element::Word)?;
    // Without a class token its binding is never read.
    let views = [("tokens", tokens), ("embedded", embedded), ("pos", pos), ("cls", cls.unwrap_or(pos))];
    r.push(&kernel, &views, &dims.params(), elementwise(tokens.len));
    Ok(())
}

/// `dembedded = ` (f32 or f16), `dpos += `, `dcls += ` from `dtokens`.
pub fn backward(
    r: &mut Recorder,
    dembedded: &View,
    dpos: &View,
    dcls: Option<&View>,
    dtokens: &View,
    dims: Dims,
) -> Result<()> {
    check("patch_embed::backward", "dembedded", dembedded, dims.batch * dims.patches() * dims.dim);
    check("patch_embed::backward", "dpos", dpos, dims.tokens() * dims.dim);
    check("patch_embed::backward", "dtokens", dtokens, dims.batch * dims.tokens() * dims.dim);
    let embedded = r.stored_kernel(&shaders::PATCH_EMBED, "backward_embedded", &[], dembedded.element)?;
    let grid = elementwise(dembedded.len);
    r.push(&embedded, &[("dembedded", dembedded), ("dtokens", dtokens)], &dims.params(), grid);
    let pos = r.stored_kernel(&shaders::PATCH_EMBED, "backward_pos", &[], Element::Word)?;
    r.push(&pos, &[("dpos", dpos), ("dtokens", dtokens)], &dims.params(), fold(dpos.len.div_ceil(WG)));
    if let Some(dcls) = dcls {
        check("patch_embed::backward", "dcls", dcls, dims.dim);
        let cls = r.stored_kernel(&shaders::PATCH_EMBED, "backward_cls", &[], Element::Word)?;
        r.push(&cls, &[("dcls", dcls), ("dtokens", dtokens)], &dims.params(), fold(dims.dim.div_ceil(WG)));
    }
    Ok(())
}
