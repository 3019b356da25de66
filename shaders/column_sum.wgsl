// Sum over the rows of a matrix: a bias's gradient, and the last stage of every other reduction over rows.
//
//   out[c] += Σ_r inp[r, c]          inp [rows, cols], out [cols]
//   out[r, c] = inp[c]               its reverse, `spread`: one row for all
//
// The host appends `alias stored = f32;` or f16: what inp holds. Sums are f32.
//
//   entry     grid                       writes
//   forward   [⌈cols/WG⌉, 1, 1]          out +=      (micro-batches accumulate)
//   partial   [⌈cols/WG⌉, chunks, 1]     out =       [chunks, cols], each the sum of `chunk` rows; `forward` over it ends the job
//   spread    [⌈cols/WG⌉, rows, 1]       out =       inp [cols], out [rows, cols]
//
// Rows are added in order and without atomics: the same bits every time. Two stages, because one lane per column leaves
// an adapter idle where rows are many and columns few.
//
// The host appends `alias elem = vec4f;`, or f32 where columns are no multiple of 4; `cols` counts these. `alias stored` is what
// inp holds: elem, or the f16 of that.

struct Params { rows: u32, cols: u32, chunk: u32 }
var<immediate> p: Params;

override WG: u32 = 64u;

@group(0) @binding(0) var<storage, read> inp: array<stored>;
@group(0) @binding(1) var<storage, read_write> out: array<elem>;

fn sum_rows(c: u32, first: u32, end: u32) -> elem {
    var sum = elem();
    for (var r = first; r < end; r++) { sum += elem(inp[r * p.cols + c]); }
    return sum;
}

@compute @workgroup_size(WG)
fn forward(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= p.cols { return; }
    out[id.x] += sum_rows(id.x, 0u, p.rows);
}

@compute @workgroup_size(WG)
fn partial(@builtin(global_invocation_id) id: vec3u, @builtin(workgroup_id) group: vec3u) {
    if id.x >= p.cols { return; }
    let first = group.y * p.chunk;
    out[group.y * p.cols + id.x] = sum_rows(id.x, first, min(first + p.chunk, p.rows));
}

@compute @workgroup_size(WG)
fn spread(@builtin(global_invocation_id) id: vec3u, @builtin(workgroup_id) group: vec3u) {
    if id.x >= p.cols { return; }
    out[group.y * p.cols + id.x] = elem(inp[id.x]);
}
