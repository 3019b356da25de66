//! The stem for images of CIFAR's size.

use tpgm::method::{BatchNorm, Learner, Optimizer, Settings};
use tpgm::model::Model;
use tpgm::model::resnet_config::{Block, BlockConfig, Downsample, Pooling, ResNetConfig, Stem};
use tpgm::ops::sgd::Sgd;

use crate::common::gpu;
use crate::settings;

/// A small ResNet as He et al. (2016, section 4.2) have it for CIFAR, against PyTorch's in f64 with `nn.Conv2d(3, 4, 3, 1, 1)`
/// before the blocks and no pool: tensor `t` of the parameters holds 0.3·sin(0.7·i + t), norms a tenth of the sine and 1
/// more in their weights; images sin(0.1·i), labels 0 1 2; SGD with a rate of 0.05 and a momentum of 0.9.
#[test]
fn a_stem_for_small_images_learns_as_in_pytorch() {
    let block =
        |inner, stride| BlockConfig { inner, out: inner, stride, downsample: stride > 1, ..BlockConfig::default() };
    let config = ResNetConfig {
        image_size: 8,
        block: Block::Basic,
        stem: Stem::Small,
        stem_widths: vec![4],
        stages: vec![vec![block(4, 1)], vec![block(8, 2)]],
        downsample: Downsample::Conv,
        anti_alias: false,
        blur: false,
        attention_inside: false,
        stem_pool_conv: false,
        stride_first: false,
        ceil_pool: false,
        active_gate: false,
        norm_groups: None,
        activation: tpgm::shapes::Pointwise::Relu,
        groups: 1,
        pooling: Pooling::Mean,
        eps: 1e-5,
        momentum: 0.1,
        classes: 3,
        head_bias: true,
        normalize: false,
        grey: false,
    };
    assert_eq!(config.stride(), 2);
    let model = Model::new(config);
    let values: Vec<Vec<f32>> = model
        .layout()
        .params
        .iter()
        .enumerate()
        .map(|(t, p)| {
            let (scale, offset) = match (p.shape.len(), p.name.ends_with("bias")) {
                (1, true) => (0.1, 0.0),
                (1, false) => (0.1, 1.0),
                _ => (0.3, 0.0),
            };
            (0..p.len).map(|i| (scale * (0.7 * i as f64 + t as f64).sin() + offset) as f32).collect()
        })
        .collect();
    let w = model.layout().pack(values.iter().map(Vec::as_slice));
    let stats: Vec<Vec<f32>> =
        model.buffers().params.iter().map(|p| vec![if p.name.ends_with("var") { 1.0 } else { 0.0 }; p.len]).collect();
    let stats = model.buffers().pack(stats.iter().map(Vec::as_slice));
    let start = tpgm::method::Snapshot { w, stats, batches: 0 };
    let sgd = Optimizer::Sgd(Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.0 });
    let settings = Settings { optimizer: sgd, ..settings(3, BatchNorm::Train) };
    let mut learner = Learner::new(gpu(), model, &start, settings).unwrap();
    let images: Vec<f32> = (0..3 * 3 * 8 * 8).map(|i| (0.1 * f64::from(i)).sin() as f32).collect();
    for _ in 0..4 {
        learner.step(&images, &[0, 1, 2], 0.05).unwrap();
    }
    let losses: Vec<f32> = learner.records(true).unwrap().iter().map(|r| r.loss).collect();
    // Weights changed by 3e-7 change PyTorch's losses by less than 1e-7, its logits by 1.4e-6.
    let close = |got: &[f32], want: &[f32]| got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-5);
    assert!(close(&losses, &[1.1036162, 1.1000868, 1.094401, 1.0880054]), "{losses:?}");
    let logits = learner.logits(&images, 3).unwrap();
    assert!(close(&logits[6..], &[1.154506, 0.4814951, 0.2499535]), "{logits:?}");
}
