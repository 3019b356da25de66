//! Which program this is.

/// The version, and in parentheses the commit that the program was built from, `modified` if its sources differed from that commit:
/// `0.1.0 (1f0c2d9a41be, modified)`. The version alone if nobody knows the commit.
pub const VERSION: &str = env!("TPGM_VERSION");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_begins_with_the_packages_and_names_a_commit() {
        let rest = VERSION.strip_prefix(env!("CARGO_PKG_VERSION")).unwrap();
        let commit = rest.strip_prefix(" (").and_then(|rest| rest.strip_suffix(')'));
        let commit = commit.map(|commit| commit.strip_suffix(", modified").unwrap_or(commit));
        let is_one = |text: &str| text.len() == 12 && text.chars().all(|c| c.is_ascii_hexdigit());
        assert!(rest.is_empty() || commit.is_some_and(is_one), "{VERSION}");
        if std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(".git").exists() {
            assert!(commit.is_some(), "{VERSION}");
        }
    }
}
