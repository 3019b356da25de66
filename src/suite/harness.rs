//! One kernel run under observation: guarded tensors, poisoned outputs, and a comparison that can't look away.

use std::ops::Range;
use std::sync::Arc;

use half::f16;

use crate::error::Result;
use crate::gpu::buffer::{ALIGN, Element, align};
use crate::gpu::tiles::{Tile, Variant};
use crate::gpu::{Gpu, Kernel, Program, View};
use crate::ops::Recorder;
pub use crate::random::Random;
use crate::ranks::Ranks;

/// Half a unit in the last place of 1.0 is half of this: what one f32 operation may be off by, relatively.
pub const EPS: f64 = f32::EPSILON as f64;

/// What stands before and after every range, a NaN of its own: a kernel that reads past a range shows in its results, one
/// that writes past it in these bits.
const GUARD: u32 = 0x7fd5_a5a5;
/// What outputs hold before a kernel assigns them, another NaN: an element left out shows.
const POISON: u32 = 0x7fc0_0bad;
/// The same for a tensor of halves, two in a word; its guards are NaNs from either half as well.
const HALF_POISON: u16 = 0x7e0b;
const HALF_GUARD: u32 = 0x7d5b_7d5b;

/// How one kernel did in one case.
#[derive(Clone, Debug)]
pub struct CaseResult {
    /// The kernel, as in `layer_norm::backward_input`.
    pub kernel: String,
    /// The case, as in `rows 65, cols 197`.
    pub case: String,
    /// The largest error of the case's outputs, by [`error`]; that of the output which used up most of its tolerance.
    pub error: f64,
    /// What that output may be off by.
    pub tolerance: f64,
    /// Where that error is, as in `mean[3] is 0.5, not 0.25`.
    pub worst: String,
    /// What else is wrong: an element not written, a NaN, wrong bits, a write outside the output.
    pub failure: Option<String>,
    /// Labels of all kernels that this case dispatched.
    pub dispatched: Vec<String>,
    /// Of each of them [which variant](crate::gpu::Kernel::variant) it was.
    pub variants: Vec<Arc<str>>,
}

impl CaseResult {
    /// Whether nothing is wrong and the error is within its tolerance (a NaN is not).
    pub fn passed(&self) -> bool {
        self.failure.is_none() && self.error <= self.tolerance
    }
}

/// The error of `got`: the largest `|got − want| / (|want| + mean |want|)` over all elements.
///
/// Relative to the element where it is large, so that big elements may round; relative to the tensor's mean where it is
/// small, for sums that cancel; never relative to the tensor's largest element, behind which all others could hide. A
/// NaN, and any difference from a tensor of zeros, is infinite.
pub fn error(got: &[f64], want: &[f64]) -> f64 {
    worst(got, want).1
}

/// The element with the largest [`error`], and that error.
fn worst(got: &[f64], want: &[f64]) -> (usize, f64) {
    assert_eq!(got.len(), want.len(), "as many results as expected ones");
    let mean = want.iter().map(|w| w.abs()).sum::<f64>() / want.len().max(1) as f64;
    let one = |(g, w): (&f64, &f64)| if g == w { 0.0 } else { (g - w).abs() / (w.abs() + mean) };
    let errors = got.iter().zip(want).map(one).map(|e| if e.is_nan() { f64::INFINITY } else { e });
    errors.enumerate().fold((0, 0.0), |worst, (i, e)| if e > worst.1 { (i, e) } else { worst })
}

/// The tolerance for a sum of `depth` products of either sign: rounding errors add up like a random walk, as √depth, and
/// so does the sum itself, half a unit at a time. Twice √depth leaves room for the worst of thousands of elements; `slack` counts the operations around the sum.
pub fn sum_tolerance(depth: usize, slack: f64) -> f64 {
    EPS * (slack + 2.0 * (depth as f64).sqrt())
}

/// One unit in the last place of an f16 near 1, relatively: what storing may lose where a driver truncates. To the nearest
/// it is half of that.
pub const HALF_EPS: f64 = 1.0 / 1024.0;

/// The nearest f16 of each value, as f32.
pub fn to_half(values: &[f32]) -> Vec<f32> {
    values.iter().map(|x| f16::from_f32(*x).to_f32()).collect()
}

/// f32 values as the f64 reference takes them.
pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|x| f64::from(*x)).collect()
}

/// Reference values as an input of the next kernel.
pub fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|x| *x as f32).collect()
}

