//! Accuracy class by class, ID beside OOD.

use std::fmt::Write as _;

use super::confusion::by_kind;
use super::evaluations::TestSet;
use super::text::escape;

/// Beyond this many classes only those that lose most are told.
const ALL: usize = 100;
const SOME: usize = 30;

/// One row per class: a bar and a share for each kind of test set; empty without test sets.
pub(super) fn table(sets: &[&TestSet], classes: &[String]) -> String {
    let groups = by_kind(sets);
    // The share of right images over all sets of a kind: each image counts once.
    let share = |class: usize, members: &[&TestSet]| {
        let counts = members.iter().map(|s| s.figures.per_class[class]);
        let (images, right) = counts.fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
        (images > 0).then(|| 100.0 * right as f64 / images as f64)
    };
    let mut rows: Vec<(&str, Vec<Option<f64>>)> = (0..classes.len())
        .map(|class| (classes[class].as_str(), groups.iter().map(|(_, members)| share(class, members)).collect()))
        .filter(|(_, shares): &(_, Vec<Option<f64>>)| shares.iter().any(Option::is_some))
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let change = |shares: &[Option<f64>]| match shares {
        [Some(id), Some(ood)] => Some(ood - id),
        _ => None,
    };
    let what = if rows.len() > ALL {
        let of = rows.len();
        let key = |shares: &[Option<f64>]| change(shares).or(shares.iter().copied().flatten().next()).unwrap_or(0.0);
        rows.sort_by(|a, b| key(&a.1).total_cmp(&key(&b.1)));
        rows.truncate(SOME);
        let worst = if groups.len() > 1 { "lose most out of distribution" } else { "are right least often" };
        format!("The {SOME} of {of} classes that {worst}")
    } else {
        "Accuracy by class in %".into()
    };
    let with_change = rows.iter().any(|(_, shares)| change(shares).is_some());
    let mut heads = String::new();
    for (nth, (title, _)) in groups.iter().enumerate() {
        let _ = write!(heads, "<th scope=\"col\"><i class=\"key k{nth}\"></i>{title} %</th>");
    }
    if with_change {
        heads += "<th scope=\"col\">Change</th>";
    }
    let mut out = format!(
        "<div class=\"scroll\" tabindex=\"0\"><table class=\"layers classes\"><caption><span>{what}; all sets of a kind \
         together</span></caption><thead><tr><th scope=\"col\" class=\"name\">Class</th><th></th>{heads}</tr></thead><tbody>"
    );
    for (name, shares) in &rows {
        let high = 7 * shares.len() + 2;
        let _ = write!(
            out,
            "<tr><th scope=\"row\" class=\"name\">{}</th><td class=\"bar\"><svg height=\"{high}\" aria-hidden=\"true\">",
            escape(name)
        );
        for (nth, share) in shares.iter().enumerate() {
            let width = share.unwrap_or(0.0);
            let _ = write!(
                out,
                "<rect class=\"b2\" width=\"100%\" y=\"{0}\" height=\"6\"/><rect class=\"m{nth}\" width=\"{width:.1}%\" \
                 y=\"{0}\" height=\"6\"/>",
                1 + 7 * nth
            );
        }
        out += "</svg></td>";
        for share in shares {
            let _ = write!(out, "<td>{}</td>", share.map_or("–".into(), |s| format!("{s:.1}")));
        }
        if with_change {
            let text = change(shares).map_or("–".into(), |c| format!("{c:+.1}").replace('-', "−"));
            let _ = write!(out, "<td>{text}</td>");
        }
        out += "</tr>";
    }
    out + "</tbody></table></div>\n"
}
