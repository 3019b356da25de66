//! A family's names as a table of patterns: ours (timm's) beside the file's.
//!
//! `#` stands for a number, `+` for the same number and one (it counts from 1 where the file counts from 0), and `*` at the
//! end for whatever follows. Numbers come in the same order on both sides. A file's pattern that begins with `^` stands
//! outside the family's own prefix: the head beside an image tower.

/// Pairs of (canonical, in the file). No pairs: the file's names are ours.
pub(super) type Table = [(&'static str, &'static str)];

/// The canonical name of `name`, which stands within the family's prefix (or, with `outside`, beside it).
pub(super) fn canonical(table: &Table, name: &str, outside: bool) -> Option<String> {
    if table.is_empty() {
        return (!outside).then(|| name.to_string());
    }
    table.iter().find_map(|(ours, theirs)| {
        let pattern = match (theirs.strip_prefix('^'), outside) {
            (Some(pattern), true) => pattern,
            (None, false) => theirs,
            _ => return None,
        };
        translate(pattern, ours, name)
    })
}

/// The file's name for a canonical one, and whether it stands outside the family's prefix.
pub(super) fn in_file(table: &Table, name: &str) -> Option<(String, bool)> {
    if table.is_empty() {
        return Some((name.to_string(), false));
    }
    table.iter().find_map(|(ours, theirs)| {
        let pattern = theirs.strip_prefix('^').unwrap_or(theirs);
        Some((translate(ours, pattern, name)?, theirs.starts_with('^')))
    })
}

/// `name`, which fits the pattern `from`, by the pattern `to`.
fn translate(from: &str, to: &str, name: &str) -> Option<String> {
    let mut numbers = Vec::new();
    let mut rest = name;
    for c in from.chars() {
        match c {
            '*' => break,
            '#' | '+' => {
                let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                // 01 would come back as 1.
                let plain = digits == 1 || !rest.starts_with('0');
                let number: usize = rest.get(..digits).filter(|_| plain)?.parse().ok()?;
                numbers.push(if c == '+' { number.checked_sub(1)? } else { number });
                rest = &rest[digits..];
            }
            c => rest = rest.strip_prefix(c)?,
        }
    }
    if !from.ends_with('*') && !rest.is_empty() {
        return None;
    }
    let mut numbers = numbers.into_iter();
    let mut out = String::new();
    for c in to.chars() {
        match c {
            '*' => out += rest,
            '#' => out += &numbers.next()?.to_string(),
            '+' => out += &numbers.next()?.checked_add(1)?.to_string(),
            c => out.push(c),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &Table = &[
        ("blocks.#.norm1.*", "encoder.layer.#.layernorm_before.*"),
        ("layer+.#.conv+.weight", "stages.#.layers.#.layer.#.convolution.weight"),
        ("head.*", "^classifier.*"),
    ];

    #[test]
    fn names_go_both_ways() {
        for (ours, theirs, outside) in [
            ("blocks.11.norm1.weight", "encoder.layer.11.layernorm_before.weight", false),
            ("layer4.0.conv3.weight", "stages.3.layers.0.layer.2.convolution.weight", false),
            ("head.bias", "classifier.bias", true),
        ] {
            assert_eq!(canonical(TABLE, theirs, outside).as_deref(), Some(ours));
            assert_eq!(canonical(TABLE, theirs, !outside), None);
            assert_eq!(in_file(TABLE, ours), Some((theirs.to_string(), outside)));
        }
        for name in
            ["encoder.layer.x.layernorm_before.weight", "encoder.layer.01.layernorm_before.weight", "norm.weight"]
        {
            assert_eq!(canonical(TABLE, name, false), None);
        }
        assert_eq!(in_file(TABLE, "layer0.0.conv1.weight"), None);
        assert_eq!(canonical(&[], "anything", false).as_deref(), Some("anything"));
        let long = "stages.99999999999999999999.layers.0.layer.2.convolution.weight";
        assert_eq!(canonical(TABLE, long, false), None);
        let last = format!("stages.{}.layers.0.layer.2.convolution.weight", usize::MAX);
        assert_eq!(canonical(TABLE, &last, false), None);
    }
}
