//! Hugging Face's data sets as Parquet files: rows with an image's bytes, or a file's path in their place, and its label. Images are read where
//! they lie, a few rows at a time; the path of one is that of the file with its column and row behind it, as in `train.parquet/image/00000012`.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ::parquet::basic::Type;
use ::parquet::column::reader::{ColumnReader, get_typed_column_reader};
use ::parquet::data_type::{ByteArray, ByteArrayType, DataType};
use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{ChunkReader, FileReader, Length, SerializedFileReader};
use bytes::Bytes;
use serde_json::Value;

use super::columns::Columns;
use super::label::{Entry, Label};
use crate::error::{Error, Help, Result, quote};

/// Rows that are read at once, and how many such blocks are kept: neighbours are often asked for soon.
const BLOCK: usize = 16;
const KEPT: usize = 16;

/// Finds the file that a row names in the place of an image's bytes, or says what is wrong with it and what helps.
pub(super) type Find<'a> = &'a dyn Fn(&str) -> Result<PathBuf, (String, Option<Help>)>;

/// A file that several threads may read, each at a place of its own.
#[derive(Debug)]
struct Places {
    path: PathBuf,
    len: u64,
}

impl Length for Places {
    fn len(&self) -> u64 {
        self.len
    }
}

impl ChunkReader for Places {
    type T = BufReader<File>;

    fn get_read(&self, start: u64) -> Result<BufReader<File>, ParquetError> {
        // Of its own, since clones of a file share their place in it.
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(start))?;
        Ok(BufReader::new(file))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        // A damaged footer may ask for more than there is.
        if start.checked_add(length as u64).is_none_or(|end| end > self.len) {
            return Err(ParquetError::EOF("the file is shorter than it says".into()));
        }
        let mut bytes = vec![0; length];
        self.get_read(start)?.read_exact(&mut bytes)?;
        Ok(bytes.into())
    }
}

/// The values of some rows of a column; none where a row has none.
type Block = Arc<Vec<Option<ByteArray>>>;

/// A Parquet file.
pub(super) struct Table {
    path: PathBuf,
    reader: SerializedFileReader<Places>,
    /// Rows before each row group, and in all.
    starts: Vec<usize>,
    /// The blocks read last, by column and first row.
    kept: Mutex<VecDeque<((usize, usize), Block)>>,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Table({:?}, {} rows)", self.path, self.rows())
    }
}

/// A column of a file's own kinds: the place of its leaf among all, and how its rows are nested.
#[derive(Clone, Copy, Debug)]
struct Leaf {
    place: usize,
    /// Levels at which a value is there, and 1 for lists.
    defined: i16,
    repeated: i16,
    kind: Type,
}

impl Table {
    /// # Errors
    /// [`Error::Io`] where the file can't be read; [`Error::Data`] where it is no whole Parquet file.
    pub(super) fn open(path: &Path) -> Result<Table> {
        let len = std::fs::metadata(path).map_err(|e| Error::io(path, "cannot read", e))?.len();
        let reader = SerializedFileReader::new(Places { path: path.into(), len }).map_err(|e| broken(path, &e))?;
        let mut starts: Vec<usize> = vec![0];
        for group in reader.metadata().row_groups() {
            let rows = usize::try_from(group.num_rows()).ok();
            let next = rows.and_then(|rows| starts.last()?.checked_add(rows));
            starts.push(
                next.ok_or_else(|| {
                    Error::data(path, "this is no whole Parquet file: it has a negative number of rows")
                })?,
            );
        }
        Ok(Table { path: path.into(), reader, starts, kept: Mutex::default() })
    }

    /// How many rows it has.
    pub(super) fn rows(&self) -> usize {
        *self.starts.last().expect("it begins with 0")
    }

