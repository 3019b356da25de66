//! Texts mended as the Python package ftfy mends them, as far as class names need it: mojibake, ligatures, wide letters, curled
//! quotation marks, control characters. OpenAI's cleaning begins with it.

use unicode_normalization::UnicodeNormalization;

use super::html::{WINDOWS_1252, unescape_certain};

/// Latin ligatures and digraphs as their letters.
const LIGATURES: [(char, &str); 20] = [
    ('Ĳ', "IJ"),
    ('ĳ', "ij"),
    ('ŉ', "ʼn"),
    ('Ǳ', "DZ"),
    ('ǲ', "Dz"),
    ('ǳ', "dz"),
    ('Ǆ', "DŽ"),
    ('ǅ', "Dž"),
    ('ǆ', "dž"),
    ('Ǉ', "LJ"),
    ('ǈ', "Lj"),
    ('ǉ', "lj"),
    ('Ǌ', "NJ"),
    ('ǋ', "Nj"),
    ('ǌ', "nj"),
    ('ﬀ', "ff"),
    ('ﬁ', "fi"),
    ('ﬂ', "fl"),
    ('ﬃ', "ffi"),
    ('ﬄ', "ffl"),
];

/// `text` mended until nothing changes any more.
pub(super) fn fixed(text: &str) -> String {
    let mut text = text.to_string();
    loop {
        let next = once(&text);
        if next == text {
            return text;
        }
        text = next;
    }
}

fn once(text: &str) -> String {
    let text = if text.contains('<') { text.to_string() } else { unescape_certain(text) };
    let text = without_escapes(&text);
    let text = decoded(&text).unwrap_or(text);
    let mut out = String::with_capacity(text.len());
    for c in text.replace("\r\n", "\n").chars() {
        match c {
            '\u{80}'..='\u{9F}' => {
                out.push(if c == '\u{85}' { '…' } else { WINDOWS_1252[c as usize - 0x80] });
            }
            '\u{FB05}' => out.push_str("ſt"),
            '\u{FB06}' => out.push_str("st"),
            'ʼ' | '‘'..='‛' => out.push('\''),
            '“'..='‟' => out.push('"'),
            '\r' | '\u{2028}' | '\u{2029}' => out.push('\n'),
            '\u{3000}' | '\u{FF01}'..='\u{FFEE}' => out.extend(std::iter::once(c).nfkc()),
            '\0'..='\u{8}' | '\u{B}' | '\u{E}'..='\u{1F}' | '\u{7F}' => {}
            '\u{206A}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFC}' => {}
            c => match LIGATURES.iter().find(|(own, _)| *own == c) {
                // The apostrophe of ŉ is uncurled in the next round, as any.
                Some((_, letters)) => out.push_str(letters),
                None => out.push(c),
            },
        }
    }
    out.nfc().collect()
}

/// Without the sequences that colour a terminal: `ESC [ … letter`.
fn without_escapes(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let mut out = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let digits = part.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        match digits.chars().next().filter(char::is_ascii_alphabetic) {
            Some(_) => out.push_str(&digits[1..]),
            None => out.push_str(&format!("\u{1b}[{part}")),
        }
    }
    out
}

/// UTF-8 that somebody read as Windows-1252 (or Latin-1), decoded once more; none if it is not such.
fn decoded(text: &str) -> Option<String> {
    let byte = |c: char| match WINDOWS_1252.iter().position(|own| *own == c) {
        Some(i) => Some(0x80 + i as u8),
        None => u8::try_from(u32::from(c)).ok(),
    };
    if text.is_ascii() {
        return None;
    }
    let bytes: Vec<u8> = text.chars().map(byte).collect::<Option<_>>()?;
    // Whatever is valid UTF-8 beyond ASCII by accident would be two letters that no word has beside each other.
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As ftfy 6.3's fix_text.
    #[test]
    fn texts_are_mended_as_ftfy_does() {
        for (text, want) in [
            ("cafÃ© crÃ¨me", "café crème"),
            ("â€œquotedâ€\u{9d}", "\"quoted\""),
            ("crème brûlée", "crème brûlée"),
            ("ﬂuﬃeﬆ", "fluffiest"),
            ("ＬＯＵＤ　ＮＯＩＳＥＳ", "LOUD NOISES"),
            ("Ｕﾀｰﾝ", "Uターン"),
            ("\u{201c}here\u{2019}s\u{201d}", "\"here's\""),
            ("\u{1b}[36;44mblue\u{1b}[0m", "blue"),
            ("e\u{301}te\u{301}", "été"),
            ("a\u{0}b\u{feff}c\u{7f}", "abc"),
            ("&amp;amp; &eacute;", "& é"),
            ("<b> &eacute;", "<b> &eacute;"),
            ("one\r\ntwo\rthree\u{2028}four", "one\ntwo\nthree\nfour"),
        ] {
            assert_eq!(fixed(text), want, "{text:?}");
        }
    }
}
