//! Whole runs on several ranks: they leave what a run on one rank leaves, which the first rank alone writes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use image::{Rgb, RgbImage};
use tempfile::TempDir;
use tpgm::Result;
use tpgm::gpu::Gpu;
use tpgm::ranks::{Ranks, Sum};
use tpgm::train::place::Place;
use tpgm::train::{Event, Flags, Start, Summary, TrainConfig, train_on};

use crate::common::threads::{Thread, on_ranks};
use crate::common::{Random, relative};

const DATA: &str = "--train @train --val @val --test id=@test --augment none --optimizer sgd --lr 0.01";
const VIT: &str = "--model fixture:vit_small.safetensors --heads 3 --batch-size 6 --epochs 2";
const NET: &str = "--model fixture:resnet_basic.safetensors --image-size 64 --batch-size 6 --epochs 2";

/// Training, validation and test images of five classes, and a folder for runs.
struct Space(TempDir);

impl Space {
    fn new() -> Space {
        let dir = tempfile::tempdir().unwrap();
        for (split, each) in [("train", 3), ("val", 2), ("test", 1)] {
            for class in 0..5u8 {
                let folder = dir.path().join(split).join(class.to_string());
                std::fs::create_dir_all(&folder).unwrap();
                for i in 0..each {
                    let mut random = Random::new(u64::from(class) * 100 + i * 10 + split.len() as u64);
                    let mut pixel =
                        |_, _| Rgb([class * 50, 255 - class * 50, 90].map(|c| c ^ (random.bits() % 32) as u8));
                    let image = RgbImage::from_fn(20, 20, &mut pixel);
                    image.save(folder.join(format!("{i}.png"))).unwrap();
                }
            }
        }
        Space(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn config(&self, flags: &str) -> TrainConfig {
        let flags = flags.replace("@", &format!("{}/", self.0.path().display()));
        let model = flags.replace("fixture:", &format!("{}/tests/fixtures/", env!("CARGO_MANIFEST_DIR")));
        Flags::parse(model.split_whitespace()).unwrap().resolve(None).unwrap()
    }

    /// The run of `config` in the folder `out`, on `size` ranks: what each of them comes to, and the notes of all together.
    fn run(&self, config: &TrainConfig, out: &str, size: usize, resume: bool) -> (Vec<Result<Summary>>, Vec<String>) {
        self.run_each(&|_| config.clone(), out, size, resume, &|thread| Arc::new(thread))
    }

    fn run_each(
        &self,
        config: &(dyn Fn(usize) -> TrainConfig + Sync),
        out: &str,
        size: usize,
        resume: bool,
        ranks: &(dyn Fn(Thread) -> Arc<dyn Ranks> + Sync),
    ) -> (Vec<Result<Summary>>, Vec<String>) {
        let told = Mutex::new(Vec::new());
        let came = on_ranks(size, |thread| {
            let gpu = Gpu::open(std::env::var("TPGM_TEST_ADAPTER").ok().as_deref(), true).unwrap();
            let start = Start { resume, baseline: true, best: true, ..Start::default() };
            let (config, place) = (config(thread.rank()), Place::among(Some(ranks(thread))));
            train_on(&gpu, &place, &config, &self.path(out), start, &mut |event| match event {
                Event::Note(what) | Event::Warning(what) => told.lock().unwrap().push(what),
                _ => {}
            })
        });
        (came, told.into_inner().unwrap())
    }

    /// The tensors of a file, one after the other.
    fn weights(&self, name: &str) -> Vec<f32> {
        let bytes = std::fs::read(self.path(name)).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensors: BTreeMap<_, _> =
            file.iter().map(|(name, view)| (name.to_string(), view.data().to_vec())).collect();
        tensors.values().flat_map(|data| bytemuck::pod_collect_to_vec::<u8, f32>(data)).collect()
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn files(&self, name: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(name)).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn ok(came: (Vec<Result<Summary>>, Vec<String>)) -> (Vec<Summary>, Vec<String>) {
    (came.0.into_iter().map(|summary| summary.unwrap()).collect(), came.1)
}

/// `flags` on one rank and on several come to the same; the first alone writes and tells.
fn agrees(flags: &str) {
    let space = Space::new();
    let config = space.config(&format!("{flags} {DATA}"));
    let (alone, told_alone) = ok(space.run(&config, "alone", 1, false));
    for size in [2, 3] {
        let out = format!("on_{size}");
        let (all, told) = ok(space.run(&config, &out, size, false));
        let joined = told.iter().filter(|what| what.contains(&format!("{size} ranks train one model"))).count();
        assert_eq!((joined, told.len()), (1, told_alone.len() + 1), "{told:#?}");
        assert_eq!(space.files(&out), space.files("alone"));
        for file in ["last.safetensors", "best.safetensors"] {
            let far = relative(&space.weights(&format!("{out}/{file}")), &space.weights(&format!("alone/{file}")));
            assert!(far < 1e-5, "{flags}: {file} of {size} ranks: {far:e}");
        }
        for summary in &all {
            assert_eq!(summary.tests.len(), alone[0].tests.len());
            for (own, one) in summary.tests.iter().zip(&alone[0].tests) {
                assert_eq!((&own.name, own.evaluation.images), (&one.name, one.evaluation.images));
                let (own, one) = (&own.evaluation, &one.evaluation);
                assert!(own.top1 == one.top1 && (own.loss - one.loss).abs() < 1e-5, "{own:?} {one:?}");
            }
        }
        let (own, one) = (space.text(&format!("{out}/metrics.jsonl")), space.text("alone/metrics.jsonl"));
        assert_eq!(own.lines().count(), one.lines().count());
        assert!(space.text(&format!("{out}/sessions.json")).contains(&format!("\"ranks\": {size}")));
    }
}

#[test]
fn a_run_on_ranks_is_one_on_a_single_rank() {
    agrees(&format!("{VIT} --method tpgm --max-iters 3"));
    agrees(&format!("{VIT} --method vanilla --ema-decay 0.9 --tta flip"));
}

/// Features are computed in parts as well, and a head that is solved for is the first rank's.
#[test]
fn probes_on_ranks() {
    agrees(&format!("{VIT} --method linear-probe"));
    agrees(&format!("{VIT} --method lp-ft"));
}

#[test]
fn batch_norm_on_ranks() {
    agrees(&format!("{NET} --method vanilla --bn frozen"));
    agrees(&format!("{NET} --method tpgm --radius-batch-size 5 --sync-bn"));
}

/// With its own statistics, each rank has other activations than one rank has; the weights are still the same on all of them.
#[test]
fn batch_norm_of_the_own_part() {
    let space = Space::new();
    let (all, _) = ok(space.run(&space.config(&format!("{NET} --method vanilla {DATA}")), "run", 2, false));
    let loss = |summary: &Summary| summary.tests.last().unwrap().evaluation.loss;
    assert!(loss(&all[0]) == loss(&all[1]) && loss(&all[0]).is_finite());
}

/// A run goes on with any number of ranks: the batches that follow are the same.
#[test]
fn a_run_goes_on_with_another_number_of_ranks() {
    let space = Space::new();
    let flags = format!("{VIT} --method vanilla --lr-schedule constant --warmup-steps 0 {DATA}");
    let config = |epochs: u64| space.config(&flags.replace("--epochs 2", &format!("--epochs {epochs}")));
    ok(space.run(&config(3), "whole", 1, false));
    for (out, [first, second, third]) in [("a", [2, 3, 1]), ("b", [1, 2, 3])] {
        ok(space.run(&config(1), out, first, false));
        ok(space.run(&config(2), out, second, true));
        ok(space.run(&config(3), out, third, true));
        let far =
            relative(&space.weights(&format!("{out}/last.safetensors")), &space.weights("whole/last.safetensors"));
        assert!(far < 1e-5, "{out}: {far:e}");
        let sessions = space.text(&format!("{out}/sessions.json"));
        assert!(
            [first, second, third].iter().all(|size| sessions.contains(&format!("\"ranks\": {size}"))),
            "{sessions}"
        );
    }
}

/// All ranks say the same of what they were given differently, and nothing is written.
#[test]
fn ranks_with_other_things_are_refused() {
    let space = Space::new();
    let base = format!("{VIT} {DATA}");
    let cases = [
        (
            base.clone(),
            base.replace("--lr 0.01", "--lr 0.02"),
            "rank 1 differs from rank 0 in its setting lr: 0.02 instead of 0.01",
        ),
        (
            base.clone(),
            base.replace("--train @train", "--train @val"),
            "rank 1 differs from rank 0 in its setting train: ",
        ),
        (
            base.replace("--batch-size 6", "--batch-size 1"),
            base.replace("--batch-size 6", "--batch-size 1"),
            "--batch-size 1 on 3 ranks",
        ),
        (format!("{NET} {DATA} --sync-bn --bn frozen"), format!("{NET} {DATA} --sync-bn --bn frozen"), "--sync-bn"),
        (format!("{base} --sync-bn"), format!("{base} --sync-bn"), "--sync-bn is for models with batch norm"),
        // A last batch of two images leaves a rank without.
        (
            format!("{} {DATA} --sync-bn", NET.replace("--batch-size 6", "--batch-size 13")),
            format!("{} {DATA} --sync-bn", NET.replace("--batch-size 6", "--batch-size 13")),
            "a batch of 2 images on 3 ranks",
        ),
    ];
    for (first, other, part) in cases {
        let config = |rank| space.config(if rank == 0 { &first } else { &other });
        let (came, _) = space.run_each(&config, "refused", 3, false, &|thread| Arc::new(thread));
        for one in came {
            let error = one.unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains('\n'), "{error}");
        }
        assert!(!space.path("refused").exists());
    }
}

/// A rank whose sums come back a little off, as if its device failed.
#[derive(Debug)]
struct Off(Thread);

impl Ranks for Off {
    fn rank(&self) -> usize {
        self.0.rank()
    }

    fn size(&self) -> usize {
        self.0.size()
    }

    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.0.gather(own)
    }

    fn start_sum(&self, values: Vec<f32>) -> Result<Box<dyn Sum + '_>> {
        let by = if self.rank() == 1 && values.len() > 8 { 1e-3 } else { 0.0 };
        let sums = self.0.sum(values)?;
        Ok(Box::new(Done(sums.into_iter().map(|sum| sum + by).collect())))
    }
}

struct Done(Vec<f32>);

impl Sum for Done {
    fn advance(&mut self) -> Result<bool> {
        Ok(true)
    }

    fn wait(self: Box<Self>) -> Result<Vec<f32>> {
        Ok(self.0)
    }
}

#[test]
fn weights_that_part_end_the_run() {
    let space = Space::new();
    let config = space.config(&format!("{VIT} --method vanilla {DATA}"));
    let (came, _) = space.run_each(&|_| config.clone(), "run", 3, false, &|thread| Arc::new(Off(thread)));
    for one in came {
        let error = one.unwrap_err().to_string();
        let part = "after step 3, rank 1 has another ";
        assert!(error.contains(part) && error.contains(" of ") && error.contains("than rank 0"), "{error}");
    }
}
