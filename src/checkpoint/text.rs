//! A checkpoint's text tower: what it is made of, and what its texts are made ready with.

use super::Note;
use crate::model::text::TextConfig;
use crate::shapes::Activation;
use crate::text::Clean;

/// What the user says about a text tower; each wins over what its files say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextOverrides {
    /// Attention heads.
    pub heads: Option<usize>,
    /// The MLP's activation.
    pub activation: Option<Activation>,
}

/// Which token ends a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The first of those with the highest number.
    Highest,
    /// The first of this number, or the first of all if there is none.
    Token(u32),
}

/// Where texts become tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenizerKind {
    /// OpenAI's vocabulary, which comes with the program.
    OpenAi(Clean),
    /// A `tokenizer.json` beside the model.
    File {
        /// How texts are cleaned before.
        clean: Clean,
        /// The token that fills texts, by its text.
        pad: Option<String>,
        /// The same by its number, if nothing else tells.
        pad_id: Option<u32>,
        /// Whether texts are filled at their start.
        left: bool,
    },
}

/// A text tower understood.
#[derive(Clone, Debug, PartialEq)]
pub struct TextTower {
    /// The family's name, such as "OpenCLIP text".
    pub family: &'static str,
    /// What to build.
    pub config: TextConfig,
    /// The name in the file of each of the configuration's parameters, in that order: (canonical, in the file).
    pub names: Vec<(String, String)>,
    /// Where a text ends, for [`crate::model::text::TextPool::End`].
    pub end: End,
    /// What cuts texts into tokens.
    pub tokenizer: TokenizerKind,
    /// The logarithm of what similarities are multiplied by.
    pub logit_scale: f32,
    /// The number that is added to them then, if the model has one.
    pub logit_bias: Option<f32>,
    /// The assumptions that were made.
    pub notes: Vec<Note>,
}

impl TextTower {
    /// Where each text of `ids` `[texts, context]` ends.
    pub fn ends(&self, ids: &[u32]) -> Vec<u32> {
        let end = |text: &[u32]| {
            let highest = text.iter().max().copied().unwrap_or_default();
            let token = if let End::Token(token) = self.end { token } else { highest };
            text.iter().position(|id| *id == token).unwrap_or(0) as u32
        };
        ids.chunks(self.config.context).map(end).collect()
    }
}
