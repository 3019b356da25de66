// The product of four lanes of a subgroup, a quad, which share 8 rows of an operand and pass them round in registers: what
// matmul_subgroup.wgsl and conv2d_subgroup.wgsl share. Needs lib/lanes.wgsl.
//
// Every subgroup, of 4 lanes to 128, is made of quads, so neither their size nor whether it varies matters. Lanes 4i…4i + 3
// of a one-dimensional workgroup are quad i.

const SIDE = 64u;    // rows and columns of out that a workgroup has, 8 × 2 quads
const THREADS = 64u;

// Where a lane's part of out begins: 8 rows that are its quad's, and twice four columns, `n`… and `n + 16`…, its own.
struct Place { lane: u32, m: u32, n: u32 }

fn place_in(group: vec2u, thread: u32) -> Place {
    let lane = thread % 4u;
    return Place(lane, group.y * SIDE + thread / 8u * 8u, group.x * SIDE + thread / 4u % 2u * 32u + lane * 4u);
}

// Column i of a matrix is a row of out, its vector four columns.
struct Sums { low: mat4x4f, high: mat4x4f, low_right: mat4x4f, high_right: mat4x4f }

fn of_quad(x: vec4f) -> mat4x4f {
    return mat4x4f(quadBroadcast(x, 0u), quadBroadcast(x, 1u), quadBroadcast(x, 2u), quadBroadcast(x, 3u));
}

// sums + a · b over four k. `low` has the k of row i in column i, `high` of row 4 + i; `left` and `right` four columns of b at k
// in column k. A value that is passed round serves 8 multiply-adds.
fn multiply(sums: Sums, low: mat4x4f, high: mat4x4f, left: mat4x4f, right: mat4x4f) -> Sums {
    return Sums(multiply_add(sums.low, left, low), multiply_add(sums.high, left, high),
                multiply_add(sums.low_right, right, low), multiply_add(sums.high_right, right, high));
}
