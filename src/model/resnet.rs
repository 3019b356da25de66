//! A ResNet (He et al. 2016) as torchvision and timm build it: forward, and its visible reverse. Images are NHWC inside.
//!
//! Weights and running statistics are arguments, not fields: the outer loop of TPGM records the same model once more at
//! the projected arena, with batch norm in eval mode.

use crate::error::Result;
use crate::gpu::View;
use crate::model::activations::{Pass, Phase};
use crate::model::config::Pool;
use crate::model::params::ParamLayout;
use crate::model::plan::Slot;
use crate::model::resnet_activations::{BlockGradients, BlockSlots, LayerSlots, ResNetSlots};
use crate::model::resnet_config::{ResNetConfig, Unit};
use crate::ops::{Recorder, avg_pool, batch_norm, column_sum, conv2d, matmul, max_pool, pool, relu};

/// A ResNet: its configuration, where its tensors lie, and the shape of every layer.
#[derive(Clone, Debug)]
pub struct ResNet {
    /// What it is made of.
    pub config: ResNetConfig,
    /// Its parameters, by torchvision's (or timm's) names.
    pub layout: ParamLayout,
    /// Its running statistics.
    pub buffers: ParamLayout,
    pub(super) stem: Vec<Layer>,
    pub(super) blocks: Vec<Block>,
    /// Height and width of what leaves the last block.
    size: usize,
}

/// A convolution and its norm: shape, and the indices of their tensors.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) name: String,
    /// For one image.
    pub(super) dims: conv2d::Dims,
    weight: usize,
    norm_weight: usize,
    norm_bias: usize,
    running_mean: usize,
    running_var: usize,
}

/// A residual block.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) units: Vec<Layer>,
    pub(super) shortcut: Option<Layer>,
    /// The average pool before the shortcut's convolution, for one image.
    shortcut_pool: Option<avg_pool::Dims>,
}

impl Layer {
    fn new(unit: &Unit, size: usize, layout: &ParamLayout, buffers: &ParamLayout) -> Layer {
        let dims = conv2d::Dims {
            batch: 1,
            height: size,
            width: size,
            in_channels: unit.inp,
            out_channels: unit.out,
            kernel: unit.kernel,
            stride: unit.stride,
            padding: unit.padding(),
            groups: unit.groups,
        };
        Layer {
            name: unit.conv.clone(),
            dims,
            weight: layout.index(&format!("{}.weight", unit.conv)),
            norm_weight: layout.index(&format!("{}.weight", unit.norm)),
            norm_bias: layout.index(&format!("{}.bias", unit.norm)),
            running_mean: buffers.index(&format!("{}.running_mean", unit.norm)),
            running_var: buffers.index(&format!("{}.running_var", unit.norm)),
        }
    }

    pub(super) fn dims(&self, batch: usize) -> conv2d::Dims {
        conv2d::Dims { batch, ..self.dims }
    }

    /// Elements of its input; RGB pixels are padded to four channels, which the convolution reads faster.
    pub(super) fn in_len(&self, batch: usize) -> usize {
        let channels = if self.dims.in_channels == 3 { 4 } else { self.dims.in_channels };
        self.dims(batch).in_pixels() * channels
    }

    pub(super) fn out_len(&self, batch: usize) -> usize {
        self.dims(batch).out_len()
    }
}

impl Block {
    pub(super) fn pool(&self, batch: usize) -> Option<avg_pool::Dims> {
        self.shortcut_pool.map(|dims| avg_pool::Dims { batch, ..dims })
    }

    pub(super) fn out_len(&self, batch: usize) -> usize {
        self.units[self.units.len() - 1].out_len(batch)
    }
}

impl ResNet {
    /// The model that `config` describes.
    pub fn new(config: ResNetConfig) -> ResNet {
        let (layout, buffers) = (ParamLayout::new(&config.parameters()), ParamLayout::new(&config.buffers()));
        let layer = |unit: &Unit, size: usize| Layer::new(unit, size, &layout, &buffers);
        let chain = |units: &[Unit], mut size: usize| {
            let mut layers: Vec<Layer> = Vec::new();
            for unit in units {
                layers.push(layer(unit, size));
                size = layers[layers.len() - 1].dims.out_height();
            }
            (layers, size)
        };
        let (stem, _) = chain(&config.stem_units(), config.image_size);
        let mut size = pooled(&stem[stem.len() - 1], 1).out_height();
        let mut blocks = Vec::new();
        for block in config.block_units() {
            let (units, out) = chain(&block.units, size);
            let shortcut_pool = (block.shortcut_pool > 1).then_some(avg_pool::Dims {
                batch: 1,
                height: size,
                width: size,
                channels: block.units[0].inp,
                kernel: 2,
                stride: block.shortcut_pool,
                ceil_mode: true,
            });
            let entering = shortcut_pool.map_or(size, |p| p.out_height());
            let shortcut = block.shortcut.as_ref().map(|unit| layer(unit, entering));
            blocks.push(Block { units, shortcut, shortcut_pool });
            size = out;
        }
        ResNet { stem, blocks, size, layout, buffers, config }
    }

    /// Every convolution.
    pub(super) fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.stem.iter().chain(self.blocks.iter().flat_map(|b| b.units.iter().chain(&b.shortcut)))
    }

    pub(super) fn stem_pool(&self, batch: usize) -> max_pool::Dims {
        pooled(&self.stem[self.stem.len() - 1], batch)
    }

    /// Pixels of what leaves the last block: the fewest values that a batch norm has of an image.
    pub fn pixels(&self) -> usize {
        self.size * self.size
    }
}

