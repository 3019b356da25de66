//! The table of fixtures in docs/checkpoints.md, and the families that they are of.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use tpgm::checkpoint::{Checkpoint, Overrides, recognise};

use super::{Family, NAMES};

#[test]
fn the_table_has_a_row_for_each_fixture() {
    let docs = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/checkpoints.md")).unwrap();
    let (_, table) = docs.split_once("| fixture |").expect("docs/checkpoints.md has the table of fixtures");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with("| `"));
    let named: Vec<&str> = rows.filter_map(|line| line.split('`').nth(1)).collect();
    let unique: BTreeSet<&str> = named.iter().copied().collect();
    assert_eq!(named.len(), unique.len(), "a fixture has two rows");
    assert_eq!(unique, NAMES.iter().copied().collect());
}

#[test]
fn every_family_has_a_fixture() {
    let families: Vec<Family> = NAMES.iter().map(|name| Family::new(name)).collect();
    let of = |family: &Family, slug: &str| {
        let told = Overrides { family: Some(slug.into()), ..family.overrides() };
        recognise(&Checkpoint::open(family.dir.path()).unwrap(), &told)
    };
    let message = of(&families[0], "none such").unwrap_err().to_string();
    let (_, slugs) = message.split_once("there are ").unwrap();
    let slugs: Vec<&str> = slugs.split([' ', ',', ';']).filter(|slug| !slug.is_empty()).collect();
    assert!(slugs.len() > 12, "{message}");
    for slug in slugs {
        assert!(families.iter().any(|family| of(family, slug).is_ok()), "no fixture is of {slug}");
    }
}
