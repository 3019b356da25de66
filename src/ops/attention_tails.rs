//! The text appended to attention shaders: how wide a head is and how it lies in memory, and what becomes of scores.

use crate::gpu::buffer::Element;
use crate::gpu::shaders;
use crate::gpu::tiles::Cooperative;
use crate::ops::words::fours;

/// Elements of a head that `attention_cooperative.wgsl` takes at a time, at most.
pub(super) const SLICE: usize = 64;

/// Which keys are hidden from queries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mask {
    /// Those behind the query.
    pub causal: bool,
    /// Those behind the end of their sequence.
    pub padded: bool,
}

impl Mask {
    /// All of them, the one that hides nothing first.
    pub(super) const ALL: [Mask; 4] = [
        Mask { causal: false, padded: false },
        Mask { causal: true, padded: false },
        Mask { causal: false, padded: true },
        Mask { causal: true, padded: true },
    ];

    /// Whether it hides anything.
    pub fn hides(self) -> bool {
        self.causal || self.padded
    }

    fn lib(self) -> String {
        if !self.hides() {
            return String::new();
        }
        let every = "fn keys_of(b: u32) -> u32 { return p.tokens; }\n";
        let keys = if self.padded { shaders::LENGTHS } else { every };
        format!("const CAUSAL = {};\n{keys}{}", self.causal, shaders::MASK)
    }
}

/// What becomes of scores besides their scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scoring {
    Plain,
    Relative,
    Masked(Mask),
}

impl Scoring {
    pub(super) const ALL: [Scoring; 5] = [
        Scoring::Plain,
        Scoring::Relative,
        Scoring::Masked(Mask::ALL[1]),
        Scoring::Masked(Mask::ALL[2]),
        Scoring::Masked(Mask::ALL[3]),
    ];

    pub(super) fn mask(self) -> Mask {
        match self {
            Scoring::Masked(mask) => mask,
            Scoring::Plain | Scoring::Relative => Mask::default(),
        }
    }

    fn lib(self) -> String {
        match self {
            Scoring::Relative => shaders::RELATIVE.into(),
            Scoring::Plain | Scoring::Masked(_) => self.mask().lib(),
        }
    }
}

/// The text appended to `attention_direct.wgsl`.
pub(super) fn direct_tail(head_dim: usize, element: Element, wide: bool, scoring: Scoring) -> String {
    let scored = match scoring {
        Scoring::Plain => {
            "fn scored(s: Eight, query: u32, key: u32, b: u32, h: u32) -> Eight { return s; }\n\
             fn scored_keys(s: Eight, key: u32, query: u32, b: u32, h: u32) -> Eight { return s; }\n"
        }
        Scoring::Relative => {
            "fn biases(h: u32, q: u32, k: u32, across: vec2u) -> vec4f {\n\
             return vec4f(bias_of(h, q, k), bias_of(h, q + across.x, k + across.y), bias_of(h, q + 2u * across.x, k + 2u * across.y), \
             bias_of(h, q + 3u * across.x, k + 3u * across.y));\n}\n\
             fn scored(s: Eight, query: u32, key: u32, b: u32, h: u32) -> Eight {\n\
             return Eight(s.low + biases(h, query, key, vec2u(0u, 1u)), s.high + biases(h, query, key + 4u, vec2u(0u, 1u)));\n}\n\
             fn scored_keys(s: Eight, key: u32, query: u32, b: u32, h: u32) -> Eight {\n\
             return Eight(s.low + biases(h, query, key, vec2u(1u, 0u)), s.high + biases(h, query + 4u, key, vec2u(1u, 0u)));\n}\n"
        }
        Scoring::Masked(_) => {
            "const EIGHT = vec4u(0u, 1u, 2u, 3u);\n\
             fn scored(s: Eight, query: u32, key: u32, b: u32, h: u32) -> Eight {\n\
             return Eight(shown(s.low, b, vec4u(query), key + EIGHT), shown(s.high, b, vec4u(query), key + 4u + EIGHT));\n}\n\
             fn scored_keys(s: Eight, key: u32, query: u32, b: u32, h: u32) -> Eight {\n\
             return Eight(shown(s.low, b, query + EIGHT, vec4u(key)), shown(s.high, b, query + 4u + EIGHT, vec4u(key)));\n}\n"
        }
    };
    let lib = scoring.lib();
    format!("const HD4 = {}u;\n{scored}{lib}", head_dim / 4) + &fours(element, element, wide)
}

