//! The one list of stems. A stem is a group of kernels with a shader, a host wrapper and a reference of its name:
//! `shaders/STEM.wgsl`, `src/ops/STEM.rs` and `src/cpu/STEM.rs`. The modules of `cpu` and `ops`, the list of all shader variants
//! and a test of each stem in `tests/kernels.rs` follow from it.
//!
//! A stem that no workload of `tpgm bench` times by its name, whose reference is not held against differences (`tests/gradcheck.rs`), or whose kernels are not held against values of
//! PyTorch's one by one (`tests/kernels/goldens.rs`, `tests/kernels/resnet.rs`, `tests/kernels/channels.rs`), says why: `tests/shaders/stems.rs` asks for it.

/// Hands all stems to the macro `$each`.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_stem {
    ($each:ident) => {
        $each! {
            matmul {
                bench: "as kernel_linear, matmul_512 and others"
            };
            cast {
                gradcheck: "it rounds, and its gradient is cast back as it is",
                golden: "it rounds to the nearest, as the half crate does"
            };
            column_sum;
            layer_norm;
            rms_norm {
                golden: "in AIMv2, tests/families.rs"
            };
            rope {
                golden: "in EVA-02, DINOv3 and others, tests/families.rs"
            };
            gelu;
            hard_swish;
            silu;
            relu6;
            swiglu;
            attention;
            attention_pool {
                golden: "in CLIP's ResNet, tests/golden_resnet.rs"
            };
            residual {
                golden: "in whole networks, tests/golden.rs"
            };
            conv2d;
            depthwise;
            distill {
                golden: "in trajectories, tests/golden/methods.rs"
            };
            dropout {
                golden: "its masks by another implementation in timm's models, tests/families.rs"
            };
            unfold;
            grn;
            group_norm;
            standardize;
            gate;
            eca {
                bench: "a value per channel of each image: as long as a launch"
            };
            batch_norm;
            relu {
                golden: "in whole ResNets, tests/golden_resnet.rs"
            };
            l2_normalize {
                golden: "in heads on normalised features, tests/families.rs"
            };
            average {
                golden: "in DeiT's two heads, tests/families.rs",
                bench: "two logits per class: as long as a launch"
            };
            max_pool;
            avg_pool;
            blur;
            slice {
                golden: "it copies; in MixNet and ResNeSt, tests/families.rs"
            };
            split_attention {
                golden: "in ResNeSt, tests/families.rs"
            };
            patch_embed;
            embedding {
                golden: "in text towers, tests/text.rs",
                bench: "rows of a table, once per text: as long as a launch"
            };
            pick {
                golden: "in text towers, tests/text.rs",
                bench: "one token of each text: as long as a launch"
            };
            pool {
                golden: "in whole networks, tests/golden.rs"
            };
            cross_entropy;
            binary_cross_entropy;
            norm_clip {
                gradcheck: "no gradient passes through a step",
                golden: "in clipped trajectories, tests/golden.rs"
            };
            loss_scale {
                gradcheck: "no gradient passes through a step",
                golden: "powers of two, which whole runs in f16 show, tests/half.rs",
                bench: "a few words: as long as a launch"
            };
            sgd {
                gradcheck: "no gradient passes through a step"
            };
            adamw {
                gradcheck: "no gradient passes through a step"
            };
            mars {
                bench: "mars_vit_base and tpgm_overhead"
            };
            ftp {
                gradcheck: "its gradient is that of mars",
                golden: "in trajectories, tests/golden/methods.rs",
                bench: "ftp_overhead"
            };
            spd {
                gradcheck: "no gradient passes through a step",
                golden: "in trajectories, tests/golden/methods.rs",
                bench: "the sums of mars_vit_base and the update of kernel_sgd"
            };
            digrap {
                gradcheck: "no gradient passes through a step",
                golden: "in trajectories, tests/golden/methods.rs",
                bench: "the sums of mars_vit_base and the update of kernel_sgd"
            };
            l2_sp {
                golden: "in trajectories, tests/golden/methods.rs"
            };
            lerp {
                gradcheck: "no gradient passes through a step",
                golden: "in trajectories, tests/golden/methods.rs"
            };
            sam {
                gradcheck: "no gradient passes through a step",
                golden: "in trajectories, tests/golden/methods.rs",
                bench: "the sums of norm_clip and the update of kernel_sgd"
            };
            peak {
                gradcheck: "a benchmark trains nothing",
                golden: "a benchmark is no operation of PyTorch",
                bench: "it is a benchmark: peak_multiply_add"
            };
        }
    };
}
