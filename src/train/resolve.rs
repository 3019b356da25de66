//! How a run's settings are decided. The defaults of the flags are the lowest level; above them lie the defaults that follow the
//! recipe, the model, the method and the optimiser, then a file, then the command line. Each level is a TOML table, and one function lays one table over
//! another, for `finetune` and `compare` alike.

use std::sync::LazyLock;

use clap::{Args, Command, FromArgMatches};
use serde::Serialize;
use serde::de::Error as _;
use toml::Table;

use crate::error::{Error, Result};
use crate::train::config::TrainConfig;
use crate::train::lines::{Lines, Section};
use crate::train::optim_args::OptimizerName;
use crate::train::recipe::{Known, probe_rate, rate};

/// Two ways to give one setting, the length of a run.
const LENGTH: [&str; 2] = ["epochs", "steps"];

/// The flags of a run.
pub(super) fn command() -> Command {
    TrainConfig::augment_args(Command::new("finetune").no_binary_name(true))
}

/// The keys of all settings, in the order of `--help`.
pub(super) static KEYS: LazyLock<Vec<String>> = LazyLock::new(keys_of::<TrainConfig>);

/// The defaults as the flags have them.
static DEFAULTS: LazyLock<Table> = LazyLock::new(|| {
    let matches = command().try_get_matches_from([""; 0]).expect("no flag is required");
    table(&TrainConfig::from_arg_matches(&matches).expect("no flag is required")).expect("defaults are plain values")
});

/// The keys of a group of flags.
pub fn keys_of<T: Args>() -> Vec<String> {
    T::augment_args(Command::new("")).get_arguments().filter_map(|arg| Some(arg.get_long()?.to_string())).collect()
}

/// `value` as a table. It passes through text, in which an f32 is written with its own digits, not with those of an f64.
///
/// # Errors
/// What TOML can't hold: a number above [`i64::MAX`], a path that is not UTF-8.
pub(super) fn table(value: &impl Serialize) -> Result<Table, String> {
    let text = toml::to_string(value).map_err(|e| e.to_string())?;
    toml::from_str(&text).map_err(|e| e.message().to_string())
}

/// The values of `over`, and below them those of `under`. A length replaces the other way to give one: `steps` over `epochs`
/// says the same setting anew.
pub fn merge(mut under: Table, over: &Table) -> Table {
    if LENGTH.iter().any(|key| over.contains_key(*key)) {
        under.retain(|key, _| LENGTH.iter().all(|length| key != *length));
    }
    under.extend(over.iter().map(|(key, value)| (key.clone(), value.clone())));
    under
}

/// `given` over the defaults, as a configuration.
///
/// # Errors
/// An unknown key, or a value of a wrong type.
pub fn typed(given: &Table) -> Result<TrainConfig, toml::de::Error> {
    if let Some(key) = given.keys().find(|key| !KEYS.contains(key)) {
        return Err(toml::de::Error::custom(format!("unknown field `{key}`: tpgm finetune --help lists all names")));
    }
    merge(DEFAULTS.clone(), given).try_into()
}

/// Checks the keys of one level, a table at `place` of a file.
///
/// # Errors
/// [`Error::Usage`] with the line of an unknown key, of a wrong value, or of two that exclude each other.
pub fn check(lines: &Lines, place: Section, level: &Table) -> Result<()> {
    lines.checked(place, level, typed)?;
    match LENGTH.iter().all(|key| level.contains_key(*key)) {
        true => Err(lines.error(place, Some(LENGTH[1]), "epochs and steps are two ways to give one length: give one")),
        false => Ok(()),
    }
}

/// The defaults that follow something else: the recipe and the model, the method, the optimiser.
fn following(given: &Table) -> Result<Table, toml::de::Error> {
    let c = typed(given)?;
    let (method, model) = (c.method.name, Known::of(&c));
    let mut out = c.optim.recipe.defaults(model.as_ref());
    out.extend(c.splits.following());
    let optimizer = typed(&merge(merge(out.clone(), &method.defaults(c.optim.lr)), given))?.optim.optimizer;
    let own = given.contains_key("lr").then_some(c.optim.lr).or(c.optim.recipe.rate());
    out.insert("lr".into(), own.unwrap_or_else(|| rate(optimizer, model.as_ref())).into());
    let adamw = optimizer == OptimizerName::AdamW;
    if adamw {
        out.extend(toml::toml! {
            momentum = 0.0
            weight-decay = 0.05
        });
    }
    if adamw || c.optim.momentum == 0.0 {
        out.insert("nesterov".into(), false.into());
    }
    let lora = c.method.lora.lora_rank.is_some();
    if method.freezes_batch_norm() || c.method.freeze_bn || lora {
        out.insert("bn".into(), "frozen".into());
    }
    if lora {
        // A projection between steps would leave the product of two matrices.
        out.insert("schedule".into(), "post".into());
    }
    out.extend(i64::try_from(c.optim.batch_size).map(|batch| ("micro-batch".to_string(), batch.into())));
    // The methods' own defaults follow the schedule that a recipe gives.
    let c = typed(&merge(out.clone(), given))?;
    out.extend(c.method.following(own.unwrap_or_else(|| probe_rate(optimizer)), c.optim.batch_size));
    Ok(out)
}

/// `given` with all defaults filled in, and not checked any further.
pub(super) fn filled(given: &Table) -> Result<TrainConfig, toml::de::Error> {
    let config = typed(&merge(following(given)?, given))?;
    Ok(TrainConfig { given: given.keys().cloned().collect(), ..config })
}

/// The settings of a run. The user gave `given`; `beside` is the part of it that stands where the method is chosen (on the command
/// line, or in a method's entry of a comparison), and where a value that belongs to another method is a mistake.
///
/// # Errors
/// [`Error::Usage`] where a value is missing, out of range, or contradicts another.
pub fn resolve(given: &Table, beside: &Table) -> Result<TrainConfig> {
    let config = filled(given).map_err(|e| Error::Usage(e.message().lines().next().unwrap_or_default().into()))?;
    config.refuse(beside)?;
    config.validate()?;
    Ok(config)
}
