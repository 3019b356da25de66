// What a lane takes of a row at a time, for shaders that measure drift row by row: `stored` in an arena, `elem` to compute with,
// and what WGSL's operators lack for one of the widths. One of elem_1, elem_4 and elem_8 is appended.
alias stored = vec4f;
alias elem = vec4f;
fn unpack(x: stored) -> elem { return x; }
fn pack(x: elem) -> stored { return x; }
fn magnitude(x: elem) -> elem { return abs(x); }
fn product(x: elem, y: elem) -> elem { return x * y; }
fn total(x: elem) -> f32 { return x.x + x.y + (x.z + x.w); }
