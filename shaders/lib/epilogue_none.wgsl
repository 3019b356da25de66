// Epilogue of a matrix product that writes the sum as it is.

fn epilogue(sum: vec4f, i: u32, col: u32) -> vec4f { return sum; }
