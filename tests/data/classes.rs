//! Which class is which output: by the model's names, by a class map file, or by the ids alone.

use std::path::Path;

use tpgm::data::{ClassMap, Dataset, Item, LeftOut, Outputs};
use tpgm::error::Result;

use super::{assert_error, tree};

/// A data set of these classes with an image each; unlisted ones have none.
fn set(name: &str, classes: &[&str]) -> Dataset {
    let item = |label: usize| Item { path: format!("{}/a.png", classes[label]).into(), label: label as u32 };
    Dataset {
        name: name.into(),
        classes: classes.iter().map(|c| c.to_string()).collect(),
        items: (0..classes.len()).map(item).collect(),
        sets: None,
        left_out: LeftOut::default(),
    }
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}

/// The label of each class of `of`, by a model with `count` outputs called `names`.
fn labels(names: Option<&[&str]>, count: usize, file: Option<&ClassMap>, of: &Dataset) -> Result<Vec<u32>> {
    let names = names.map(strings);
    let model = Outputs { model: Path::new("m"), count, names: names.as_deref() };
    let map = ClassMap::of_model(model, file, &[of])?;
    Ok(map.label(of)?.items.iter().map(|item| item.label).collect())
}

fn file(text: &str) -> ClassMap {
    let dir = tree(&[("map.txt", text)]);
    ClassMap::open(dir.path().join("map.txt")).unwrap()
}

#[test]
fn a_model_that_names_its_outputs_decides() {
    let names = Some(&["dog", "emu", "cat"][..]);
    assert_eq!(labels(names, 3, None, &set("t", &["cat", "dog"])).unwrap(), [2, 0]);
    let unknown = labels(names, 3, None, &set("t", &["cat", "fox"]));
    assert_error(unknown, &["fox/a.png", "outside the classes", "\"fox\"", "\"cat\""]);
    // Numbers are names like others where the model has names.
    let numbers = Some(&["10", "9", "2"][..]);
    assert_eq!(labels(numbers, 3, None, &set("t", &["10", "2", "9"])).unwrap(), [0, 2, 1]);
    // A class without images is no error.
    let mut lacking = set("t", &["cat", "fox"]);
    lacking.items.pop();
    assert_eq!(labels(names, 3, None, &lacking).unwrap(), [2]);
}

#[test]
fn numbers_without_names_are_outputs_and_else_in_number_order() {
    let ten: Vec<String> = (0..11).map(|i| i.to_string()).collect();
    let sorted = |mut ids: Vec<&str>| {
        ids.sort_unstable();
        set("t", &ids)
    };
    let by = |ids: &[String], count: usize| {
        let set = sorted(ids.iter().map(String::as_str).collect());
        let map = ClassMap::of_model(Outputs { model: Path::new("m"), count, names: None }, None, &[&set]).unwrap();
        let labelled = map.label(&set).unwrap();
        let of = |id: &String| {
            let at = set.classes.iter().position(|class| class == id).unwrap();
            labelled.items[at].label
        };
        (ids.iter().map(of).collect::<Vec<u32>>(), map.to_string())
    };
    assert_eq!(by(&ten, 11).0, (0..11).collect::<Vec<u32>>());
    let one_based: Vec<String> = (1..12).map(|i| i.to_string()).collect();
    let (outputs, said) = by(&one_based, 11);
    assert_eq!(outputs, (0..11).collect::<Vec<u32>>());
    assert!(said.contains("2 before 10") && said.contains("0 = 1, 1 = 2, 2 = 3, …, 8 = 9, 9 = 10, 10 = 11"), "{said}");
    let padded: Vec<String> = (0..11).map(|i| format!("{i:02}")).collect();
    assert_eq!(by(&padded, 11).0, (0..11).collect::<Vec<u32>>());
    // Some of the outputs only.
    assert_eq!(by(&strings(&["2", "10"]), 1000).0, [2, 10]);
    // One that is no number makes all of them names.
    assert_eq!(by(&strings(&["9", "10", "x"]), 3).0, [1, 0, 2]);
    let error = labels(None, 5, None, &set("t", &["a", "b"]));
    assert_error(error, &["does not name its 5 outputs", "2 classes"]);
    assert_error(labels(None, 3, None, &set("t", &["7", "8"])), &["3 outputs"]);
}

