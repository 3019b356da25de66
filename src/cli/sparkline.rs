//! A curve in a few characters, for a line in a terminal.

/// From low to high: in Unicode, and in what every terminal can show.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const ASCII: [char; 8] = ['_', '.', ',', '-', '=', '+', '*', '#'];

/// Whether the environment that `get` reads asks for UTF-8; Windows' terminals know it anyway.
fn is_utf8(get: impl Fn(&str) -> Option<String>) -> bool {
    // The first that is set decides, as for C programs.
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(get).find(|locale| !locale.is_empty());
    let locale = locale.map(|locale| locale.to_lowercase());
    cfg!(windows) || locale.is_some_and(|locale| locale.contains("utf-8") || locale.contains("utf8"))
}

/// Whether this terminal shows Unicode.
pub(super) fn shows_unicode() -> bool {
    is_utf8(|name| std::env::var(name).ok())
}

/// `values` from the least to the largest, one character each; a blank for one that is not finite.
pub(super) fn sparkline(values: &[f32], unicode: bool) -> String {
    let finite = || values.iter().copied().filter(|value| value.is_finite());
    let (low, high) = (finite().fold(f32::INFINITY, f32::min), finite().fold(f32::NEG_INFINITY, f32::max));
    let levels = if unicode { BLOCKS } else { ASCII };
    let level = |value: &f32| match value.is_finite() {
        true if high > low => levels[(((value - low) / (high - low)) * 7.0).round() as usize],
        true => levels[0],
        false => ' ',
    };
    values.iter().map(level).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_falling_loss_falls() {
        assert_eq!(sparkline(&[4.0, 3.0, f32::NAN, 2.0, 1.0, 0.5], true), "█▆ ▄▂▁");
        assert_eq!(sparkline(&[4.0, 3.0, 2.0, 1.0, 0.5], false), "#+-._");
        assert_eq!((sparkline(&[2.0, 2.0], true).as_str(), sparkline(&[], true).as_str()), ("▁▁", ""));
    }

    #[test]
    #[cfg(not(windows))]
    fn the_first_locale_that_is_set_decides() {
        let of = |set: &'static [(&str, &str)]| {
            is_utf8(move |name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string()))
        };
        assert!(of(&[("LANG", "de_DE.UTF-8")]) && of(&[("LC_ALL", "C.utf8"), ("LANG", "C")]));
        assert!(of(&[("LC_ALL", ""), ("LC_CTYPE", "en_US.UTF-8")]));
        assert!(!of(&[("LC_ALL", "C"), ("LANG", "en_US.UTF-8")]) && !of(&[("LANG", "de_DE@euro")]) && !of(&[]));
    }
}