/// The text appended to `attention.wgsl` for tensors of `element` and heads of `head_dim`.
pub(super) fn tail(element: Element, head_dim: usize, scoring: Scoring) -> String {
    let scalar = element.scalar();
    let (width, word, whole, packed) = match head_dim.is_multiple_of(4) {
        true => (4, format!("vec4<{scalar}>"), "vec4f(x)", "word(x)"),
        false => (1, scalar.to_string(), "vec4f(f32(x))", "word(x.x)"),
    };
    let scored = match scoring {
        Scoring::Plain => {
            "fn scored(s: mat4x4f, at: Place, col: u32) -> mat4x4f { return s * p.scale; }\n\
             fn scored_keys(s: mat4x4f, at: Place, col: u32) -> mat4x4f { return s * p.scale; }\n"
        }
        Scoring::Relative => {
            "fn biases(h: u32, q: u32, k: u32) -> vec4f {\n\
             return vec4f(bias_of(h, q, k), bias_of(h, q, k + 1u), bias_of(h, q, k + 2u), bias_of(h, q, k + 3u));\n}\n\
             fn block_of(h: u32, q: u32, k: u32) -> mat4x4f {\n\
             return mat4x4f(biases(h, q, k), biases(h, q + 1u, k), biases(h, q + 2u, k), biases(h, q + 3u, k));\n}\n\
             fn scored(s: mat4x4f, at: Place, col: u32) -> mat4x4f {\n\
             return s * p.scale + block_of(at.h, at.row + at.y * 4u, col + at.x * 4u);\n}\n\
             fn scored_keys(s: mat4x4f, at: Place, col: u32) -> mat4x4f {\n\
             return s * p.scale + transpose(block_of(at.h, col + at.x * 4u, at.row + at.y * 4u));\n}\n"
        }
        Scoring::Masked(_) => {
            "fn scored(s: mat4x4f, at: Place, col: u32) -> mat4x4f {\n\
             let x = s * p.scale;\nlet q = vec4u(at.row + at.y * 4u);\nlet k = col + at.x * 4u + STEPS;\n\
             return mat4x4f(shown(x[0], at.b, q, k), shown(x[1], at.b, q + 1u, k), shown(x[2], at.b, q + 2u, k), shown(x[3], at.b, q + 3u, k));\n}\n\
             fn scored_keys(s: mat4x4f, at: Place, col: u32) -> mat4x4f {\n\
             let x = s * p.scale;\nlet k = vec4u(at.row + at.y * 4u);\nlet q = col + at.x * 4u + STEPS;\n\
             return mat4x4f(shown(x[0], at.b, q, k), shown(x[1], at.b, q, k + 1u), shown(x[2], at.b, q, k + 2u), shown(x[3], at.b, q, k + 3u));\n}\n"
        }
    };
    let lib = scoring.lib();
    format!(
        "const HD = {head_dim}u;\nconst WIDTH = {width}u;\nalias word = {word};\n\
         fn whole(x: word) -> vec4f {{ return {whole}; }}\nfn packed(x: vec4f) -> word {{ return {packed}; }}\n{scored}{lib}"
    )
}

/// Rows of a workgroup of `attention_cooperative.wgsl`, and columns that it takes at a time: as many as workgroup memory holds.
pub(super) fn block(entry: &str, head_dim: usize) -> [usize; 2] {
    match (entry, head_dim <= SLICE) {
        ("backward_key", true) | ("forward", false) => [16, 64],
        (_, true) => [32, 32],
        (_, false) => [16, 32],
    }
}

/// The text appended to `attention_cooperative.wgsl` for `entry` and heads of `head_dim`.
pub(super) fn cooperative_tail(entry: &str, head_dim: usize, matrices: Cooperative, mask: Mask) -> String {
    let [rows, cols] = block(entry, head_dim);
    let slices = head_dim.div_ceil(SLICE);
    let slice = head_dim.div_ceil(slices).next_multiple_of(16);
    // Forward reads queries, backward also their gradients, or keys and values; of a head's slice of these come two results.
    let (tiles, sums) = match entry {
        "forward" => (1, slices * slice),
        "backward_query" => (2, slices * slice),
        _ => (2, 2 * slice),
    };
    let [query, key] = match mask.hides() {
        false => ["", ""],
        true => [" & seen(at.b, vec4u(at.row + row), cols)", " & seen(at.b, cols, vec4u(at.row + row))"],
    };
    let inside = format!(
        "fn inside(at: Place, row: u32, cols: vec4u) -> vec4<bool> {{ return (cols < vec4u(p.tokens)){query}; }}\n\
         fn inside_keys(at: Place, row: u32, cols: vec4u) -> vec4<bool> {{ return (cols < vec4u(p.tokens)){key}; }}\n{}",
        mask.lib()
    );
    format!(
        "const HD = {head_dim}u;\nconst ROWS = {rows}u;\nconst COLS = {cols}u;\nconst TILES = {tiles}u;\nconst SUMS = {sums}u;\n{inside}{}",
        matrices.matrices()
    )
}
