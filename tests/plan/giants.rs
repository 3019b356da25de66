//! Models larger than a buffer, or a binding, of many adapters: planned without allocating, and one block run at full width.

use tpgm::gpu::Gpu;
use tpgm::method::{BatchNorm, Learner, Memory, Optimizer, Settings, Snapshot, Tpgm};
use tpgm::model::{Model, VitConfig};
use tpgm::ops::sgd::Sgd;
use tpgm::shapes::Norm;
use tpgm::train::help::told;

use super::common::{Random, gpu};
use super::vit_config;

/// ViT-H/14 and ViT-G/14: width, heads, width of the MLP, blocks, millions of parameters.
const GIANTS: [(&str, [usize; 4], usize); 2] =
    [("ViT-H/14", [1280, 16, 5120, 32], 632), ("ViT-G/14", [1664, 16, 8192, 48], 1_845)];

fn giant([dim, heads, mlp_dim, depth]: [usize; 4]) -> Model {
    Model::new(VitConfig { patch_size: 14, mlp_dim, ..vit_config(dim, heads, depth) })
}

fn settings(micro_batch: usize) -> Settings {
    Settings {
        optimizer: Optimizer::Sgd(Sgd { momentum: 0.9, nesterov: true, weight_decay: 0.0 }),
        clip_norm: 1.0,
        smoothing: 0.0,
        micro_batch,
        batch_norm: BatchNorm::Train,
        recompute: false,
        half: None,
    }
}

/// A device of its own whose adapter says that it has buffers and bindings of these sizes; for plans alone.
fn with_limits(buffer: u64, binding: u64) -> Gpu {
    let mut gpu = Gpu::open(std::env::var("TPGM_TEST_ADAPTER").ok().as_deref(), true).unwrap();
    (gpu.limits.max_buffer_size, gpu.limits.max_storage_buffer_binding_size) = (buffer, binding);
    gpu
}

#[test]
fn giants_are_planned_and_cut_into_the_bindings_that_an_adapter_has() {
    for (name, shape, millions) in GIANTS {
        let model = giant(shape);
        let layout = model.layout();
        let count = layout.params.iter().map(|p| p.len).sum::<usize>();
        assert!((count / 1_000_000).abs_diff(millions) <= millions / 50, "{name}: {count} parameters");
        let arena = layout.len as u64 * 4;
        assert!(arena > 2 << 30, "{name}");
        for binding in [128 << 20, 4 << 30] {
            // Every tensor in one segment, every segment in one binding.
            let segments = layout.segments(binding).unwrap();
            assert!(segments.iter().all(|s| s.len as u64 * 4 <= binding), "{name}");
            assert!(segments.len() as u64 >= arena.div_ceil(binding), "{name}");
            for param in &layout.params {
                let holds = |s: &&tpgm::shapes::Segment| {
                    s.offset <= param.offset && param.offset + param.len <= s.offset + s.len
                };
                assert_eq!(segments.iter().filter(holds).count(), 1, "{name}: {}", param.name);
            }
            let gpu = with_limits(64 << 30, binding);
            let memory = Memory::plan(&gpu, &model, &settings(8), Tpgm::bytes(model.layout(), Norm::Mars)).unwrap();
            println!("{name}, bindings of {binding} bytes: {memory}");
            assert_eq!((memory.gradient, memory.optimizer), (arena, arena), "{name}");
            assert!(memory.total() > 5 * arena, "{name}");
            assert_eq!(gpu.allocated(), 0, "{name}: a plan leaves nothing behind");
        }
    }
}

#[test]
fn an_arena_that_no_buffer_holds_is_one_error_before_anything_is_allocated() {
    for (name, shape, _) in GIANTS {
        let (gpu, model) = (with_limits(2047 << 20, 128 << 20), giant(shape));
        let error = Memory::plan(&gpu, &model, &settings(1), 0).unwrap_err();
        let error = told(&error);
        assert!(error.contains("all weights together need a buffer of"), "{error}");
        assert!(
            error.contains("2047 MiB") && error.contains("--adapter") && error.lines().count() == 1,
            "{name}: {error}"
        );
        assert_eq!(gpu.allocated(), 0, "{name}");
    }
}

#[test]
fn a_block_of_a_giant_trains_at_full_width() {
    for (name, [dim, heads, mlp_dim, _], _) in GIANTS {
        let model = giant([dim, heads, mlp_dim, 1]);
        let layout = model.layout();
        let scale = 1.0 / (dim as f32).sqrt();
        let mut random = Random::new(1);
        let tensors: Vec<Vec<f32>> = layout
            .params
            .iter()
            .map(|p| {
                random.vec(p.len).into_iter().map(|x| if p.name.contains("norm") { 1.0 } else { x * scale }).collect()
            })
            .collect();
        let weights = Snapshot::of_weights(layout.pack(tensors.iter().map(Vec::as_slice)));
        let mut learner = Learner::new(gpu(), model, &weights, settings(1)).unwrap();
        let images = random.vec(3 * 224 * 224);
        for _ in 0..3 {
            learner.step(&images, &[7], 1e-2).unwrap();
        }
        let losses: Vec<f32> = learner.records(true).unwrap().iter().map(|r| r.loss).collect();
        println!("{name}: {losses:?}");
        assert!(losses.len() == 3 && losses[2].is_finite() && losses[2] < losses[0], "{name}: {losses:?}");
    }
}
