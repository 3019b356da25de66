//! OpenAI's byte-pair encoding (Sennrich et al. 2016, over bytes), whose vocabulary all models of OpenAI's and most of OpenCLIP's share.

use std::collections::HashMap;
use std::io::Read;
use std::sync::LazyLock;

use flate2::read::GzDecoder;
use regex::Regex;

/// The merges, one per line behind a title: `assets/text/NOTICE`.
const MERGES: &[u8] = include_bytes!("../../assets/text/bpe_simple_vocab_16e6.txt.gz");

/// Number of tokens.
pub(super) const VOCABULARY: usize = 49_408;
/// Begins every text.
pub(super) const START: u32 = 49_406;
/// Ends every text.
pub(super) const END: u32 = 49_407;

/// What stands together at most: contractions, a word, one digit, a run of anything else.
static PIECES: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r"(?i)<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+";
    Regex::new(pattern).expect("a plain pattern")
});

static ENCODER: LazyLock<Encoder> = LazyLock::new(Encoder::new);

struct Encoder {
    /// Each token by its text.
    ids: HashMap<String, u32>,
    /// Which of two neighbours are joined first: the fewer, the earlier.
    ranks: HashMap<(String, String), usize>,
    /// The letter that stands for each byte.
    letters: [char; 256],
}

/// Bytes as letters that are seen: those that are, as they are; the rest by letters from U+0100 on.
fn letters() -> ([char; 256], Vec<u8>) {
    let seen = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let (mut own, hidden): (Vec<u8>, Vec<u8>) = (0..=255).partition(|b| seen(*b));
    let mut letters: [char; 256] = std::array::from_fn(|b| char::from(b as u8));
    for (i, b) in hidden.iter().enumerate() {
        letters[usize::from(*b)] = char::from_u32(256 + i as u32).expect("Latin letters");
    }
    own.extend(hidden);
    (letters, own)
}

impl Encoder {
    fn new() -> Encoder {
        let mut text = String::new();
        GzDecoder::new(MERGES).read_to_string(&mut text).expect("the file that comes with the program is whole");
        let (letters, order) = letters();
        let merges: Vec<(&str, &str)> = text.lines().skip(1).filter_map(|line| line.split_once(' ')).collect();
        let single = order.iter().map(|b| letters[usize::from(*b)].to_string());
        let last = order.iter().map(|b| format!("{}</w>", letters[usize::from(*b)]));
        let joined = merges.iter().map(|(a, b)| format!("{a}{b}"));
        let special = ["<start_of_text>", "<end_of_text>"].map(String::from);
        let ids: HashMap<String, u32> = single.chain(last).chain(joined).chain(special).zip(0..).collect();
        assert_eq!(ids.len(), VOCABULARY);
        let ranks = merges.into_iter().map(|(a, b)| (a.to_string(), b.to_string())).zip(0..).collect();
        Encoder { ids, ranks, letters }
    }

    /// The tokens of a piece, whose last letter is marked.
    fn piece(&self, piece: &str, out: &mut Vec<u32>) {
        if let special @ ("<start_of_text>" | "<end_of_text>") = piece {
            out.push(self.ids[special]);
            return;
        }
        let mut parts: Vec<String> = piece.bytes().map(|b| self.letters[usize::from(b)].to_string()).collect();
        if let Some(last) = parts.last_mut() {
            last.push_str("</w>");
        }
        loop {
            let rank = |two: &[String]| self.ranks.get(&(two[0].clone(), two[1].clone()));
            let Some(first) = parts.windows(2).filter_map(rank).min() else { break };
            let mut merged: Vec<String> = Vec::with_capacity(parts.len());
            let mut i = 0;
            while i < parts.len() {
                let pair = parts.get(i..i + 2).filter(|two| rank(two) == Some(first));
                merged.push(pair.map_or_else(|| parts[i].clone(), <[String]>::concat));
                i += if pair.is_some() { 2 } else { 1 };
            }
            parts = merged;
        }
        out.extend(parts.iter().map(|part| self.ids[part]));
    }
}

/// The tokens of a text that is clean, without the ones that begin and end it.
pub(super) fn encode(text: &str) -> Vec<u32> {
    let mut out = Vec::new();
    PIECES.find_iter(text).for_each(|piece| ENCODER.piece(piece.as_str(), &mut out));
    out
}
