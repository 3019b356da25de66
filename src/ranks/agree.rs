//! What ranks find out together before they train: whether all of them can, and whether they have the same.

use super::Ranks;
use crate::error::{Error, Result};

/// Characters of a value that a message shows.
const SHOWN: usize = 32;

/// What each rank has come to, as all of them: an error of any rank is one of all. A rank that is well gets the error of the lowest rank
/// that failed. All ranks call it at the same place.
///
/// # Errors
/// The own; [`Error::Elsewhere`] with another's; those of [`Ranks::gather`].
pub fn agree<T>(ranks: &dyn Ranks, own: Result<T>) -> Result<T> {
    let told = match &own {
        Ok(_) => Vec::new(),
        Err(error) => [&[error.exit_code()], error.to_string().as_bytes()].concat(),
    };
    let all = ranks.gather(&told)?;
    let own = own?;
    match all.iter().enumerate().find(|(_, told)| !told.is_empty()) {
        None => Ok(own),
        Some((rank, told)) => {
            let what = format!("{}: {}", ranks.name(rank), String::from_utf8_lossy(&told[1..]));
            Err(Error::Elsewhere { code: told[0], what })
        }
    }
}

/// Compares what must be the same on all ranks with what rank 0 has: pairs of a name, such as `version`, and a value or its digest. All
/// ranks pass the same names in the same order, those first that explain the others.
///
/// # Errors
/// [`Error::Usage`], the same on every rank, which names the first thing that differs and the lowest rank that has another; those of
/// [`Ranks::gather`].
pub fn same(ranks: &dyn Ranks, what: &[(&str, &str)]) -> Result<()> {
    let told = serde_json::to_vec(what).expect("texts");
    let all = ranks.gather(&told)?;
    // One that can't be read has another format, so another program.
    let all: Vec<Vec<(String, String)>> =
        all.iter().map(|told| serde_json::from_slice(told).unwrap_or_default()).collect();
    let (first, others) = all.split_first().expect("at least this rank");
    for at in 0..all.iter().map(Vec::len).max().unwrap_or(0) {
        for (rank, one) in others.iter().enumerate().map(|(i, one)| (i + 1, one)) {
            if one.get(at) == first.get(at) {
                continue;
            }
            let (name, value) = first.get(at).or(one.get(at)).expect("one of them has it");
            // Of a digest, a part says enough.
            let cut = |value: &str| value.chars().take(SHOWN).collect::<String>();
            let theirs = one.get(at).filter(|(other, _)| other == name).map_or("nothing", |(_, value)| value);
            let ours = first.get(at).map_or("nothing", |_| value);
            let (zero, other) = (ranks.name(0), ranks.name(rank));
            let what = format!(
                "{other} differs from {zero} in its {name}: {} instead of {}; all ranks need the same",
                cut(theirs),
                cut(ours)
            );
            return Err(Error::Usage(what));
        }
    }
    Ok(())
}
