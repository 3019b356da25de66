//! From pixels to tokens: patches and their gradients in f32 and f16.

use super::formats::{self, formats, stored_eps};
use super::harness::{Case, EPS, Launch, Random, sum_tolerance, wide};
use super::{Plan, Stem, Suite, stem};
use crate::cpu;
use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::ops::patch_embed::{self as op, Dims};
use crate::shapes::Prefix;

pub(super) const STEMS: &[Stem] = &[stem(
    "patch_embed",
    patch_embed,
    &[
        "patch_embed::unfold",
        "patch_embed::assemble",
        "patch_embed::backward_embedded",
        "patch_embed::backward_pos",
        "patch_embed::backward_prefix",
    ],
)];

/// What stands before the patches: nothing, a class token with its position, one without, a distillation token, registers.
const PREFIXES: [(bool, usize, bool, bool); 6] = [
    (false, 0, false, false),
    (true, 0, true, false),
    (true, 0, false, false),
    (true, 1, true, true),
    (true, 4, true, false),
    (true, 2, false, false),
];

fn patch_embed(p: &mut Plan) -> Result<()> {
    let formats = formats(p.gpu);
    for (launch, &element) in Launch::folded(p.gpu).into_iter().flat_map(|l| formats.iter().map(move |e| (l, e))) {
        // Images, their size, channels that are read, patch, width.
        let shapes = [(1, 1, 3, 1, 1), (2, 12, 3, 4, 65), (3, 17, 1, 5, 63), (1, 42, 1, 3, 3), (2, 28, 3, 14, 197)];
        for (_, (batch, size, channels, patch, dim)) in p.pick(&shapes, &[1, 2]) {
            for (_, (class_token, registers, class_position, register_positions)) in p.pick(&PREFIXES, &[4]) {
                let prefix = Prefix { class_token, registers, class_position, register_positions };
                let dims = Dims { batch, size, channels, patch, dim, prefix };
                p.add(move |s| case(s, launch, element, dims));
            }
        }
    }
    Ok(())
}

fn case(s: &mut Suite, launch: Launch, element: Element, dims: Dims) -> Result<()> {
    let Dims { batch, size, channels, patch, dim, prefix } = dims;
    let (count, tokens, positions) = (dims.patches(), dims.tokens(), dims.positions());
    let (cls_len, reg_len) = (usize::from(prefix.class_token) * dim, prefix.registers * dim);
    let mut random = Random::new((size * dim) as u64);
    let (images, embedded) = (random.vec(batch * 3 * size * size), random.vec(batch * count * dim));
    let (pos, dtokens) = (random.vec(positions * dim), random.vec(batch * tokens * dim));
    let [cls, before_cls] = [0; 2].map(|_| random.vec(cls_len));
    let [reg, before_reg] = [0; 2].map(|_| random.vec(reg_len));
    let before_pos = random.vec(positions * dim);

    let mut want_patches = vec![0.0; batch * count * dims.patch_len()];
    cpu::patch_embed::unfold(&mut want_patches, &wide(&images), batch, channels, [size; 2], patch);
    let mut want_tokens = vec![0.0; batch * tokens * dim];
    let (pos64, cls64, reg64) = (wide(&pos), wide(&cls), wide(&reg));
    cpu::patch_embed::assemble(&mut want_tokens, &wide(&embedded), &pos64, &cls64, &reg64, prefix, batch, count, dim);
    let (mut want_embedded, mut want_pos) = (vec![0.0; batch * count * dim], wide(&before_pos));
    let (mut want_cls, mut want_reg) = (wide(&before_cls), wide(&before_reg));
    cpu::patch_embed::assemble_backward(
        &mut want_embedded,
        &mut want_pos,
        &mut want_cls,
        &mut want_reg,
        &wide(&dtokens),
        prefix,
        batch,
        count,
        dim,
    );

    let kind = formats::prefix(element);
    let name = format!(
        "{kind}{batch} of {size} px, {channels} channels, patch {patch}, dim {dim}, {prefix:?}, {}",
        launch.suffix()
    );
    let mut c = Case::new(s.gpu, name, 0)?;
    let [images, embedded] = [c.input("images", &images)?, c.input("embedded", &embedded)?];
    let [pos, dtokens] = [c.input("pos", &pos)?, c.input("dtokens", &dtokens)?];
    let mut given = |name: &str, values: &[f32]| match values {
        [] => Ok(None),
        values => c.input(name, values).map(Some),
    };
    let [cls, dcls] = [given("cls", &cls)?, given("dcls", &before_cls)?];
    let [reg, dreg] = [given("reg", &reg)?, given("dreg", &before_reg)?];
    let patches = c.output_as("patches", element, want_patches.len())?;
    let (dembedded, out) =
        (c.output_as("dembedded", element, want_embedded.len())?, c.output("tokens", want_tokens.len())?);
    let dpos = c.input("dpos", &before_pos)?;
    c.run(launch, |r| {
        op::unfold(r, &patches, &images, dims)?;
        op::assemble(r, &out, &embedded, Some(&pos), cls.as_ref(), reg.as_ref(), dims)?;
        op::backward(r, &dembedded, Some(&dpos), dcls.as_ref(), dreg.as_ref(), &dtokens, dims)
    })?;
    // Copies are exact but for storing; a position is one addition; its gradient is a sum over the batch.
    c.expect("patch_embed::unfold", &patches, &want_patches, stored_eps(element));
    c.expect("patch_embed::assemble", &out, &want_tokens, EPS);
    c.expect("patch_embed::backward_embedded", &dembedded, &want_embedded, stored_eps(element));
    c.expect("patch_embed::backward_pos", &dpos, &want_pos, sum_tolerance(batch, 2.0));
    if let Some(dcls) = dcls {
        c.expect("patch_embed::backward_prefix", &dcls, &want_cls, sum_tolerance(batch, 2.0));
    }
    if let Some(dreg) = dreg {
        c.expect("patch_embed::backward_prefix", &dreg, &want_reg, sum_tolerance(batch, 2.0));
    }
    s.finish(c)
}