    /// The path of each row's image, of the column that `columns` names or the only one that can have them: a place in this file, or the
    /// file that `find` finds for the path that the row has in the place of the image's bytes.
    ///
    /// # Errors
    /// [`Error::Data`] if no column fits, or several do; if a file is not found.
    pub(super) fn images(&self, columns: &Columns, find: Find) -> Result<Vec<PathBuf>> {
        let column = self.image_column(columns)?;
        let own = |row: usize| self.path.join(&column).join(format!("{row:08}"));
        let mut paths: Vec<PathBuf> = (0..self.rows()).map(own).collect();
        for (row, name) in self.named(&column)? {
            paths[row] = find(&name).map_err(|wrong| self.not_found(row, wrong))?;
        }
        Ok(paths)
    }

    /// The path of the image at `inside`, a column and a row, as [`Table::images`] has it.
    ///
    /// # Errors
    /// [`Error::Data`] for a place without an image, or a file that is not found.
    pub(super) fn image(&self, inside: &str, find: Find) -> Result<PathBuf> {
        let (column, row) = self.place(inside)?;
        let value = |leaf: Leaf| Ok::<_, Error>(self.block(leaf, row / BLOCK * BLOCK)?[row % BLOCK].clone());
        let leaf = self.image_leaf(column).expect("checked with its place");
        let own = self.path.join(inside);
        match self.path_leaf(column) {
            Some(path) if value(leaf)?.is_none() => match value(path)? {
                Some(name) => find(&text(&name)).map_err(|wrong| self.not_found(row, wrong)),
                None => Ok(own),
            },
            _ => Ok(own),
        }
    }

    /// The rows of a column that have the path of an image in the place of its bytes, with that.
    fn named(&self, column: &str) -> Result<Vec<(usize, String)>> {
        let (bytes, Some(path)) = (self.image_leaf(column), self.path_leaf(column)) else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for (group, meta) in self.reader.metadata().row_groups().iter().enumerate() {
            let (first, count) = (self.starts[group], self.starts[group + 1] - self.starts[group]);
            let nulls = |leaf: Leaf| meta.column(leaf.place).statistics()?.null_count_opt();
            let mut absent = vec![true; count];
            if let Some(leaf) = bytes {
                match nulls(leaf) {
                    Some(0) => continue,
                    Some(all) if all == count as u64 => {}
                    // Where nothing tells how many have bytes, all are looked at.
                    _ => {
                        let mut rows = absent.iter_mut();
                        self.read::<ByteArrayType>(leaf, group, 0, count, &mut |value, _| {
                            rows.next().into_iter().for_each(|row| *row = value.is_none());
                        })?;
                    }
                }
            }
            let mut rows = (first..).zip(absent);
            self.read::<ByteArrayType>(path, group, 0, count, &mut |value, _| {
                let row = rows.next().filter(|(_, absent)| *absent);
                found.extend(row.zip(value).map(|((row, _), name)| (row, text(&name))));
            })?;
        }
        Ok(found)
    }

    fn not_found(&self, row: usize, (what, help): (String, Option<Help>)) -> Error {
        let error = self.wrong(row, &what);
        match help {
            Some(help) => error.with_help(help),
            None => error,
        }
    }

    fn wrong(&self, row: usize, what: &str) -> Error {
        Error::data(&self.path, format!("row {row}: {what}"))
    }

    /// The bytes of the image at `inside`, a column and a row.
    ///
    /// # Errors
    /// [`Error::Data`] for a place without an image, or one that can't be read.
    pub(super) fn bytes(&self, inside: &str) -> Result<Vec<u8>> {
        let (column, row) = self.place(inside)?;
        let leaf = self.image_leaf(column).expect("checked with its place");
        let value = self.block(leaf, row / BLOCK * BLOCK)?[row % BLOCK].clone();
        let value = value.ok_or_else(|| Error::data(self.path.join(inside), "this row has no image"))?;
        Ok(value.data().to_vec())
    }

