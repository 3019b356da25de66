//! The message by which a rank tells the others that it ends.

use serde::{Deserialize, Serialize};

use super::failure::Failure;

/// Its bytes.
pub(super) const NOTICE: usize = 4096;

/// How one rank ends: well, or by a failure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct End {
    pub(super) failure: Option<Failure>,
}

impl End {
    /// As JSON with spaces behind; a text that is too long loses its end.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut end = self.clone();
        loop {
            let mut bytes = serde_json::to_vec(&end).expect("numbers and a text");
            if bytes.len() <= NOTICE {
                bytes.resize(NOTICE, b' ');
                return bytes;
            }
            let text = &mut end.failure.as_mut().expect("only a text is long").text;
            *text = text.chars().take(text.chars().count() * 3 / 4).collect();
        }
    }

    /// Of another rank's message. One that can't be read is a failure, of a rank with another program.
    pub(super) fn read(bytes: &[u8]) -> End {
        serde_json::from_slice(bytes).unwrap_or_else(|_| {
            let text = "it ended with words of another version of this program".into();
            End { failure: Some(Failure { code: 1, text, elsewhere: false, stopped: false }) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn a_notice_has_its_size_and_says_what_was_written() {
        let end = |text: &str| {
            let error = Error::Usage(text.into());
            End { failure: Some(Failure::new(&error, error.to_string())) }
        };
        for end in [End { failure: None }, end("disk \"full\""), end("")] {
            assert_eq!(end.write().len(), NOTICE);
            assert_eq!(End::read(&end.write()), end);
        }
        let long = end(&"\u{1}\u{732b}".repeat(5000));
        let read = End::read(&long.write());
        let (read, long) = (read.failure.unwrap(), long.failure.unwrap());
        assert!(long.text.starts_with(&read.text) && read.text.len() > 500, "{}", read.text.len());
        assert!(End::read(&[0; NOTICE]).failure.is_some());
    }
}
