// The bias of a score that BEiT learns for each offset on the grid of patches (Bao et al. 2022): appended to attention shaders.
//
//   relative [(2G − 1)² + 3, H]: offsets row by row, then class token to patch, patch to class token, class token to itself
//
// Tokens are a class token and G·G patches, G = p.grid.

@group(0) @binding(6) var<storage, read> relative: array<f32>;

fn relative_index(query: u32, key: u32) -> u32 {
    let side = 2u * p.grid - 1u;
    if query == 0u { return side * side + select(0u, 2u, key == 0u); }
    if key == 0u { return side * side + 1u; }
    let q = vec2u((query - 1u) / p.grid, (query - 1u) % p.grid);
    let k = vec2u((key - 1u) / p.grid, (key - 1u) % p.grid);
    return (q.x + p.grid - 1u - k.x) * side + q.y + p.grid - 1u - k.y;
}

// Of tokens past the end, the last one's.
fn bias_of(head: u32, query: u32, key: u32) -> f32 {
    let last_one = p.tokens - 1u;
    return relative[relative_index(min(query, last_one), min(key, last_one)) * p.heads + head];
}
