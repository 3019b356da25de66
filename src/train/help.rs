//! The flags that help: what the command line says beside the facts of an [`Error`] and of a [`Note`].
//!
//! Below, methods alone know flags; all else names the situation ([`Help`]) or the setting ([`Setting`]), and this file has the
//! words.

use crate::checkpoint::Note;
use crate::error::{Error, Help, Setting};

/// An error as the command line tells it, on one line: its facts, and the flag that helps where one does.
pub fn told(error: &Error) -> String {
    let Some(help) = error.help() else { return error.to_string() };
    let advice = match help {
        Help::BatchTooLarge => "use a smaller --batch-size, or in training --micro-batch to split it",
        Help::BindingTooLarge => "use a smaller --batch-size or --image-size, or another adapter (--adapter)",
        Help::ModelTooLarge => "use a smaller model or another adapter (--adapter)",
        Help::TensorTooLarge => "choose another adapter (--adapter)",
        Help::AdapterGone => "give --adapter to go on with another one, whose results differ in the last bits",
        Help::NoTimestamps => "run without --trace, or on another adapter (--adapter)",
        Help::NoHalfFloats => "use --precision f32 or another adapter (--adapter)",
        Help::HalfWidths => "use --precision f32",
        Help::SingleImage => {
            "choose a --batch-size (and --micro-batch) that leaves no single image, a larger --image-size, or --bn frozen"
        }
        Help::Activation => {
            "say which with --activation quick_gelu (OpenAI, MetaCLIP), gelu (LAION, DataComp, SigLIP in timm) or gelu_tanh, \
             or put its configuration beside it"
        }
        Help::Heads => "say how many with --heads",
        Help::ImageSize => "give another with --image-size",
        Help::ImagesTooSmall { at_least } => &format!("use --image-size {at_least} or more"),
        Help::MeanPooling => "use --pool mean, or leave out --fc-norm",
        Help::BrokenImages => "--skip-broken leaves out what can't be read",
        Help::ClassMap => "--class-map says which class is which output",
        Help::Splits => "`tpgm finetune --data` takes all of them",
        Help::ImageColumn => "--image-column says which column has the images",
        Help::LabelColumn => "--label-column says which column has the labels",
        Help::ListRoot => "--root gives another folder",
        Help::Delta { base, delta } => &format!("make the whole model with {}", apply_command(base, delta)),
        Help::Setting(setting) => return format!("{}: {error}", flag(*setting)),
    };
    format!("{error}: {advice}")
}

/// A note as the command line tells it: with the flags that change the assumption.
pub fn note(note: &Note) -> String {
    let flags: Vec<&str> = note.settings.iter().map(|setting| flag(*setting)).collect();
    match flags.as_slice() {
        [] => note.what.clone(),
        [one] => format!("{}; {one} changes it", note.what),
        [others @ .., last] => format!("{}; {} and {last} change it", note.what, others.join(", ")),
    }
}

/// How a delta and its base are put together.
pub fn apply_command(base: &str, delta: &std::path::Path) -> String {
    format!("tpgm apply --model {base} --delta {} --out FILE", delta.display())
}

/// The flag of a setting.
pub fn flag(setting: Setting) -> &'static str {
    match setting {
        Setting::Activation => "--activation",
        Setting::CropPct => "--crop-pct",
        Setting::Family => "--family",
        Setting::Head => "--head",
        Setting::Heads => "--heads",
        Setting::ImageSize => "--image-size",
        Setting::InChannels => "--in-channels",
        Setting::Interpolation => "--interpolation",
        Setting::Mean => "--mean",
        Setting::Pool => "--pool",
        Setting::Std => "--std",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_come_with_the_flag_that_helps() {
        let error = |help| told(&Error::Limit("out of memory".into()).with_help(help));
        assert_eq!(told(&Error::Limit("out of memory".into())), "out of memory");
        let batch = "out of memory: use a smaller --batch-size, or in training --micro-batch to split it";
        assert_eq!(error(Help::BatchTooLarge), batch);
        assert_eq!(error(Help::ImagesTooSmall { at_least: 32 }), "out of memory: use --image-size 32 or more");
        assert_eq!(error(Help::Setting(Setting::Heads)), "--heads: out of memory");
        let delta = Help::Delta { base: "a.safetensors".into(), delta: "b.safetensors".into() };
        let apply = "tpgm apply --model a.safetensors --delta b.safetensors --out FILE";
        assert_eq!(error(delta), format!("out of memory: make the whole model with {apply}"));
    }

    #[test]
    fn notes_come_with_the_flags_that_change_them() {
        let said = |settings| note(&Note { what: "assumed".into(), settings });
        assert_eq!(said(&[]), "assumed");
        assert_eq!(said(&[Setting::Heads]), "assumed; --heads changes it");
        let three = said(&[Setting::Mean, Setting::Std, Setting::CropPct]);
        assert_eq!(three, "assumed; --mean, --std and --crop-pct change it");
    }
}