/// The max pool behind the stem.
fn pooled(last: &Layer, batch: usize) -> max_pool::Dims {
    max_pool::Dims {
        batch,
        height: last.dims.out_height(),
        width: last.dims.out_width(),
        channels: last.dims.out_channels,
        kernel: 3,
        stride: 2,
        padding: 1,
    }
}

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

    fn pool_dims(&self) -> pool::Dims {
        pool::Dims { batch: self.batch, tokens: self.net.pixels(), dim: self.net.config.width(), class_token: false }
    }

    /// Images to logits.
    pub(super) fn forward(&self, r: &mut Recorder) -> Result<()> {
        let (net, s, c) = (self.net, self.slots, &self.net.config);
        let mut x = self.view(s.pixels, net.stem[0].in_len(self.batch));
        conv2d::to_nhwc(r, &x, &self.pass.images(), self.batch, 3, c.image_size * c.image_size)?;
        for (layer, slots) in net.stem.iter().zip(&s.stem) {
            x = self.layer_forward(r, layer, slots, &x, None, true, false)?;
        }
        let dims = net.stem_pool(self.batch);
        max_pool::forward(r, &self.entering(0), &self.view(s.tap, dims.out_len()), &x, dims)?;

        for i in 0..net.blocks.len() {
            self.block_forward(r, i, &s.blocks[i], false)?;
        }

        let features = self.view(s.features, self.batch * c.width());
        pool::forward(r, &features, &self.entering(net.blocks.len()), Pool::Mean, self.pool_dims())?;
        let bias = c.head_bias.then(|| self.param(self.w, "fc.bias"));
        let weight = self.param(self.w, "fc.weight");
        matmul::forward(r, &self.pass.logits(), &features, &weight, bias.as_ref(), self.batch, c.classes, c.width())
    }

    /// out = relu(branch(inp) + shortcut(inp)), into `slots`; `again` computes once more what backward reads, which is all
    /// but `out`, with the statistics that were saved.
    fn block_forward(&self, r: &mut Recorder, i: usize, slots: &BlockSlots, again: bool) -> Result<()> {
        let block = &self.net.blocks[i];
        let inp = self.entering(i);
        let shortcut = match (&block.shortcut, &slots.shortcut) {
            (Some(layer), Some(own)) => {
                let mut x = inp.clone();
                if let Some(dims) = block.pool(self.batch) {
                    x = self.pooled(slots, dims);
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
        let own = &slots.units[first.len()];
        if again {
            let conv = self.view(own.conv, last.out_len(self.batch));
            let weight = self.net.layout.view(self.w, last.weight);
            return conv2d::forward(r, &conv, &x, &weight, last.dims(self.batch));
        }
        self.layer_forward(r, last, own, &x, Some(&shortcut), true, false)?;
        Ok(())
    }

    fn pooled(&self, slots: &BlockSlots, dims: avg_pool::Dims) -> View {
        self.view(slots.pooled.expect("a pooled shortcut has its slot"), dims.out_len())
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
        let (batch, width) = (self.batch, c.width());
        let count = net.blocks.len();

        let (features, dfeatures) = (self.view(s.features, batch * width), self.view(g.dfeatures, batch * width));
        let dlogits = self.pass.dlogits();
        matmul::backward_input(r, &dfeatures, &dlogits, &self.param(self.w, "fc.weight"), batch, c.classes, width)?;
        matmul::backward_weight(r, &self.param(dw, "fc.weight"), &dlogits, &features, batch, c.classes, width)?;
        if c.head_bias {
            column_sum::forward(r, &self.param(dw, "fc.bias"), &dlogits, batch, c.classes)?;
        }
        let dlast = self.view(g.dlast, self.entering(count).len);
        pool::backward(r, &dlast, &dfeatures, Pool::Mean, self.pool_dims())?;

        // Of what enters a block, and so of what leaves the one before.
        let dinp = |i: usize| self.view(g.blocks[i].dinp, self.entering(i).len);
        for i in (0..count).rev() {
            let dout = if i + 1 < count { dinp(i + 1) } else { dlast.clone() };
            if let Some(again) = &s.again[i] {
                self.block_forward(r, i, again, true)?;
            }
            self.block_backward(r, dw, &g.blocks[i], i, &dinp(i), &dout)?;
        }

        let dims = net.stem_pool(batch);
        let mut dx = self.view(g.dstem, dims.in_len());
        max_pool::backward(r, &dx, &dinp(0), &self.view(s.tap, dims.out_len()), dims)?;
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
                if let Some(dims) = block.pool(self.batch) {
                    let (pooled, dpooled) = (self.pooled(slots, dims), self.view(d.dinp, dims.out_len()));
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
        for (j, (layer, own)) in block.units.iter().zip(&slots.units).enumerate().rev() {
            let entering = if j == 0 { inp.clone() } else { self.out(&block.units[j - 1], &slots.units[j - 1]) };
            let leaving = self.out(layer, own);
            let dconv = self.view(g.units[j].dconv, layer.out_len(self.batch));
            self.layer_backward(r, dw, &dconv, layer, own, &dx, Some(&leaving), &entering)?;
            if j == 0 {
                self.conv_backward_input(r, dinp, &dconv, layer, true)?;
            } else {
                dx = self.view(g.units[j].dinp, entering.len);
                self.conv_backward_input(r, &dx, &dconv, layer, false)?;
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
