// Epilogue of a branch's last linear layer: out = residual + sum.
//
//   residual   [m, n]

@group(0) @binding(4) var<storage, read> residual4: array<vec4f>;

fn epilogue(sum: vec4f, i: u32, col: u32) -> vec4f { return residual4[i] + sum; }
