//! HTML's character references as text, by the rules of browsers (HTML, section 13.2.5.72) and of Python's `html.unescape`.

/// Names that stand without a semicolon, too: those of Latin-1, from U+00A0 on, and six others.
const LATIN_1: &str = "nbsp iexcl cent pound curren yen brvbar sect uml copy ordf laquo not shy reg macr deg plusmn sup2 sup3 acute \
    micro para middot cedil sup1 ordm raquo frac14 frac12 frac34 iquest Agrave Aacute Acirc Atilde Auml Aring AElig Ccedil Egrave \
    Eacute Ecirc Euml Igrave Iacute Icirc Iuml ETH Ntilde Ograve Oacute Ocirc Otilde Ouml times Oslash Ugrave Uacute Ucirc Uuml \
    Yacute THORN szlig agrave aacute acirc atilde auml aring aelig ccedil egrave eacute ecirc euml igrave iacute icirc iuml eth \
    ntilde ograve oacute ocirc otilde ouml divide oslash ugrave uacute ucirc uuml yacute thorn yuml";
const OTHERS: [(&str, char); 10] = [
    ("AMP", '&'),
    ("COPY", '©'),
    ("GT", '>'),
    ("LT", '<'),
    ("QUOT", '"'),
    ("REG", '®'),
    ("amp", '&'),
    ("gt", '>'),
    ("lt", '<'),
    ("quot", '"'),
];

/// What bytes 0x80 to 0x9F mean in Windows-1252; five mean nothing.
pub(super) const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘', '’',
    '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// The character of a name that needs no semicolon.
fn bare(name: &str) -> Option<char> {
    let latin = LATIN_1.split_whitespace().position(|own| own == name);
    let latin = latin.and_then(|i| char::from_u32(0xA0 + i as u32));
    latin.or_else(|| OTHERS.iter().find(|(own, _)| *own == name).map(|(_, c)| *c))
}

/// The text of a name with its semicolon.
fn named(name: &str) -> Option<String> {
    let written = format!("&{name};");
    let decoded = html_escape::decode_html_entities(&written).into_owned();
    (decoded != written).then_some(decoded)
}

/// The character of a number; nothing where HTML leaves it out.
fn numbered(number: Option<u32>) -> Option<char> {
    match number {
        Some(0) | None => Some('\u{FFFD}'),
        Some(0x0D) => Some('\r'),
        Some(n @ 0x80..=0x9F) => Some(WINDOWS_1252[n as usize - 0x80]),
        Some(0x01..=0x08 | 0x0B | 0x0E..=0x1F | 0x7F | 0xFDD0..=0xFDEF) => None,
        Some(n) if n & 0xFFFE == 0xFFFE && n <= 0x10FFFF => None,
        Some(n) => Some(char::from_u32(n).unwrap_or('\u{FFFD}')),
    }
}

/// What the reference behind an ampersand stands for, and how many bytes of `rest` it takes.
fn reference(rest: &str) -> Option<(String, usize)> {
    if let Some(number) = rest.strip_prefix('#') {
        let (radix, digits, before) = match number.strip_prefix(['x', 'X']) {
            Some(digits) => (16, digits, 2),
            None => (10, number, 1),
        };
        let len = digits.len() - digits.trim_start_matches(|c: char| c.is_digit(radix)).len();
        if len == 0 {
            return None;
        }
        let text = numbered(u32::from_str_radix(&digits[..len], radix).ok()).map_or(String::new(), String::from);
        return Some((text, before + len + usize::from(digits[len..].starts_with(';'))));
    }
    let ends = |c: char| "\t\n\u{c} <&#;".contains(c);
    let name: String = rest.chars().take_while(|c| !ends(*c)).take(32).collect();
    if rest[name.len()..].starts_with(';')
        && let Some(text) = named(&name)
    {
        return Some((text, name.len() + 1));
    }
    let starts = name.char_indices().map(|(i, c)| i + c.len_utf8()).filter(|end| *end > 1).collect::<Vec<_>>();
    starts.into_iter().rev().find_map(|end| Some((bare(&name[..end])?.to_string(), end)))
}

/// `text` with every reference replaced, once.
pub(super) fn unescape(text: &str) -> String {
    replaced(text, reference)
}

/// `text` with what `reference` makes of what stands behind ampersands, where it is something.
fn replaced(text: &str, reference: impl Fn(&str) -> Option<(String, usize)>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        let (before, behind) = (&rest[..at], &rest[at + 1..]);
        out.push_str(before);
        match reference(behind) {
            Some((text, len)) => {
                out.push_str(&text);
                rest = &behind[len..];
            }
            None => {
                out.push('&');
                rest = behind;
            }
        }
    }
    out + rest
}

/// The references that are certain, those with a semicolon; names of letters in capitals are capital letters.
pub(super) fn unescape_certain(text: &str) -> String {
    replaced(text, |rest| {
        let len = rest.find(';').filter(|len| (1..=25).contains(len))?;
        if rest.starts_with('#') {
            return reference(rest).filter(|(text, taken)| *taken == len + 1 && !text.is_empty());
        }
        let name = &rest[..len];
        let capital = || {
            let letter = bare(&name.to_lowercase()).filter(|c| c.is_alphabetic())?;
            name.chars().all(|c| c.is_ascii_uppercase()).then(|| letter.to_uppercase().to_string())
        };
        Some((named(name).or_else(capital)?, len + 1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Python's html.unescape.
    #[test]
    fn references_are_those_of_browsers() {
        for (text, want) in [
            ("a &amp; b &ampamp; &notit; &not;", "a & b &amp; ¬it; ¬"),
            ("&lt;b&gt &copy 2020 &eacute;t&eacute", "<b> © 2020 été"),
            ("&#233;&#xe9;&#XE9 &#128; &#0; &#xD800; &#x110000; &#1;|", "ééé € \u{FFFD} \u{FFFD} \u{FFFD} |"),
            ("&checkmark; &nothing; &zothing; & &; &# &#x; &a", "✓ ¬hing; &zothing; & &; &# &#x; &a"),
            ("&NotEqualTilde;", "≂̸"),
        ] {
            assert_eq!(unescape(text), want, "{text}");
        }
        assert_eq!(unescape_certain("P&EACUTE;REZ &amp &AMP; &#233;"), "PÉREZ &amp & é");
    }
}
