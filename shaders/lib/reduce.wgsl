// The one reduction. Appended by the host to every shader that names it; needs `override WG`, a power of two.
// Every function is to be called by all lanes, gives the same value in every lane, and may be called again at once.

var<workgroup> reduce_scratch: array<f32, WG>;

fn reduce_sum(value: f32, lane: u32) -> f32 {
    reduce_scratch[lane] = value;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half /= 2u) {
        if lane < half { reduce_scratch[lane] += reduce_scratch[lane + half]; }
        workgroupBarrier();
    }
    return workgroupUniformLoad(&reduce_scratch[0]);
}

fn reduce_max(value: f32, lane: u32) -> f32 {
    reduce_scratch[lane] = value;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half /= 2u) {
        if lane < half { reduce_scratch[lane] = max(reduce_scratch[lane], reduce_scratch[lane + half]); }
        workgroupBarrier();
    }
    return workgroupUniformLoad(&reduce_scratch[0]);
}
