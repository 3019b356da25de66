// The product of two tiles of f16 by cooperative matrices, the matrix units of GPUs: what matmul_cooperative.wgsl and
// conv2d_cooperative.wgsl share. Sums are f32.
//
// The host appends (src/gpu/tune.rs) the shape of the matrices, `const CM = 16u;`, `CN` and `CK`, and their types mat_a, mat_b
// and mat_c; how many lanes a workgroup has, LANES; its tile of out, ROWS × COLS; and ROUNDS. A tile is made of blocks of
// 2 × 2 matrices, which the subgroups share out: subgroups of any size, and of sizes that only the driver knows, since each
// asks how many there are. With ROUNDS = 2 a subgroup takes a second block where they are fewer than blocks. A subgroup to
// which no block is left computes the last one once more, since matrices ask for uniform control flow, and its result is dropped.
//
// Tiles of operands pass through workgroup memory, where what crosses an edge is filled up: a matrix is loaded whole, and must
// not read past a buffer's end. Both lie along k there, so that lanes write and read several k at once.

const DEPTH = 32u;         // k of a tile
const PITCH = DEPTH + 8u;  // rows begin at multiples of 16 bytes, and eight of them on different banks
const ACROSS = COLS / (2u * CN);
const BLOCKS = ROWS / (2u * CM) * ACROSS;
const AREA = CM * CN;

var<workgroup> a_tile: array<f16, ROWS * PITCH>;
var<workgroup> b_tile: array<f16, COLS * PITCH>;
var<workgroup> sums: array<f32, (BLOCKS + 1u) * AREA>; // a matrix of each block, and one that is dropped
var<workgroup> subgroup_count: u32;

// The matrices of a subgroup's first block, and of its second.
var<private> s00: mat_c;
var<private> s01: mat_c;
var<private> s10: mat_c;
var<private> s11: mat_c;
var<private> t00: mat_c;
var<private> t01: mat_c;
var<private> t10: mat_c;
var<private> t11: mat_c;

// What a lane brings to a tile at a time: four rows, or columns, by four k.
struct Four { x: vec4<f16>, y: vec4<f16>, z: vec4<f16>, w: vec4<f16> }
const A_FOURS = (ROWS * DEPTH / 16u + LANES - 1u) / LANES;
const B_FOURS = (COLS * DEPTH / 16u + LANES - 1u) / LANES;

// Of its row, and of its k. Neighbouring lanes take neighbouring k.
fn row_of(i: u32) -> u32 { return i / (DEPTH / 4u) * 4u; }
fn k_of(i: u32) -> u32 { return i % (DEPTH / 4u) * 4u; }

fn turned(f: Four) -> Four {
    return Four(vec4(f.x.x, f.y.x, f.z.x, f.w.x), vec4(f.x.y, f.y.y, f.z.y, f.w.y),
                vec4(f.x.z, f.y.z, f.z.z, f.w.z), vec4(f.x.w, f.y.w, f.z.w, f.w.w));
}

// Zeros for k from `end` on, of four rows from `k` on.
fn without_tail(f: Four, k: u32, end: u32) -> Four {
    let inside = k + vec4u(0u, 1u, 2u, 3u) < vec4u(end);
    let none = vec4<f16>();
    return Four(select(none, f.x, inside), select(none, f.y, inside), select(none, f.z, inside), select(none, f.w, inside));
}

fn stage_a(i: u32, f: Four) {
    if i >= ROWS * DEPTH / 16u { return; } // there are more lanes
    let at = row_of(i) * PITCH + k_of(i);
    stage_a_row(at, f.x);
    stage_a_row(at + PITCH, f.y);
    stage_a_row(at + 2u * PITCH, f.z);
    stage_a_row(at + 3u * PITCH, f.w);
}
fn stage_a_row(at: u32, x: vec4<f16>) {
    a_tile[at] = x.x;
    a_tile[at + 1u] = x.y;
    a_tile[at + 2u] = x.z;
    a_tile[at + 3u] = x.w;
}
fn stage_b(i: u32, f: Four) {
    if i >= COLS * DEPTH / 16u { return; }
    let at = row_of(i) * PITCH + k_of(i);
    stage_b_row(at, f.x);
    stage_b_row(at + PITCH, f.y);
    stage_b_row(at + 2u * PITCH, f.z);
    stage_b_row(at + 3u * PITCH, f.w);
}
fn stage_b_row(at: u32, x: vec4<f16>) {
    b_tile[at] = x.x;
    b_tile[at + 1u] = x.y;
    b_tile[at + 2u] = x.z;
    b_tile[at + 3u] = x.w;
}

