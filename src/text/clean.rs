//! What becomes of a text before it is cut into tokens, by the library that trained the tower.

use super::fix::fixed;
use super::html::unescape;

/// A way to clean texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clean {
    /// As they are: the tokenizer's file has all that there is to do.
    #[default]
    Nothing,
    /// OpenAI's: mended, HTML's references replaced twice, single spaces, lower case.
    Lower,
    /// The same as written, OpenCLIP's for other tokenizers.
    Whitespace,
    /// OpenCLIP's for SigLIP: mended, without punctuation, underscores as spaces, lower case.
    Canonical,
    /// transformers' for SigLIP: lower case without punctuation, underscores among it.
    Siglip,
    /// transformers' for SigLIP 2: lower case.
    LowerCase,
}

impl Clean {
    /// The way that OpenCLIP calls `name`.
    pub fn open_clip(name: &str) -> Option<Clean> {
        match name {
            "lower" => Some(Clean::Lower),
            "whitespace" => Some(Clean::Whitespace),
            "canonicalize" => Some(Clean::Canonical),
            _ => None,
        }
    }

    /// `text` cleaned.
    pub fn apply(self, text: &str) -> String {
        match self {
            Clean::Nothing => text.into(),
            Clean::Lower => single_spaces(&basic(text)).to_lowercase(),
            Clean::Whitespace => single_spaces(&basic(text)),
            Clean::Canonical => single_spaces(&without_punctuation(&basic(text).replace('_', " ")).to_lowercase()),
            Clean::Siglip => single_spaces(&without_punctuation(&text.to_lowercase())),
            Clean::LowerCase => text.to_lowercase(),
        }
    }
}

fn basic(text: &str) -> String {
    unescape(&unescape(&fixed(text))).trim().to_string()
}

fn single_spaces(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn without_punctuation(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_punctuation()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_library_cleans_its_own_way() {
        let text = "  Ice_cream &amp;amp;\tCrème\u{2019}s (Ｗide)  ";
        assert_eq!(Clean::Lower.apply(text), "ice_cream & crème's (wide)");
        assert_eq!(Clean::Whitespace.apply(text), "Ice_cream & Crème's (Wide)");
        assert_eq!(Clean::Canonical.apply(text), "ice cream crèmes wide");
        assert_eq!(Clean::Siglip.apply("A_b, \tC&amp;"), "ab camp");
        assert_eq!(Clean::LowerCase.apply("A_b, C"), "a_b, c");
        assert_eq!(Clean::Nothing.apply(text), text);
    }
}