/// How a case's kernels are launched.
#[derive(Clone, Copy, Debug)]
pub struct Launch {
    /// Record the variants meant for CPU adapters, or those for GPUs ([`Recorder::for_cpu`]).
    pub for_cpu: bool,
    /// Reduce by subgroup operations ([`Recorder::subgroups`]).
    pub subgroups: bool,
    /// Read and write words of 64 bits where a kernel for CPU adapters can ([`Recorder::wide_words`]).
    pub wide_words: bool,
    /// Fold every foldable grid in two, as only grids of more than 65,535 workgroups are otherwise.
    pub fold: bool,
    /// Compute every product in this variant.
    pub variant: Option<Variant>,
}

impl Launch {
    /// As this adapter is used.
    pub fn natural(gpu: &Gpu) -> Launch {
        Launch {
            for_cpu: gpu.is_cpu(),
            subgroups: gpu.reduces_by_subgroups(),
            wide_words: gpu.has_wide_words(),
            fold: false,
            variant: None,
        }
    }

    /// As this adapter is used, and the same with folded grids: for kernels that have one variant.
    pub fn folded(gpu: &Gpu) -> [Launch; 2] {
        let natural = Launch::natural(gpu);
        [natural, Launch { fold: true, ..natural }]
    }

    /// Both sets of variants, and the one of this adapter with folded grids.
    pub fn all(gpu: &Gpu) -> [Launch; 3] {
        let for_cpu = gpu.is_cpu();
        let [natural, folded] = Launch::folded(gpu);
        [natural, Launch { for_cpu: !for_cpu, ..natural }, folded]
    }

    /// The same, and where the adapter has subgroups both sets with the other way to reduce.
    pub fn reductions(gpu: &Gpu) -> Vec<Launch> {
        let all = Launch::all(gpu);
        let other = all[..2].iter().map(|launch| Launch { subgroups: !launch.subgroups, ..*launch });
        let other = other.filter(|_| gpu.has_subgroups());
        all.iter().copied().chain(other).collect()
    }

    /// Every variant of a product that this adapter can run, `split` workgroups to a sum.
    pub fn products(gpu: &Gpu, split: usize) -> Vec<Launch> {
        let able = Tile::ALL.into_iter().chain([Tile::Cooperative]).filter(|tile| gpu.runs(*tile));
        able.flat_map(|tile| {
            let variant = Some(Variant { tile, split });
            Launch { for_cpu: tile.is_direct(), variant, ..Launch::natural(gpu) }.words()
        })
        .collect()
    }

    /// As this adapter is used, with products in `tile`.
    pub fn of(gpu: &Gpu, tile: Tile) -> Launch {
        Launch { variant: Some(Variant { tile, split: 1 }), ..Launch::natural(gpu) }
    }

    /// Both sets of variants, the one for CPU adapters by [`Launch::words`].
    pub fn both(gpu: &Gpu) -> Vec<Launch> {
        let natural = Launch::natural(gpu);
        [natural, Launch { for_cpu: !natural.for_cpu, ..natural }].into_iter().flat_map(Launch::words).collect()
    }

    /// This launch, and, if it uses words of 64 bits, the same without them.
    pub fn words(self) -> Vec<Launch> {
        std::iter::once(self).chain(self.wide_tables().then_some(Launch { wide_words: false, ..self })).collect()
    }

    /// Whether tables over an arena are for words of 64 bits, as a CPU adapter that has them makes them.
    pub fn wide_tables(self) -> bool {
        self.for_cpu && self.wide_words
    }

    /// Its product's tile, or which set of variants it takes.
    pub fn tile(self) -> String {
        let set = if self.for_cpu { "CPU variant" } else { "GPU variant" };
        self.variant.map_or(set.into(), |variant| format!("{:?}", variant.tile))
    }

    /// Whether it is for a tile by cooperative matrices.
    pub fn is_cooperative(self) -> bool {
        self.variant.is_some_and(|variant| variant.tile == Tile::Cooperative)
    }

