//! Plain tables: the first column to the left, numbers to the right.

use std::borrow::Cow;

use crate::error::escaped;

/// Aligns `rows` under `header`. A cell is one line.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let header: Vec<Cow<str>> = header.iter().map(|cell| escaped(cell)).collect();
    let header: Vec<&str> = header.iter().map(AsRef::as_ref).collect();
    let rows: Vec<Vec<Cow<str>>> = rows.iter().map(|row| row.iter().map(|cell| escaped(cell)).collect()).collect();
    let mut widths: Vec<usize> = header.iter().map(|h| h.chars().count()).collect();
    for row in &rows {
        assert_eq!(row.len(), header.len(), "table rows have one cell per column");
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let padded = cells
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(i, (cell, width))| if i == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_string() + "\n"
    };
    let mut text = line(header);
    for row in &rows {
        text += &line(row.iter().map(AsRef::as_ref).collect());
    }
    text
}

/// A share as a percentage.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let text = table(&["model", "id"], &[vec!["α".into(), "5.0".into()], vec!["longer".into(), "15.0".into()]]);
        assert_eq!(text, "model     id\nα        5.0\nlonger  15.0\n");
    }
}
