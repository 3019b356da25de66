// Which keys a query sees: appended to attention shaders for texts.
//
//   CAUSAL: keys up to the query alone.   keys_of(b): keys that count in sequence `b`; those behind are padding (lib/lengths.wgsl)
//
// The host appends `const CAUSAL` and `keys_of`. The first key is always seen, so that every sum has a term.

fn seen(b: u32, query: vec4u, key: vec4u) -> vec4<bool> {
    let counts = key < vec4u(keys_of(b));
    if CAUSAL { return counts & (key <= query); }
    return counts;
}

// Scores of hidden keys: exp of them is zero whatever is subtracted.
fn shown(s: vec4f, b: u32, query: vec4u, key: vec4u) -> vec4f { return select(vec4f(-3.0e38), s, seen(b, query, key)); }
