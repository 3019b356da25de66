// Words of 64 bits, for CPU adapters: two f32 in each, the first in the low half.
fn halves(x: u64) -> vec2f { return vec2f(bitcast<f32>(u32(x)), bitcast<f32>(u32(x >> 32u))); }
fn word(x: f32, y: f32) -> u64 { return u64(bitcast<u32>(x)) | (u64(bitcast<u32>(y)) << 32u); }
