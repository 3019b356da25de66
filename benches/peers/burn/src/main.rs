//! The workloads of `tpgm bench` in Burn, as a peer of benches/compare: it prints `workload median_ms min_ms`.
//!
//! ```text
//! burn-bench [--device wgpu|vulkan|flex] [--cpu] [--attention mha|sdpa] [--seconds S] WORKLOAD... | check
//! ```
//!
//! `--cpu` asks wgpu for an adapter that is a CPU. `check` runs the same weights on Burn's CPU backend (flex) and on the
//! device, and prints how far logits and losses of four steps differ.

mod models;

use std::process::ExitCode;
use std::time::Instant;

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::{Device, Distribution, Int, Tensor};

use models::{ResNet, Vit, VitConfig};

/// Repeats that don't count: shaders are compiled, kernels tuned.
const WARMUP: usize = 3;

const VIT_TINY: VitConfig = VitConfig { size: 224, patch: 16, dim: 192, depth: 12, heads: 3, classes: 1000 };
const VIT32: VitConfig = VitConfig { size: 32, patch: 4, dim: 64, depth: 4, heads: 4, classes: 10 };

struct Bench {
    device: Device,
    sdpa: bool,
    seconds: f64,
}

/// Images per batch, pixels per side, classes.
#[derive(Clone, Copy)]
struct Batch(usize, usize, usize);

impl Batch {
    /// The same images and labels on every device.
    fn on(self, device: &Device) -> (Tensor<4>, Tensor<1, Int>) {
        let Batch(batch, size, classes) = self;
        let mut state = 12345u32;
        let mut value = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 * 2.0 - 1.0
        };
        let images: Vec<f32> = (0..batch * 3 * size * size).map(|_| value()).collect();
        let labels: Vec<i32> = (0..batch).map(|i| (i * 7919 % classes) as i32).collect();
        let images = Tensor::<1>::from_floats(images.as_slice(), device).reshape([batch, 3, size, size]);
        (images, Tensor::<1, Int>::from_ints(labels.as_slice(), device))
    }
}

trait Net: Module + Clone {
    fn logits(&self, images: Tensor<4>) -> Tensor<2>;
}

impl Net for Vit {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        self.forward(images)
    }
}

impl Net for ResNet {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        self.forward(images)
    }
}

fn adamw() -> ModuleOptimizer {
    AdamWConfig::new().init()
}

fn sgd() -> ModuleOptimizer {
    let momentum = MomentumConfig { momentum: 0.9, dampening: 0.0, nesterov: false };
    SgdConfig::new().with_momentum(Some(momentum)).init()
}

impl Bench {
    /// Repeats after a warm-up until the seconds are over, three at least; each ends when the device is done.
    fn time(&self, name: &str, mut f: impl FnMut()) {
        let mut timed = || {
            let begun = Instant::now();
            f();
            self.device.sync().expect("the device fails");
            begun.elapsed().as_secs_f64() * 1e3
        };
        for _ in 0..WARMUP {
            timed();
        }
        let (mut times, started) = (Vec::new(), Instant::now());
        while times.len() < 3 || (times.len() < 1000 && started.elapsed().as_secs_f64() < self.seconds) {
            times.push(timed());
        }
        times.sort_by(f64::total_cmp);
        let middle = (times[(times.len() - 1) / 2] + times[times.len() / 2]) / 2.0;
        println!("{name} {middle:.4} {:.4}", times[0]);
        eprintln!("{name}: {} repeats", times.len());
    }

    fn product(&self, name: &str, m: usize, k: usize, n: usize) {
        let of = |rows, cols| Tensor::<2>::random([rows, cols], Distribution::Uniform(-1.0, 1.0), &self.device);
        let (a, b) = (of(m, k), of(k, n));
        self.time(name, || drop(std::hint::black_box(a.clone().matmul(b.clone()))));
    }

    fn infer(&self, name: &str, model: impl Net, batch: Batch) {
        let (images, _) = batch.on(&self.device);
        let logits: Vec<f32> = model.logits(images.clone()).into_data().try_to_vec().expect("logits are f32");
        assert!(logits.iter().all(|x| x.is_finite()), "{name}: a logit is no number");
        self.time(name, || drop(std::hint::black_box(model.logits(images.clone()))));
    }

    fn train(&self, name: &str, model: impl Net, mut optimizer: ModuleOptimizer, lr: f64, batch: Batch) {
        let device = self.device.clone().autodiff();
        let (images, labels) = batch.on(&device);
        let cross_entropy = CrossEntropyLossConfig::new().init(&device);
        let (mut model, mut last) = (Some(model), None);
        self.time(name, || {
            let before = model.take().expect("every step puts the model back");
            let loss = cross_entropy.forward(before.logits(images.clone()), labels.clone());
            let gradients = GradientsParams::from_grads(loss.backward(), &before);
            model = Some(optimizer.step(lr, before, gradients));
            last = Some(loss);
        });
        let loss: f32 = last.expect("a step was made").into_scalar();
        assert!(loss.is_finite(), "{name}: the last loss is {loss}");
    }