    /// How wide its words are, where it is for CPU adapters.
    pub fn word(self) -> &'static str {
        match (self.for_cpu, self.wide_words) {
            (false, _) => "",
            (true, true) => "64-bit words",
            (true, false) => "32-bit words",
        }
    }

    /// For a case's name.
    pub fn suffix(self) -> String {
        let words = if self.for_cpu && !self.wide_words { ", 32-bit words" } else { "" };
        if let Some(Variant { tile, split }) = self.variant {
            return format!("{tile:?}, split {split}{words}");
        }
        let variant = self.tile();
        let reduced = if self.subgroups { ", by subgroups" } else { "" };
        format!("{variant}{reduced}{words}{}", if self.fold { ", folded" } else { "" })
    }
}

/// A range on the device between two guards, and what it held at first.
#[derive(Debug)]
struct Tensor {
    name: String,
    view: View,
    whole: View,
    before: Vec<u32>,
}

#[derive(Debug)]
enum Expected {
    Close { want: Vec<f64>, tolerance: f64 },
    Bits(Vec<u32>),
}

#[derive(Debug)]
struct Check {
    kernel: String,
    tensor: usize,
    ranges: Vec<Range<usize>>,
    expected: Expected,
}

/// One case: tensors are made, ops run on them, results expected; [`Case::finish`] compares.
#[derive(Debug)]
pub struct Case<'a> {
    gpu: &'a Gpu,
    name: String,
    tensors: Vec<Tensor>,
    checks: Vec<Check>,
    scratch: View,
    dispatched: Vec<String>,
    variants: Vec<Arc<str>>,
}

impl<'a> Case<'a> {
    /// A case called `name`, with `scratch` elements for the recorder.
    pub fn new(gpu: &'a Gpu, name: impl Into<String>, scratch: usize) -> Result<Case<'a>> {
        let mut case = Case {
            gpu,
            name: name.into(),
            tensors: Vec::new(),
            checks: Vec::new(),
            scratch: gpu.buffer("scratch", 1)?,
            dispatched: Vec::new(),
            variants: Vec::new(),
        };
        case.scratch = case.output("scratch", scratch.max(ALIGN))?;
        Ok(case)
    }

    /// The device that this case runs on.
    pub fn gpu(&self) -> &'a Gpu {
        self.gpu
    }

    fn tensor(&mut self, name: &str, words: &[u32]) -> Result<View> {
        self.guarded(name, words, GUARD, Element::Word, words.len())
    }

    fn guarded(&mut self, name: &str, words: &[u32], guard: u32, element: Element, len: usize) -> Result<View> {
        let mut before = vec![guard; ALIGN + align(words.len()) + ALIGN];
        before[ALIGN..ALIGN + words.len()].copy_from_slice(words);
        let whole = self.gpu.upload(name, &before)?;
        let view = whole.slice(ALIGN, words.len()).holding(element, len);
        self.tensors.push(Tensor { name: name.into(), view: view.clone(), whole, before });
        Ok(view)
    }

    fn halves(&mut self, name: &str, bits: &[u16]) -> Result<View> {
        // An odd one leaves room behind it, which is a guard too.
        let words = bits.chunks(2).map(|two| {
            let high = two.get(1).map_or(HALF_GUARD >> 16, |high| u32::from(*high));
            high << 16 | u32::from(two[0])
        });
        self.guarded(name, &words.collect::<Vec<_>>(), HALF_GUARD, Element::Half, bits.len())
    }

    /// A tensor of f16 with these values, which f16 must hold exactly ([`to_half`]).
    pub fn half_input(&mut self, name: &str, values: &[f32]) -> Result<View> {
        assert!(to_half(values) == values, "{name}: values that f16 does not hold");
        self.halves(name, &values.iter().map(|x| f16::from_f32(*x).to_bits()).collect::<Vec<_>>())
    }

    /// As [`Case::output`], of f16.
    pub fn half_output(&mut self, name: &str, len: usize) -> Result<View> {
        self.halves(name, &vec![HALF_POISON; len])
    }

    /// A tensor of these values: an input, or an output that is added to.
    pub fn input(&mut self, name: &str, values: &[f32]) -> Result<View> {
        self.tensor(name, bytemuck::cast_slice(values))
    }

    /// A tensor of these words.
    pub fn words(&mut self, name: &str, words: &[u32]) -> Result<View> {
        self.tensor(name, words)
    }

    /// A tensor of `len` elements that a kernel is to assign, every one of them.
    pub fn output(&mut self, name: &str, len: usize) -> Result<View> {
        self.tensor(name, &vec![POISON; len])
    }

