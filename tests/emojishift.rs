//! The table that `tools/emojishift` builds the study's data by: complete, split by identity, and in agreement with the
//! images in `assets/`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// The styles and what their sources' names end in; Iconify's icons are named without an extension.
const STYLES: [(&str, &str); 7] = [
    ("google", ".png"),
    ("twitter", ".png"),
    ("fluent-flat", ""),
    ("fluent-3d", ".webp"),
    ("fluent-hc", ""),
    ("openmoji", ".svg"),
    ("openmoji-black", ".svg"),
];

type Row = HashMap<String, String>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).into()
}

fn table() -> Vec<Row> {
    let mut reader = csv::Reader::from_path(root().join("tools/emojishift.csv")).unwrap();
    reader.deserialize().map(|row| row.unwrap()).collect()
}

/// How many rows have each value of a column.
fn counts<'a>(rows: impl IntoIterator<Item = &'a Row>, column: &str) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    for row in rows {
        *counts.entry(row[column].as_str()).or_default() += 1;
    }
    counts
}

#[test]
fn every_identity_is_there_once_with_a_source_in_every_style() {
    let table = table();
    assert_eq!(table.len(), 1003);
    assert_eq!(counts(&table, "id").len(), 1003, "an id is there twice");
    for row in &table {
        let id = &row["id"];
        assert!(!id.is_empty() && id.chars().all(|c| c.is_ascii_hexdigit() || c == '-'), "{id:?} is no file name");
        assert!(row["class"].chars().all(|c| c.is_ascii_lowercase()), "{id}: class {:?}", row["class"]);
        assert!(!row["name"].is_empty(), "{id} has no name");
    }
    for (style, extension) in STYLES {
        for row in &table {
            let stem = row[style].strip_suffix(extension);
            let plain = |stem: &str| !stem.is_empty() && stem.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
            assert!(stem.is_some_and(plain), "{}: {style} is {:?}", row["id"], row[style]);
        }
        assert_eq!(counts(&table, style).len(), 1003, "{style}: a drawing stands for two identities");
    }
}

#[test]
fn splits_and_halves_have_their_sizes_and_every_class() {
    let table = table();
    let classes = counts(&table, "class");
    assert_eq!(classes.len(), 13);
    assert_eq!(counts(&table, "split"), BTreeMap::from([("test", 257), ("train", 600), ("val", 146)]));

    let (val, rest): (Vec<&Row>, Vec<&Row>) = table.iter().partition(|row| row["split"] == "val");
    assert_eq!(counts(val, "half"), BTreeMap::from([("radius", 73), ("select", 73)]));
    assert_eq!(counts(rest, "half"), BTreeMap::from([("", 857)]), "only val has halves");

    for (column, parts) in [("split", ["train", "val", "test"].as_slice()), ("half", &["radius", "select"])] {
        for part in parts {
            let there = counts(table.iter().filter(|row| row[column] == *part), "class");
            assert!(there.keys().eq(classes.keys()), "{part} lacks a class: {there:?}");
        }
    }
}

/// Pairs that a Fluent set draws alike to the pixel, or mirrored: apart, one half would know the other.
#[test]
fn twins_of_val_are_in_one_half() {
    let table = table();
    let half = |id: &str| &table.iter().find(|row| row["id"] == id).unwrap()["half"];
    for (a, b) in [("1f448", "1f449"), ("1f4bf", "1f4c0"), ("1f9d1", "1f9d1-200d-1f9b0")] {
        assert!(!half(a).is_empty() && half(a) == half(b), "{a} is in {:?}, {b} in {:?}", half(a), half(b));
    }
}

#[test]
fn the_images_in_assets_are_those_of_the_table() {
    let table = table();
    let folders = [
        ("google/train", "train"),
        ("google/val", "val"),
        ("google/test", "test"),
        ("twitter/test", "test"),
        ("fluent/flat/test", "test"),
        ("fluent/hc/test", "test"),
        ("openmoji/color/test", "test"),
        ("openmoji/black/test", "test"),
    ];
    for (folder, split) in folders {
        let path = root().join("assets").join(folder);
        let images = glob::glob(&format!("{}/*/*.png", glob::Pattern::escape(path.to_str().unwrap()))).unwrap();
        let there: BTreeSet<PathBuf> = images.map(|image| image.unwrap().strip_prefix(&path).unwrap().into()).collect();
        let rows = table.iter().filter(|row| row["split"] == split);
        let expected = rows.map(|row| Path::new(&row["class"]).join(format!("{}.png", row["id"]))).collect();
        assert_eq!(there, expected, "assets/{folder}");
    }
}
