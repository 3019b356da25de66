//! What stands between the product of query, key and value and attention: biases of query and value alone, and rotary positions.

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::model::operation::{Angles, Operation};
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, ParamRef, Tape};
use crate::ops::rope::{self, Dims, Learned};
use crate::ops::{Recorder, scratch_len};

/// By which angles queries and keys turn.
#[derive(Clone, Copy, Debug)]
pub enum Turns {
    /// Those of a table of cosines and sines for all heads, [`ops::rope::forward`](crate::ops::rope::forward).
    Table {
        /// A [constant](Tape::constant).
        values: Act,
        /// Whether the pairs are a head's two halves.
        halves: bool,
    },
    /// Those that each block and head learns.
    Learned {
        /// `[2, blocks, heads, head_dim/2]`
        freqs: ParamRef,
        /// The block, and its grid.
        of: Learned,
    },
}

#[derive(Debug)]
struct Rope {
    inp: Act,
    out: Act,
    turns: Option<Turns>,
    /// The table of learned angles, `[heads, tokens − prefix, 2, head_dim]`.
    table: Option<Act>,
    biases: Option<[ParamRef; 2]>,
    dims: Dims,
}

impl Tape {
    /// Query, key and value `[B, N, 3D]` with `biases` `[D]` on query and value, and query and key of the tokens behind `prefix` turned.
    pub fn rope(
        &mut self,
        inp: Act,
        name: &str,
        heads: usize,
        prefix: usize,
        turns: Option<Turns>,
        biases: Option<[ParamRef; 2]>,
    ) -> Act {
        let shape = self.shape(inp);
        let halves = matches!(turns, Some(Turns::Table { halves: true, .. }));
        let head_dim = shape.cols / 3 / heads;
        let dims = Dims { batch: shape.batch, tokens: shape.height, prefix, heads, head_dim, halves };
        let out = self.act(name, shape, self.element_of(inp));
        let mut reads = vec![inp];
        let mut params: Vec<ParamRef> = biases.into_iter().flatten().collect();
        let mut table = None;
        match turns {
            Some(Turns::Table { values, .. }) => reads.push(values),
            Some(Turns::Learned { freqs, .. }) => {
                params.push(freqs);
                table = Some(self.saved(&format!("{name}.table"), heads * dims.table_len()));
            }
            None => {}
        }
        let writes: Vec<Act> = [out].into_iter().chain(table).collect();
        self.push(Rope { inp, out, turns, table, biases, dims }, &reads, &params, &writes);
        out
    }
}

impl Rope {
    fn table(&self) -> Option<Act> {
        match self.turns {
            Some(Turns::Table { values, .. }) => Some(values),
            Some(Turns::Learned { .. }) => self.table,
            None => None,
        }
    }
}

impl Layer for Rope {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        let table = self.table().map(|table| s.view(table));
        if let (Some(Turns::Learned { freqs, of }), Some(table)) = (self.turns, &table) {
            rope::angles(r, table, &s.param(freqs), of, self.dims)?;
        }
        let biases = self.biases.map(|biases| biases.map(|bias| s.param(bias)));
        let biases = biases.as_ref().map(|biases| biases.each_ref());
        rope::forward(r, &s.view(self.out), &s.view(self.inp), table.as_ref(), biases, self.dims)
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let dout = s.gradient(self.out);
        if let Some(Turns::Learned { freqs, of }) = self.turns
            && s.trains(freqs)
        {
            let label = format!("gradient of {}'s angles", s.label(self.out));
            let dangles = s.tensor(&label, Element::Word, self.dims.angles_len());
            rope::backward_freqs(r, &s.dparam(freqs), &dangles, &dout, &s.view(self.out), of, self.dims)?;
        }
        let biases = self.biases.filter(|biases| biases.iter().any(|bias| s.trains(*bias)));
        if biases.is_none() && !s.wants(self.inp) {
            return Ok(());
        }
        let table = self.table().map(|table| s.view(table));
        let dinp = match &table {
            Some(table) => {
                let dinp = s.share(self.inp);
                rope::backward_input(r, &dinp, &dout, Some(table), self.dims)?;
                s.settle(r, self.inp, dinp.clone())?;
                dinp
            }
            None => {
                s.pass_on(r, self.out, self.inp)?;
                dout
            }
        };
        match biases {
            Some([query, value]) => rope::backward_bias(r, &s.dparam(query), &s.dparam(value), &dinp, self.dims),
            None => Ok(()),
        }
    }

    fn scratch(&self) -> usize {
        if self.biases.is_some() { scratch_len(self.dims.rows(), self.dims.dim()) } else { 0 }
    }

    fn operation(&self) -> Option<Operation> {
        let &Rope { inp, out, turns, biases, dims, .. } = self;
        let angles = turns.map(|turns| match turns {
            Turns::Table { values, .. } => Angles::Table(values),
            Turns::Learned { freqs, of } => Angles::Learned(freqs, of),
        });
        Some(Operation::Rope { inp, out, angles, biases, dims })
    }
}
