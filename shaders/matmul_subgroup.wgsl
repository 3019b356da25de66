// Matrix product for GPUs with subgroups: no workgroup memory, no barrier. a's rows pass through the registers of a quad, b
// comes straight from storage, which the quads above and below have brought to the cache (lib/quads.wgsl). What matmul.wgsl
// computes, with its layouts, epilogues, entries and names.
//
//   forward           out[m,n] = Σₖ a[m,k] · b[n,k] + bias[n]     inp · weightᵀ + bias
//   backward_input    out[m,n] = Σₖ a[m,k] · b[k,n]               dout · weight
//   backward_weight   out[m,n] = Σₖ a[k,m] · b[k,n]               doutᵀ · inp
//
//   out [m, n], bias [n]; all row-major and contiguous. `=`, or `+=` with ACCUMULATE. What forward_vec4, backward_input_vec4 and
//   backward_weight_vec4 need of m, n and k, and what the host appends to them, is told in matmul.wgsl.
//
//   grid [⌈n/SIDE⌉, ⌈m/SIDE⌉, ⌈k/chunk⌉], SIDE = 64; workgroups along z share a sum as in matmul.wgsl. Nothing is saved.
//   Needs subgroups (wgpu: Features::SUBGROUP), of any size.
//
// Of its tile's 8 rows and 32 columns a lane has all rows and 8 columns: 10 vec4 loads and 8 vec4 broadcasts for 256
// multiply-adds. A wider ring than four lanes would save but one of the loads, and need subgroups of a size that is known.

struct Params { m: u32, n: u32, k: u32, chunk: u32 }
var<immediate> p: Params;

override HAS_BIAS: bool = false; // forward only; binding 2 may be anything readable when off
override ACCUMULATE: bool = false;

@group(0) @binding(0) var<storage, read> a: array<operand>;
@group(0) @binding(1) var<storage, read> b: array<operand>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<result>;

@group(0) @binding(0) var<storage, read> a4: array<loaded4>;
@group(0) @binding(1) var<storage, read> b4: array<loaded4>;
@group(0) @binding(2) var<storage, read> bias4: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> out4: array<stored4>;

// The flags are literals, so what they rule out folds away.
fn run_vec4(group: vec3u, thread: u32, a_along: bool, b_along: bool) {
    let own = place_in(group.xy, thread);
    let end = min((group.z + 1u) * p.chunk, p.k);
    let a_rows = min(own.m + own.lane + vec2u(0u, 4u), vec2u(p.m - 1u)) * (p.k / 4u);
    let a_cols = vec2u(across(own.m, p.m), across(own.m + 4u, p.m));
    let b_left = along(own.n, p.n);
    let b_right = along(own.n + 16u, p.n);
    let b_cols = vec2u(across(own.n, p.n), across(own.n + 16u, p.n));
    var sums = Sums();
    for (var k = group.z * p.chunk; k < end; k += 4u) {
        var low: mat4x4f;
        var high: mat4x4f;
        if a_along {
            // Each lane brings four k of two rows,
            let i = a_rows + k / 4u;
            low = of_quad(from_loaded(a4[i.x]));
            high = of_quad(from_loaded(a4[i.y]));
        } else {
            // or twice four rows at its own k.
            let i = a_cols + min(k + own.lane, p.k - 1u) * (p.m / 4u);
            low = transpose(of_quad(from_loaded(a4[i.x])));
            high = transpose(of_quad(from_loaded(a4[i.y])));
        }
        var left: mat4x4f;
        var right: mat4x4f;
        if b_along {
            left = transpose(load_b(b_left + k / 4u));
            right = transpose(load_b(b_right + k / 4u));
        } else {
            let step = clamped(k) * (p.n / 4u);
            left = without_tail(load_b(b_cols.x + step), k);
            right = without_tail(load_b(b_cols.y + step), k);
        }
        sums = multiply(sums, low, high, left, right);
    }
    store4_quad(sums.low, group.z, own.m, own.n);
    store4_quad(sums.high, group.z, own.m + 4u, own.n);
    store4_quad(sums.low_right, group.z, own.m, own.n + 16u);
    store4_quad(sums.high_right, group.z, own.m + 4u, own.n + 16u);
}

@compute @workgroup_size(THREADS)
fn forward_vec4(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    run_vec4(group, thread, true, true);
}

@compute @workgroup_size(THREADS)
fn backward_input_vec4(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    run_vec4(group, thread, true, false);
}

@compute @workgroup_size(THREADS)
fn backward_weight_vec4(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    run_vec4(group, thread, false, false);
}

// ---- any size, scalar loads.

fn run(group: vec3u, thread: u32, a_stride: vec2u, b_stride: vec2u) {
    let own = place_in(group.xy, thread);
    let end = min((group.z + 1u) * p.chunk, p.k);
    let a_rows = min(own.m + own.lane + vec2u(0u, 4u), vec2u(p.m - 1u)) * a_stride.x;
    let b_left = min(own.n + STEPS, vec4u(p.n - 1u)) * b_stride.x;
    let b_right = min(own.n + 16u + STEPS, vec4u(p.n - 1u)) * b_stride.x;
    var sums = Sums();
    for (var k = group.z * p.chunk; k < end; k += 4u) {
        let a_step = clamped(k) * a_stride.y;
        let b_step = clamped(k) * b_stride.y;
        let low = of_quad(gather_a(a_rows.x, a_step));
        let high = of_quad(gather_a(a_rows.y, a_step));
        let left = without_tail(transpose(gather_b_rows(b_left, b_step)), k);
        let right = without_tail(transpose(gather_b_rows(b_right, b_step)), k);
        sums = multiply(sums, low, high, left, right);
    }
    store_quad(sums.low, group.z, own.m, own.n);
    store_quad(sums.high, group.z, own.m + 4u, own.n);
    store_quad(sums.low_right, group.z, own.m, own.n + 16u);
    store_quad(sums.high_right, group.z, own.m + 4u, own.n + 16u);
}

@compute @workgroup_size(THREADS)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    run(group, thread, vec2u(p.k, 1u), vec2u(p.k, 1u));
}

@compute @workgroup_size(THREADS)
fn backward_input(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    run(group, thread, vec2u(p.k, 1u), vec2u(1u, p.n));
}

@compute @workgroup_size(THREADS)
fn backward_weight(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    run(group, thread, vec2u(1u, p.m), vec2u(1u, p.n));
}
