//! LoRA (Hu et al., ICLR 2022): of some weights only a product of two narrow matrices is trained, `W = W₀ + alpha/rank · B·A`, and of the
//! rest only the head. It joins other methods.
//!
//! A and B lie behind the weights in their arena, so that the optimiser, clipping, the state of a run and saved files know them as
//! tensors like others. W itself is made of them after every update. Around a step:
//!
//! ```text
//! before the update     G = alpha/rank · ∂L/∂W     ∂L/∂B = G·Aᵀ     ∂L/∂A = Bᵀ·G
//! after it              W = W₀ + alpha/rank · B·A
//! ```

use clap::Args;
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::error::{Error, Result};
use crate::flag::positive;
use crate::gpu::View;
use crate::gpu::buffer::align;
use crate::method::active::Owned;
use crate::method::settings::Settings;
use crate::method::stage::{Stage, Trained};
use crate::method::{Anchor, Around, Learner, Method, MethodArgs, Schedule, Started};
use crate::model::{Adapter, Adapters, Model};
use crate::ops::{Recorder, matmul, residual, scratch_len};
use crate::shapes::ParamLayout;

/// The rank where nothing says another.
const RANK: i64 = 8;

/// Methods that it joins: those that leave the weights between steps to the optimiser.
const JOINED: [&str; 7] = ["lora", "vanilla", "llrd", "ema", "wise", "lines", "tpgm"];

/// Its flags.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[group(skip)] // every method calls its flags so, and names of groups are unique
pub struct Flags {
    /// Train low-rank adapters (LoRA) of this rank and the head instead of all weights; with --method vanilla, llrd, ema, wise,
    /// lines, and tpgm with --schedule post [default: no adapters; 8 with --method lora]
    #[arg(long, value_name = "RANK")]
    pub lora_rank: Option<usize>,
    /// The adapters' product counts alpha/rank times [default: --lora-rank]
    #[arg(long, value_name = "ALPHA")]
    pub lora_alpha: Option<f32>,
    /// Weights that have adapters, by name; * and ? stand for any characters [default: a ViT's attn.qkv (or q, k and v) and attn.proj]
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    pub lora_targets: Option<Vec<String>>,
}

/// The method.
#[derive(Debug)]
pub struct Rule;

impl Method for Rule {
    fn name(&self) -> &'static str {
        "lora"
    }

    fn flags(&self) -> &'static [&'static str] {
        &["lora-rank", "lora-alpha", "lora-targets"]
    }

    fn joins(&self, args: &MethodArgs) -> bool {
        args.lora.lora_rank.is_some()
    }

    fn check(&self, args: &MethodArgs) -> Result<()> {
        positive("lora-rank", args.lora.lora_rank != Some(0))?;
        positive("lora-alpha", args.lora.lora_alpha.is_none_or(|alpha| alpha > 0.0 && alpha.is_finite()))
    }

    fn validate(&self, args: &MethodArgs, _: &Settings) -> Result<()> {
        let name = args.name.name();
        let every_step = name == "tpgm" && args.tpgm.schedule == Schedule::EveryStep;
        match JOINED.contains(&name) && !every_step {
            true => Ok(()),
            false => {
                let with = if every_step { "tpgm without --schedule post" } else { name };
                let what = format!(
                    "--lora-rank does not go with --method {with}, which chooses or moves whole weights between steps: LoRA has them as a \
                     product alone"
                );
                Err(Error::Usage(what))
            }
        }
    }

    fn defaults(&self, _: f64) -> Table {
        Table::from_iter([("lora-rank".to_string(), RANK.into())])
    }

    fn following(&self, args: &MethodArgs, _: usize) -> Table {
        let alpha = args.lora.lora_rank.map(|rank| ("lora-alpha".to_string(), (rank as f64).into()));
        alpha.into_iter().collect()
    }

    fn freezes_batch_norm(&self) -> bool {
        true
    }

    fn bytes(&self, _: &MethodArgs, model: &Model) -> u64 {
        let Some(adapters) = model.adapters() else { return 0 };
        let lens = [adapters.largest(), adapters.widest(), adapters.scratch()].map(|len| align(len) as u64 * 4);
        adapters.base(model.layout()).arena_bytes() + lens.iter().sum::<u64>()
    }

    fn start(&self, _: &MethodArgs, learner: &Learner, anchor: &Anchor) -> Result<Started> {
        let Some(adapters) = learner.model.adapters() else { return Ok(Started::default()) };
        let lora = Lora::new(learner, adapters, anchor)?;
        Ok(Started::new(lora.around(learner, adapters)?, Owned(lora)))
    }
}