    /// Watches a buffer that an op made itself: what lies behind `view` must stay as it is now.
    pub fn adopt(&mut self, name: &str, view: &View) -> Result<()> {
        let whole = View { buffer: view.buffer.clone(), offset: 0, len: view.buffer.len, element: Element::Word };
        let before = self.gpu.read(&whole)?;
        self.tensors.push(Tensor { name: name.into(), view: view.clone(), whole, before });
        Ok(())
    }

    /// Records ops and runs them once.
    pub fn run(&mut self, launch: Launch, record: impl FnOnce(&mut Recorder) -> Result<()>) -> Result<()> {
        let program = self.record(launch, record)?;
        Program::run(self.gpu, &[], &[&program])?;
        Ok(())
    }

    /// As [`Case::run`], on one of several ranks.
    pub fn run_with(
        &mut self,
        launch: Launch,
        ranks: &dyn Ranks,
        record: impl FnOnce(&mut Recorder) -> Result<()>,
    ) -> Result<()> {
        let program = self.record(launch, record)?;
        Program::run_with(self.gpu, ranks, &[], &[&program])?;
        Ok(())
    }

    fn record(&mut self, launch: Launch, record: impl FnOnce(&mut Recorder) -> Result<()>) -> Result<Program> {
        let mut recorder = Recorder::new(self.gpu, &self.scratch);
        recorder.for_cpu = launch.for_cpu;
        recorder.subgroups = launch.subgroups;
        recorder.wide_words = launch.wide_words;
        recorder.forced = launch.variant;
        record(&mut recorder)?;
        let mut program = recorder.program;
        for step in &mut program.steps {
            if launch.fold && foldable(&step.kernel) && step.grid[1] == 1 {
                step.grid = [step.grid[0].div_ceil(2), 2, 1];
            }
            self.dispatched.push(step.kernel.label.clone());
            self.variants.push(step.kernel.variant.clone());
        }
        Ok(program)
    }

    /// Copies words between tensors of this case, as the host's own step between two runs.
    pub fn copy(&mut self, to: &View, from: &View) -> Result<()> {
        let words: Vec<u32> = self.gpu.read(from)?;
        self.gpu.write(to, &words);
        Ok(())
    }

    fn find(&self, view: &View) -> usize {
        let found = self.tensors.iter().position(|t| t.view.buffer.id == view.buffer.id);
        found.unwrap_or_else(|| panic!("{}: no tensor of this case", self.name))
    }

    /// Expects all of `view` to be `want`, within `tolerance` by [`error`]; `kernel` is to blame if not.
    pub fn expect(&mut self, kernel: &str, view: &View, want: &[f64], tolerance: f64) {
        assert_eq!(view.len, want.len(), "{kernel}, {}: one expected value per element", self.name);
        self.expect_at(kernel, view, &[0..view.len], want, tolerance);
    }

    /// As [`Case::expect`], of these ranges of `view` alone; `want` is as long as `view`.
    pub fn expect_at(&mut self, kernel: &str, view: &View, ranges: &[Range<usize>], want: &[f64], tolerance: f64) {
        let expected = Expected::Close { want: want.to_vec(), tolerance };
        let tensor = self.find(view);
        self.checks.push(Check { kernel: kernel.into(), tensor, ranges: ranges.to_vec(), expected });
    }

    /// Expects exactly these bits in these ranges of `view`; `words` is as long as `view`.
    pub fn expect_bits(&mut self, kernel: &str, view: &View, ranges: &[Range<usize>], words: &[u32]) {
        let tensor = self.find(view);
        let expected = Expected::Bits(words.to_vec());
        self.checks.push(Check { kernel: kernel.into(), tensor, ranges: ranges.to_vec(), expected });
    }

    /// Expects `view` to hold what it held at first, bit for bit.
    pub fn expect_unchanged(&mut self, kernel: &str, view: &View) {
        let t = &self.tensors[self.find(view)];
        let words = t.elements(&t.before);
        self.expect_bits(kernel, view, &[0..view.len], &words);
    }