fn clear(lane: u32, subgroups: u32) {
    for (var i = lane; i < AREA; i += LANES) { sums[i] = 0.0; }
    if lane == 0u { subgroup_count = subgroups; }
    workgroupBarrier();
    s00 = coopLoadT<mat_c>(&sums[0], CN);
    s01 = coopLoadT<mat_c>(&sums[0], CN);
    s10 = coopLoadT<mat_c>(&sums[0], CN);
    s11 = coopLoadT<mat_c>(&sums[0], CN);
    if ROUNDS > 1u {
        t00 = coopLoadT<mat_c>(&sums[0], CN);
        t01 = coopLoadT<mat_c>(&sums[0], CN);
        t10 = coopLoadT<mat_c>(&sums[0], CN);
        t11 = coopLoadT<mat_c>(&sums[0], CN);
    }
}

// Whether subgroups have a second block.
fn has_second() -> bool { return ROUNDS > 1u && workgroupUniformLoad(&subgroup_count) < BLOCKS; }

// Adds the product of the staged tiles to a subgroup's first block,
fn multiply_first(subgroup: u32) {
    let block = min(subgroup, BLOCKS - 1u);
    let a = block / ACROSS * 2u * CM * PITCH;
    let b = block % ACROSS * 2u * CN * PITCH;
    for (var k = 0u; k < DEPTH; k += CK) {
        let a0 = coopLoadT<mat_a>(&a_tile[a + k], PITCH);
        let a1 = coopLoadT<mat_a>(&a_tile[a + CM * PITCH + k], PITCH);
        let b0 = coopLoad<mat_b>(&b_tile[b + k], PITCH);
        let b1 = coopLoad<mat_b>(&b_tile[b + CN * PITCH + k], PITCH);
        s00 = coopMultiplyAdd(a0, b0, s00);
        s01 = coopMultiplyAdd(a0, b1, s01);
        s10 = coopMultiplyAdd(a1, b0, s10);
        s11 = coopMultiplyAdd(a1, b1, s11);
    }
}

// and to its second.
fn multiply_second(subgroup: u32, subgroups: u32) {
    let block = min(subgroup + subgroups, BLOCKS - 1u);
    let a = block / ACROSS * 2u * CM * PITCH;
    let b = block % ACROSS * 2u * CN * PITCH;
    for (var k = 0u; k < DEPTH; k += CK) {
        let a0 = coopLoadT<mat_a>(&a_tile[a + k], PITCH);
        let a1 = coopLoadT<mat_a>(&a_tile[a + CM * PITCH + k], PITCH);
        let b0 = coopLoad<mat_b>(&b_tile[b + k], PITCH);
        let b1 = coopLoad<mat_b>(&b_tile[b + CN * PITCH + k], PITCH);
        t00 = coopMultiplyAdd(a0, b0, t00);
        t01 = coopMultiplyAdd(a0, b1, t01);
        t10 = coopMultiplyAdd(a1, b0, t10);
        t11 = coopMultiplyAdd(a1, b1, t11);
    }
}

// Leaves one matrix of each block in `sums`, the upper left one, the upper right one and so on; `twice` is has_second().
fn leave00(subgroup: u32, subgroups: u32, twice: bool) {
    workgroupBarrier(); // the last ones have been read by everyone
    coopStoreT(s00, &sums[min(subgroup, BLOCKS) * AREA], CN);
    if twice { coopStoreT(t00, &sums[min(subgroup + subgroups, BLOCKS) * AREA], CN); }
    workgroupBarrier();
}
fn leave01(subgroup: u32, subgroups: u32, twice: bool) {
    workgroupBarrier();
    coopStoreT(s01, &sums[min(subgroup, BLOCKS) * AREA], CN);
    if twice { coopStoreT(t01, &sums[min(subgroup + subgroups, BLOCKS) * AREA], CN); }
    workgroupBarrier();
}
fn leave10(subgroup: u32, subgroups: u32, twice: bool) {
    workgroupBarrier();
    coopStoreT(s10, &sums[min(subgroup, BLOCKS) * AREA], CN);
    if twice { coopStoreT(t10, &sums[min(subgroup + subgroups, BLOCKS) * AREA], CN); }
    workgroupBarrier();
}
fn leave11(subgroup: u32, subgroups: u32, twice: bool) {
    workgroupBarrier();
    coopStoreT(s11, &sums[min(subgroup, BLOCKS) * AREA], CN);
    if twice { coopStoreT(t11, &sums[min(subgroup + subgroups, BLOCKS) * AREA], CN); }
    workgroupBarrier();
}

// Four of the sums that were left, and their row and first column in the tile, if they are of the upper left matrices.
const LEFT = BLOCKS * AREA / 4u;
fn left(i: u32) -> vec4f { return vec4f(sums[4u * i], sums[4u * i + 1u], sums[4u * i + 2u], sums[4u * i + 3u]); }
fn left_at(i: u32) -> vec2u {
    let block = 4u * i / AREA;
    let within = 4u * i % AREA;
    return vec2u(block / ACROSS * 2u * CM + within / CN, block % ACROSS * 2u * CN + within % CN);
}
