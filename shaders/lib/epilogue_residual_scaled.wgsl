// Epilogue of a branch's last linear layer with a layer scale: out = residual + gamma · sum, and the sum itself for gamma's
// gradient.
//
//   residual   [m, n]     gamma   [n]     branch =   [m, n]

@group(0) @binding(4) var<storage, read> residual4: array<vec4f>;
@group(0) @binding(5) var<storage, read> gamma4: array<vec4f>;
@group(0) @binding(6) var<storage, read_write> branch4: array<vec4f>;

fn epilogue(sum: vec4f, i: u32, col: u32) -> vec4f {
    branch4[i] = sum;
    return residual4[i] + gamma4[col] * sum;
}
