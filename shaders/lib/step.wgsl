// What changes from step to step, written by the host before each one (`StepState` of ops/step_state.rs).
struct Step {
    lr: f32,
    bias_correction1: f32,      // 1 − β₁ᵗ of AdamW
    bias_correction2_sqrt: f32, // √(1 − β₂ᵗ)
    step: u32,                  // counted from 1
    slot: u32,                  // where this step's figures go in the ring and the log
    first: u32,                 // 1 at the first step of a run: the momentum buffer starts as the gradient
    micro: u32,                 // micro-batch of the step, counted from 0
}

// What norm_clip leaves for the optimisers: the clipping scale, and the first step (counted from 1) whose loss or gradient
// was not finite, 0 while there is none.
struct Health { grad_scale: f32, bad_step: u32 }
