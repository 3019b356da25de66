//! A ResNet (He et al. 2016) as torchvision, timm and CLIP build it: forward, and its visible reverse. Images are NHWC
//! inside.
//!
//! Weights and running statistics are arguments, not fields: the outer loop of TPGM records the same model once more at
//! the projected arena, with batch norm in eval mode.

use crate::error::Result;
use crate::gpu::View;
use crate::model::activations::{Pass, Phase};
use crate::model::attention_pool::AttentionPass;
use crate::model::head::HeadPass;
use crate::model::plan::Slot;
use crate::model::resnet_activations::{BlockGradients, BlockSlots, LayerSlots, ResNetSlots};
use crate::model::resnet_layers::{Layer, StemPool};
use crate::ops::{Recorder, avg_pool, batch_norm, conv2d, max_pool, pool, relu};

pub use crate::model::resnet_layers::ResNet;

/// A ResNet with its activations at one batch size, weights and statistics.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResNetPass<'a> {
    net: &'a ResNet,
    pass: Pass<'a>,
    slots: &'a ResNetSlots,
    batch: usize,
    w: &'a View,
    stats: &'a View,
    mode: batch_norm::Mode,
}

impl<'a> ResNetPass<'a> {
    pub(super) fn new(
        net: &'a ResNet,
        pass: Pass<'a>,
        slots: &'a ResNetSlots,
        w: &'a View,
        stats: &'a View,
        phase: Phase,
    ) -> ResNetPass<'a> {
        let mode = match phase {
            Phase::Train => batch_norm::Mode::Train,
            Phase::Eval => batch_norm::Mode::Eval,
        };
        ResNetPass { net, pass, slots, batch: pass.batch, w, stats, mode }
    }

    fn view(&self, slot: Slot, len: usize) -> View {
        self.pass.acts.view(slot, len)
    }

    fn param(&self, arena: &View, name: &str) -> View {
        self.net.layout.view(arena, self.net.layout.index(name))
    }

    fn out(&self, layer: &Layer, slots: &LayerSlots) -> View {
        self.view(slots.out, layer.out_len(self.batch))
    }

    fn norm_dims(&self, layer: &Layer) -> batch_norm::Dims {
        let (eps, momentum) = (self.net.config.eps, self.net.config.momentum);
        let dims = layer.dims(self.batch);
        batch_norm::Dims { rows: dims.out_pixels(), cols: dims.out_channels, eps, momentum }
    }

    /// What enters block `i`; past the last one, what leaves it.
    fn entering(&self, i: usize) -> View {
        if i == 0 {
            return self.view(self.slots.stem_pooled, self.net.stem_pool(self.batch).out_len());
        }
        let (block, slots) = (&self.net.blocks[i - 1], &self.slots.blocks[i - 1]);
        self.view(slots.units[block.units.len() - 1].out, block.out_len(self.batch))
    }

    fn attention(&self) -> Option<AttentionPass<'a>> {
        let (net, slots) = (self.net.attention.as_deref()?, self.slots.attention.as_ref()?);
        Some(AttentionPass { net, slots, acts: self.pass.acts, layout: &self.net.layout, w: self.w, batch: self.batch })
    }

    fn head(&self, arena: &View) -> (View, Option<View>) {
        let c = &self.net.config;
        let param = |what: &str| self.param(arena, &format!("{}.{what}", c.head()));
        (param("weight"), c.head_bias.then(|| param("bias")))
    }

    fn pool_dims(&self) -> pool::Dims {
        let tokens = self.net.pixels();
        pool::Dims { batch: self.batch, tokens, dim: self.net.config.width(), first: 0, count: tokens }
    }

    /// Images to logits.
    pub(super) fn forward(&self, r: &mut Recorder) -> Result<()> {
        let (net, s, c) = (self.net, self.slots, &self.net.config);
        let mut x = self.view(s.pixels, net.stem[0].in_len(self.batch));
        conv2d::to_nhwc(r, &x, &self.pass.images(), self.batch, 3, c.image_size * c.image_size)?;
        for (layer, slots) in net.stem.iter().zip(&s.stem) {
            x = self.layer_forward(r, layer, slots, &x, None, true, false)?;
        }
        match net.stem_pool(self.batch) {
            StemPool::Max(dims) => max_pool::forward(r, &self.entering(0), &self.tap(dims), &x, dims)?,
            StemPool::Avg(dims) => avg_pool::forward(r, &self.entering(0), &x, dims)?,
        }

        for i in 0..net.blocks.len() {
            self.block_forward(r, i, &s.blocks[i], false)?;
        }

        let (features, pixels) = (self.view(s.features, self.batch * c.features()), self.entering(net.blocks.len()));
        match self.attention() {
            Some(attention) => attention.forward(r, &features, &pixels)?,
            None => pool::forward(r, &features, &pixels, self.pool_dims())?,
        }
        let (weight, bias) = self.head(self.w);
        self.head_pass().forward(r, &self.pass.logits(), &features, &weight, bias.as_ref())
    }

    fn head_pass(&self) -> HeadPass<'a> {
        let (features, classes) = (self.net.config.features(), self.net.config.classes);
        HeadPass { acts: self.pass.acts, unit: self.slots.unit, batch: self.batch, features, classes }
    }

    fn tap(&self, dims: max_pool::Dims) -> View {
        self.view(self.slots.tap.expect("a max pool has its taps"), dims.out_len())
    }

    /// out = relu(branch(inp) + shortcut(inp)), into `slots`; `again` computes once more what backward reads, which is all
    /// but `out`, with the statistics that were saved.
    fn block_forward(&self, r: &mut Recorder, i: usize, slots: &BlockSlots, again: bool) -> Result<()> {
        let block = &self.net.blocks[i];
        let inp = self.entering(i);
        let shortcut = match (&block.shortcut, &slots.shortcut) {
            (Some(layer), Some(own)) => {
                let mut x = inp.clone();
                if let Some(dims) = block.shortcut_pool(self.batch) {
                    x = self.pooled(slots.pooled, dims);
                    avg_pool::forward(r, &x, &inp, dims)?;
                }
                self.layer_forward(r, layer, own, &x, None, false, again)?
            }
            _ => inp.clone(),
        };
        let (last, first) = block.units.split_last().expect("a block has convolutions");
        let mut x = inp;
        for (layer, own) in first.iter().zip(&slots.units) {
            x = self.layer_forward(r, layer, own, &x, None, true, again)?;
        }
        if let Some(dims) = block.branch_pool(self.batch) {
            let pooled = self.pooled(slots.branch_pooled, dims);
            avg_pool::forward(r, &pooled, &x, dims)?;
            x = pooled;
        }
        let own = &slots.units[first.len()];
        if again {
            let conv = self.view(own.conv, last.out_len(self.batch));
            let weight = self.net.layout.view(self.w, last.weight);
            return conv2d::forward(r, &conv, &x, &weight, last.dims(self.batch));
        }
        self.layer_forward(r, last, own, &x, Some(&shortcut), true, false)?;
        Ok(())
    }

    fn pooled(&self, slot: Option<Slot>, dims: avg_pool::Dims) -> View {
        self.view(slot.expect("an average pool has its slot"), dims.out_len())
    }

    /// norm(conv(inp)), plus `shortcut`, through a ReLU where `rectify`; returns it. `again` normalises by the statistics that
    /// were saved, and moves none.
    fn layer_forward(
        &self,
        r: &mut Recorder,
        layer: &Layer,
        slots: &LayerSlots,
        inp: &View,
        shortcut: Option<&View>,
        rectify: bool,
        again: bool,
    ) -> Result<View> {
        let param = |index| self.net.layout.view(self.w, index);
        let channels = layer.dims.out_channels;
        let (conv, out) = (self.view(slots.conv, layer.out_len(self.batch)), self.out(layer, slots));
        conv2d::forward(r, &conv, inp, &param(layer.weight), layer.dims(self.batch))?;
        let (mean, rstd) = (self.view(slots.mean, channels), self.view(slots.rstd, channels));
        let (weight, bias) = (param(layer.norm_weight), param(layer.norm_bias));
        let dims = self.norm_dims(layer);
        if again {
            let mode = self.mode;
            batch_norm::normalize(r, &out, &conv, &weight, &bias, &mean, &rstd, shortcut, rectify, mode, dims)?;
            return Ok(out);
        }
        let stats = batch_norm::Stats {
            mean: &mean,
            rstd: &rstd,
            running_mean: &self.net.buffers.view(self.stats, layer.running_mean),
            running_var: &self.net.buffers.view(self.stats, layer.running_var),
        };
        batch_norm::forward(r, &out, stats, &conv, &weight, &bias, shortcut, rectify, self.mode, dims)?;
        Ok(out)
    }

    /// From the gradient of the logits to that of every parameter, added to arena `dw`.
    pub(super) fn backward(&self, r: &mut Recorder, dw: &View) -> Result<()> {
        let (net, s, c) = (self.net, self.slots, &self.net.config);
        let g = s.backward.as_ref().expect("backward needs activations planned for training");
        let (batch, width) = (self.batch, c.features());
        let count = net.blocks.len();

        let (features, dfeatures) = (self.view(s.features, batch * width), self.view(g.dfeatures, batch * width));
        let dlogits = self.pass.dlogits();
        let (dweight, dbias) = self.head(dw);
        let weight = self.head(self.w).0;
        let grads = (&dweight, dbias.as_ref());
        self.head_pass().backward(r, &dfeatures, grads, &dlogits, &features, &weight)?;
        let dlast = self.view(g.dlast, self.entering(count).len);
        match self.attention() {
            Some(attention) => attention.backward(r, dw, &dlast, &dfeatures)?,
            None => pool::backward(r, &dlast, &dfeatures, self.pool_dims(), false)?,
        }

        // Of what enters a block, and so of what leaves the one before.
        let dinp = |i: usize| self.view(g.blocks[i].dinp, self.entering(i).len);
        for i in (self.pass.frozen_blocks..count).rev() {
            let dout = if i + 1 < count { dinp(i + 1) } else { dlast.clone() };
            if let Some(again) = &s.again[i] {
                self.block_forward(r, i, again, true)?;
            }
            self.block_backward(r, dw, &g.blocks[i], i, &dinp(i), &dout)?;
        }
        if self.pass.frozen_blocks > 0 {
            return Ok(());
        }

        let stem_pool = net.stem_pool(batch);
        let mut dx = self.view(g.dstem, stem_pool.in_len());
        match stem_pool {
            StemPool::Max(dims) => max_pool::backward(r, &dx, &dinp(0), &self.tap(dims), dims)?,
            StemPool::Avg(dims) => avg_pool::backward(r, &dx, &dinp(0), dims)?,
        }
        for (i, (layer, slots)) in net.stem.iter().zip(&s.stem).enumerate().rev() {
            let inp = match i {
                0 => self.view(s.pixels, layer.in_len(batch)),
                _ => self.out(&net.stem[i - 1], &s.stem[i - 1]),
            };
            let out = self.out(layer, slots);
            let dconv = self.view(g.stem[i].dconv, layer.out_len(batch));
            self.layer_backward(r, dw, &dconv, layer, slots, &dx, Some(&out), &inp)?;
            if i > 0 {
                dx = self.view(g.stem[i].dinp, layer.in_len(batch));
                self.conv_backward_input(r, &dx, &dconv, layer, false)?;
            }
        }
        Ok(())
    }

    /// Block `i` in reverse: from the gradient of what leaves it to that of what enters, to which the shortcut and then
    /// the branch give their shares. `out`, positive where the last ReLU let through, masks both.
    fn block_backward(
        &self,
        r: &mut Recorder,
        dw: &View,
        g: &BlockGradients,
        i: usize,
        dinp: &View,
        dout: &View,
    ) -> Result<()> {
        let block = &self.net.blocks[i];
        let slots = self.slots.again[i].as_ref().unwrap_or(&self.slots.blocks[i]);
        let (inp, out) = (self.entering(i), self.entering(i + 1));

        match (&block.shortcut, &slots.shortcut, &g.shortcut) {
            (Some(layer), Some(own), Some(d)) => {
                let dconv = self.view(d.dconv, layer.out_len(self.batch));
                if let Some(dims) = block.shortcut_pool(self.batch) {
                    let (pooled, dpooled) = (self.pooled(slots.pooled, dims), self.view(d.dinp, dims.out_len()));
                    self.layer_backward(r, dw, &dconv, layer, own, dout, Some(&out), &pooled)?;
                    self.conv_backward_input(r, &dpooled, &dconv, layer, false)?;
                    avg_pool::backward(r, dinp, &dpooled, dims)?;
                } else {
                    self.layer_backward(r, dw, &dconv, layer, own, dout, Some(&out), &inp)?;
                    self.conv_backward_input(r, dinp, &dconv, layer, false)?;
                }
            }
            _ => relu::backward(r, dinp, dout, &out, false)?,
        }

        let mut dx = dout.clone();
        let last = block.units.len() - 1;
        for (j, (layer, own)) in block.units.iter().zip(&slots.units).enumerate().rev() {
            let before = if j == 0 { inp.clone() } else { self.out(&block.units[j - 1], &slots.units[j - 1]) };
            let pool = block.branch_pool(self.batch).filter(|_| j == last);
            let entering = pool.map_or_else(|| before.clone(), |dims| self.pooled(slots.branch_pooled, dims));
            let leaving = self.out(layer, own);
            let dconv = self.view(g.units[j].dconv, layer.out_len(self.batch));
            self.layer_backward(r, dw, &dconv, layer, own, &dx, Some(&leaving), &entering)?;
            if j == 0 {
                self.conv_backward_input(r, dinp, &dconv, layer, true)?;
                continue;
            }
            dx = self.view(g.units[j].dinp, entering.len);
            self.conv_backward_input(r, &dx, &dconv, layer, false)?;
            if let Some(dims) = pool {
                let dunpooled = self.view(g.dunpooled.expect("an average pool has its gradient"), dims.in_len());
                avg_pool::backward(r, &dunpooled, &dx, dims)?;
                dx = dunpooled;
            }
        }
        Ok(())
    }

    /// A norm in reverse, behind whose ReLU stands `out`, to `dconv`, the gradient of its convolution's output; and that
    /// convolution's weight.
    fn layer_backward(
        &self,
        r: &mut Recorder,
        dw: &View,
        dconv: &View,
        layer: &Layer,
        slots: &LayerSlots,
        dout: &View,
        out: Option<&View>,
        inp: &View,
    ) -> Result<()> {
        let dparam = |index| self.net.layout.view(dw, index);
        let len = layer.out_len(self.batch);
        let conv = self.view(slots.conv, len);
        let weight = self.net.layout.view(self.w, layer.norm_weight);
        let channels = layer.dims.out_channels;
        let (mean, rstd) = (self.view(slots.mean, channels), self.view(slots.rstd, channels));
        let (dweight, dbias) = (dparam(layer.norm_weight), dparam(layer.norm_bias));
        let dims = self.norm_dims(layer);
        batch_norm::backward(r, dconv, &dweight, &dbias, dout, out, &conv, &weight, &mean, &rstd, self.mode, dims)?;
        conv2d::backward_weight(r, &dparam(layer.weight), dconv, inp, layer.dims(self.batch))
    }

    fn conv_backward_input(
        &self,
        r: &mut Recorder,
        dinp: &View,
        dconv: &View,
        layer: &Layer,
        accumulate: bool,
    ) -> Result<()> {
        let weight = self.net.layout.view(self.w, layer.weight);
        conv2d::backward_input(r, dinp, dconv, &weight, layer.dims(self.batch), accumulate)
    }
}
