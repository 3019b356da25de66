// Eight values in four words of 64 bits, for CPU adapters (see elem.wgsl). lavapipe loads and stores lane by lane and word by
// word, each with a check of its own, and half as many words took two thirds of the time. A GPU gains nothing: its widest
// access is vec4f.
alias stored = vec4<u64>;
alias elem = mat2x4f;
fn unpack(x: stored) -> elem {
    return elem(vec4f(halves(x.x), halves(x.y)), vec4f(halves(x.z), halves(x.w)));
}
fn pack(x: elem) -> stored {
    return stored(word(x[0].x, x[0].y), word(x[0].z, x[0].w), word(x[1].x, x[1].y), word(x[1].z, x[1].w));
}
fn magnitude(x: elem) -> elem { return elem(abs(x[0]), abs(x[1])); }
fn product(x: elem, y: elem) -> elem { return elem(x[0] * y[0], x[1] * y[1]); }
fn total(x: elem) -> f32 {
    let sum = x[0] + x[1];
    return sum.x + sum.y + (sum.z + sum.w);
}
