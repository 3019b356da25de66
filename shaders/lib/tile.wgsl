// The product of two tiles that a workgroup stages in its memory, 16 k at a time: what matmul.wgsl and conv2d.wgsl share.
//
// The host appends `const TILE = 64u;` or 128, the rows and the columns of out that a workgroup has. Of its 2·TILE threads
// each has 8 rows and 4 columns (3 vec4f reads for 32 multiply-adds), or 8 × 8 with the large tile (4 reads for 64).

const TILE_K = 16u;
const THREADS = 2u * TILE;
const QUADS = TILE / 4u;
const STEPS = vec4u(0u, 1u, 2u, 3u);

// a's tile, then b's, each [16 k, QUADS quads of rows or columns]: 8 KiB, or 16 KiB with the large tile.
//
// Blocks of four k are spread over the banks, since neighbouring threads write them: two quads apart, which leaves addresses
// that differ by constants, or by an exclusive or where no room is left.
const BLOCK = TILE + select(0u, 2u, TILE == 64u);
const B_TILE = 4u * BLOCK;
var<workgroup> tile: array<vec4f, 8u * BLOCK>;

fn slot(k4: u32, quad: u32) -> u32 {
    if TILE == 64u { return k4 * BLOCK + quad; }
    return k4 * TILE + (quad ^ (k4 * 2u));
}

// Column i of `values` is k + i, its vector four rows of a or columns of b.
fn stage(is_b: bool, k4: u32, quad: u32, values: mat4x4f) {
    let start = select(0u, B_TILE, is_b) + slot(k4, quad);
    tile[start] = values[0];
    tile[start + QUADS] = values[1];
    tile[start + 2u * QUADS] = values[2];
    tile[start + 3u * QUADS] = values[3];
}

// Column i of a matrix is a row of out, its vector four columns. `low` has the rows from `first_row`, `high` those TILE/2
// further; the right ones, which only the large tile has, are 64 columns further.
struct Sums { low: mat4x4f, high: mat4x4f, low_right: mat4x4f, high_right: mat4x4f }

fn first_row(thread: u32) -> u32 { return thread / 16u * 4u; }
fn first_col(thread: u32) -> u32 { return thread % 16u * 4u; }

fn outer(rows: vec4f, cols: vec4f) -> mat4x4f {
    return mat4x4f(cols * rows.x, cols * rows.y, cols * rows.z, cols * rows.w);
}

fn multiply(before: Sums, thread: u32) -> Sums {
    var sums = before;
    for (var k4 = 0u; k4 < TILE_K / 4u; k4++) {
        let i = slot(k4, thread / 16u);
        let j = slot(k4, thread / 16u + QUADS / 2u);
        let c = B_TILE + slot(k4, thread % 16u);
        sums.low += outer(tile[i], tile[c]);
        sums.high += outer(tile[j], tile[c]);
        sums.low += outer(tile[i + QUADS], tile[c + QUADS]);
        sums.high += outer(tile[j + QUADS], tile[c + QUADS]);
        sums.low += outer(tile[i + 2u * QUADS], tile[c + 2u * QUADS]);
        sums.high += outer(tile[j + 2u * QUADS], tile[c + 2u * QUADS]);
        sums.low += outer(tile[i + 3u * QUADS], tile[c + 3u * QUADS]);
        sums.high += outer(tile[j + 3u * QUADS], tile[c + 3u * QUADS]);
        if TILE == 128u {
            let d = B_TILE + slot(k4, thread % 16u + 16u);
            sums.low_right += outer(tile[i], tile[d]);
            sums.high_right += outer(tile[j], tile[d]);
            sums.low_right += outer(tile[i + QUADS], tile[d + QUADS]);
            sums.high_right += outer(tile[j + QUADS], tile[d + QUADS]);
            sums.low_right += outer(tile[i + 2u * QUADS], tile[d + 2u * QUADS]);
            sums.high_right += outer(tile[j + 2u * QUADS], tile[d + 2u * QUADS]);
            sums.low_right += outer(tile[i + 3u * QUADS], tile[d + 3u * QUADS]);
            sums.high_right += outer(tile[j + 3u * QUADS], tile[d + 3u * QUADS]);
        }
    }
    return sums;
}
