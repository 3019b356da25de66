//! `tpgm check`, of kernels that take no time.

use super::*;

#[test]
fn check_prints_a_line_for_every_kernel() {
    let space = Space::empty();
    let run = space.ok("check --quick average l2_sp::backward");
    let kernels: Vec<&str> = run
        .lines()
        .filter(|line| line.contains("  pass  "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(kernels, ["average::forward", "average::backward", "l2_sp::backward"], "{run}");
    assert!(run.lines().last().is_some_and(|line| line.contains(" cases, 0 failed, ")), "{run}");
}

#[test]
fn check_writes_one_document() {
    let space = Space::empty();
    let document = space.json("check --quick spread");
    let cases = document["cases"].as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        assert_eq!((&case["stem"], &case["kernel"]), (&"column_sum".into(), &"column_sum::spread".into()));
        assert_eq!((&case["passed"], &document["quick"]), (&true.into(), &true.into()));
    }
    assert_eq!(document["failed"], 0);
}

#[test]
fn check_lists_the_names_where_one_is_wrong() {
    let space = Space::empty();
    space.fails(2, "check average nonsense", &["'nonsense'", "average, cast, dropout, layer_norm"]);
}