    /// Reads everything back and compares: one outcome for each kernel that something was expected of. Guards around
    /// every tensor, and tensors of which nothing was expected, must be as they were (the scratch aside).
    pub fn finish(self) -> Result<Vec<CaseResult>> {
        let mut outcomes: Vec<CaseResult> = Vec::new();
        let contents = self.tensors.iter().map(|t| self.gpu.read(&t.whole)).collect::<Result<Vec<Vec<u32>>>>()?;
        for check in &self.checks {
            let t = &self.tensors[check.tensor];
            let Verdict { error, tolerance, worst, failure } =
                check.judge(&t.name, &t.elements(&contents[check.tensor]));
            let known = outcomes.iter_mut().find(|o| o.kernel == check.kernel);
            if let Some(o) = known {
                o.failure = o.failure.take().or(failure);
                if error / tolerance > o.error / o.tolerance {
                    (o.error, o.tolerance, o.worst) = (error, tolerance, worst);
                }
            } else {
                let (kernel, case) = (check.kernel.clone(), self.name.clone());
                let (dispatched, variants) = (self.dispatched.clone(), self.variants.clone());
                outcomes.push(CaseResult { kernel, case, error, tolerance, worst, failure, dispatched, variants });
            }
        }
        for (i, (t, now)) in self.tensors.iter().zip(&contents).enumerate() {
            let owner = self.checks.iter().find(|c| c.tensor == i);
            let range = t.words();
            let free = owner.is_some() || t.view.buffer.id == self.scratch.buffer.id;
            let changed = (0..now.len()).find(|&e| now[e] != t.before[e] && !(free && range.contains(&e)));
            let kernel = owner.or(self.checks.first()).map(|c| &c.kernel);
            if let Some(o) = outcomes.iter_mut().find(|o| changed.is_some() && Some(&o.kernel) == kernel) {
                let at = changed.unwrap_or_default() as i64 - t.words().start as i64;
                let what = format!("{}[{at}] was written, of {} elements", t.name, t.view.len);
                o.failure = o.failure.take().or(Some(what));
            }
        }
        Ok(outcomes)
    }
}

impl Tensor {
    /// The words of its range; half a word at the end belongs to it.
    fn words(&self) -> Range<usize> {
        let start = self.view.byte_offset() as usize / 4;
        start..start + self.view.byte_len() as usize / 4
    }

    /// The elements of its range in `words`, which is what the buffer holds: bits of f32, whatever the tensor's format.
    fn elements(&self, words: &[u32]) -> Vec<u32> {
        let own = &words[self.words()];
        if self.view.element == Element::Word {
            return own.to_vec();
        }
        let halves = own.iter().flat_map(|word| [*word as u16, (*word >> 16) as u16]).take(self.view.len);
        halves.map(|bits| if bits == HALF_POISON { POISON } else { f16::from_bits(bits).to_f32().to_bits() }).collect()
    }
}

struct Verdict {
    error: f64,
    tolerance: f64,
    worst: String,
    failure: Option<String>,
}

impl Check {
    /// Compares an output whose words are `got`.
    fn judge(&self, name: &str, got: &[u32]) -> Verdict {
        let elements: Vec<usize> = self.ranges.iter().cloned().flatten().collect();
        match &self.expected {
            Expected::Bits(words) => {
                let wrong = elements.iter().find(|&&e| got[e] != words[e]);
                let failure = wrong.map(|&e| {
                    format!("{name}[{e}] is {:#010x} ({:e}), not {:#010x}", got[e], f32::from_bits(got[e]), words[e])
                });
                Verdict { error: 0.0, tolerance: EPS, worst: String::new(), failure }
            }
            Expected::Close { want, tolerance } => {
                let finite = |e: usize| f32::from_bits(got[e]).is_finite();
                let failure = elements.iter().find(|&&e| !finite(e)).map(|&e| {
                    if got[e] == POISON {
                        format!("{name}[{e}] was not written")
                    } else {
                        format!("{name}[{e}] is {}", f32::from_bits(got[e]))
                    }
                });
                let got: Vec<f64> = elements.iter().map(|&e| f64::from(f32::from_bits(got[e]))).collect();
                let want: Vec<f64> = elements.iter().map(|&e| want[e]).collect();
                let (at, error) = worst(&got, &want);
                let worst = elements.get(at).map(|e| format!("{name}[{e}] is {:e}, not {:e}", got[at], want[at]));
                Verdict { error, tolerance: *tolerance, worst: worst.unwrap_or_default(), failure }
            }
        }
    }
}

/// Whether a kernel takes its index from a folded grid, which its entry point shows by asking for the grid's size.
fn foldable(kernel: &Kernel) -> bool {
    let signature = kernel.shader.text.split_once(&format!("fn {}(", kernel.entry)).map_or("", |(_, rest)| rest);
    signature.split('{').next().is_some_and(|arguments| arguments.contains("num_workgroups"))
}
