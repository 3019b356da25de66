//! The tokens of a sequence that stand for no patch.

/// The tokens before the patches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefix {
    /// Whether a class token comes first.
    pub class_token: bool,
    /// Tokens after it that stand for no patch: registers, or the distillation token.
    pub registers: usize,
    /// Whether the class token has a position.
    pub class_position: bool,
    /// Whether the registers have positions.
    pub register_positions: bool,
}

impl Prefix {
    /// How many tokens it has.
    pub fn tokens(self) -> usize {
        usize::from(self.class_token) + self.registers
    }

    /// How many of them have a position.
    pub fn positions(self) -> usize {
        usize::from(self.class_token && self.class_position) + if self.register_positions { self.registers } else { 0 }
    }

    /// The row in `pos` of token `t`, where it has one.
    pub fn position(self, t: usize) -> Option<usize> {
        let cls = usize::from(self.class_token);
        let cls_rows = usize::from(self.class_token && self.class_position);
        match t {
            t if t < cls => self.class_position.then_some(0),
            t if t < self.tokens() => self.register_positions.then_some(t - cls + cls_rows),
            t => Some(t - self.tokens() + self.positions()),
        }
    }
}
