// The end of a convolution's product: what conv2d.wgsl and conv2d_subgroup.wgsl share. Column i of `quad` is row `row` + i, its
// vector the channels of quad `col`; values past an edge are not stored.

fn store(quad: mat4x4f, row: u32, col: u32) {
    if col >= p.dst_c4 { return; }
    store_row(quad[0], row, col);
    store_row(quad[1], row + 1u, col);
    store_row(quad[2], row + 2u, col);
    store_row(quad[3], row + 3u, col);
}
fn store_row(sum: vec4f, row: u32, col: u32) {
    if row >= p.batch * p.rows_h * p.rows_w { return; }
    let image = row / (p.rows_h * p.rows_w);
    let y = row / p.rows_w % p.rows_h * tap_step() + dst_y();
    let x = row % p.rows_w * tap_step() + dst_x();
    let i = ((image * p.dst_h + y) * p.dst_w + x) * p.dst_c4 + col;
    var before = vec4f();
    if ACCUMULATE { before = vec4f(dst[i]); }
    dst[i] = vec4<stored>(before + sum);
}

fn store_partial(quad: mat4x4f, start: u32, row: u32, col: u32) {
    // Rows come in fours, as the channels do.
    if col >= p.dst_c4 || row >= kernel() * kernel() * p.src_c4 * 4u { return; }
    let i = (start + row) * p.dst_c4 + col;
    partial[i] = quad[0];
    partial[i + p.dst_c4] = quad[1];
    partial[i + 2u * p.dst_c4] = quad[2];
    partial[i + 3u * p.dst_c4] = quad[3];
}
