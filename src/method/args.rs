//! Flags that choose the method of a run and set it. Each method's own are a group in its file.

use std::ops::Deref;
use std::sync::LazyLock;

use clap::{Args, Command, FromArgMatches};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use toml::Table;

use crate::error::{Error, Result};
use crate::flag::{in_range, positive, word};
use crate::method::settings::{BatchNorm, Settings};
use crate::method::stage::{Stage, Trained};
use crate::method::{
    METHODS, Method, digrap, distill, ema, fixed_radius, ftp, l2_sp, linear_probe, lines, lora, lp_ft, named, partial,
    sam, tpgm, wise,
};
use crate::model::Model;
use crate::ops::distill::On;
use crate::shapes::Norm;

/// The method of a run that names none.
const DEFAULT: &str = "tpgm";

static NAMES: LazyLock<Vec<&'static str>> = LazyLock::new(|| METHODS.iter().map(|method| method.name()).collect());

/// The method that was chosen, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Chosen(&'static str);

impl Deref for Chosen {
    type Target = dyn Method;

    fn deref(&self) -> &Self::Target {
        named(self.0).expect("made of a method's name")
    }
}

impl<'de> Deserialize<'de> for Chosen {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Chosen, D::Error> {
        let name = String::deserialize(from)?;
        named(&name).map(|method| Chosen(method.name())).ok_or_else(|| D::Error::unknown_variant(&name, &NAMES))
    }
}

/// The method with everything that sets it. Some defaults follow the method: see [`Method::defaults`].
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub struct MethodArgs {
    /// The method
    #[arg(id = "method", long = "method", value_name = "METHOD", default_value = DEFAULT, value_parser = word::<Chosen>,
        help = one_of(&NAMES))]
    #[serde(rename = "method")]
    pub name: Chosen,
    /// How tpgm and fixed-radius measure drift: mars or l2; l2 with --schedule post
    #[arg(long, default_value = "mars", value_parser = word::<Norm>)]
    pub norm: Norm,
    /// Adam's learning rate on the radii of tpgm and ftp
    #[arg(long, default_value_t = 1e-2)]
    pub radius_lr: f32,
    /// Tensors that nothing holds near the pre-trained weights, by name; * and ? stand for any characters. Whatever has no pre-trained
    /// counterpart is excluded anyway [default: nothing else]
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    pub exclude: Option<Vec<String>>,
    /// Factor on the learning rate from each layer to the one below, from the head down to the stem, with any method that trains
    /// more than the head; 1 for one rate, 0.75 with --method llrd
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    pub layer_decay: f64,
    /// Leave batch norm as it is in the checkpoint: its running statistics, as --bn frozen does, and its weights and biases too
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", default_value_t = false,
        action = clap::ArgAction::Set)]
    pub freeze_bn: bool,
    #[command(flatten)]
    #[serde(flatten)]
    pub tpgm: tpgm::Flags,
    #[command(flatten)]
    #[serde(flatten)]
    pub fixed_radius: fixed_radius::Flags,
    #[command(flatten)]
    #[serde(flatten)]
    pub ftp: ftp::Flags,
    #[command(flatten)]
    #[serde(flatten)]
    pub l2_sp: l2_sp::Flags,
    #[command(flatten)]
    #[serde(flatten)]
    pub digrap: digrap::Flags,
    #[command(flatten)]
    #[serde(flatten)]
    pub distill: distill::Flags,
    #[command(flatten)]
    #[serde(flatten)]
    pub partial: partial::Flags,
    #[command(flatten)]
    #[serde(flatten)]
    pub linear_probe: linear_probe::Flags,
    #[command(flatten)]
    #[serde(flatten)]
    pub lora: lora::Flags,
    #[command(flatten)]
    #[serde(flatten)]
    pub sam: sam::Flags,
    #[command(flatten)]
    #[serde(flatten)]
    pub lp_ft: lp_ft::Flags,
    #[command(flatten)]
    #[serde(flatten)]
    pub ema: ema::Flags,
    #[command(flatten)]
    #[serde(flatten)]
    pub wise: wise::Flags,
    #[command(flatten)]
    #[serde(flatten)]
    pub lines: lines::Flags,
}

