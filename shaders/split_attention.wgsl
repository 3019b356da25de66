// The sum of an image's splits, each channel of each weighed by a softmax over the splits (ResNeSt, Zhang et al. 2020), and its backward.
// A single split is weighed by sigmoids.
//
//   prob[b, r, c] = softmax over r of logits[b, g, r, i], c = g·w + i        out[b, p, c] = Σ_r prob[b, r, c] · inp[b, p, r, c]
//   dinp[b, p, r, c] = prob[b, r, c] · dout[b, p, c]                         dprob[b, r, c] = Σ_p dout[b, p, c] · inp[b, p, r, c]
//   dlogits[b, g, r, i] = prob · (dprob − Σ_s prob[b, s, c] · dprob[b, s, c])
//
//   inp, dinp [B, P, R·C]      out, dout [B, P, C]      logits, dlogits [B, G, R, C/G]      prob [B, R, C], saved by weigh
//
//   entry              grid                                  writes
//   weigh              fold(⌈B·C/(WG·PER_LANE)⌉)             prob =
//   forward            fold(⌈B·P·C/(WG·PER_LANE)⌉)           out =
//   backward_input     fold(⌈B·P·R·C/(WG·PER_LANE)⌉)         dinp =
//   backward_logits    [⌈C/ACROSS⌉, B]                       dlogits =   a workgroup has ACROSS channels, and rows of lanes share the pixels
//
// The host appends `alias stored = f32;` or f16: what inp, out and their gradients hold. Sums are f32.

struct Params { batch: u32, pixels: u32, channels: u32, radix: u32, groups: u32 }
var<immediate> p: Params;

override WG: u32 = 64u;
override PER_LANE: u32 = 16u;
const ACROSS = 16u;

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read_write> prob: array<f32>;

// Where the logit of split `r` and channel `c` of all B·C is.
fn logit(bc: u32, r: u32) -> u32 {
    let width = p.channels / p.groups;
    let b = bc / p.channels;
    let c = bc % p.channels;
    return ((b * p.groups + c / width) * p.radix + r) * width + c % width;
}

// Where its weight is.
fn weight(bc: u32, r: u32) -> u32 { return (bc / p.channels * p.radix + r) * p.channels + bc % p.channels; }

@compute @workgroup_size(WG)
fn weigh(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    for (var i = first; i < min(first + WG * PER_LANE, p.batch * p.channels); i += WG) {
        // A sigmoid is a softmax beside a zero.
        var highest = select(-3.0e38, 0.0, p.radix == 1u);
        for (var r = 0u; r < p.radix; r++) { highest = max(highest, logits[logit(i, r)]); }
        // Relative to the highest, so that the exponentials can't overflow.
        var sum = select(0.0, exp(-highest), p.radix == 1u);
        for (var r = 0u; r < p.radix; r++) { sum += exp(logits[logit(i, r)] - highest); }
        for (var r = 0u; r < p.radix; r++) { prob[weight(i, r)] = exp(logits[logit(i, r)] - highest) / sum; }
    }
}

@group(0) @binding(0) var<storage, read> inp: array<stored>;
@group(0) @binding(1) var<storage, read> saved_prob: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<stored>;

@compute @workgroup_size(WG)
fn forward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    for (var i = first; i < min(first + WG * PER_LANE, p.batch * p.pixels * p.channels); i += WG) {
        let c = i % p.channels;
        let row = i / p.channels;
        let bc = row / p.pixels * p.channels + c;
        var sum = 0.0;
        for (var r = 0u; r < p.radix; r++) {
            sum += saved_prob[weight(bc, r)] * f32(inp[(row * p.radix + r) * p.channels + c]);
        }
        out[i] = stored(sum);
    }
}

@group(0) @binding(0) var<storage, read> dout: array<stored>;
@group(0) @binding(2) var<storage, read_write> dinp: array<stored>;

@compute @workgroup_size(WG)
fn backward_input(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let cols = p.radix * p.channels;
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    for (var i = first; i < min(first + WG * PER_LANE, p.batch * p.pixels * cols); i += WG) {
        let row = i / cols;
        let c = i % p.channels;
        dinp[i] = stored(saved_prob[row / p.pixels * cols + i % cols] * f32(dout[row * p.channels + c]));
    }
}

@group(0) @binding(2) var<storage, read> values: array<stored>;
@group(0) @binding(3) var<storage, read_write> dlogits: array<f32>;

var<workgroup> sums: array<f32, WG>;

@compute @workgroup_size(WG)
fn backward_logits(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let across = min(ACROSS, WG);
    let c = group.x * across + lane % across;
    let inside = c < p.channels;
    let bc = group.y * p.channels + c;
    var mixed = 0.0;
    for (var r = 0u; r < p.radix; r++) {
        var sum = 0.0;
        if inside {
            for (var n = lane / across; n < p.pixels; n += WG / across) {
                let row = group.y * p.pixels + n;
                sum += f32(dout[row * p.channels + c]) * f32(values[(row * p.radix + r) * p.channels + c]);
            }
        }
        sums[lane] = sum;
        workgroupBarrier();
        if lane < across && inside {
            for (var other = lane + across; other < WG; other += across) { sum += sums[other]; }
            dlogits[logit(bc, r)] = sum;
            mixed += saved_prob[weight(bc, r)] * sum;
        }
        workgroupBarrier();
    }
    if lane < across && inside {
        for (var r = 0u; r < p.radix; r++) {
            let share = saved_prob[weight(bc, r)];
            dlogits[logit(bc, r)] = share * (dlogits[logit(bc, r)] - mixed);
        }
    }
}
