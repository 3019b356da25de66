// The row tables that mars.wgsl describes, for all that measure the drift of a tensor: mars, ftp, spd. The file declares WG,
// SHARED and, for `row_total`, the partial sums `sums`.
struct Chunk { start: u32, len: u32, row: u32, tensor: u32 }
struct Row { first: u32, count: u32 }
struct Tensor { first: u32, count: u32, excluded: u32 }
struct Radius { gamma: f32, m: f32, v: f32, t: u32, max_norm: f32, started: u32 }
struct Entry { gamma: f32, max_norm: f32, live: u32, gradient: f32 }

const UNMOVED = 1e-8;

fn partials_of_chunk() -> u32 { return select(WG, 1u, SHARED); }

// The sum of every `stride`-th partial sum of a row from `lane` on. All lanes share the row of a tensor that has one, which may
// be long; else a lane takes whole rows.
fn row_total(row: Row, lane: u32, stride: u32) -> f32 {
    let parts = partials_of_chunk();
    var sum = 0.0;
    for (var i = row.first * parts + lane; i < (row.first + row.count) * parts; i += stride) { sum += sums[i]; }
    return sum;
}

// 1 − β^t from ln β, without cancellation: 1 − 0.999 in f32 alone is off by 1e-5.
fn one_minus_power(log_beta: f32, t: u32) -> f32 {
    let x = log_beta * f32(t);
    if x < -0.5 { return 1.0 - exp(x); }
    return -x * (1.0 + x / 2.0 * (1.0 + x / 3.0 * (1.0 + x / 4.0 * (1.0 + x / 5.0 * (1.0 + x / 6.0 * (1.0 + x / 7.0))))));
}

// Adam's step number `count` on a radius: lr, β 0.9 and 0.999, eps 1e-8.
fn radius_step(radius: Radius, gradient: f32, count: u32, lr: f32) -> Radius {
    let m = 0.9 * radius.m + 0.1 * gradient;
    let v = 0.999 * radius.v + 0.001 * gradient * gradient;
    let m_hat = m / one_minus_power(-0.10536051565782628, count);
    let v_hat = v / one_minus_power(-0.0010005003335835335, count);
    let gamma = radius.gamma - lr * m_hat / (sqrt(v_hat) + 1e-8);
    return Radius(gamma, m, v, count, radius.max_norm, radius.started);
}
