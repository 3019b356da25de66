//! Rows of CSV, as every file of ours has them.

use serde::Serialize;

use crate::error::escaped;

/// `rows` as lines of CSV, without a header unless it is the first row. Names come from folders, lists and downloaded files: what a
/// terminal obeys is escaped in them as everywhere outside JSON, so that one row is one line.
///
/// # Panics
/// For a row that is no list of texts and numbers.
pub fn csv_text(rows: impl IntoIterator<Item = impl Serialize>) -> String {
    let mut text = String::new();
    for row in rows {
        let mut csv = csv::WriterBuilder::new().has_headers(false).buffer_capacity(256).from_writer(Vec::new());
        csv.serialize(row).expect("a row of texts and numbers");
        let line = String::from_utf8(csv.into_inner().expect("writing to memory")).expect("texts are UTF-8");
        text += &escaped(line.trim_end_matches('\n'));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_escaped() {
        let rows = [("a\nb", 1), ("\u{1b}[31mred, \"so\"", 2), ("\u{202e}gpj\r\t", 3), ("ü", 4)];
        let lines = ["\"a\\nb\",1", "\"\\u{1b}[31mred, \"\"so\"\"\",2", "\"\\u{202e}gpj\\r\\t\",3", "ü,4"];
        assert_eq!(csv_text(rows), lines.join("\n") + "\n");
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(lines[1].as_bytes());
        let fields: Vec<String> = reader.deserialize().next().unwrap().unwrap();
        assert_eq!(fields, ["\\u{1b}[31mred, \"so\"", "2"]);
    }

    #[test]
    fn a_name_that_ends_its_line_stays_on_it() {
        assert_eq!(csv_text([["x", "end\n"], ["y", ""]]), "x,\"end\\n\"\ny,\n");
    }
}
