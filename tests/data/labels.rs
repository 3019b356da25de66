//! Images with any number of labels: which tables say so, what they say, and how such data sets are labelled and divided.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use tpgm::data::{ClassMap, Columns, Dataset, Looks, Outputs, Summary, split_off};

use super::{assert_error, tree};

const IMAGES: [(&str, &str); 4] =
    [("1.png", "rgb8.png"), ("2.png", "rgb8.png"), ("3.png", "rgb8.png"), ("4.png", "rgb8.png")];

/// What the classes of each image are called, by the name of its file.
fn labels(dataset: &Dataset) -> BTreeMap<String, Vec<String>> {
    let names = |label: &u32| dataset.classes_of(label).iter().map(|c| dataset.classes[*c as usize].clone()).collect();
    let file = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_string();
    dataset.items.iter().map(|item| (file(&item.path), names(&item.label))).collect()
}

fn expected() -> BTreeMap<String, Vec<String>> {
    let of = [("1.png", vec!["cat", "red"]), ("2.png", vec![]), ("3.png", vec!["red"]), ("4.png", vec!["cat", "red"])];
    of.into_iter().map(|(name, own)| (name.into(), own.into_iter().map(String::from).collect())).collect()
}

/// With the images, and a file.
fn with(name: &str, text: &str) -> tempfile::TempDir {
    tree(&[&IMAGES[..], &[(name, text)]].concat())
}

#[test]
fn every_way_to_write_labels_says_the_same() {
    let json = |key: &str, one: &str| {
        let line = |i: usize, labels: &str| format!("{{\"file_name\": \"{i}.png\", \"{key}\": {labels}}}\n");
        [line(1, one), line(2, "[]"), line(3, "[\"red\"]"), line(4, "[\"cat\", \"red\"]")].concat()
    };
    for (name, text) in [
        ("l.csv", "path,labels\n1.png,cat;red\n2.png,\n3.png,red\n4.png, red ; cat\n".to_string()),
        ("l.csv", "path,labels\n1.png,red|cat\n2.png,\n3.png,red|\n4.png,red|cat|red\n".to_string()),
        ("l.csv", "path,cat,red\n1.png,1,1\n2.png,0,0\n3.png,0,1\n4.png,true,1.0\n".to_string()),
        ("metadata.csv", "file_name,labels\n1.png,cat;red\n2.png,\n3.png,red\n4.png,cat;red\n".to_string()),
        ("metadata.csv", "red,file_name,cat\n1,1.png,1\n0,2.png,0\n1,3.png,0\n1,4.png,1\n".to_string()),
        ("metadata.jsonl", json("label", "[\"red\", \"cat\"]")),
        ("metadata.jsonl", json("labels", "[\"cat\", \"red\"]")),
    ] {
        let dir = with(name, &text);
        let path = if name.starts_with("metadata") { dir.path().to_path_buf() } else { dir.path().join(name) };
        let dataset = Dataset::open(path, None).unwrap();
        assert!(dataset.is_multi_label(), "{text}");
        assert_eq!(
            (dataset.classes.clone(), dataset.counts()),
            (vec!["cat".into(), "red".into()], vec![2, 3]),
            "{text}"
        );
        assert_eq!(labels(&dataset), expected(), "{text}");
        // Equal sets are equal labels.
        assert!(dataset.items[0].label == dataset.items[3].label && dataset.items[0].label != dataset.items[2].label);
    }
}

