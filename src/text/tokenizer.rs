//! Texts to numbered tokens: by a `tokenizer.json` as the Hugging Face libraries write it, or by OpenAI's vocabulary.

use std::path::Path;

use tokenizers::{PaddingDirection, TruncationParams};

use super::clean::Clean;
use super::openai;
use crate::error::{Error, Result};

/// The name of the file beside a model.
pub const TOKENIZER: &str = "tokenizer.json";

/// A tokenizer for texts of one length.
#[derive(Debug)]
pub struct Tokenizer {
    kind: Kind,
    clean: Clean,
    context: usize,
}

#[derive(Debug)]
enum Kind {
    OpenAi,
    File { tokenizer: Box<tokenizers::Tokenizer>, pad: u32, left: bool },
}

/// The tokens of texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// `[texts, context]`
    pub ids: Vec<u32>,
    /// The texts that were too long, by their place.
    pub cut: Vec<usize>,
}

impl Tokenizer {
    /// OpenAI's, which begins and ends every text by a token and fills it with zeros.
    pub fn openai(clean: Clean, context: usize) -> Tokenizer {
        Tokenizer { kind: Kind::OpenAi, clean, context }
    }

    /// That of the file `path`. What fills texts is `pad`, by its text or its number; if neither is given, the file's own.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where the file is none, or does not say what fills texts.
    pub fn open(
        path: &Path,
        clean: Clean,
        context: usize,
        pad: (Option<&str>, Option<u32>),
        left: bool,
    ) -> Result<Tokenizer> {
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, "cannot read", e))?;
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(&bytes)
            .map_err(|e| Error::checkpoint(path, format!("is no tokenizer of the Hugging Face libraries: {e}")))?;
        let named = match pad.0 {
            Some(text) => {
                let missing = || Error::checkpoint(path, format!("has no token {text:?}, which is to fill texts"));
                Some(tokenizer.token_to_id(text).ok_or_else(missing)?)
            }
            None => None,
        };
        let own = tokenizer.get_padding().map(|padding| padding.pad_id);
        let pad = named.or(own).or_else(|| tokenizer.token_to_id("<pad>")).or(pad.1);
        let pad = pad.ok_or_else(|| {
            Error::checkpoint(
                path,
                "does not say which token fills texts: tokenizer_config.json beside it would (pad_token)",
            )
        })?;
        let left = left || tokenizer.get_padding().is_some_and(|p| matches!(p.direction, PaddingDirection::Left));
        let fault = |e: tokenizers::Error| Error::checkpoint(path, e.to_string());
        tokenizer.with_padding(None);
        let cut = TruncationParams { max_length: context, ..TruncationParams::default() };
        tokenizer.with_truncation(Some(cut)).map_err(fault)?;
        Ok(Tokenizer { kind: Kind::File { tokenizer: Box::new(tokenizer), pad, left }, clean, context })
    }

    /// The tokens of `texts`, each cut or filled to the same length.
    ///
    /// # Errors
    /// [`Error::Data`] for a text that the tokenizer can't take.
    pub fn encode(&self, texts: &[String]) -> Result<Tokens> {
        let mut tokens = Tokens { ids: Vec::with_capacity(texts.len() * self.context), cut: Vec::new() };
        for (i, text) in texts.iter().enumerate() {
            let (ids, cut) = self.one(text)?;
            assert_eq!(ids.len(), self.context);
            tokens.ids.extend(ids);
            tokens.cut.extend(cut.then_some(i));
        }
        Ok(tokens)
    }

    fn one(&self, text: &str) -> Result<(Vec<u32>, bool)> {
        let text = self.clean.apply(text);
        match &self.kind {
            Kind::OpenAi => {
                let mut ids = vec![openai::START];
                ids.extend(openai::encode(&text));
                ids.push(openai::END);
                let cut = ids.len() > self.context;
                ids.resize(self.context, 0);
                if cut {
                    ids[self.context - 1] = openai::END;
                }
                Ok((ids, cut))
            }
            Kind::File { tokenizer, pad, left } => {
                let fault = |e: tokenizers::Error| Error::Usage(format!("the text {text:?} can't be tokenized: {e}"));
                let encoding = tokenizer.encode(text.as_str(), true).map_err(fault)?;
                let (ids, cut) = (encoding.get_ids().to_vec(), !encoding.get_overflowing().is_empty());
                let fill = vec![*pad; self.context - ids.len()];
                Ok((if *left { [fill, ids].concat() } else { [ids, fill].concat() }, cut))
            }
        }
    }

    /// How many tokens it numbers.
    pub fn vocabulary(&self) -> usize {
        match &self.kind {
            Kind::OpenAi => openai::VOCABULARY,
            Kind::File { tokenizer, .. } => {
                // The highest number counts, whatever lies between.
                tokenizer.get_vocab(true).values().max().map_or(0, |id| *id as usize + 1)
            }
        }
    }
}