    fn run(&self, name: &str) -> Result<(), String> {
        let (device, sdpa) = (&self.device, self.sdpa);
        let training = device.clone().autodiff();
        let (large, small) = (Batch(4, 224, 1000), Batch(64, 32, 10));
        match name {
            "launch" => {
                let a = Tensor::<1>::ones([64], device);
                self.time(name, || drop(std::hint::black_box(a.clone().add_scalar(1.0))));
            }
            "add_16m" => {
                let [a, b] = [(); 2].map(|()| Tensor::<1>::ones([1 << 24], device));
                self.time(name, || drop(std::hint::black_box(a.clone().add(b.clone()))));
            }
            "matmul_512" => self.product(name, 512, 512, 512),
            "matmul_1024" => self.product(name, 1024, 1024, 1024),
            "matmul_2048" => self.product(name, 2048, 2048, 2048),
            "matmul_4096" => self.product(name, 4096, 4096, 4096),
            "matmul_vit" => self.product(name, 8 * 197, 768, 3072),
            "vit_tiny_infer" => self.infer(name, Vit::new(&VIT_TINY, sdpa, device), large),
            "vit_tiny_train" => self.train(name, Vit::new(&VIT_TINY, sdpa, &training), adamw(), 1e-4, large),
            "resnet18_infer" => self.infer(name, ResNet::resnet18(1000, device), large),
            "resnet18_train" => self.train(name, ResNet::resnet18(1000, &training), sgd(), 1e-2, large),
            "vit32_infer" => self.infer(name, Vit::new(&VIT32, sdpa, device), small),
            "vit32_train" => self.train(name, Vit::new(&VIT32, sdpa, &training), adamw(), 1e-3, small),
            "resnet20_infer" => self.infer(name, ResNet::resnet20(10, device), small),
            "resnet20_train" => self.train(name, ResNet::resnet20(10, &training), sgd(), 1e-2, small),
            #[cfg(feature = "flex")]
            "check" => {
                self.check("vit32", |d| Vit::new(&VIT32, sdpa, d), adamw, 1e-3, Batch(8, 32, 10));
                self.check("resnet20", |d| ResNet::resnet20(10, d), sgd, 1e-2, Batch(8, 32, 10));
                self.check("vit_tiny", |d| Vit::new(&VIT_TINY, sdpa, d), adamw, 1e-4, Batch(2, 224, 1000));
                self.check("resnet18", |d| ResNet::resnet18(1000, d), sgd, 1e-2, Batch(2, 224, 1000));
            }
            _ => return Err(format!("unknown workload {name}: src/main.rs lists them in `run`")),
        }
        Ok(())
    }

    /// The same weights on Burn's CPU backend and on the device: logits, and the losses of four steps.
    #[cfg(feature = "flex")]
    fn check<M: Net>(
        &self,
        name: &str,
        model: impl Fn(&Device) -> M,
        optimizer: impl Fn() -> ModuleOptimizer,
        lr: f64,
        batch: Batch,
    ) {
        let reference = Device::flex();
        reference.seed(7);
        let start = model(&reference.clone().autodiff());
        let (mut logits, mut losses) = (Vec::new(), Vec::new());
        for device in [&reference, &self.device].map(|d| d.clone().autodiff()) {
            let (images, labels) = batch.on(&device);
            let cross_entropy = CrossEntropyLossConfig::new().init(&device);
            let (mut model, mut optimizer) = (start.clone().fork(&device), optimizer());
            for step in 0..4 {
                let out = model.logits(images.clone());
                if step == 0 {
                    logits.push(out.clone().into_data().try_to_vec::<f32>().expect("logits are f32"));
                }
                let loss = cross_entropy.forward(out, labels.clone());
                losses.push(loss.clone().into_scalar::<f32>());
                let gradients = GradientsParams::from_grads(loss.backward(), &model);
                model = optimizer.step(lr, model, gradients);
            }
        }
        let largest = |values: &mut dyn Iterator<Item = f32>| values.fold(0.0, |m: f32, x| m.max(x.abs()));
        let apart = largest(&mut logits[0].iter().zip(&logits[1]).map(|(a, b)| a - b));
        let scale = largest(&mut logits[0].iter().copied());
        let (cpu, here) = losses.split_at(4);
        eprintln!("{name}: logits of up to {scale:.3} are {apart:.1e} apart; losses {cpu:?} and {here:?}");
    }
}

/// Burn's device of this name.
fn device(name: &str, cpu: bool) -> Result<Device, String> {
    #[cfg(feature = "wgpu")]
    let kind = match cpu {
        true => burn::tensor::DeviceKind::Cpu,
        false => burn::tensor::DeviceKind::DefaultDevice,
    };
    match name {
        #[cfg(feature = "wgpu")]
        "wgpu" => Ok(Device::wgpu(kind)),
        #[cfg(feature = "vulkan")]
        "vulkan" => Ok(Device::vulkan(kind)),
        #[cfg(feature = "flex")]
        "flex" => Ok(Device::flex()),
        _ => Err(format!("--device {name} is unknown or not compiled in (--cpu: {cpu})")),
    }
}

fn run() -> Result<(), String> {
    let (mut name, mut cpu, mut sdpa, mut seconds, mut workloads) = ("wgpu".to_string(), false, true, 5.0, Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--device" => name = value()?,
            "--cpu" => cpu = true,
            "--attention" => {
                sdpa = match value()?.as_str() {
                    "sdpa" => true,
                    "mha" => false,
                    other => return Err(format!("--attention {other}: there are mha and sdpa")),
                }
            }
            "--seconds" => seconds = value()?.parse().map_err(|e| format!("--seconds: {e}"))?,
            _ => workloads.push(arg),
        }
    }
    if workloads.is_empty() {
        return Err("no WORKLOAD: the README beside this program lists them".into());
    }
    let bench = Bench { device: device(&name, cpu)?, sdpa, seconds };
    workloads.iter().try_for_each(|workload| bench.run(workload))
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
