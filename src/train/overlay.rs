//! Flags over the values of a file.

/// For each field named, keeps what is set in the first and takes what the second has for the rest.
macro_rules! overlay {
    ($over:ident, $under:ident; $($field:ident),*) => { $( $over.$field = $over.$field.take().or($under.$field.take()); )* };
}

pub(super) use overlay;