/// Names as a sentence has them: `a, b or c`.
fn one_of(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => one.to_string(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// What a flag without effect would go with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idle {
    /// The flag that it goes with.
    pub with: String,
    /// Whether it is a mistake to give it beside another value of that flag.
    pub refused: bool,
}

impl Default for MethodArgs {
    fn default() -> MethodArgs {
        MethodArgs::parse([""; 0]).expect("no flag is required")
    }
}

impl MethodArgs {
    /// Of words such as `["--method", "ftp"]`. The defaults are those of the flags: none follows the method.
    ///
    /// # Errors
    /// [`Error::Usage`] with the parser's message.
    pub fn parse<T: Into<std::ffi::OsString> + Clone>(words: impl IntoIterator<Item = T>) -> Result<MethodArgs> {
        let command = MethodArgs::augment_args(Command::new("").no_binary_name(true));
        let matches = command.try_get_matches_from(words);
        let args = matches.and_then(|matches| MethodArgs::from_arg_matches(&matches));
        args.map_err(|e| Error::Usage(e.to_string()))
    }

    /// The methods that act in the run: its own, and those that join it.
    pub fn active(&self) -> impl Iterator<Item = &'static dyn Method> {
        METHODS.iter().copied().filter(|method| method.name() == self.name.name() || method.joins(self))
    }

    /// # Errors
    /// [`Error::Usage`] naming a value that is out of range or missing, or what does not go with a method of the run.
    pub fn validate(&self, settings: &Settings) -> Result<()> {
        positive("radius-lr", self.radius_lr > 0.0 && self.radius_lr.is_finite())?;
        in_range("layer-decay", self.layer_decay, |d| d > 0.0 && d <= 1.0, "above 0 and at most 1")?;
        if self.freeze_bn && settings.batch_norm == BatchNorm::Train {
            return Err(Error::Usage("--freeze-bn keeps batch norm's statistics: leave --bn train out".into()));
        }
        METHODS.iter().try_for_each(|method| method.check(self))?;
        self.active().try_for_each(|method| method.validate(self, settings))
    }

    /// The defaults that follow other flags: those of the run's method, and those of the groups. `probe_lr` is the learning
    /// rate of a head that is trained alone, `batch` the training batch.
    pub fn following(&self, probe_lr: f64, batch: usize) -> Table {
        let groups = METHODS.iter().flat_map(|method| method.following(self, batch));
        self.name.defaults(probe_lr).into_iter().chain(groups).collect()
    }

    /// Why `flag` has no effect in the run; none if it has one, or sets no method. A flag that several methods share, or that sets
    /// the default method, may stand in any run.
    pub fn idle(&self, flag: &str) -> Option<Idle> {
        let changes = match flag {
            "layer-decay" => self.layer_decay != 1.0,
            "freeze-bn" => self.freeze_bn,
            _ => false,
        };
        if changes && self.name.trains_head_alone() {
            return Some(Idle { with: "a --method that trains more than the head".into(), refused: true });
        }
        let users: Vec<&str> = METHODS.iter().filter(|m| m.flags().contains(&flag)).map(|m| m.name()).collect();
        let refused = users.len() == 1 && users[0] != DEFAULT;
        let mut used = self.active().filter(|method| method.flags().contains(&flag)).peekable();
        let with = match used.peek() {
            None => (!users.is_empty()).then(|| format!("--method {}", one_of(&users))),
            Some(_) => used.find_map(|method| method.idle(self, flag)).map(String::from),
        };
        with.map(|with| Idle { with, refused })
    }

    /// Whether `flag` acts in the run and leaves its training steps as they are.
    pub fn is_beside_steps(&self, flag: &str) -> bool {
        let mut users = self.active().filter(|method| method.flags().contains(&flag)).peekable();
        users.peek().is_some() && users.all(|method| method.is_beside_steps(self, flag))
    }

    /// Whether radii are learned after the last step.
    pub fn learns_after_steps(&self) -> bool {
        self.name.name() == tpgm::Rule.name() && self.tpgm.schedule == tpgm::Schedule::Post
    }

    /// Images of a validation batch that a method of the run learns from; none if none does.
    pub fn val_batch(&self) -> Option<usize> {
        self.active().find_map(|method| method.val_batch(self))
    }

    /// What a loss of the run keeps near the pre-trained model's, if anything.
    pub fn distills(&self) -> Option<On> {
        (self.name.name() == "distill").then_some(self.distill.distill_on)
    }

    /// Whether the run takes no steps, since its head is solved for.
    pub fn solves(&self) -> bool {
        self.name.solves(self)
    }

    /// The tensors that are trained, stage by stage.
    ///
    /// # Errors
    /// As [`Method::stages`].
    pub fn stages(&self, whole: Stage, of: &Trained) -> Result<Vec<Stage>> {
        let stages = self.name.stages(self, whole, of)?;
        let frozen = if self.freeze_bn { of.norms } else { &[] };
        let adapted = |stage| if self.lora.lora_rank.is_some() { lora::trained(stage, of) } else { stage };
        Ok(stages.into_iter().map(|stage| adapted(stage.decayed(self.layer_decay, of).without(frozen))).collect())
    }

    /// Sentences about the run.
    pub fn notes(&self, stages: &[Stage]) -> Vec<String> {
        self.active().flat_map(|method| method.notes(self, stages)).collect()
    }

    /// Bytes that the methods of the run take on the device.
    pub fn bytes(&self, model: &Model) -> u64 {
        self.active().map(|method| method.bytes(self, model)).sum()
    }
}
