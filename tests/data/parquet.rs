//! Hugging Face's data sets as Parquet files (`fixtures/generate_parquet.py`), read where they lie.

use std::path::{Path, PathBuf};

use tpgm::data::{Columns, Dataset, decode, exists, size_of};

use super::{assert_error, fixtures};

fn file(name: &str) -> PathBuf {
    fixtures().join("parquet").join(name)
}

/// The row that an image is of, by its colour.
fn row_of(path: &Path) -> usize {
    let image = decode(path).unwrap();
    assert_eq!(image.dimensions(), (8, 8));
    let [red, green, blue] = image.get_pixel(3, 5).0;
    assert_eq!((green, blue), (255 - red, 7), "{}", path.display());
    usize::from(red)
}

/// The names of the classes of each image, which come in the order of the rows from `first` on.
fn labels(dataset: &Dataset, first: usize) -> Vec<Vec<&str>> {
    let each = dataset.items.iter().enumerate().map(|(i, item)| {
        assert_eq!(row_of(&item.path), first + i, "{}", item.path.display());
        dataset.classes_of(&item.label).iter().map(|class| dataset.classes[*class as usize].as_str()).collect()
    });
    each.collect()
}

#[test]
fn rows_are_images_with_the_classes_that_the_file_names() {
    let dataset = Dataset::open(file("named.parquet"), None).unwrap();
    assert_eq!((dataset.name.as_str(), dataset.items.len(), dataset.is_multi_label()), ("named", 10, false));
    assert_eq!(dataset.classes, ["cat", "dog", "emu"]);
    let names: Vec<&str> = labels(&dataset, 0).concat();
    assert_eq!(names, (0..10).map(|i| ["emu", "cat", "dog"][i % 3]).collect::<Vec<_>>());
    let last = &dataset.items[9].path;
    assert!(last.ends_with("named.parquet/image/00000009") && exists(last) && size_of(last).unwrap() > 0);
    assert!(!exists(&file("named.parquet/image/00000010")) && !exists(&file("named.parquet/label/00000001")));
    // Each row by itself, from whatever thread.
    let rows: Vec<usize> = std::thread::scope(|scope| {
        let each = (0..10).rev().map(|i| scope.spawn(move || row_of(&file(&format!("named.parquet/image/{i:08}")))));
        each.collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(rows, (0..10).rev().collect::<Vec<_>>());
}

#[test]
fn shards_are_one_data_set_in_a_folder_or_by_a_pattern() {
    let train = Dataset::open(file("split/data/train-*.parquet"), None).unwrap();
    assert_eq!((train.items.len(), train.classes.len()), (12, 3));
    labels(&train, 0);
    let test = Dataset::open(file("split/data/test-*.parquet"), None).unwrap();
    labels(&test, 12);
    // All shards of a folder, in the order of their names.
    let all = Dataset::open(file("split/data"), None).unwrap();
    assert_eq!((all.items.len(), row_of(&all.items[0].path)), (15, 12));
    assert_eq!(Dataset::unlabelled(file("split/data"), None).unwrap().items.len(), 15);
    assert_error(
        Dataset::open(file("split/data/val-*.parquet"), None),
        &["val-*.parquet", "no archive and no Parquet file"],
    );
}

#[test]
fn a_list_is_any_number_of_labels() {
    let dataset = Dataset::open(file("lists.parquet"), None).unwrap();
    assert!(dataset.is_multi_label());
    let each = ["", "left", "right", "left right"];
    let want: Vec<Vec<&str>> = (0..9).map(|i| each[i % 4].split_whitespace().collect()).collect();
    assert_eq!(labels(&dataset, 0), want);
    let columns = Columns { label: Some("tags".into()), ..Columns::default() };
    let dataset = Dataset::open_as(file("tags.parquet"), None, &columns).unwrap();
    assert_eq!(labels(&dataset, 0), [vec!["x"], vec!["x", "y"], vec![], vec!["z"], vec!["x"]]);
}

#[test]
fn plain_columns_and_texts_are_enough() {
    let dataset = Dataset::open(file("words.parquet"), None).unwrap();
    assert_eq!(labels(&dataset, 0).concat(), ["b", "a", "a", "b", "c"]);
    // Several texts in one, if that is said.
    let columns = Columns { image: Some("photo".into()), separator: Some(";".into()), ..Columns::default() };
    assert!(Dataset::open_as(file("words.parquet"), None, &columns).unwrap().is_multi_label());
    let images = Dataset::unlabelled(file("tags.parquet"), None).unwrap();
    assert_eq!(images.items.iter().map(|item| row_of(&item.path)).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    let one = Dataset::unlabelled(file("tags.parquet/img/00000003"), None).unwrap();
    assert_eq!((one.items.len(), row_of(&one.items[0].path)), (1, 3));
}

#[test]
fn what_can_not_be_told_or_read_is_an_error() {
    let open = |name: &str| Dataset::open(file(name), None);
    let with = |image: Option<&str>, label: Option<&str>| {
        let columns = Columns { image: image.map(String::from), label: label.map(String::from), separator: None };
        Dataset::open_as(file("two.parquet"), None, &columns)
    };
    assert_error(open("two.parquet"), &["two.parquet", "fine, coarse", "--label-column"]);
    assert_eq!(with(None, Some("fine")).unwrap().classes, ["a", "b"]);
    assert_error(with(None, Some("colour")), &["no column \"colour\"", "--label-column"]);
    assert_error(
        with(Some("fine"), Some("fine")),
        &["no column \"fine\" with images or their paths", "--image-column"],
    );
    assert_error(open("tags.parquet"), &["which column has labels", "img, tags", "--label-column"]);
    assert_error(open("unlabelled.parquet"), &["unlabelled.parquet", "row 0", "-1 is none of the 3 classes"]);
    assert_error(open("torn.parquet"), &["torn.parquet", "no whole Parquet file"]);
    assert_error(open("named.parquet/image/00000001"), &["give the whole Parquet file"]);
    let hollow = open("hollow.parquet").unwrap();
    assert_error(decode(&hollow.items[2].path), &["00000002", "this row has no image"]);
    assert_eq!(row_of(&hollow.items[3].path), 3);
    assert_error(decode(file("named.parquet/image/99")), &["there is no image", "image/99"]);
}

/// Every compression that pyarrow writes, and the older LZ4 in both of its forms.
#[test]
fn pages_may_be_compressed_by_whatever_arrow_knows() {
    let names = ["none", "snappy", "gzip", "brotli", "zstd", "lz4", "lz4_old", "lz4_hadoop"];
    for name in names {
        let dataset =
            Dataset::open(file(&format!("codecs/{name}.parquet")), None).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(labels(&dataset, 0).concat(), ["a", "b", "b", "a"], "{name}");
    }
    let files = std::fs::read_dir(file("codecs")).unwrap().count();
    assert_eq!(files, names.len());
}

/// Rows of the file are all there, each the image of its own number, wherever that lies.
fn assert_paths(dataset: &Dataset, beside: usize) {
    let mut rows: Vec<(usize, &str)> =
        dataset.items.iter().map(|item| (row_of(&item.path), dataset.classes[item.label as usize].as_str())).collect();
    rows.sort();
    assert_eq!(rows, (0..8).map(|i| (i, ["emu", "cat", "dog"][i % 3])).collect::<Vec<_>>());
    let files = dataset.items.iter().filter(|item| item.path.is_file() && size_of(&item.path).unwrap() < 1000);
    assert_eq!(files.count(), beside);
}

#[test]
fn paths_in_the_place_of_images_lead_to_files_beside_it() {
    // Some rows have bytes, and only in one row group.
    assert_paths(&Dataset::open(file("paths/data/train.parquet"), None).unwrap(), 6);
    assert_paths(&Dataset::open(file("paths/data/*.parquet"), None).unwrap(), 6);
    // Without statistics, which would tell where there are bytes.
    assert_paths(&Dataset::open(file("paths/flat.parquet"), None).unwrap(), 6);
    let texts = Dataset::open(file("paths/texts.parquet"), None).unwrap();
    assert_eq!(labels(&texts, 0).concat(), ["a", "b", "a"]);
    assert!(texts.items[1].path.ends_with("paths/images/1.png"), "{:?}", texts.items[1]);
    let images = Dataset::unlabelled(file("paths/flat.parquet"), None).unwrap();
    assert_eq!(images.items.iter().map(|item| row_of(&item.path)).collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
    for (row, ends) in [(4, "paths/images/4.png"), (5, "paths/flat.parquet/image/00000005")] {
        let one = Dataset::unlabelled(file(&format!("paths/flat.parquet/image/{row:08}")), None).unwrap();
        assert!(one.items[0].path.ends_with(ends) && row_of(&one.items[0].path) == row, "{:?}", one.items);
    }

    // Below another folder.
    let dir = tempfile::tempdir().unwrap();
    let moved = dir.path().join("flat.parquet");
    std::fs::copy(file("paths/flat.parquet"), &moved).unwrap();
    assert_error(Dataset::open(&moved, None), &["flat.parquet", "row 0", "there is no file", "images/0.png", "--root"]);
    assert_paths(&Dataset::open(&moved, Some(&file("paths"))).unwrap(), 6);
}

#[test]
fn paths_that_lead_to_no_file_or_outside_are_refused() {
    let open = |name: &str| Dataset::open(file(name), None);
    assert_error(open("paths/missing.parquet"), &["missing.parquet", "row 1", "there is no file", "images/9.png"]);
    let outside = "images/../../words.parquet\" lies outside of the folder";
    assert_error(open("paths/outside.parquet"), &["outside.parquet", "row 1", outside]);
    assert_error(Dataset::unlabelled(file("paths/outside.parquet"), None), &["row 1", outside]);
    assert_error(open("paths/web.parquet"), &["web.parquet", "row 1", "is an address, not a file"]);
}

/// Whatever is damaged is an error of one line, never a panic.
#[test]
fn damaged_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["named", "codecs/gzip", "codecs/brotli", "codecs/zstd", "codecs/lz4_hadoop", "paths/flat"];
    for (name, step) in names.into_iter().zip([61, 37, 37, 37, 37, 37]) {
        let whole = std::fs::read(file(&format!("{name}.parquet"))).unwrap();
        for at in (0..whole.len()).step_by(step) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0xff;
            let path = dir.path().join(format!("{at}.parquet"));
            std::fs::write(&path, bytes).unwrap();
            if let Ok(dataset) = Dataset::open(&path, None) {
                dataset.items.iter().for_each(|item| drop(decode(&item.path)));
            }
        }
    }
}
