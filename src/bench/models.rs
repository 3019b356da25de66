//! Whole models: the steps that `finetune` takes and the passes that `predict` makes, on random weights and images.

use crate::bench::flops::macs;
use crate::bench::timer::timed;
use crate::bench::{Bench, Figures, Work};
use crate::checkpoint::{Weight, fresh_convnext, fresh_efficientnet, fresh_resnet, fresh_statistics, fresh_vit};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::method::{BatchNorm, Learner, LossScaling, Optimizer, Settings, Snapshot};
use crate::model::convnext_config::{ConvNextConfig, ConvNextStage, ConvNextStem};
use crate::model::efficientnet_config::{AntiAlias, EfficientNetConfig, Mixed, MobileBlock, MobileHead, MobileKind};
use crate::model::resnet_config::{Block, BlockConfig, Downsample, Pooling, ResNetConfig, Stem};
use crate::model::rope::{Angles, Rope};
use crate::model::{Model, ModelConfig, Pool, Precision, VitConfig, VitParts};
use crate::ops::adamw::AdamW;
use crate::ops::gate::Kind;
use crate::ops::sgd::Sgd;
use crate::shapes::{Activation, ParamLayout, Pointwise};
use crate::suite::harness::Random;
use crate::train::evaluate::{Classifier, Predictor};

/// A network that is benchmarked.
#[derive(Debug)]
pub struct Net {
    /// What the names of its workloads begin with.
    pub name: &'static str,
    /// What it is made of.
    pub config: fn() -> ModelConfig,
    /// Images per batch.
    pub batch: usize,
    /// Learning rate.
    pub lr: f64,
}

/// All of them. Batches of the first four are those of the project's comparisons; those of the large ones keep a training
/// step within 8 GiB.
pub static NETS: [Net; 10] = [
    Net { name: "vit_tiny", config: || vit(224, 16, 192, 12, 3, 1000), batch: 4, lr: 1e-4 },
    Net { name: "resnet18", config: || basic(224, Stem::Conv, 64, &[2, 2, 2, 2], 1000), batch: 4, lr: 1e-2 },
    Net { name: "vit32", config: || vit(32, 4, 64, 4, 4, 10), batch: 64, lr: 1e-3 },
    Net { name: "resnet20", config: || basic(32, Stem::Small, 16, &[3, 3, 3], 10), batch: 64, lr: 1e-2 },
    Net { name: "vit_small", config: || vit(224, 16, 384, 12, 6, 1000), batch: 32, lr: 1e-4 },
    Net { name: "vit_base", config: || vit(224, 16, 768, 12, 12, 1000), batch: 16, lr: 1e-4 },
    Net { name: "resnet50", config: resnet50, batch: 16, lr: 1e-2 },
    Net { name: "eva02_tiny", config: eva02_tiny, batch: 4, lr: 1e-4 },
    Net { name: "convnext_tiny", config: convnext_tiny, batch: 4, lr: 1e-4 },
    Net { name: "efficientnet_b0", config: efficientnet_b0, batch: 4, lr: 1e-2 },
];

/// The network called `name`.
pub fn net(name: &str) -> &'static Net {
    NETS.iter().find(|n| n.name == name).unwrap_or_else(|| panic!("no network {name}"))
}

fn vit(image_size: usize, patch_size: usize, dim: usize, depth: usize, heads: usize, classes: usize) -> ModelConfig {
    ModelConfig::Vit(VitConfig {
        image_size,
        patch_size,
        dim,
        depth,
        heads,
        mlp_dim: 4 * dim,
        classes,
        eps: 1e-6,
        activation: Activation::Gelu,
        pool: Pool::Cls,
        class_token: true,
        layer_scale: false,
        fc_norm: false,
        qkv_bias: true,
        patch_bias: true,
        head_bias: true,
        parts: Default::default(),
    })
}

/// timm's `eva02_tiny_patch14_224`: rotary positions, gated MLPs, biases of query and value, the mean of the patches.
fn eva02_tiny() -> ModelConfig {
    let ModelConfig::Vit(plain) = vit(224, 14, 192, 12, 3, 1000) else { unreachable!("a vision transformer") };
    let angles = Angles::Axial { offset: 0.0, reference: Some(16) };
    let rope = Some(Rope { angles, temperature: 1e4, transposed: false, halves: false });
    ModelConfig::Vit(VitConfig {
        mlp_dim: 512,
        activation: Activation::SwiGlu,
        pool: Pool::Mean,
        fc_norm: true,
        parts: VitParts { keyless_bias: true, rope, ..VitParts::default() },
        ..plain
    })
}

