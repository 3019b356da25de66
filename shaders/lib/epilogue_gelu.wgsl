// Epilogue of a linear layer in front of an activation: out = gelu(sum), and the sum itself for backward. Needs lib/gelu.wgsl.
//
//   hidden =   [m, n], of the operands' type

@group(0) @binding(4) var<storage, read_write> hidden4: array<vec4<operand>>;

fn epilogue(sum: vec4f, i: u32, col: u32) -> vec4f {
    hidden4[i] = vec4<operand>(sum);
    return gelu(sum);
}
