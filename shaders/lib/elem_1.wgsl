// A value alone: for rows that are no multiple of four (see elem_4.wgsl).
alias stored = f32;
alias elem = f32;
fn unpack(x: stored) -> elem { return x; }
fn pack(x: elem) -> stored { return x; }
fn magnitude(x: elem) -> elem { return abs(x); }
fn product(x: elem, y: elem) -> elem { return x * y; }
fn total(x: elem) -> f32 { return x; }