/// Each stage doubles the width and, from the second on, halves the size.
fn resnet(
    image_size: usize,
    stem: Stem,
    width: usize,
    depths: &[usize],
    classes: usize,
    block: Block,
    expansion: usize,
) -> ModelConfig {
    let stage = |(stage, &depth): (usize, &usize)| {
        let inner = width << stage;
        let changes = stage > 0 || expansion > 1;
        let block = |i: usize| BlockConfig {
            inner,
            out: inner * expansion,
            stride: if stage > 0 && i == 0 { 2 } else { 1 },
            downsample: i == 0 && changes,
            ..BlockConfig::default()
        };
        (0..depth).map(block).collect()
    };
    ModelConfig::ResNet(ResNetConfig {
        image_size,
        block,
        stem,
        stem_widths: vec![width],
        stages: depths.iter().enumerate().map(stage).collect(),
        downsample: Downsample::Conv,
        anti_alias: false,
        blur: false,
        attention_inside: false,
        stem_pool_conv: false,
        stride_first: false,
        ceil_pool: false,
        active_gate: false,
        norm_groups: None,
        activation: Pointwise::Relu,
        groups: 1,
        pooling: Pooling::Mean,
        eps: 1e-5,
        momentum: 0.1,
        classes,
        head_bias: true,
        normalize: false,
        grey: false,
    })
}

fn basic(image_size: usize, stem: Stem, width: usize, depths: &[usize], classes: usize) -> ModelConfig {
    resnet(image_size, stem, width, depths, classes, Block::Basic, 1)
}

fn resnet50() -> ModelConfig {
    resnet(224, Stem::Conv, 64, &[3, 4, 6, 3], 1000, Block::Bottleneck, 4)
}

fn efficientnet_b0() -> ModelConfig {
    // Blocks, how much wider they are inside, channels, kernel, stride.
    let stages = [
        [1, 1, 16, 3, 1],
        [2, 6, 24, 3, 2],
        [2, 6, 40, 5, 2],
        [3, 6, 80, 3, 2],
        [3, 6, 112, 5, 1],
        [4, 6, 192, 5, 2],
        [1, 6, 320, 3, 1],
    ];
    let mut entering = 32;
    let mut stage = |[depth, wider, out, kernel, stride]: [usize; 5]| {
        let mut block = |i: usize| {
            let stride = if i == 0 { stride } else { 1 };
            let kind = if wider == 1 { MobileKind::Separable } else { MobileKind::Inverted };
            let (middle, squeeze, skip) = (wider * entering, entering / 4, entering == out && stride == 1);
            entering = out;
            MobileBlock {
                kind,
                middle,
                out,
                kernel,
                group_size: 0,
                mixed: Mixed::default(),
                start: 0,
                stride,
                squeeze,
                activation: Pointwise::Silu,
                twice_active: false,
                skip,
            }
        };
        (0..depth).map(&mut block).collect()
    };
    ModelConfig::EfficientNet(EfficientNetConfig {
        image_size: 224,
        stem: [32, 3],
        stages: stages.into_iter().map(&mut stage).collect(),
        tail: MobileHead::Conv { width: 1280 },
        activation: Pointwise::Silu,
        gate: Kind::Sigmoid,
        squeeze_activation: None,
        same: false,
        anti_alias: AntiAlias::None,
        eps: 1e-5,
        momentum: 0.1,
        classes: 1000,
        head_bias: true,
        normalize: false,
        grey: false,
    })
}

fn convnext_tiny() -> ModelConfig {
    let stage = |(depth, width): (usize, usize)| ConvNextStage { depth, width, hidden: 4 * width, kernel: 7 };
    ModelConfig::ConvNext(ConvNextConfig {
        image_size: 224,
        stem: ConvNextStem::Patch { size: 4 },
        stages: [(3, 96), (3, 192), (9, 384), (3, 768)].map(stage).to_vec(),
        activation: Activation::Gelu,
        eps: 1e-6,
        head_eps: 1e-6,
        layer_scale: true,
        response_norm: false,
        norm_first: false,
        head_hidden: 0,
        projection: None,
        shapes: Default::default(),
        classes: 1000,
        head_bias: true,
        normalize: false,
        grey: false,
    })
}

