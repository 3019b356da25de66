//! The networks of src/bench/models.rs in Burn.

use burn::module::{Module, Param};
use burn::nn::activation::Gelu;
use burn::nn::attention::{MhaInput, MultiHeadAttention, MultiHeadAttentionConfig};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::{Device, Distribution, Tensor, activation::relu};

/// Attention with one product for queries, keys and values, and Burn's function for the rest.
#[derive(Module, Debug)]
pub struct FusedAttention {
    qkv: Linear,
    proj: Linear,
    heads: usize,
}

impl FusedAttention {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [b, n, d] = x.dims();
        let h = self.heads;
        let qkv = self.qkv.forward(x).reshape([b, n, 3, h, d / h]);
        let qkv = qkv.permute([2, 0, 3, 1, 4]); // [3, batch, heads, tokens, width of a head]
        let get = |i: usize| qkv.clone().slice([i..i + 1, 0..b, 0..h, 0..n, 0..d / h]).reshape([b, h, n, d / h]);
        let (q, k, v) = (get(0), get(1), get(2));
        let o = burn::tensor::module::attention(q, k, v, None, None, Default::default());
        self.proj.forward(o.swap_dims(1, 2).reshape([b, n, d]))
    }
}

#[derive(Module, Debug)]
pub struct Block {
    norm1: LayerNorm,
    mha: Option<MultiHeadAttention>,
    sdpa: Option<FusedAttention>,
    norm2: LayerNorm,
    fc1: Linear,
    act: Gelu,
    fc2: Linear,
}

impl Block {
    fn new(dim: usize, heads: usize, use_sdpa: bool, device: &Device) -> Self {
        Self {
            norm1: LayerNormConfig::new(dim).with_epsilon(1e-6).init(device),
            mha: (!use_sdpa).then(|| MultiHeadAttentionConfig::new(dim, heads).with_dropout(0.0).init(device)),
            sdpa: use_sdpa.then(|| FusedAttention {
                qkv: LinearConfig::new(dim, 3 * dim).init(device),
                proj: LinearConfig::new(dim, dim).init(device),
                heads,
            }),
            norm2: LayerNormConfig::new(dim).with_epsilon(1e-6).init(device),
            fc1: LinearConfig::new(dim, dim * 4).init(device),
            act: Gelu::new(),
            fc2: LinearConfig::new(dim * 4, dim).init(device),
        }
    }
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let y = self.norm1.forward(x.clone());
        let y = match (&self.mha, &self.sdpa) {
            (Some(m), _) => m.forward(MhaInput::self_attn(y)).context,
            (_, Some(s)) => s.forward(y),
            _ => unreachable!(),
        };
        let x = x + y;
        let y = self.norm2.forward(x.clone());
        let y = self.fc2.forward(self.act.forward(self.fc1.forward(y)));
        x + y
    }
}

/// timm's layout: a class token, learned positions, norms before the layers.
#[derive(Module, Debug)]
pub struct Vit {
    patch: Conv2d,
    cls: Param<Tensor<3>>,
    pos: Param<Tensor<3>>,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
}

pub struct VitConfig {
    pub size: usize,
    pub patch: usize,
    pub dim: usize,
    pub depth: usize,
    pub heads: usize,
    pub classes: usize,
}

impl Vit {
    pub fn new(c: &VitConfig, use_sdpa: bool, device: &Device) -> Self {
        let n = (c.size / c.patch) * (c.size / c.patch) + 1;
        let rnd = |s: [usize; 3]| Param::from_tensor(Tensor::<3>::random(s, Distribution::Normal(0.0, 0.02), device));
        Self {
            patch: Conv2dConfig::new([3, c.dim], [c.patch, c.patch]).with_stride([c.patch, c.patch]).init(device),
            cls: rnd([1, 1, c.dim]),
            pos: rnd([1, n, c.dim]),
            blocks: (0..c.depth).map(|_| Block::new(c.dim, c.heads, use_sdpa, device)).collect(),
            norm: LayerNormConfig::new(c.dim).with_epsilon(1e-6).init(device),
            head: LinearConfig::new(c.dim, c.classes).init(device),
        }
    }
    pub fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.patch.forward(x); // [batch, width, rows, columns]
        let [b, d, h, w] = x.dims();
        let x = x.reshape([b, d, h * w]).swap_dims(1, 2);
        let cls = self.cls.val().expand([b, 1, d]);
        let mut x = Tensor::cat(vec![cls, x], 1) + self.pos.val();
        for blk in &self.blocks {
            x = blk.forward(x);
        }
        let x = self.norm.forward(x);
        let x = x.slice([0..b, 0..1, 0..d]).reshape([b, d]);
        self.head.forward(x)
    }
}