/// The rates of a stage that trains the adapters and the head alone.
pub(super) fn trained(stage: Stage, of: &Trained) -> Stage {
    let rates = stage.rates.iter().zip(&of.layout.params);
    let kept = |name: &str| Adapters::is_part(name) || of.config.is_head(name);
    let rates = rates.map(|(rate, param)| if kept(&param.name) { *rate } else { 0.0 }).collect();
    Stage { rates, ..stage }
}

impl Adapters {
    /// The weights that have adapters, in an arena of their own.
    fn base(&self, layout: &ParamLayout) -> ParamLayout {
        let own = |adapter: &Adapter| {
            let param = &layout.params[adapter.target];
            // Under another name, so that none follows another without a gap.
            (format!("base of {}", param.name.replace('.', " ")), param.shape.clone())
        };
        ParamLayout::new(&self.of.iter().map(own).collect::<Vec<_>>())
    }

    /// Elements of the largest of them.
    fn largest(&self) -> usize {
        self.of.iter().map(|a| a.outputs * a.inputs).max().unwrap_or(0)
    }

    /// The most columns of one.
    fn widest(&self) -> usize {
        self.of.iter().map(|a| a.inputs).max().unwrap_or(0)
    }

    fn scratch(&self) -> usize {
        let one = |a: &Adapter| {
            scratch_len(a.outputs, self.rank).max(matmul::scratch_len(a.outputs, self.rank, a.inputs)).max(1)
        };
        self.of.iter().map(one).max().unwrap_or(1)
    }
}

/// What it keeps on the device.
#[derive(Debug)]
struct Lora {
    base: ParamLayout,
    /// W₀ of each adapter's weight.
    w0: View,
    /// A weight's worth of room.
    room: View,
    /// alpha/rank, as often as a weight has columns.
    scale: View,
    scratch: View,
}

impl Lora {
    fn new(learner: &Learner, adapters: &Adapters, anchor: &Anchor) -> Result<Lora> {
        let (gpu, layout) = (learner.gpu, learner.model.layout());
        let base = adapters.base(layout);
        let w0 = base.arena(gpu, "weights that have adapters")?;
        let values = adapters.of.iter().map(|adapter| {
            let param = &layout.params[adapter.target];
            &anchor.values.w[param.offset..param.offset + param.len]
        });
        gpu.write(&w0, &base.pack(values));
        Ok(Lora {
            w0,
            room: gpu.buffer("product of adapters", adapters.largest())?,
            scale: gpu.upload("scale of adapters", &vec![adapters.scale; adapters.widest()])?,
            scratch: gpu.buffer("partial sums of adapters", adapters.scratch())?,
            base,
        })
    }

    fn around(&self, learner: &Learner, adapters: &Adapters) -> Result<Around> {
        let layout = learner.model.layout();
        let [mut before, mut after] = [0; 2].map(|_| Recorder::new(learner.gpu, &self.scratch));
        for (i, adapter) in adapters.of.iter().enumerate() {
            let &Adapter { target, a, b, outputs: m, inputs: k } = adapter;
            let (n, room, scale) = (adapters.rank, self.room.first(m * k), self.scale.first(k));
            let [dw, da, db] = [target, a, b].map(|tensor| layout.view(&learner.dw, tensor));
            let [w, a, b] = [target, a, b].map(|tensor| layout.view(&learner.w, tensor));
            residual::backward_input(&mut before, &room, &dw, &scale, m, k)?;
            matmul::forward(&mut before, &db, &room, &a, None, m, n, k)?;
            matmul::backward_weight(&mut before, &da, &b, &room, m, n, k)?;
            matmul::backward_input(&mut after, &room, &b, &a, m, n, k)?;
            residual::forward(&mut after, &w, &self.base.view(&self.w0, i), &room, Some(&scale), m, k)?;
        }
        Ok(Around { before: before.program, after: after.program })
    }
}
