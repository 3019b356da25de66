//! Distillation from the pre-trained model: the loss also counts how far the outputs on the training images move from those of θ₀,
//! which runs on the same device. On logits this is learning without forgetting (Li & Hoiem, ECCV 2016) by the softened softmax of Hinton,
//! Vinyals & Dean (2015); on features it is a mean square distance in front of the head. Weights may move where the function stays.

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::flag::{in_range, positive, word};
use crate::method::{Anchor, Learner, Method, MethodArgs};
use crate::model::Model;
use crate::ops::distill::On;

/// Its flags.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[group(skip)] // every method calls its flags so, and names of groups are unique
pub struct Flags {
    /// What distill keeps near the pre-trained model's: features (what enters the head) or logits (with the head of the checkpoint)
    #[arg(long, default_value = "features", value_parser = word::<On>)]
    pub distill_on: On,
    /// Weight of distill's loss beside the cross-entropy
    #[arg(long, value_name = "WEIGHT", default_value_t = 1.0)]
    pub distill_weight: f32,
    /// Temperature of both softmaxes of --distill-on logits; their divergence counts its square times
    #[arg(long, value_name = "T", default_value_t = 2.0)]
    pub distill_temperature: f32,
}

/// The method.
#[derive(Debug)]
pub struct Rule;

impl Method for Rule {
    fn name(&self) -> &'static str {
        "distill"
    }

    fn flags(&self) -> &'static [&'static str] {
        &["distill-on", "distill-weight", "distill-temperature"]
    }

    fn check(&self, args: &MethodArgs) -> Result<()> {
        let Flags { distill_weight, distill_temperature, .. } = args.distill;
        in_range("distill-weight", distill_weight, |w| w >= 0.0 && w.is_finite(), "at least 0")?;
        positive("distill-temperature", distill_temperature > 0.0 && distill_temperature.is_finite())
    }

    fn idle(&self, args: &MethodArgs, flag: &str) -> Option<&'static str> {
        let of_logits = flag == "distill-temperature" && args.distill.distill_on == On::Features;
        of_logits.then_some("--distill-on logits")
    }

    fn bytes(&self, _: &MethodArgs, model: &Model) -> u64 {
        model.layout().arena_bytes() + model.buffers().arena_bytes()
    }

    fn prepare(&self, args: &MethodArgs, learner: &mut Learner, anchor: &Anchor) -> Result<()> {
        let Flags { distill_on, distill_weight, distill_temperature } = args.distill;
        if distill_on == On::Logits && anchor.new_head {
            let what = "--distill-on logits needs a head of the pre-trained model, which this run has none of: distill on features, or \
                        begin with --zero-shot or --head";
            return Err(Error::Usage(what.into()));
        }
        if distill_on == On::Logits && learner.has_labels() {
            let what = "--distill-on logits can't be had with images that have any number of labels: its softmax is over classes of \
                        which one is right; distill on features";
            return Err(Error::Usage(what.into()));
        }
        learner.attend(anchor.values, distill_weight, distill_temperature)
    }
}