/// torchvision's basic block.
#[derive(Module, Debug)]
pub struct Basic {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    down: Option<Conv2d>,
    down_bn: Option<BatchNorm>,
}

fn conv(cin: usize, cout: usize, k: usize, s: usize, device: &Device) -> Conv2d {
    let p = k / 2;
    Conv2dConfig::new([cin, cout], [k, k])
        .with_stride([s, s])
        .with_padding(PaddingConfig2d::Explicit(p, p, p, p))
        .with_bias(false)
        .init(device)
}

impl Basic {
    fn new(cin: usize, cout: usize, stride: usize, device: &Device) -> Self {
        let down = stride != 1 || cin != cout;
        Self {
            conv1: conv(cin, cout, 3, stride, device),
            bn1: BatchNormConfig::new(cout).init(device),
            conv2: conv(cout, cout, 3, 1, device),
            bn2: BatchNormConfig::new(cout).init(device),
            down: down.then(|| conv(cin, cout, 1, stride, device)),
            down_bn: down.then(|| BatchNormConfig::new(cout).init(device)),
        }
    }
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let id = match (&self.down, &self.down_bn) {
            (Some(c), Some(b)) => b.forward(c.forward(x.clone())),
            _ => x.clone(),
        };
        let y = relu(self.bn1.forward(self.conv1.forward(x)));
        let y = self.bn2.forward(self.conv2.forward(y));
        relu(y + id)
    }
}

#[derive(Module, Debug)]
pub struct ResNet {
    conv1: Conv2d,
    bn1: BatchNorm,
    pool: Option<MaxPool2d>,
    blocks: Vec<Basic>,
    fc: Linear,
}

impl ResNet {
    /// torchvision's, with its stem of 7 × 7 and its max pool.
    pub fn resnet18(classes: usize, device: &Device) -> Self {
        Self::build(
            &[(64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)],
            true,
            classes,
            device,
        )
    }
    /// CIFAR's, with 1 × 1 convolutions as shortcuts.
    pub fn resnet20(classes: usize, device: &Device) -> Self {
        Self::build(
            &[(16, 1), (16, 1), (16, 1), (32, 2), (32, 1), (32, 1), (64, 2), (64, 1), (64, 1)],
            false,
            classes,
            device,
        )
    }
    fn build(spec: &[(usize, usize)], imagenet: bool, classes: usize, device: &Device) -> Self {
        let stem = spec[0].0;
        let mut cin = stem;
        let mut blocks = vec![];
        for &(c, s) in spec {
            blocks.push(Basic::new(cin, c, s, device));
            cin = c;
        }
        Self {
            conv1: if imagenet { conv(3, stem, 7, 2, device) } else { conv(3, stem, 3, 1, device) },
            bn1: BatchNormConfig::new(stem).init(device),
            pool: imagenet.then(|| {
                MaxPool2dConfig::new([3, 3])
                    .with_strides([2, 2])
                    .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                    .init()
            }),
            blocks,
            fc: LinearConfig::new(cin, classes).init(device),
        }
    }
    pub fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let mut x = relu(self.bn1.forward(self.conv1.forward(x)));
        if let Some(p) = &self.pool {
            x = p.forward(x);
        }
        for b in &self.blocks {
            x = b.forward(x);
        }
        let [b, c, h, w] = x.dims();
        // The mean over all pixels.
        let x = x.reshape([b, c, h * w]).mean_dim(2).reshape([b, c]);
        self.fc.forward(x)
    }
}
