//! Which tensors have no radius.

use crate::error::{Error, Result};
use crate::train::source::Source;

/// A flag per tensor: whether it has no radius. Whatever has no pre-trained counterpart has none, and what fits one of the patterns on its
/// name in the file or timm's, `*` and `?` standing for any characters. A pattern that fits nothing is an error.
pub fn excluded(globs: Option<&[String]>, source: &Source) -> Result<Vec<bool>> {
    let names = &source.recognised.names;
    // Nothing is held near values that were drawn at random.
    let mut excluded: Vec<bool> = names.iter().map(|(name, _)| source.recognised.initialised.contains(name)).collect();
    for text in globs.into_iter().flatten() {
        let pattern = glob::Pattern::new(text)
            .map_err(|e| Error::Usage(format!("--exclude {text}: not a pattern: {}", e.msg)))?;
        let fits: Vec<bool> = names.iter().map(|(name, file)| pattern.matches(name) || pattern.matches(file)).collect();
        if !fits.contains(&true) {
            let example = names.last().map_or("head.weight", |(name, _)| name);
            return Err(Error::Usage(format!("--exclude {text}: no tensor has such a name (one is called {example})")));
        }
        excluded.iter_mut().zip(fits).for_each(|(e, fit)| *e |= fit);
    }
    Ok(excluded)
}
