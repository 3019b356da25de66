// Epilogue of backward_input behind an activation: out = sum · gelu'(hidden), where the sum is the gradient of the
// activation's output. Needs lib/gelu.wgsl.
//
//   hidden   [m, n], as forward saved it

@group(0) @binding(4) var<storage, read> hidden4: array<vec4<operand>>;

fn epilogue(sum: vec4f, i: u32, col: u32) -> vec4f { return sum * gelu_derivative(vec4f(hidden4[i])); }
