//! How often a network drops what at random while it is trained.

/// How often a network drops what; nothing in evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Drops {
    /// The probability that the last block's branch is dropped for an image: stochastic depth (Huang et al. 2016). It rises linearly from
    /// 0 at the first block, as timm's `drop_path_rate`.
    pub path: f64,
    /// The probability that a value that enters the head is dropped: dropout (Srivastava et al. 2014), timm's `drop_rate`.
    pub head: f64,
}

impl Drops {
    /// Whether anything is dropped.
    pub fn any(self) -> bool {
        self != Drops::default()
    }
}
