//! How many images each class has, split by split.

use std::fmt::Write as _;

use super::text::{escape, integer};
use crate::data::Summary;

/// Splits that have a column.
const SPLITS: usize = 5;
/// Of more classes than this, the largest and the smallest are shown: so many of each.
const ALL: usize = 40;
const ENDS: usize = 12;

/// One row per class, with a bar and a count for each split. A bar's full length is the largest class of its split. Empty without
/// classes.
pub(super) fn table(data: &[Summary]) -> String {
    let shown: Vec<&Summary> = data.iter().filter(|set| !set.classes.is_empty()).take(SPLITS).collect();
    let Some(first) = shown.first() else { return String::new() };
    let count = |set: &Summary, class: &str| set.classes.iter().find(|c| c.0 == class).map_or(0, |c| c.1);
    let mut classes: Vec<&str> = first.classes.iter().map(|class| class.0.as_str()).collect();
    let known: std::collections::HashSet<&str> = classes.iter().copied().collect();
    classes.extend(shown[1..].iter().flat_map(|set| &set.classes).map(|c| c.0.as_str()).filter(|c| !known.contains(c)));
    let mut what = "Images by class".to_string();
    if classes.len() > ALL {
        what = format!(
            "The {ENDS} largest and the {ENDS} smallest of {} classes, by {}",
            classes.len(),
            escape(&first.name)
        );
        let sizes: std::collections::HashMap<&str, usize> = first.classes.iter().map(|c| (c.0.as_str(), c.1)).collect();
        classes.sort_by_key(|class| std::cmp::Reverse(sizes.get(class).copied().unwrap_or(0)));
        classes.drain(ENDS..classes.len() - ENDS);
    }
    let left = data.iter().filter(|set| !set.classes.is_empty()).count() - shown.len();
    if left > 0 {
        let _ = write!(what, "; {left} more splits are left out here");
    }
    let mut heads = String::new();
    for (nth, set) in shown.iter().enumerate() {
        let _ = write!(heads, "<th scope=\"col\"><i class=\"key k{nth}\"></i>{}</th>", escape(&set.name));
    }
    let mut out = format!(
        "<div class=\"scroll tall\" tabindex=\"0\"><table class=\"layers classes\"><caption><span>{what}; a full bar is the largest \
         class of its split</span></caption><thead><tr><th scope=\"col\" class=\"name\">Class</th><th></th>{heads}</tr></thead><tbody>"
    );
    let most: Vec<usize> = shown.iter().map(|set| set.classes.iter().map(|c| c.1).max().unwrap_or(1)).collect();
    for class in classes {
        let high = 7 * shown.len() + 2;
        let _ = write!(
            out,
            "<tr><th scope=\"row\" class=\"name\">{}</th><td class=\"bar\"><svg height=\"{high}\" aria-hidden=\"true\">",
            escape(class)
        );
        let counts: Vec<usize> = shown.iter().map(|set| count(set, class)).collect();
        for (nth, (count, most)) in counts.iter().zip(&most).enumerate() {
            let (width, y) = (100.0 * *count as f64 / *most as f64, 1 + 7 * nth);
            let _ = write!(out, "<rect class=\"m{nth}\" width=\"{width:.1}%\" y=\"{y}\" height=\"6\"/>");
        }
        out += "</svg></td>";
        for count in counts {
            let _ = write!(out, "<td>{}</td>", integer(count as u64));
        }
        out += "</tr>";
    }
    out + "</tbody></table></div>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, classes: &[(&str, usize)]) -> Summary {
        let classes = classes.iter().map(|(name, n)| (name.to_string(), *n)).collect();
        Summary { name: name.into(), classes, ..Summary::default() }
    }

    #[test]
    fn bars_are_relative_to_the_largest_class_of_a_split() {
        let page = table(&[set("train", &[("<cat>", 2000), ("dog", 500)]), set("val", &[("dog", 8), ("cow", 4)])]);
        for text in [
            "<th scope=\"row\" class=\"name\">&lt;cat&gt;</th>",
            "<td>2,000</td><td>0</td>",
            "<rect class=\"m0\" width=\"25.0%\" y=\"1\" height=\"6\"/><rect class=\"m1\" width=\"100.0%\" y=\"8\" height=\"6\"/>",
            "<td>0</td><td>4</td>",
        ] {
            assert!(page.contains(text), "{text}\n{page}");
        }
        assert_eq!(table(&[set("data", &[])]), "");
    }

    #[test]
    fn of_many_classes_the_ends_are_shown() {
        let names: Vec<String> = (0..3000).map(|i| format!("class {i:04}")).collect();
        let classes: Vec<(&str, usize)> = names.iter().zip(1..).map(|(name, n)| (name.as_str(), n)).collect();
        let page = table(&[set("train", &classes)]);
        assert_eq!(page.matches("<tr>").count(), 2 * ENDS + 1);
        assert!(
            page.contains("smallest of 3000 classes") && page.contains("class 2999") && page.contains("class 0000")
        );
        assert!(!page.contains("class 1500"));
    }
}
