// Tokens of each sequence, behind which padding is: appended with lib/mask.wgsl.
//
//   lengths [B], each at least 1

@group(0) @binding(6) var<storage, read> lengths: array<u32>;

fn keys_of(b: u32) -> u32 { return lengths[b]; }