impl Net {
    /// ViTs and ConvNeXts are trained with AdamW, the others with SGD and a momentum of 0.9.
    pub fn settings(&self) -> Settings {
        let optimizer = match (self.config)() {
            ModelConfig::Vit(_) | ModelConfig::ConvNext(_) => {
                Optimizer::AdamW(AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 })
            }
            ModelConfig::ResNet(_) | ModelConfig::EfficientNet(_) | ModelConfig::ResNetV2(_) | ModelConfig::Vgg(_) => {
                Optimizer::Sgd(Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.0 })
            }
        };
        let (clip_norm, smoothing, micro_batch) = (0.0, 0.0, self.batch);
        Settings {
            optimizer,
            clip_norm,
            smoothing,
            micro_batch,
            batch_norm: BatchNorm::Train,
            recompute: false,
            half: None,
        }
    }

    /// The model and fresh weights.
    pub fn fresh(&self) -> (Model, Snapshot) {
        let config = (self.config)();
        let (weights, stats) = match &config {
            ModelConfig::Vit(config) => (fresh_vit(config, 0), Vec::new()),
            ModelConfig::ResNet(config) => (fresh_resnet(config, 0), fresh_statistics(config)),
            ModelConfig::ConvNext(config) => (fresh_convnext(config, 0), Vec::new()),
            ModelConfig::EfficientNet(_) | ModelConfig::ResNetV2(_) | ModelConfig::Vgg(_) => {
                (fresh_efficientnet(&config, 0), fresh_statistics(&config))
            }
        };
        let model = Model::new(config);
        let pack = |layout: &ParamLayout, tensors: &[Weight]| layout.pack(tensors.iter().map(|t| t.2.as_slice()));
        let values = Snapshot { w: pack(model.layout(), &weights), stats: pack(model.buffers(), &stats), batches: 0 };
        (model, values)
    }

    /// A learner as `finetune` has it, with these settings in the benchmark's precision and the kernels that are fastest for
    /// it.
    pub fn learner<'g>(&self, b: &Bench<'g>, settings: Settings) -> Result<Learner<'g>> {
        let (model, values) = self.fresh();
        let learner = Learner::new(b.gpu, model, &values, in_precision(b, settings))?;
        b.tune(&learner.untuned()?)?;
        Ok(learner)
    }

    /// A predictor as `predict` has it, in the benchmark's precision, with the kernels that are fastest for it.
    pub fn predictor<'g>(&self, b: &Bench<'g>) -> Result<Predictor<'g>> {
        let (model, values) = self.fresh();
        let predictor = Predictor::new_in(b.gpu, model, &values, self.batch, b.precision)?;
        b.tune(&predictor.untuned()?)?;
        Ok(predictor)
    }

    /// A batch of random images with labels.
    pub fn batch(&self) -> (Vec<f32>, Vec<u32>) {
        let config = (self.config)();
        let size = config.image_size();
        let mut random = Random::new(1);
        (random.vec(self.batch * 3 * size * size), random.indices(self.batch, config.classes()))
    }

    /// In words.
    pub fn shape(&self) -> String {
        let config = (self.config)();
        let (size, batch) = (config.image_size(), self.batch);
        match config {
            ModelConfig::Vit(c) => {
                format!("{batch} × {size} px, patch {}, dim {}, depth {}", c.patch_size, c.dim, c.depth)
            }
            ModelConfig::ResNet(c) => {
                let depths: Vec<String> = c.stages.iter().map(|s| s.len().to_string()).collect();
                format!("{batch} × {size} px, blocks {}, width {}", depths.join("-"), c.stem_widths[0])
            }
            ModelConfig::EfficientNet(c) => {
                let depths: Vec<String> = c.stages.iter().map(|s| s.len().to_string()).collect();
                format!("{batch} × {size} px, blocks {}, width {}", depths.join("-"), c.stem[0])
            }
            ModelConfig::Vgg(c) => {
                let depths: Vec<String> = c.widths.iter().map(|s| s.len().to_string()).collect();
                format!("{batch} × {size} px, convolutions {}, width {}", depths.join("-"), c.width())
            }
            ModelConfig::ResNetV2(c) => {
                let depths: Vec<String> = c.stages.iter().map(|s| s.len().to_string()).collect();
                format!("{batch} × {size} px, blocks {}, width {}", depths.join("-"), c.stem_chs[0])
            }
            ModelConfig::ConvNext(c) => {
                let depths: Vec<String> = c.stages.iter().map(|s| s.depth.to_string()).collect();
                format!("{batch} × {size} px, blocks {}, width {}", depths.join("-"), c.stages[0].width)
            }
        }
    }

    /// Floating-point operations of a training step.
    pub fn step_work(&self) -> Work {
        Work::Flop(macs(&(self.config)()).training(self.batch))
    }
}

