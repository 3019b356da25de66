//! The one error type of the crate's boundary: what went wrong, where, and what to do about it, on one line.

use std::borrow::Cow;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Everything that a user's machine, files or flags can make go wrong. A bug of ours is an assert instead.
///
/// Its text has the facts: the fault, the file or tensor that has it, how much is needed, and the limit. Where flags are
/// defined, in [`crate::method`] and from [`crate::train`] up, the text may say which of them helps. All other modules don't
/// know how their caller takes settings: they add a [`Help`], and [`crate::train::help`] has its flags in words.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No usable adapter, or the driver rejected our work.
    #[error("{0}")]
    Adapter(String),
    /// The device was lost in the middle of the work; a new one may do it.
    #[error("{0}")]
    Lost(String),
    /// The adapter's limits or memory are too small for this model; says which and how much is needed.
    #[error("{0}")]
    Limit(String),
    /// A checkpoint or its `config.json` that can't be read, understood or written.
    #[error("{}: {what}", shown(path))]
    Checkpoint {
        /// The file or folder.
        path: PathBuf,
        /// The fault and what to do.
        what: String,
    },
    /// An image, class folder, list file or CSV that can't be used.
    #[error("{}: {what}", shown(path))]
    Data {
        /// The file or folder.
        path: PathBuf,
        /// The fault and what to do.
        what: String,
    },
    /// The operating system refused to read or write.
    #[error("{}: {what}: {source}", shown(path))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The action that failed, as in "cannot write".
        what: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A training run that can't go on, such as one whose loss is not a number.
    #[error("{0}")]
    Train(String),
    /// Work that Ctrl-C or SIGTERM has ended, with its state saved: exit code 130 or 143, as shells have it.
    #[error("{what}")]
    Stopped {
        /// The signal's number.
        signal: u8,
        /// By which signal, and how to go on.
        what: String,
    },
    /// What ended another process that this one trains with, which says it itself.
    #[error("{what}")]
    Elsewhere {
        /// The other's exit code.
        code: u8,
        /// Which one, and its error.
        what: String,
    },
    /// Flags that do not fit together: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// Another error, with the situation that a setting mends: [`Error::with_help`] makes it.
    #[error("{error}")]
    Helped {
        /// What went wrong, never [`Error::Helped`] itself.
        error: Box<Error>,
        /// What its caller can do.
        help: Help,
    },
}

/// A situation that a setting of the caller mends, by its cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Help {
    /// The device's memory is too small for the batch.
    BatchTooLarge,
    /// A batch, or images, too large for one binding of the adapter.
    BindingTooLarge,
    /// A model too large for the adapter.
    ModelTooLarge,
    /// One tensor is too large for the adapter.
    TensorTooLarge,
    /// The adapter that a run was on is gone; results of another one differ in the last bits.
    AdapterGone,
    /// The adapter can't time single dispatches.
    NoTimestamps,
    /// The adapter's shaders have no 16-bit floats.
    NoHalfFloats,
    /// A model whose widths 16-bit kernels can't take.
    HalfWidths,
    /// Batch norm on a batch of one image, where a channel has one pixel.
    SingleImage,
    /// The checkpoint does not tell its activation.
    Activation,
    /// The checkpoint does not tell its attention heads, or tells a number that is wrong.
    Heads,
    /// The checkpoint's image size, which nobody set, does not fit the model.
    ImageSize,
    /// Images are smaller than the model can take.
    ImagesTooSmall {
        /// The smallest height and width that it takes, in pixels.
        at_least: usize,
    },
    /// A new norm after the mean, for a model that does not pool by the mean.
    MeanPooling,
    /// Images can't be read: they may be left out.
    BrokenImages,
    /// Which class is which output can't be told: a class map would say so.
    ClassMap,
    /// A folder has splits where classes were expected.
    Splits,
    /// Which column of a table has the images can't be told.
    ImageColumn,
    /// Which column of a table has the labels can't be told.
    LabelColumn,
    /// A listed file is missing, whose path is relative to the folder of the list or another one.
    ListRoot,
    /// A delta where a whole model is needed.
    Delta {
        /// The file that it is a delta of.
        base: String,
        /// The delta.
        delta: PathBuf,
    },
    /// A value that the caller has set does not fit.
    Setting(Setting),
}

/// A setting that says of a checkpoint what it can't, or what the caller knows better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// The MLP's activation.
    Activation,
    /// Share of the resized image that the centre crop keeps.
    CropPct,
    /// The family of checkpoints.
    Family,
    /// A file with a head to use instead of the checkpoint's.
    Head,
    /// Attention heads.
    Heads,
    /// Height and width of the input.
    ImageSize,
    /// Channels that the model reads of an image.
    InChannels,
    /// How images are resized.
    Interpolation,
    /// The number that is subtracted from each channel.
    Mean,
    /// Pooling before the head.
    Pool,
    /// The number that divides each channel.
    Std,
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A checkpoint error about `path`.
    pub fn checkpoint(path: impl AsRef<Path>, what: impl Into<String>) -> Self {
        Self::Checkpoint { path: path.as_ref().into(), what: what.into() }
    }

    /// A data error about `path`.
    pub fn data(path: impl AsRef<Path>, what: impl Into<String>) -> Self {
        Self::Data { path: path.as_ref().into(), what: what.into() }
    }

    /// An operating-system error while doing `what` ("cannot read", "cannot write") to `path`.
    pub fn io(path: impl AsRef<Path>, what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().into(), what: what.into(), source }
    }

    /// This error with the situation that a setting mends, in place of one that it had.
    pub fn with_help(self, help: Help) -> Self {
        let error = match self {
            Self::Helped { error, .. } => error,
            error => error.into(),
        };
        Self::Helped { error, help }
    }

    /// The situation that a setting mends, if there is one.
    pub fn help(&self) -> Option<&Help> {
        match self {
            Self::Helped { help, .. } => Some(help),
            _ => None,
        }
    }

    /// The error without its help: what to `match` on, never [`Error::Helped`].
    pub fn facts(&self) -> &Error {
        match self {
            Self::Helped { error, .. } => error,
            error => error,
        }
    }

    /// The process exit code: 2 for wrong usage, 128 and the number of a signal, another process's own, else 1.
    pub fn exit_code(&self) -> u8 {
        match self.facts() {
            Self::Usage(_) => 2,
            Self::Stopped { signal, .. } => 128 + signal,
            Self::Elsewhere { code, .. } => *code,
            _ => 1,
        }
    }
}