    /// The column and the row of the image at `inside`.
    pub(super) fn place<'a>(&self, inside: &'a str) -> Result<(&'a str, usize)> {
        let place = inside.rsplit_once('/').and_then(|(column, row)| Some((column, row.parse().ok()?)));
        place
            .filter(|(column, row)| *row < self.rows() && self.image_leaf(column).is_some())
            .ok_or_else(|| Error::data(&self.path, format!("there is no image \"{}\" in this file", quote(inside))))
    }

    /// A block of a column from row `first` on, which is a multiple of its length.
    fn block(&self, leaf: Leaf, first: usize) -> Result<Block> {
        let key = (leaf.place, first);
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, block)) = kept().iter().find(|(own, _)| *own == key) {
            return Ok(block.clone());
        }
        let mut values = Vec::new();
        let end = (first + BLOCK).min(self.rows());
        while first + values.len() < end {
            let row = first + values.len();
            let group = self.starts.partition_point(|start| *start <= row) - 1;
            let last = end.min(self.starts[group + 1]);
            let before = values.len();
            self.read::<ByteArrayType>(leaf, group, row - self.starts[group], last - row, &mut |value, _| {
                values.push(value)
            })?;
            if values.len() - before != last - row {
                return Err(Error::data(
                    &self.path,
                    "this is no whole Parquet file: a column has fewer rows than it says",
                ));
            }
        }
        let block = Arc::new(values);
        let mut kept = kept();
        kept.push_front((key, block.clone()));
        kept.truncate(KEPT);
        Ok(block)
    }

    /// Passes the values of `count` rows of a row group, from its row `first` on, to `each`, with whether they begin a row.
    fn read<T: DataType>(
        &self,
        leaf: Leaf,
        group: usize,
        first: usize,
        count: usize,
        each: &mut dyn FnMut(Option<T::T>, bool),
    ) -> Result<()> {
        let wrong = |e: ParquetError| broken(&self.path, &e);
        let group = self.reader.get_row_group(group).map_err(wrong)?;
        let reader: ColumnReader = group.get_column_reader(leaf.place).map_err(wrong)?;
        let mut reader = get_typed_column_reader::<T>(reader);
        reader.skip_records(first).map_err(wrong)?;
        let (mut values, mut defined, mut repeated) = (Vec::new(), Vec::new(), Vec::new());
        let mut left = count;
        while left > 0 {
            // Images are large: a whole row group of them is not kept.
            let some = left.min(4 * BLOCK);
            let read =
                reader.read_records(some, Some(&mut defined), Some(&mut repeated), &mut values).map_err(wrong)?;
            if read.0 == 0 {
                break;
            }
            left -= read.0;
            let mut own = values.drain(..);
            if leaf.defined == 0 {
                own.for_each(|value| each(Some(value), true));
                continue;
            }
            for (i, level) in defined.drain(..).enumerate() {
                let value = if level == leaf.defined { own.next() } else { None };
                each(value, leaf.repeated == 0 || repeated.get(i) == Some(&0));
            }
            drop(own);
            repeated.clear();
        }
        Ok(())
    }

    /// The leaf of this path, such as `image.bytes`.
    fn leaf(&self, is: impl Fn(&str) -> bool) -> Option<Leaf> {
        let columns = self.reader.metadata().file_metadata().schema_descr().columns();
        let (place, column) = columns.iter().enumerate().find(|(_, column)| is(&column.path().string()))?;
        let (defined, repeated) = (column.max_def_level(), column.max_rep_level());
        Some(Leaf { place, defined, repeated, kind: column.physical_type() })
    }

    /// A column itself, or `part` of it, if it holds bytes or text and `is` says that it is meant.
    fn part(&self, column: &str, part: &str, is: impl Fn(Leaf) -> bool) -> Option<Leaf> {
        let inner = format!("{column}.{part}");
        let whole = || self.leaf(|path| path == column).filter(|leaf| is(*leaf));
        let leaf = self.leaf(|path| path == inner).or_else(whole)?;
        (leaf.kind == Type::BYTE_ARRAY && leaf.repeated == 0).then_some(leaf)
    }

    /// Where the bytes of the images of a column are: in the column itself, or under `bytes` in it.
    fn image_leaf(&self, column: &str) -> Option<Leaf> {
        self.part(column, "bytes", |leaf| self.is_binary(leaf))
    }

    /// Where the paths of the images of a column are: in the column itself, if it is text, or under `path` in it.
    fn path_leaf(&self, column: &str) -> Option<Leaf> {
        self.part(column, "path", |leaf| !self.is_binary(leaf))
    }

    /// What the values of a column are, labels or lists of these.
    fn label_leaf(&self, column: &str) -> Option<Leaf> {
        let prefix = format!("{column}.");
        let leaf = self.leaf(|path| path == column).or_else(|| self.leaf(|path| path.starts_with(&prefix)))?;
        let known = matches!(leaf.kind, Type::BYTE_ARRAY | Type::INT32 | Type::INT64) && leaf.repeated <= 1;
        (known && !self.is_binary(leaf)).then_some(leaf)
    }

    /// Whether it has bytes that are no text.
    fn is_binary(&self, leaf: Leaf) -> bool {
        let column = self.reader.metadata().file_metadata().schema_descr().column(leaf.place);
        leaf.kind == Type::BYTE_ARRAY
            && column.logical_type_ref().is_none()
            && column.converted_type() == ::parquet::basic::ConvertedType::NONE
    }

    /// The names of its columns.
    fn columns(&self) -> Vec<String> {
        let root = self.reader.metadata().file_metadata().schema_descr().root_schema();
        root.get_fields().iter().map(|field| field.name().to_string()).collect()
    }

    /// What Hugging Face's `datasets` says of a column.
    fn feature(&self, column: &str) -> Option<Value> {
        let entries = self.reader.metadata().file_metadata().key_value_metadata()?;
        let text = entries.iter().find(|entry| entry.key == "huggingface")?.value.as_ref()?;
        let all: Value = serde_json::from_str(text).ok()?;
        all.pointer("/info/features")?.get(column).cloned()
    }

    /// The only one of `columns`, which may have `what`.
    fn only(&self, columns: Vec<String>, what: &str, help: Help) -> Result<String> {
        let list = |names: &[String]| names.iter().map(|name| quote(name).to_string()).collect::<Vec<_>>().join(", ");
        match columns.as_slice() {
            [one] => Ok(one.clone()),
            [] => {
                let what = format!("which column has {what} can't be told: it has {}", list(&self.columns()));
                Err(Error::data(&self.path, what).with_help(help))
            }
            several => {
                let what = format!("several columns can have {what}: {}", list(several));
                Err(Error::data(&self.path, what).with_help(help))
            }
        }
    }

    fn image_column(&self, columns: &Columns) -> Result<String> {
        if let Some(name) = &columns.image {
            let there = self.image_leaf(name).or_else(|| self.path_leaf(name)).map(|_| name.clone());
            let what = || format!("there is no column \"{}\" with images or their paths", quote(name));
            return there.ok_or_else(|| Error::data(&self.path, what()).with_help(Help::ImageColumn));
        }
        let all = self.columns();
        let told = |name: &&String| self.feature(name).is_some_and(|feature| feature["_type"] == "Image");
        let mut found: Vec<String> = all.iter().filter(told).cloned().collect();
        if found.is_empty() {
            let binary = |name: &&String| self.image_leaf(name).is_some_and(|leaf| self.is_binary(leaf));
            found = all.iter().filter(binary).cloned().collect();
        }
        self.only(found, "images", Help::ImageColumn)
    }

    fn label_column(&self, columns: &Columns) -> Result<String> {
        if let Some(name) = &columns.label {
            let there = self.label_leaf(name).map(|_| name.clone());
            let what = || format!("there is no column \"{}\" with labels", quote(name));
            return there.ok_or_else(|| Error::data(&self.path, what()).with_help(Help::LabelColumn));
        }
        let all = self.columns();
        let usable = |name: &&String| self.label_leaf(name).is_some();
        let told = |name: &&String| self.feature(name).is_some_and(|feature| class_names(&feature).is_some());
        let mut found: Vec<String> = all.iter().filter(usable).filter(told).cloned().collect();
        if found.len() != 1 {
            let called = |name: &&String| ["label", "labels"].contains(&name.as_str());
            let named: Vec<String> = all.iter().filter(usable).filter(called).cloned().collect();
            found = if named.len() == 1 { named } else { found };
        }
        self.only(found, "labels", Help::LabelColumn)
    }

    /// One entry for each row, and the classes that are there whether a row has them or not.
    ///
    /// # Errors
    /// [`Error::Data`] where images or labels can't be told, or a row has no label.
    pub(super) fn entries(&self, columns: &Columns, find: Find) -> Result<(Vec<Entry>, Vec<String>)> {
        let images = self.images(columns, find)?;
        let column = self.label_column(columns)?;
        let leaf = self.label_leaf(&column).expect("chosen since it has labels");
        let names = self.feature(&column).and_then(|feature| class_names(&feature));
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let at = |row: usize| format!("{name}, row {row}");
        // The texts of each row, of which one may be missing.
        let mut rows: Vec<Vec<Option<String>>> = Vec::with_capacity(images.len());
        for group in 0..self.starts.len() - 1 {
            let count = self.starts[group + 1] - self.starts[group];
            let mut add = |text: Option<String>, begins: bool| match rows.last_mut() {
                Some(row) if !begins => row.push(text),
                _ => rows.push(vec![text]),
            };
            match leaf.kind {
                Type::INT32 => {
                    self.read::<::parquet::data_type::Int32Type>(leaf, group, 0, count, &mut |value, begins| {
                        add(value.map(|value| value.to_string()), begins);
                    })?
                }
                Type::INT64 => {
                    self.read::<::parquet::data_type::Int64Type>(leaf, group, 0, count, &mut |value, begins| {
                        add(value.map(|value| value.to_string()), begins);
                    })?
                }
                _ => self.read::<ByteArrayType>(leaf, group, 0, count, &mut |value, begins| {
                    add(value.as_ref().map(text), begins);
                })?,
            }
        }
        if rows.len() != images.len() {
            return Err(Error::data(&self.path, "this is no whole Parquet file: a column has fewer rows than it says"));
        }
        let is_number = leaf.kind != Type::BYTE_ARRAY;
        let class = |row: usize, text: String| match &names {
            Some(names) if is_number => {
                let name = text.parse().ok().and_then(|place: usize| names.get(place)).cloned();
                let what = format!("the label {text} is none of the {} classes that the file names", names.len());
                name.ok_or_else(|| self.wrong(row, &what))
            }
            _ => Ok(text),
        };
        let mut entries = Vec::with_capacity(rows.len());
        for (row, (path, texts)) in images.into_iter().zip(rows).enumerate() {
            let label = match leaf.repeated {
                0 => {
                    let text = texts.into_iter().next().flatten().filter(|text| !text.is_empty());
                    let text = class(row, text.ok_or_else(|| self.wrong(row, "its label is missing"))?)?;
                    match columns.separator {
                        Some(_) => Label::Several(columns.split(&text)),
                        None => Label::One(text),
                    }
                }
                // An empty list is one value that is not there.
                _ => Label::Several(texts.into_iter().flatten().map(|text| class(row, text)).collect::<Result<_>>()?),
            };
            entries.push(Entry { at: at(row), path, label });
        }
        Ok((entries, names.unwrap_or_default()))
    }
}

fn text(value: &ByteArray) -> String {
    String::from_utf8_lossy(value.data()).into_owned()
}

/// The names of a feature's classes, which may be those of the elements of a list.
fn class_names(feature: &Value) -> Option<Vec<String>> {
    let inner = match feature {
        Value::Array(elements) => elements.first()?,
        Value::Object(own) if own.contains_key("feature") => &own["feature"],
        own => own,
    };
    let names = inner.get("names").filter(|_| inner["_type"] == "ClassLabel")?.as_array()?;
    names.iter().map(|name| name.as_str().map(String::from)).collect()
}

fn broken(path: &Path, error: &ParquetError) -> Error {
    let what = quote(&error.to_string()).replace('\n', " ");
    Error::data(path, format!("this is no whole Parquet file that can be read ({what}): fetch or write it again"))
}
