//! Class by class, of images with any number of labels.

use std::fmt::Write as _;

use super::evaluations::TestSet;
use super::text::{escape, integer};

/// Beyond this many classes only the worst are told.
const ALL: usize = 100;
const SOME: usize = 30;

/// One row per class that images of the set have: how many, average precision, and what comes of its threshold; none for images with one
/// class each.
pub(super) fn table(set: &TestSet, classes: &[String]) -> Option<String> {
    let labels = set.figures.labels.as_ref()?;
    let mut rows: Vec<_> = classes.iter().zip(&labels.labels).filter(|(_, own)| own.images > 0).collect();
    let of = rows.len();
    let what = match of > ALL {
        true => {
            rows.sort_by(|a, b| a.1.average_precision.total_cmp(&b.1.average_precision));
            rows.truncate(SOME);
            format!("the {SOME} of {of} classes with the lowest average precision")
        }
        false => "average precision (AP) and F1 of each class".into(),
    };
    let mut out = format!(
        "<div class=\"scroll\" tabindex=\"0\"><table class=\"layers classes\"><caption><span><b>{}</b>: {what}</span></caption><thead><tr>\
         <th scope=\"col\" class=\"name\">Class</th><th></th><th scope=\"col\">AP %</th><th scope=\"col\">Images</th><th scope=\"col\">\
         Threshold</th><th scope=\"col\">Given</th><th scope=\"col\">F1 %</th></tr></thead><tbody>",
        escape(&set.name)
    );
    for (name, own) in rows {
        let share = |value: f64| if value.is_finite() { format!("{:.1}", 100.0 * value) } else { "–".into() };
        let _ = write!(
            out,
            "<tr><th scope=\"row\" class=\"name\">{}</th><td class=\"bar\"><svg height=\"9\" aria-hidden=\"true\"><rect class=\"b2\" \
             width=\"100%\" y=\"1\" height=\"6\"/><rect class=\"m0\" width=\"{:.1}%\" y=\"1\" height=\"6\"/></svg></td><td>{}</td>\
             <td>{}</td><td>{:.3}</td><td>{}</td><td>{}</td></tr>",
            escape(name),
            100.0 * own.average_precision,
            share(own.average_precision),
            integer(own.images as u64),
            own.threshold,
            integer(own.given as u64),
            share(own.f1())
        );
    }
    Some(out + "</tbody></table></div>\n")
}
