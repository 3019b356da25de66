//! Parameters as a file holds them: in f32, or the weights of products in fewer bits.

use clap::ValueEnum;
use half::f16;

use crate::checkpoint::Weight;
use crate::model::Tape;
use crate::model::tape::ParamRef;

/// How the weights of products are stored: linear layers, convolutions, patch embeddings. Everything else is always f32, and all
/// arithmetic is in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// As they are.
    #[default]
    F32,
    /// Rounded to f16, and cast back when the model runs.
    F16,
    /// Whole numbers from −127 to 127 with one scale per output channel, symmetric around zero.
    Int8,
}

impl Format {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
        }
    }
}

/// A product's weight.
#[derive(Debug)]
pub(super) enum Product {
    F32(Vec<f32>),
    F16(Vec<f16>),
    I8 { values: Vec<i8>, scales: Vec<f32> },
}

/// A model's parameters and running statistics, in the order of the model's.
#[derive(Debug)]
pub(super) struct Weights<'a> {
    params: &'a [Weight],
    statistics: &'a [Weight],
    format: Format,
    /// The parameters as they are after rounding, where that changes any.
    pub(super) rounded: Vec<Weight>,
}

impl<'a> Weights<'a> {
    pub(super) fn new(params: &'a [Weight], statistics: &'a [Weight], format: Format) -> Weights<'a> {
        let rounded = if format == Format::F32 { Vec::new() } else { params.to_vec() };
        Weights { params, statistics, format, rounded }
    }

    /// What the file calls a parameter: by its own name, or by those of which it is made.
    pub(super) fn name(&self, tape: &Tape, param: ParamRef) -> String {
        let pieces = tape.pieces(param);
        let part = |(place, range): &(usize, std::ops::Range<usize>)| {
            let (name, _, values) = &self.params[*place];
            if range.len() == values.len() { name.clone() } else { format!("{name}[{}..{}]", range.start, range.end) }
        };
        pieces.iter().map(part).collect::<Vec<_>>().join("+")
    }

    pub(super) fn values(&self, tape: &Tape, param: ParamRef) -> Vec<f32> {
        tape.pieces(param).into_iter().flat_map(|(place, range)| self.params[place].2[range].iter().copied()).collect()
    }

    pub(super) fn statistic(&self, place: usize) -> (&str, &[f32]) {
        let (name, _, values) = &self.statistics[place];
        (name, values)
    }

    /// A product's weight with a row for each of `outputs`, or a column if `columns`; rounded values go into `rounded`.
    ///
    /// # Errors
    /// A value that f16 can't hold.
    pub(super) fn product(
        &mut self,
        tape: &Tape,
        param: ParamRef,
        columns: bool,
        outputs: usize,
    ) -> Result<Product, String> {
        let values = self.values(tape, param);
        let (stored, rounded): (Product, Vec<f32>) = match self.format {
            Format::F32 => return Ok(Product::F32(values)),
            Format::F16 => {
                let halves: Vec<f16> = values.iter().map(|v| f16::from_f32(*v)).collect();
                if let Some(at) = halves.iter().position(|half| !half.is_finite()) {
                    return Err(format!("{} is too large for f16: export with --weights f32 or int8", values[at]));
                }
                let rounded = halves.iter().map(|half| half.to_f32()).collect();
                (Product::F16(halves), rounded)
            }
            Format::Int8 => {
                let len = values.len() / outputs;
                let channel = |i: usize| if columns { i % outputs } else { i / len };
                let mut scales = vec![0.0f32; outputs];
                values.iter().enumerate().for_each(|(i, v)| scales[channel(i)] = scales[channel(i)].max(v.abs()));
                // Of a channel of zeros any scale will do.
                scales.iter_mut().for_each(|scale| *scale = if *scale / 127.0 > 0.0 { *scale / 127.0 } else { 1.0 });
                let whole =
                    |(i, v): (usize, &f32)| (v / scales[channel(i)]).round_ties_even().clamp(-127.0, 127.0) as i8;
                let whole: Vec<i8> = values.iter().enumerate().map(whole).collect();
                let rounded = whole.iter().enumerate().map(|(i, v)| f32::from(*v) * scales[channel(i)]).collect();
                (Product::I8 { values: whole, scales }, rounded)
            }
        };
        let mut rest = rounded.as_slice();
        for (place, range) in tape.pieces(param) {
            let (own, behind) = rest.split_at(range.len());
            self.rounded[place].2[range].copy_from_slice(own);
            rest = behind;
        }
        Ok(stored)
    }
}
