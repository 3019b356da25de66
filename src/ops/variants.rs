//! The variants of a shader: the texts that the host appends, the values of override constants, and what an adapter must have. Each
//! op lists its own, and makes the texts by the functions that it records with. Tests and tools read these lists.

use crate::gpu::Gpu;
use crate::gpu::shaders::{Shader, by_subgroups};
use crate::ops::grid::{CPU_LANES, WG};

/// All variants of a shader.
#[derive(Debug)]
pub struct Variants {
    /// The file.
    pub shader: &'static Shader,
    /// What an adapter must have, whatever is appended.
    pub needs: Needs,
    /// Bytes of workgroup memory that an entry point uses, at most.
    pub workgroup_memory: u32,
    tails: Vec<Tail>,
    overrides: Vec<Override>,
}

/// What an adapter must have for all variants of a shader. What single ones need besides, a text shows that is appended: f16, or
/// words of 64 bits (`u64`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: any adapter runs it.
    Nothing,
    /// Subgroups.
    Subgroups,
    /// Subgroups of eight lanes and more; only CPU adapters are given these kernels.
    WideSubgroups,
    /// Cooperative matrices of f16.
    Matrices,
}

/// A text that is appended, and which entry point it is for, if not for all.
#[derive(Debug)]
struct Tail {
    entry: Option<&'static str>,
    text: String,
}

/// An override constant, its values, and which entry points get it, if not all.
#[derive(Debug)]
struct Override {
    name: &'static str,
    values: &'static [f64],
    entries: &'static [&'static str],
}

/// WebGPU's default limit of a workgroup's memory, in bytes.
const DEFAULT_MEMORY: u32 = 16 << 10;

/// The values of a flag.
pub(super) const FLAG: &[f64] = &[0.0, 1.0];
/// Invocations of a workgroup, on CPU adapters and on GPUs.
pub(super) const LANES: &[f64] = &[CPU_LANES as f64, WG as f64];

impl Variants {
    /// A shader to which nothing is appended, without overrides, that any adapter runs.
    pub fn of(shader: &'static Shader) -> Variants {
        let nothing = Tail { entry: None, text: String::new() };
        let (needs, workgroup_memory) = (Needs::Nothing, DEFAULT_MEMORY);
        Variants { shader, needs, workgroup_memory, tails: vec![nothing], overrides: Vec::new() }
    }

    /// With one of these texts appended.
    pub(super) fn append(self, texts: impl IntoIterator<Item = String>) -> Variants {
        let tails = texts.into_iter().map(|text| Tail { entry: None, text }).collect();
        Variants { tails, ..self }
    }

    /// With one of the texts appended that are paired with the entry point.
    pub(super) fn append_to(self, texts: impl IntoIterator<Item = (&'static str, String)>) -> Variants {
        let tails = texts.into_iter().map(|(entry, text)| Tail { entry: Some(entry), text }).collect();
        Variants { tails, ..self }
    }

    /// With one of these values for the override constant.
    pub(super) fn with(self, name: &'static str, values: &'static [f64]) -> Variants {
        self.with_in(&[], name, values)
    }

    /// The same for these entry points alone.
    pub(super) fn with_in(
        mut self,
        entries: &'static [&'static str],
        name: &'static str,
        values: &'static [f64],
    ) -> Variants {
        self.overrides.push(Override { name, values, entries });
        self
    }

    /// For adapters that have this.
    pub(super) fn needing(self, needs: Needs) -> Variants {
        Variants { needs, ..self }
    }

    /// With so many bytes of workgroup memory.
    pub(super) fn with_memory(self, workgroup_memory: u32) -> Variants {
        Variants { workgroup_memory, ..self }
    }

    /// What may be appended, with each way to reduce if the shader does, and the entry point that it is for if not for all.
    pub fn tails(&self) -> Vec<(String, Option<&'static str>)> {
        let ways = [String::new(), by_subgroups(false), by_subgroups(true)];
        let ways = &ways[..if self.shader.reduces() { 3 } else { 1 }];
        let own = |way: &String| self.tails.iter().map(move |tail| (way.clone() + &tail.text, tail.entry)).collect();
        ways.iter().flat_map(|way| -> Vec<_> { own(way) }).collect()
    }

    /// A text that makes the shader complete, to see what it declares.
    pub fn any_tail(&self) -> &str {
        &self.tails[0].text
    }

    /// Override constants that the host gives to some entry point.
    pub fn override_names(&self) -> impl Iterator<Item = &'static str> {
        self.overrides.iter().map(|own| own.name)
    }

    /// Every combination of the override constants' values that the host gives to `entry`.
    pub fn constants_for(&self, entry: &str) -> Vec<Vec<(&'static str, f64)>> {
        let own = self.overrides.iter().filter(|own| own.entries.is_empty() || own.entries.contains(&entry));
        own.fold(vec![Vec::new()], |found, Override { name, values, .. }| {
            let with = |constants: &Vec<_>, value: f64| [&constants[..], &[(*name, value)]].concat();
            found.iter().flat_map(|constants| values.iter().map(move |value| with(constants, *value))).collect()
        })
    }

    /// Whether `gpu` can run any of them.
    pub fn run_on(&self, gpu: &Gpu) -> bool {
        let units = match self.needs {
            Needs::Nothing => true,
            Needs::Subgroups => gpu.has_subgroups(),
            Needs::WideSubgroups => gpu.has_wide_subgroups(),
            Needs::Matrices => gpu.offered_cooperative().is_some(),
        };
        let memory = gpu.limits.max_compute_workgroup_storage_size >= self.workgroup_memory;
        let halves = gpu.check_f16().is_ok() || self.tails.iter().any(|tail| !tail.text.contains("f16"));
        units && memory && halves
    }
}