#[test]
fn a_column_and_what_stands_between_its_labels_may_be_told() {
    let dir = with("l.csv", "path,tags,label\n1.png,cat  red,x\n2.png,,x\n3.png,red,x\n4.png,red cat,x\n");
    let columns = |label: &str, separator: Option<&str>| Columns {
        label: (!label.is_empty()).then(|| label.into()),
        separator: separator.map(String::from),
        ..Columns::default()
    };
    let open = |columns| Dataset::open_as(dir.path().join("l.csv"), None, &columns);
    assert_eq!(labels(&open(columns("tags", Some(" "))).unwrap()), expected());
    // One label each, of another column.
    let plain = open(columns("", None)).unwrap();
    assert_eq!((plain.is_multi_label(), plain.classes), (false, vec!["x".to_string()]));
    assert_error(open(columns("tags", None)), &["line 3", "the label is missing"]);
    assert_error(open(columns("color", None)), &["line 1", "\"color\"", "--label-column"]);

    let comma = with("l.csv", "path,label\n1.png,\"a, b\"\n2.png,b\n3.png,\n4.png,a\n");
    let dataset = Dataset::open_as(comma.path().join("l.csv"), None, &columns("", Some(","))).unwrap();
    assert_eq!((dataset.classes.clone(), dataset.counts()), (vec!["a".into(), "b".into()], vec![2, 2]));
}

#[test]
fn labels_may_be_numbers_and_classes_may_have_no_image() {
    let dir = with("l.csv", "path,labels\n1.png,3;0\n2.png,\n3.png,0\n4.png,10\n");
    let dataset = Dataset::open(dir.path().join("l.csv"), None).unwrap();
    assert_eq!((dataset.classes.len(), dataset.counts()[..4].to_vec()), (11, vec![2, 0, 0, 1]));
    // A column is a class even if it is 0 throughout.
    let dir = with("l.csv", "path,cat,dog\n1.png,1,0\n2.png,0,0\n3.png,0,0\n4.png,1,0\n");
    let dataset = Dataset::open(dir.path().join("l.csv"), None).unwrap();
    assert_eq!((dataset.classes.clone(), dataset.counts()), (vec!["cat".into(), "dog".into()], vec![2, 0]));
}

#[test]
fn labels_that_can_not_be_understood_are_named_with_their_line() {
    for (name, text, parts) in [
        ("l.csv", "path,cat,age\n1.png,1,33\n", &["line 2", "\"age\" has \"33\"", "`labels`"][..]),
        ("l.csv", "path,cat,dog\n1.png,1\n", &["line 2", "\"dog\" has \"\""]),
        ("l.csv", "path,label,labels\n1.png,a,a\n", &["line 1", "--label-column"]),
        ("l.csv", "path,labels\n1.png,\n2.png,\n", &["no image has a label"]),
        ("l.csv", "path,labels\n1.png,cat;3\n", &["line 2", "is a number", "names throughout"]),
        ("l.csv", "path\n1.png\n", &["line 1", "`path` and `label`"]),
        (
            "metadata.jsonl",
            "{\"file_name\": \"1.png\", \"label\": [\"a\"]}\n{\"file_name\": \"2.png\", \"label\": \"a\"}\n",
            &["line 2", "one label", "line 1 has a list"],
        ),
        ("metadata.jsonl", "{\"file_name\": \"1.png\", \"label\": [[1]]}\n", &["line 1", "neither text nor a number"]),
    ] {
        let dir = with(name, text);
        let path = if name == "l.csv" { dir.path().join(name) } else { dir.path().to_path_buf() };
        assert_error(Dataset::open(path, None), parts);
    }
}

/// A table without labels beside class folders is none, whatever other columns it has.
#[test]
fn a_table_without_labels_is_no_table_of_classes() {
    let dir = tree(&[
        ("cat/1.png", "rgb8.png"),
        ("dog/2.png", "rgb8.png"),
        ("metadata.csv", "file_name,width\ncat/1.png,640\ndog/2.png,480\n"),
    ]);
    let dataset = Dataset::open(dir.path(), None).unwrap();
    assert_eq!((dataset.is_multi_label(), dataset.classes.len()), (false, 2));
}