#[test]
fn training_and_evaluation_take_one_order() {
    for (names, count, ids) in [
        (None, 11, (0..11).map(|i| i.to_string()).collect::<Vec<_>>()),
        (None, 12, (5..17).map(|i| i.to_string()).collect()),
        (None, 3, strings(&["b", "a", "c"])),
        (Some(strings(&["b", "c", "a"])), 3, strings(&["a", "b", "c"])),
    ] {
        let mut ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        ids.sort_unstable();
        let set = set("t", &ids);
        let model = Outputs { model: Path::new("m"), count, names: names.as_deref() };
        let (trained, keeps) = ClassMap::for_training(model, None, &set).unwrap();
        assert!(keeps);
        let used = ClassMap::of_model(model, None, &[&set]).unwrap();
        assert_eq!(trained.names(), used.names(), "{ids:?}");
    }
    // A new head: in the order of numbers, too.
    let model = Outputs { model: Path::new("m"), count: 1000, names: None };
    let (map, keeps) = ClassMap::for_training(model, None, &set("t", &["1", "10", "2"])).unwrap();
    assert_eq!((map.names(), keeps), (strings(&["1", "2", "10"]), false));
    assert!(map.to_string().contains("a new head") && map.to_string().contains("2 before 10"), "{map}");
}

#[test]
fn a_file_says_which_folder_is_which_output() {
    let map = file("n01 tench, Tinca tinca\nn02 cock\n\nn03 junco\n");
    let subset = set("imagenet-a", &["n01", "n03"]);
    assert_eq!(labels(None, 3, Some(&map), &subset).unwrap(), [0, 2]);
    // A model that names its outputs in another order decides.
    let names = Some(&["junco", "cock", "tench, Tinca tinca"][..]);
    assert_eq!(labels(names, 3, Some(&map), &subset).unwrap(), [2, 0]);
    // Or one that is named by the folders.
    assert_eq!(labels(Some(&["n03", "n02", "n01"]), 3, Some(&map), &subset).unwrap(), [2, 0]);
    let lacking = labels(None, 3, Some(&map), &set("imagenet-a", &["n01", "n04"]));
    assert_error(lacking, &["map.txt", "\"n04\"", "imagenet-a", "not in this map"]);
    assert_error(labels(None, 4, Some(&map), &subset), &["3 classes", "4 outputs"]);
    let said = ClassMap::of_model(Outputs { model: Path::new("m"), count: 3, names: None }, Some(&map), &[&subset]);
    let said = said.unwrap().to_string();
    assert!(said.contains("map.txt") && said.contains("0 = n01 (tench, Tinca tinca), 1 = n02 (cock)"), "{said}");
}

/// ImageNet has two cranes and two maillots.
#[test]
fn two_classes_with_one_name_stay_apart() {
    let map = file("n01 crane\nn02 cock\nn03 crane\n");
    let all = set("t", &["n01", "n02", "n03"]);
    assert_eq!(labels(None, 3, Some(&map), &all).unwrap(), [0, 1, 2]);
    // The same names in the same order are the same outputs.
    assert_eq!(labels(Some(&["crane", "cock", "crane"]), 3, Some(&map), &all).unwrap(), [0, 1, 2]);
    // In another order nobody knows which crane is which; a set without either is none the worse.
    let turned = Some(&["cock", "crane", "crane"][..]);
    assert_error(labels(turned, 3, Some(&map), &all), &["map.txt", "\"crane\"", "can't be told"]);
    assert_eq!(labels(turned, 3, Some(&map), &set("t", &["n02"])).unwrap(), [0]);
    // Without a file, a folder of that name could be either.
    assert_error(labels(turned, 3, None, &set("t", &["crane"])), &["\"crane\"", "several outputs"]);
    // In training they are two classes as well.
    let model = Outputs { model: Path::new("m"), count: 7, names: None };
    let (trained, _) = ClassMap::for_training(model, Some(&map), &all).unwrap();
    let trained = trained.label(&all).unwrap();
    assert_eq!(trained.items.iter().map(|i| i.label).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn sets_that_lack_classes_are_labelled_and_the_classes_named() {
    let train = set("train", &["a", "b", "c"]);
    let classes = ClassMap::of_ids(&train).unwrap();
    let val = classes.label(&set("val", &["a", "c"])).unwrap();
    assert_eq!((val.items[1].label, val.classes.len()), (2, 3));
    assert_eq!(classes.lacking(&val), ["b"]);
    assert_error(classes.label(&set("val", &["a", "d"])), &["d/a.png", "\"d\"", "\"val\""]);
    let unlabelled = Dataset { classes: Vec::new(), ..set("u", &[]) };
    assert_error(classes.label(&unlabelled), &["u", "no labels"]);
}

#[test]
fn a_list_without_the_last_label_is_labelled_as_the_whole_one() {
    let dir = tree(&[
        ("a.png", "rgb8.png"),
        ("train.txt", "a.png 0\na.png 1\na.png 11\n"),
        ("val.txt", "a.png 1\n"),
        ("more.txt", "a.png 12\n"),
    ]);
    let open = |name: &str| Dataset::open(dir.path().join(name), None).unwrap();
    let classes = ClassMap::of_ids(&open("train.txt")).unwrap();
    let val = classes.label(&open("val.txt")).unwrap();
    assert_eq!((val.classes.len(), val.items[0].label), (12, 1));
    assert_error(classes.label(&open("more.txt")), &["a.png", "\"12\" of \"more\""]);
}
