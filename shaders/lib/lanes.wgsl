// What each of eight lanes holds, for all of them, by subgroup broadcasts: what the direct products share, and of which
// lib/quads.wgsl takes multiply_add and STEPS. The lane of a broadcast must be a constant expression, and a function's argument
// is none.

fn from_lane0(x: mat4x4f) -> mat4x4f {
    return mat4x4f(subgroupBroadcast(x[0], 0u), subgroupBroadcast(x[1], 0u), subgroupBroadcast(x[2], 0u), subgroupBroadcast(x[3], 0u));
}
fn from_lane1(x: mat4x4f) -> mat4x4f {
    return mat4x4f(subgroupBroadcast(x[0], 1u), subgroupBroadcast(x[1], 1u), subgroupBroadcast(x[2], 1u), subgroupBroadcast(x[3], 1u));
}
fn from_lane2(x: mat4x4f) -> mat4x4f {
    return mat4x4f(subgroupBroadcast(x[0], 2u), subgroupBroadcast(x[1], 2u), subgroupBroadcast(x[2], 2u), subgroupBroadcast(x[3], 2u));
}
fn from_lane3(x: mat4x4f) -> mat4x4f {
    return mat4x4f(subgroupBroadcast(x[0], 3u), subgroupBroadcast(x[1], 3u), subgroupBroadcast(x[2], 3u), subgroupBroadcast(x[3], 3u));
}
fn from_lane4(x: mat4x4f) -> mat4x4f {
    return mat4x4f(subgroupBroadcast(x[0], 4u), subgroupBroadcast(x[1], 4u), subgroupBroadcast(x[2], 4u), subgroupBroadcast(x[3], 4u));
}
fn from_lane5(x: mat4x4f) -> mat4x4f {
    return mat4x4f(subgroupBroadcast(x[0], 5u), subgroupBroadcast(x[1], 5u), subgroupBroadcast(x[2], 5u), subgroupBroadcast(x[3], 5u));
}
fn from_lane6(x: mat4x4f) -> mat4x4f {
    return mat4x4f(subgroupBroadcast(x[0], 6u), subgroupBroadcast(x[1], 6u), subgroupBroadcast(x[2], 6u), subgroupBroadcast(x[3], 6u));
}
fn from_lane7(x: mat4x4f) -> mat4x4f {
    return mat4x4f(subgroupBroadcast(x[0], 7u), subgroupBroadcast(x[1], 7u), subgroupBroadcast(x[2], 7u), subgroupBroadcast(x[3], 7u));
}

// sum + b · a. Term by term it ran 6 to 10 % faster on lavapipe than the language's own product and sum of matrices.
fn multiply_add(sum: mat4x4f, b: mat4x4f, a: mat4x4f) -> mat4x4f {
    return mat4x4f(column(sum[0], b, a[0]), column(sum[1], b, a[1]), column(sum[2], b, a[2]), column(sum[3], b, a[3]));
}
fn column(sum: vec4f, b: mat4x4f, a: vec4f) -> vec4f {
    return fma(b[3], vec4f(a.w), fma(b[2], vec4f(a.z), fma(b[1], vec4f(a.y), fma(b[0], vec4f(a.x), sum))));
}

// Tile (x, y) of a workgroup: down bands of BAND tiles of rows, so that the operands' panels are still in the cache when
// they come round again. Along the columns alone, matmul's backward_input at 1024³ ran at 30 instead of 40 GFLOP/s.
fn place_in_bands(group: vec3u, count: vec3u) -> vec2u {
    let i = group.y * count.x + group.x;
    let band = i / (BAND * count.x);
    let j = i % (BAND * count.x);
    let height = min(BAND, count.y - band * BAND);
    return vec2u(j / height, band * BAND + j % height);
}

const BAND = 4u;
const STEPS = vec4u(0u, 1u, 2u, 3u);
