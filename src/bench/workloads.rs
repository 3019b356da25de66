//! Every workload by name, and the groups that stand for several.

use std::sync::OnceLock;

use crate::bench::models::{NETS, Net, infer, net, train};
use crate::bench::{Bench, Figures, Work, kernels, layers, loading, method, models, peak};
use crate::error::{Error, Result};

/// What measures a workload.
pub type Measure = Box<dyn Fn(&Bench) -> Result<Figures> + Send + Sync>;

/// What records a workload and runs nothing of it but [`Bench::tune`].
pub type Prepare = Box<dyn Fn(&Bench) -> Result<()> + Send + Sync>;

/// A benchmark.
pub struct Workload {
    /// Its name.
    pub name: &'static str,
    /// Measures it.
    pub run: Measure,
    /// Tunes its products.
    pub prepare: Prepare,
}

impl std::fmt::Debug for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Workload({})", self.name)
    }
}

/// What runs where nothing is asked for: the workloads of the comparison with others.
pub const DEFAULT: [&str; 14] = [
    "launch",
    "add_16m",
    "matmul_512",
    "matmul_1024",
    "matmul_2048",
    "matmul_vit",
    "vit_tiny_infer",
    "vit_tiny_train",
    "resnet18_infer",
    "resnet18_train",
    "vit32_infer",
    "vit32_train",
    "resnet20_infer",
    "resnet20_train",
];

/// A group's name, and whether a workload's name belongs to it.
type Group = (&'static str, fn(&str) -> bool);

const GROUPS: [Group; 3] = [
    ("all", |_| true),
    ("kernels", |name| name.starts_with("kernel_")),
    ("models", |name| name.ends_with("_infer") || name.ends_with("_train")),
];

/// Every workload.
pub fn all() -> &'static [Workload] {
    static ALL: OnceLock<Vec<Workload>> = OnceLock::new();
    ALL.get_or_init(list)
}

fn list() -> Vec<Workload> {
    fn add(
        list: &mut Vec<Workload>,
        name: &'static str,
        run: impl Fn(&Bench) -> Result<Figures> + Send + Sync + 'static,
        prepare: impl Fn(&Bench) -> Result<()> + Send + Sync + 'static,
    ) {
        list.push(Workload { name, run: Box::new(run), prepare: Box::new(prepare) });
    }
    let nothing = |_: &Bench| Ok(());
    let vit_tiny = |b: &Bench| learner(b, net("vit_tiny"));
    let mut list = Vec::new();
    let to = &mut list;
    let multiply_add = |b: &Bench| {
        let m = peak::multiply_add(b.gpu, &b.budget)?;
        Ok(Figures::new(m.shape, m.times, Work::Flop(m.work)))
    };
    let copy = |b: &Bench| {
        let peak::MeasuredCopy { best, kernel_gbs } = peak::copy(b.gpu, &b.budget)?;
        Ok(Figures::new(best.shape, best.times, Work::Bytes(best.work)).with("kernel_gbs", kernel_gbs))
    };
    add(to, "peak_multiply_add", multiply_add, nothing);
    add(to, "peak_copy", copy, nothing);
    add(to, "launch", kernels::launch, nothing);
    add(to, "add_16m", kernels::add_16m, nothing);
    for (name, shape) in [
        ("matmul_512", [512, 512, 512]),
        ("matmul_1024", [1024, 1024, 1024]),
        ("matmul_2048", [2048, 2048, 2048]),
        ("matmul_4096", [4096, 4096, 4096]),
        ("matmul_vit", [8 * 197, 768, 3072]),
    ] {
        add(to, name, move |b| kernels::matmul(b, shape), move |b| kernels::layer(b, shape).map(drop));
    }
    // A name is written out, so that it can be searched for.
    for (name, train_name) in [
        ("vit_tiny_infer", "vit_tiny_train"),
        ("resnet18_infer", "resnet18_train"),
        ("vit32_infer", "vit32_train"),
        ("resnet20_infer", "resnet20_train"),
        ("vit_small_infer", "vit_small_train"),
        ("vit_base_infer", "vit_base_train"),
        ("resnet50_infer", "resnet50_train"),
        ("eva02_tiny_infer", "eva02_tiny_train"),
        ("convnext_tiny_infer", "convnext_tiny_train"),
        ("efficientnet_b0_infer", "efficientnet_b0_train"),
    ] {
        let of = net(name.trim_end_matches("_infer"));
        add(to, name, |b| infer(b, of), |b| of.predictor(b).map(drop));
        add(to, train_name, |b| train(b, of), |b| learner(b, of));
    }
    assert_eq!(list.iter().filter(|w| w.name.ends_with("_train")).count(), NETS.len());
    let to = &mut list;
    add(to, "tpgm_overhead", method::tpgm_overhead, vit_tiny);
    add(to, "ftp_overhead", method::ftp_overhead, vit_tiny);
    add(to, "mars_vit_base", method::mars_vit_base, nothing);
    for (name, record) in kernels::KERNELS.iter().chain(layers::LAYERS) {
        add(to, name, |b| kernels::alone(b, *record), |b| record(b).map(drop));
    }
    add(to, "record_submit", models::record_submit, vit_tiny);
    add(to, "data_loading", loading::data_loading, vit_tiny);
    add(to, "start", models::start, nothing);
    list
}

