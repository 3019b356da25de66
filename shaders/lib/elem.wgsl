// What a lane takes of a row at a time, for shaders that measure drift row by row: `stored` in an arena, `elem` to compute with,
// and what WGSL's operators lack for elem_8.wgsl, which takes this file's place there. The host appends `elem`, f32 or vec4f,
// and `total`.
alias stored = elem;
fn unpack(x: stored) -> elem { return x; }
fn pack(x: elem) -> stored { return x; }
fn magnitude(x: elem) -> elem { return abs(x); }
fn product(x: elem, y: elem) -> elem { return x * y; }
