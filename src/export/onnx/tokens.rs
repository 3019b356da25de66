//! Operations over the tokens of images, `[batch, tokens, cols]`.

use super::graph::Data;
use super::proto::Attribute;
use super::writer::{Windows, Writer};
use crate::cpu::attention::relative_index;
use crate::cpu::rope as turning;
use crate::error::Result;
use crate::model::operation::{Angles, Operation, Places};
use crate::model::tape::{Act, ParamRef, Shape};
use crate::ops::rope;

impl Writer<'_> {
    pub(super) fn write_tokens(&mut self, operation: Operation) -> Result<()> {
        match operation {
            Operation::LayerNorm { inp, out, weight, bias, eps } => {
                let x = self.rows(inp);
                let [weight, bias] = [weight, bias].map(|param| self.per_channel(param, false));
                let attributes = vec![Attribute::int("axis", -1), Attribute::float("epsilon", eps)];
                let y = self.graph.node("LayerNormalization", &[&x, &weight, &bias], attributes);
                self.set_rows(out, y);
            }
            Operation::RmsNorm { inp, out, weight, eps } => {
                let x = self.rows(inp);
                let square = self.graph.two("Mul", &x, &x);
                let mean = self.graph.reduce("ReduceMean", &square, &[-1]);
                let mean = self.graph.by("Add", &mean, eps);
                let root = self.graph.one("Sqrt", &mean);
                let y = self.graph.two("Div", &x, &root);
                let weight = self.per_channel(weight, false);
                let y = self.graph.two("Mul", &y, &weight);
                self.set_rows(out, y);
            }
            Operation::UnitLength { inp, out } => {
                let x = self.rows(inp);
                let length = self.graph.reduce("ReduceL2", &x, &[-1]);
                let length = self.graph.by("Max", &length, 1e-12);
                let y = self.graph.two("Div", &x, &length);
                self.set_rows(out, y);
            }
            Operation::Pool { inp, out, runs } => self.pool(inp, out, &runs),
            Operation::PatchEmbed { images, out, weight, bias, patch, places } => {
                let windows = self.patches(images, patch);
                let dim = self.shape(out).cols;
                let shape = [dim, windows.channels, patch, patch];
                let weight = self.product(weight, false, dim, (&shape, 0, false))?;
                let bias = bias.map(|bias| self.plain(bias, &[dim]));
                let x = self.convolve(windows, &weight, bias.as_deref(), 1);
                let patches = self.shape(out).height - places.prefix.tokens();
                let flat = self.graph.reshape(&x, &[0, dim as i64, patches as i64]);
                let tokens = self.graph.transpose(&flat, &[0, 2, 1]);
                self.assemble(&tokens, out, places);
            }
            Operation::Patches { images, out, patch, .. } => {
                let windows = self.patches(images, patch);
                self.set_windows(out, windows);
            }
            Operation::Tokens { embedded, out, places } => {
                let tokens = self.tokens(embedded);
                self.assemble(&tokens, out, places);
            }
            Operation::TokensOfPixels { inp, out, positions } => {
                let pixels = self.tokens(inp);
                let mean = self.graph.reduce("ReduceMean", &pixels, &[1]);
                let all = self.graph.concat(&[&mean, &pixels], 1);
                let Shape { height, cols, .. } = self.shape(out);
                let positions = self.plain(positions, &[height, cols]);
                let y = self.graph.two("Add", &all, &positions);
                self.set_tokens(out, y);
            }
            Operation::Spread { latent, out } => {
                let (shape, latent) = (self.shape(out), self.plain(latent, &[latent.elements()]));
                let y = self.for_each_image(&latent, &[shape.pixels() as i64, shape.cols as i64]);
                self.set_tokens(out, y);
            }
            Operation::Rope { inp, out, angles, biases, dims } => self.rope([inp, out], angles, biases, dims),
            Operation::Attention { qkv, out, relative, heads } => self.attention(qkv, out, relative, heads),
            Operation::Attend { q, k, v, out, heads } => self.attend([q, k, v], out, heads),
            other => unreachable!("{other:?} is none of tokens"),
        }
        Ok(())
    }

    fn pool(&mut self, inp: Act, out: Act, runs: &[(usize, usize)]) {
        let shape = self.shape(inp);
        let whole = runs == [(0, shape.pixels())];
        if whole && self.as_images(&[inp]) {
            let x = self.image(inp);
            let y = self.graph.one("GlobalAveragePool", &x);
            return self.set_image(out, y);
        }
        let x = self.tokens(inp);
        let means: Vec<String> = runs
            .iter()
            .map(|&(first, count)| {
                if count == 1 {
                    return self.graph.pick(&x, 1, first as i64);
                }
                let run = if whole { x.clone() } else { self.graph.slice(&x, 1, first, count) };
                let axes = self.graph.ints(&[1]);
                self.graph.node("ReduceMean", &[&run, &axes], vec![Attribute::int("keepdims", 0)])
            })
            .collect();
        let means: Vec<&str> = means.iter().map(String::as_str).collect();
        let y = if let [mean] = means[..] { mean.to_string() } else { self.graph.concat(&means, 1) };
        self.set_rows(out, y);
    }

    /// The patches of images: windows that touch each other, as many as there is room for.
    fn patches(&mut self, images: Act, patch: usize) -> Windows {
        let whole = self.images.clone();
        self.set_image(images, whole);
        Windows { of: images, channels: self.channels, kernel: patch, stride: patch, pads: [0; 4] }
    }

    /// Patches `[batch, patches, dim]` behind their prefix, each token at its position.
    fn assemble(&mut self, patches: &str, out: Act, places: Places) {
        let Shape { height: tokens, cols: dim, .. } = self.shape(out);
        let Places { class_token, registers, positions, prefix } = places;
        let mut parts = Vec::new();
        for param in [class_token, registers].into_iter().flatten() {
            let count = param.elements() / dim;
            let token = self.plain(param, &[1, count, dim]);
            parts.push(self.for_each_image(&token, &[count as i64, dim as i64]));
        }
        parts.push(patches.to_string());
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let mut all = if let [patches] = parts[..] { patches.to_string() } else { self.graph.concat(&parts, 1) };
        if let Some(positions) = positions {
            let positions = if prefix.positions() == prefix.tokens() {
                self.plain(positions, &[tokens, dim])
            } else {
                let (name, rows) = (self.weights.name(self.tape, positions), self.weights.values(self.tape, positions));
                let at = |t| prefix.position(t).map_or(vec![0.0; dim], |row| rows[row * dim..][..dim].to_vec());
                let all = (0..tokens).flat_map(at).collect();
                self.graph.store(&format!("{name}.of_tokens"), &[tokens, dim], Data::F32(all))
            };
            all = self.graph.two("Add", &all, &positions);
        }
        self.set_tokens(out, all);
    }

    /// A value once for each image: `[batch]` and `shape`.
    fn for_each_image(&mut self, value: &str, shape: &[i64]) -> String {
        let (batch, rest) = (self.batch(), self.graph.ints(shape));
        let shape = self.graph.concat(&[&batch, &rest], 0);
        self.graph.two("Expand", value, &shape)
    }

    fn rope(&mut self, [inp, out]: [Act; 2], angles: Option<Angles>, biases: Option<[ParamRef; 2]>, dims: rope::Dims) {
        let mut x = self.tokens(inp);
        let dim = dims.dim();
        if let Some([query, value]) = biases {
            let [query, value] = [query, value]
                .map(|param| (self.weights.name(self.tape, param), self.weights.values(self.tape, param)));
            let all = [query.1, vec![0.0; dim], value.1].concat();
            let name = format!("{}+{}", query.0, value.0);
            let bias = self.graph.store(&name, &[3 * dim], Data::F32(all));
            x = self.graph.two("Add", &x, &bias);
        }
        if let Some(angles) = angles {
            x = self.turned(&x, angles, dims);
        }
        self.set_tokens(out, x);
    }

    /// `x·cos + partner(x)·sin` for query and key; a prefix has angles of zero.
    fn turned(&mut self, x: &str, angles: Angles, dims: rope::Dims) -> String {
        let rope::Dims { tokens, prefix, heads, head_dim, halves, .. } = dims;
        let (key, table) = match angles {
            Angles::Table(act) => {
                let (name, values) = self.tape.constant_of(act);
                (name.to_string(), values.to_vec())
            }
            Angles::Learned(freqs, learned) => {
                let name = format!("{}.{}", self.weights.name(self.tape, freqs), learned.block);
                let freqs: Vec<f64> = self.weights.values(self.tape, freqs).into_iter().map(f64::from).collect();
                let table = turning::angles(&freqs, learned, dims).into_iter().map(|v| v as f32).collect();
                (name, table)
            }
        };
        let tables = table.len() / dims.table_len();
        let [cos, sin] = [("cos", 1.0f32, 0), ("sin", 0.0, head_dim)].map(|(what, still, skip)| {
            let at = |t: usize, head: usize| match t.checked_sub(prefix) {
                None => vec![still; head_dim],
                Some(place) => {
                    let row = (head * (tokens - prefix) + place) * 2 * head_dim + skip;
                    table[row..][..head_dim].to_vec()
                }
            };
            let values = (0..tokens).flat_map(|t| (0..tables).flat_map(move |head| at(t, head))).collect();
            self.graph.constant(format!("{key}.{what}"), &[tokens, 1, tables, head_dim], Data::F32(values))
        });
        let [n, h, d] = [tokens, heads, head_dim].map(|n| n as i64);
        let apart = self.graph.reshape(x, &[0, n, 3, h, d]);
        let turning = self.graph.slice(&apart, 2, 0, 2);
        let value = self.graph.slice(&apart, 2, 2, 1);
        let half = head_dim / 2;
        let partner = |i: usize| if halves { (i + half) % head_dim } else { i ^ 1 };
        let partners: Vec<i64> = (0..head_dim).map(|i| partner(i) as i64).collect();
        let partners = self.graph.ints(&partners);
        let other = self.graph.node("Gather", &[&turning, &partners], vec![Attribute::int("axis", -1)]);
        let along = self.graph.two("Mul", &turning, &cos);
        let across = self.graph.two("Mul", &other, &sin);
        let turned = self.graph.two("Add", &along, &across);
        let all = self.graph.concat(&[&turned, &value], 2);
        self.graph.reshape(&all, &[0, n, 3 * h * d])
    }

    fn attention(&mut self, qkv: Act, out: Act, relative: Option<ParamRef>, heads: usize) {
        let Shape { height: tokens, cols: dim, .. } = self.shape(out);
        let [n, h, d] = [tokens, heads, dim / heads].map(|n| n as i64);
        let x = self.tokens(qkv);
        let apart = self.graph.reshape(&x, &[0, n, 3, h, d]);
        let apart = self.graph.transpose(&apart, &[2, 0, 3, 1, 4]);
        let [q, k, v] = [0, 1, 2].map(|part| self.graph.pick(&apart, 0, part));
        let k = self.graph.transpose(&k, &[0, 1, 3, 2]);
        let scores = self.graph.two("MatMul", &q, &k);
        let mut scores = self.graph.by("Mul", &scores, 1.0 / (d as f32).sqrt());
        if let Some(relative) = relative {
            let table = self.plain(relative, &[relative.elements() / heads, heads]);
            let grid = (tokens - 1).isqrt();
            let pairs = (0..tokens * tokens).map(|i| relative_index(i / tokens, i % tokens, grid) as i64).collect();
            let key = format!("relative {tokens}");
            let pairs = self.graph.constant(key, &[tokens, tokens], Data::I64(pairs));
            let bias = self.graph.node("Gather", &[&table, &pairs], vec![Attribute::int("axis", 0)]);
            let bias = self.graph.transpose(&bias, &[2, 0, 1]);
            scores = self.graph.two("Add", &scores, &bias);
        }
        let shares = self.graph.node("Softmax", &[&scores], vec![Attribute::int("axis", -1)]);
        let mixed = self.graph.two("MatMul", &shares, &v);
        let mixed = self.graph.transpose(&mixed, &[0, 2, 1, 3]);
        let y = self.graph.reshape(&mixed, &[0, n, h * d]);
        self.set_tokens(out, y);
    }

    fn attend(&mut self, [q, k, v]: [Act; 3], out: Act, heads: usize) {
        let Shape { height: tokens, cols: dim, .. } = self.shape(k);
        let [n, h, d] = [tokens, heads, dim / heads].map(|n| n as i64);
        let q = self.rows(q);
        let q = self.graph.reshape(&q, &[0, h, 1, d]);
        let [k, v] = [k, v].map(|act| {
            let x = self.tokens(act);
            self.graph.reshape(&x, &[0, n, h, d])
        });
        let k = self.graph.transpose(&k, &[0, 2, 3, 1]);
        let v = self.graph.transpose(&v, &[0, 2, 1, 3]);
        let scores = self.graph.two("MatMul", &q, &k);
        let scores = self.graph.by("Mul", &scores, 1.0 / (d as f32).sqrt());
        let shares = self.graph.node("Softmax", &[&scores], vec![Attribute::int("axis", -1)]);
        let mixed = self.graph.two("MatMul", &shares, &v);
        let y = self.graph.reshape(&mixed, &[0, h * d]);
        self.set_rows(out, y);
    }
}