/// These settings in the benchmark's precision.
fn in_precision(b: &Bench, settings: Settings) -> Settings {
    Settings { half: (b.precision == Precision::F16).then(LossScaling::default), ..settings }
}

/// One step, to its end on the device.
pub fn step(learner: &mut Learner, images: &[f32], labels: &[u32], lr: f64) -> Result<()> {
    learner.step(images, labels, lr)?;
    learner.gpu.wait()
}

/// A benchmark whose losses are no numbers measured steps that the optimiser left out.
pub fn check_losses(learner: &mut Learner, name: &str) -> Result<()> {
    let bad = learner.records(true)?.into_iter().find(|r| r.is_bad());
    bad.map_or(Ok(()), |r| Err(Error::Train(format!("{name}: the loss of step {} is {}", r.step, r.loss))))
}

/// A training step with everything that one has in `finetune`: images to the device, forward, loss, backward, gradient
/// norm, optimiser.
pub fn train(b: &Bench, net: &Net) -> Result<Figures> {
    let mut learner = net.learner(b, net.settings())?;
    let (images, labels) = net.batch();
    let times = b.budget.time(|| {
        step(&mut learner, &images, &labels, net.lr)?;
        learner.records(false).map(drop)
    })?;
    check_losses(&mut learner, net.name)?;
    Ok(Figures::new(net.shape(), times, net.step_work()).in_precision(b.precision))
}

/// A forward pass as in `predict`, from images on the host to logits on the host.
pub fn infer(b: &Bench, net: &Net) -> Result<Figures> {
    let work = Work::Flop(macs(&(net.config)()).inference(net.batch));
    let mut predictor = net.predictor(b)?;
    let (images, labels) = net.batch();
    let times = b.budget.time(|| predictor.logits(&images, labels.len()).map(drop))?;
    Ok(Figures::new(net.shape(), times, work).in_precision(b.precision))
}

/// The host's share of a step: from the call of [`Learner::step`] until it returns, over the whole step.
pub fn record_submit(b: &Bench) -> Result<Figures> {
    let net = net("vit_tiny");
    let mut learner = net.learner(b, net.settings())?;
    let (images, labels) = net.batch();
    let [host, step] = b.budget.spend(|| {
        let mut host = 0.0;
        let step = timed(|| {
            host = timed(|| learner.step(&images, &labels, net.lr))?;
            b.gpu.wait()
        })?;
        learner.records(false)?;
        Ok([host, step])
    })?;
    check_losses(&mut learner, "record_submit")?;
    let share = host.median() / step.median();
    let figures = Figures::new(net.shape(), host, Work::None).in_precision(b.precision);
    Ok(figures.with("step_ms", step.median()).with("share_of_step", share))
}

/// From an adapter's name to the end of the first training step: device opened, weights uploaded, pipelines built. The
/// weights are drawn before.
pub fn start(b: &Bench) -> Result<Figures> {
    let net = net("vit_tiny");
    let ((model, values), (images, labels)) = (net.fresh(), net.batch());
    let times = b.budget.time(|| {
        let gpu = Gpu::open(b.adapter, b.gpu.checked)?;
        let mut learner = Learner::new(&gpu, model.clone(), &values, in_precision(b, net.settings()))?;
        step(&mut learner, &images, &labels, net.lr)
    })?;
    Ok(Figures::new(net.shape(), times, Work::None).in_precision(b.precision))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::Memory;

    #[test]
    fn models_are_those_of_their_names_and_fit() {
        let count = |name: &str| Model::new((net(name).config)()).layout().count();
        // torchvision's and timm's counts.
        assert_eq!([count("resnet18"), count("resnet50")], [11_689_512, 25_557_032]);
        assert_eq!([count("vit_tiny"), count("vit_small"), count("vit_base")], [5_717_416, 22_050_664, 86_567_656]);
        assert_eq!(count("eva02_tiny"), 5_695_144);
        // PyTorch's of the models that others are compared on.
        assert_eq!([count("vit32"), count("resnet20")], [208_074, 272_474]);
        let gpu = Gpu::open(std::env::var("TPGM_TEST_ADAPTER").ok().as_deref(), false).unwrap();
        for net in ["vit_base", "resnet50"].map(net) {
            let memory = Memory::plan(&gpu, &Model::new((net.config)()), &net.settings(), 0).unwrap();
            assert!(memory.total() < 8 << 30, "{}: {memory}", net.name);
        }
    }
}