/// A learner of `net`, for what it is made of.
fn learner(b: &Bench, net: &Net) -> Result<()> {
    net.learner(b, net.settings()).map(drop)
}

/// The workloads that `names` stand for, each once, in their order; without names those of [`DEFAULT`].
///
/// Errors on a name that is neither a workload's nor a group's, and lists them.
pub fn pick(names: &[String]) -> Result<Vec<&'static Workload>> {
    if names.is_empty() {
        return Ok(all().iter().filter(|w| DEFAULT.contains(&w.name)).collect());
    }
    let mut picked: Vec<&'static Workload> = Vec::new();
    for name in names {
        let group = GROUPS.iter().find(|(group, _)| group == name);
        let of = |w: &&Workload| group.map_or(w.name == name, |(_, test)| test(w.name));
        let found: Vec<_> = all().iter().filter(of).collect();
        if found.is_empty() {
            let groups: Vec<&str> = GROUPS.iter().map(|(group, _)| *group).collect();
            let names: Vec<&str> = all().iter().map(|w| w.name).collect();
            return Err(Error::Usage(format!(
                "unknown workload {name:?}: there are the groups {}, and {}",
                groups.join(", "),
                names.join(", ")
            )));
        }
        for workload in found {
            if !picked.iter().any(|p| p.name == workload.name) {
                picked.push(workload);
            }
        }
    }
    Ok(picked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(asked: &[&str]) -> Vec<&'static str> {
        let asked: Vec<String> = asked.iter().map(|s| s.to_string()).collect();
        pick(&asked).unwrap().iter().map(|w| w.name).collect()
    }

    #[test]
    fn names_and_groups_are_found() {
        assert_eq!(names(&[]), DEFAULT);
        assert_eq!(names(&["vit32_train", "launch", "launch"]), ["vit32_train", "launch"]);
        assert_eq!(names(&["all"]).len(), all().len());
        assert_eq!(names(&["models"]).len(), 2 * NETS.len());
        assert!(names(&["kernels"]).iter().all(|n| n.starts_with("kernel_")));
        let error = pick(&["vit33".into()]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(["vit33", "kernels", "resnet20_train"].iter().all(|part| error.to_string().contains(part)), "{error}");
    }

    #[test]
    fn no_two_have_one_name() {
        let names: std::collections::BTreeSet<&str> = all().iter().map(|w| w.name).collect();
        assert_eq!(names.len(), all().len());
    }
}