/// A library's error on one line: some span several, with indentation.
pub(crate) fn one_line(text: impl std::fmt::Display) -> String {
    text.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `text` on one line and without what a terminal obeys: control characters, and those that turn the direction of writing, are
/// written as `\n`, `\t` or `\u{1b}`. All that is not JSON passes through here on its way to a terminal or a page.
pub fn escaped(text: &str) -> Cow<'_, str> {
    let obeyed = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(obeyed) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' | '\t' | '\r' => out.extend(c.escape_default()),
            c if obeyed(c) => write!(out, "\\u{{{:x}}}", u32::from(c)).expect("writing to memory"),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// A path as messages show it.
pub fn shown(path: &Path) -> String {
    escaped(&path.to_string_lossy()).into_owned()
}

/// A text that may come from a hostile file, as a part of a one-line message: without control characters, and cut at 200
/// characters.
pub fn quote(text: &str) -> String {
    const MOST: usize = 200;
    let mut out: String = text.chars().take(MOST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if out.len() < text.len() {
        out.push_str("...");
    }
    out
}

/// `text`, which may quote a hostile file, as long as a message may be: each word over 200 characters that is no path, and the whole
/// over 4,000, keep their beginning and their end. Readers that quote through [`quote`] are shorter already; libraries' errors are
/// not.
pub fn shortened(text: &str) -> Cow<'_, str> {
    const WORD: usize = 200;
    const WHOLE: usize = 4000;
    let cut = |text: &str, most: usize| -> String {
        let count = text.chars().count();
        let (head, tail) = (most * 2 / 3, most / 3);
        match count > most {
            true => text.chars().take(head).chain("...".chars()).chain(text.chars().skip(count - tail)).collect(),
            false => text.into(),
        }
    };
    if text.len() <= WORD {
        return Cow::Borrowed(text);
    }
    let most = |word: &str| if word.contains(['/', '\\']) { WHOLE } else { WORD };
    let words: Vec<String> = text.split(' ').map(|word| cut(word, most(word))).collect();
    Cow::Owned(cut(&words.join(" "), WHOLE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_message_quotes_has_an_end() {
        let long = "x".repeat(3_000_000);
        let text = format!("c.toml: line 1: unknown field `{long}`, expected a flag");
        let short = shortened(&text);
        assert!(short.len() < 300 && short.starts_with("c.toml: line 1: unknown field `xxx"), "{short}");
        assert!(short.ends_with("xxx`, expected a flag"), "{short}");
        let words = "word ".repeat(100_000);
        assert!(shortened(&words).chars().count() < 4010);
        let usual = "a path/to/a/file that is as long as a sentence may be".repeat(10);
        assert_eq!(shortened(&usual), usual);
        let path = format!("{}: cannot read", "/folder".repeat(60));
        assert_eq!(shortened(&path), path);
        let wide = "é".repeat(250);
        assert_eq!(shortened(&wide).chars().count(), 133 + 3 + 66);
    }

    #[test]
    fn help_changes_neither_text_nor_exit_code() {
        let usage = Error::Usage("3 heads do not divide the width 64".into());
        let helped = usage.with_help(Help::Heads).with_help(Help::Setting(Setting::Heads));
        assert_eq!(helped.to_string(), "3 heads do not divide the width 64");
        assert_eq!(helped.help(), Some(&Help::Setting(Setting::Heads)));
        assert!(matches!(helped.facts(), Error::Usage(_)));
        assert_eq!(helped.exit_code(), 2);
        let limit = Error::Limit("out of memory".into());
        assert_eq!((limit.help(), limit.exit_code()), (None, 1));
        assert_eq!(limit.with_help(Help::BatchTooLarge).exit_code(), 1);
    }

    #[test]
    fn what_a_terminal_obeys_is_written_out() {
        assert!(matches!(escaped("caf\u{e9} \u{732b}.png"), Cow::Borrowed(_)));
        assert_eq!(escaped("a\u{1b}[2J\n\tb\u{9b}c\u{7f}"), "a\\u{1b}[2J\\n\\tb\\u{9b}c\\u{7f}");
        assert_eq!(escaped("gnp\u{202e}.exe"), "gnp\\u{202e}.exe");
        assert_eq!(Error::data("x\u{7}y", "z").to_string(), "x\\u{7}y: z");
    }
}