#[test]
fn shards_may_have_lists_of_labels() {
    let dir = tempfile::tempdir().unwrap();
    let image = fs::read(super::image_file("rgb8.png")).unwrap();
    let mut tar = tar::Builder::new(fs::File::create(dir.path().join("shard.tar")).unwrap());
    for (i, json) in
        ["{\"label\": [\"red\", \"cat\"]}", "{\"labels\": []}", "{\"cls\": [\"red\"]}"].into_iter().enumerate()
    {
        for (name, bytes) in [(format!("{i}.png"), image.as_slice()), (format!("{i}.json"), json.as_bytes())] {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, name, bytes).unwrap();
        }
    }
    tar.finish().unwrap();
    let dataset = Dataset::open(dir.path().join("shard.tar"), None).unwrap();
    let own: Vec<Vec<u32>> = dataset.items.iter().map(|item| dataset.classes_of(&item.label).to_vec()).collect();
    assert_eq!(
        (dataset.classes.as_slice(), own),
        (&["cat".into(), "red".into()][..], vec![vec![0, 1], vec![], vec![1]])
    );
}

#[test]
fn a_model_s_order_of_classes_is_that_of_every_set() {
    let dir = with("l.csv", "path,labels\n1.png,cat;red\n2.png,\n3.png,red\n4.png,red;cat\n");
    let other = with("l.csv", "path,labels\n1.png,zebra\n2.png,red\n3.png,\n4.png,red;cat\n");
    let open = |dir: &Path| Dataset::open(dir.join("l.csv"), None).unwrap();
    let names = ["red", "zebra", "cat"].map(String::from);
    let model = Outputs { model: Path::new("m"), count: 3, names: Some(&names) };
    let sets = [open(dir.path()), open(other.path())];
    let map = ClassMap::of_model(model, None, &[&sets[0], &sets[1]]).unwrap();
    let mut labelled: Vec<Dataset> = sets.iter().map(|set| map.label(set).unwrap()).collect();
    assert_eq!(labelled[0].counts(), [3, 0, 2]);
    assert_eq!(map.lacking(&labelled[0]), ["zebra"]);
    assert_eq!(labels(&labelled[0])["1.png"], ["red", "cat"]);
    // With one list of sets, the same labels are the same number.
    Dataset::unite(&mut labelled);
    assert_eq!(labelled[0].sets, labelled[1].sets);
    assert_eq!(labelled[0].items[0].label, labelled[1].items[3].label);
    assert_eq!(labelled[0].items[1].label, labelled[1].items[2].label);

    let two = Outputs { count: 2, names: Some(&names[..2]), ..model };
    let map = ClassMap::of_model(two, None, &[&sets[1]]).unwrap();
    assert_error(map.label(&sets[1]), &["4.png", "\"cat\" of \"l\" is not among the 2 known"]);
}

/// Of each rarest class a share goes to either side, and no image is lost.
#[test]
fn a_part_is_set_apart_by_the_rarest_class() {
    let mut files: Vec<(String, String)> = Vec::new();
    let mut csv = String::from("path,labels\n");
    for i in 0..40 {
        files.push((format!("{i}.png"), "rgb8.png".into()));
        csv += &format!("{i}.png,{}\n", ["common", "common;rare", "common", ""][i % 4]);
    }
    files.push(("l.csv".into(), csv));
    let dir = tree(&files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect::<Vec<_>>());
    let dataset = Dataset::open(dir.path().join("l.csv"), None).unwrap();
    let (rest, apart) = split_off(&dataset, &Looks::default(), 0.2, 0);
    assert_eq!((rest.items.len(), apart.items.len()), (32, 8));
    // 10 with the rare class, 20 with the common one alone, 10 without.
    assert_eq!((apart.counts(), rest.counts()), (vec![6, 2], vec![24, 8]));
    let summary = Summary::new("val", &apart, &apart.classes, &Looks::default(), &[]);
    assert_eq!(summary.labels, Some((8, 2)));
    let line = &summary.lines()[0].1;
    assert!(line.contains("8 labels, 1.00 per image, 2 images without any"), "{line}");
}
