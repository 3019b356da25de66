//! How a run came about: its command, program and adapter, and what it took.

use std::fmt::Write as _;

use super::text::{escape, integer, number};
use crate::compare::tables::time;
use crate::gpu::buffer::mib;
use crate::train::records::Session;

/// `words` as a shell takes them; of the program its name alone.
fn command(words: &[String]) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "_@%+=:,./-".contains(c);
    let quoted = |(nth, word): (usize, &String)| {
        let word = if nth == 0 { word.rsplit(['/', '\\']).next().unwrap_or(word) } else { word };
        match !word.is_empty() && word.chars().all(is_plain) {
            true => word.to_string(),
            false => format!("'{}'", word.replace('\'', "'\\''")),
        }
    };
    words.iter().enumerate().map(quoted).collect::<Vec<_>>().join(" ")
}

/// The different values of `of`, in order.
fn each(sessions: &[Session], of: impl Fn(&Session) -> String) -> String {
    let mut values: Vec<String> = Vec::new();
    for value in sessions.iter().map(of).filter(|value| !value.is_empty()) {
        if !values.contains(&value) {
            values.push(value);
        }
    }
    values.join(", then ")
}

/// A date of ISO 8601 for people.
fn date(text: &str) -> String {
    text.replacen('T', " ", 1).trim_end_matches('Z').to_string()
}

/// The sessions of one run, or of all runs of a comparison, as a list of facts; empty where nothing is known.
pub(super) fn facts(sessions: &[Session], runs: usize) -> String {
    let (Some(first), Some(last)) = (sessions.first(), sessions.last()) else { return String::new() };
    let mut facts: Vec<(&str, String)> = Vec::new();
    let shown = |session: &Session| format!("<code>{}</code>", escape(&command(&session.command)));
    let mut commands: Vec<String> = Vec::new();
    for command in sessions.iter().filter(|s| !s.command.is_empty()).map(shown) {
        if !commands.contains(&command) {
            commands.push(command);
        }
    }
    facts.push(("Command", commands.join("<br>")));
    facts.push(("Started", format!("{} UTC", escape(&date(&first.started)))));
    let seconds: f64 = sessions.iter().map(|s| s.seconds).sum();
    let parts = match sessions.len() {
        one if one == runs => String::new(),
        n => format!(", in {} parts (the last since {} UTC)", integer(n as u64), escape(&date(&last.started))),
    };
    let of = if runs > 1 { format!(" for {} runs", integer(runs as u64)) } else { String::new() };
    facts.push(("Duration", format!("{}{of}{parts}", time(seconds))));
    let rates: Vec<f64> = sessions.iter().filter_map(|s| s.images_per_second).collect();
    let (low, high) = rates.iter().fold((f64::INFINITY, 0.0f64), |(low, high), r| (low.min(*r), high.max(*r)));
    if !rates.is_empty() {
        // Four digits would claim more than a measurement on a machine in use can say.
        let rate = |rate: f64| number(format!("{rate:.2e}").parse().unwrap_or(rate));
        let range = if rate(low) == rate(high) { rate(low) } else { format!("{} to {}", rate(low), rate(high)) };
        facts.push(("Throughput", format!("{range} training images per second")));
    }
    if let Some(memory) = sessions.iter().map(|s| s.memory).max().filter(|memory| *memory > 0) {
        facts.push(("Peak memory", format!("{} on the device", mib(memory))));
    }
    facts.push(("Adapter", escape(&each(sessions, |s| s.adapter.clone()))));
    if sessions.iter().any(|session| session.ranks > 1) {
        let ranks = |s: &Session| if s.ranks == 1 { "1 process".into() } else { format!("{} ranks", s.ranks) };
        facts.push(("Processes", escape(&each(sessions, ranks))));
    }
    facts.push(("Driver", escape(&each(sessions, |s| s.driver.clone()))));
    facts.push(("Interface", escape(&each(sessions, |s| s.backend.clone()))));
    facts.push(("Program", format!("tpgm {}", escape(&each(sessions, |s| s.version.clone())))));
    let mut out = String::from("<dl class=\"facts\">");
    for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = write!(out, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    }
    out + "</dl>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_be_typed_again() {
        let words = ["/usr/bin/tpgm", "finetune", "--train", "my images", "--exclude", "head*", "it's", ""];
        let text = command(&words.map(String::from));
        assert_eq!(text, r"tpgm finetune --train 'my images' --exclude 'head*' 'it'\''s' ''");
    }

    #[test]
    fn parts_of_a_run_are_summed_and_their_differences_named() {
        let part = |driver: &str, seconds, rate| Session {
            started: "2026-11-29T00:15:02Z".into(),
            driver: driver.into(),
            adapter: "<gpu>".into(),
            seconds,
            images_per_second: rate,
            memory: 3 << 20,
            ..Session::default()
        };
        let all = [part("25.1", 30.0, Some(100.3)), part("25.2", 31.0, None), part("25.2", 1.0, Some(151.7))];
        let page = facts(&all, 1);
        for text in [
            "<dd>2026-11-29 00:15:02 UTC</dd>",
            "in 3 parts",
            "<dd>100 to 152 training images per second</dd>",
            "<dd>25.1, then 25.2</dd>",
            "&lt;gpu&gt;",
        ] {
            assert!(page.contains(text), "{text}\n{page}");
        }
        assert!(!page.contains("Command"), "nobody knows it");
        assert_eq!(facts(&[], 1), "");
    }
}
