//! Text of a page: what HTML gives a meaning is escaped, and numbers are short.

use crate::error::escaped;

/// `text` as HTML text or attribute value, on one line.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in escaped(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A count with commas: 2,000.
pub(super) fn integer(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A measured value with four significant digits and no trailing zeros.
pub(super) fn number(v: f64) -> String {
    let size = v.abs();
    if !v.is_finite() {
        return if v.is_nan() { "not a number".into() } else { "infinite".into() };
    }
    if v == 0.0 {
        return "0".into();
    }
    let (lead, rest) = if v < 0.0 { ("−", size) } else { ("", size) };
    if size.fract() == 0.0 && size < 1e9 {
        return format!("{lead}{}", integer(size as u64));
    }
    let trim = |text: &str| -> String {
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text.into() }
    };
    if !(1e-3..1e6).contains(&size) {
        let text = format!("{rest:.2e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        return format!("{lead}{}e{}", trim(mantissa), exponent);
    }
    let decimals = (3 - size.log10().floor() as i32).clamp(0, 6) as usize;
    format!("{lead}{}", trim(&format!("{rest:.decimals$}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let cases = [
            (0.0, "0"),
            (2000.0, "2,000"),
            (1_234_567.0, "1,234,567"),
            (0.1 + 0.2, "0.3"),
            (1.23456, "1.235"),
            (-12.5, "−12.5"),
            (0.001, "0.001"),
            (1e-8, "1e-8"),
            (3.456e-5, "3.46e-5"),
            (99_999.96, "100000"),
            (f64::NAN, "not a number"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(escape("<a href=\"x\">&'"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
    }
}
