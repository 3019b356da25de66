// Dropout (Srivastava et al. 2014) and stochastic depth (Huang et al. 2016): values, or whole images, are dropped at random, and the
// rest is scaled so that the expectation stays. The backward pass is the same with the gradient as its input: it draws the same numbers.
//
//   out = kept ? scale · inp : 0          kept where a random word is at least `threshold`
//
//   inp, out [batch, per]     random [4]: both words of the seed, the step, the first image's place in the batch of the step
//
//   entry      grid                              drops
//   values     fold(⌈batch·per/(WG·PER_LANE)⌉)   each value by a word of its own
//   images     fold(⌈batch·per/(WG·PER_LANE)⌉)   each image by one word
//
// Words come from Philox4x32-10 (Salmon et al. 2011), a function of a key and a counter without any state: the key is the seed, the counter
// is (four values of an image, layer, image of the step, step). So they do not depend on how a batch is cut or which device draws them.
//
// The host appends `alias elem = vec4f;`, or f32 where the values of an image are no multiple of 4, and `factors` of these; `len` and `per` count
// them. `alias stored` is what inp and out hold, elem or the f16 of that.

struct Params { len: u32, per: u32, layer: u32, threshold: u32, scale: f32 }
var<immediate> p: Params;

override WG: u32 = 64u;
override PER_LANE: u32 = 16u;

@group(0) @binding(0) var<storage, read> inp: array<stored>;
@group(0) @binding(1) var<storage, read> random: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<stored>;

// The 64 bits of a product: high word, low word.
fn product(a: u32, b: u32) -> vec2u {
    let a0 = a & 0xffffu;
    let a1 = a >> 16u;
    let b0 = b & 0xffffu;
    let b1 = b >> 16u;
    let low = a0 * b0;
    let left = a1 * b0;
    let right = a0 * b1;
    let middle = (low >> 16u) + (left & 0xffffu) + (right & 0xffffu);
    return vec2u(a1 * b1 + (left >> 16u) + (right >> 16u) + (middle >> 16u), a * b);
}

fn philox(counter: vec4u, seed: vec2u) -> vec4u {
    var c = counter;
    var key = seed;
    for (var round = 0u; round < 10u; round++) {
        let x = product(0xD2511F53u, c.x);
        let z = product(0xCD9E8D57u, c.z);
        c = vec4u(z.x ^ c.y ^ key.x, z.y, x.x ^ c.w ^ key.y, x.y);
        key += vec2u(0x9E3779B9u, 0xBB67AE85u);
    }
    return c;
}

// The four words of `place` of an image.
fn words(place: u32, image: u32) -> vec4u {
    return philox(vec4u(place, p.layer, random[3] + image, random[2]), vec2u(random[0], random[1]));
}

fn factor(word: u32) -> f32 {
    return select(0.0, p.scale, word >= p.threshold);
}

@compute @workgroup_size(WG)
fn values(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    var image = first / p.per;
    var place = first % p.per;
    for (var i = first; i < min(first + WG * PER_LANE, p.len); i += WG) {
        out[i] = stored(factors(place, image) * elem(inp[i]));
        place += WG;
        while place >= p.per {
            place -= p.per;
            image += 1u;
        }
    }
}

@compute @workgroup_size(WG)
fn images(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = fold_index(group, groups) * WG * PER_LANE + lane;
    var image = first / p.per;
    var place = first % p.per;
    var kept = factor(words(0u, image).x);
    for (var i = first; i < min(first + WG * PER_LANE, p.len); i += WG) {
        out[i] = stored(kept * elem(inp[i]));
        place += WG;
        if place >= p.per {
            while place >= p.per {
                place -= p.per;
                image += 1u;
            }
            kept = factor(words(0u, image).x);
        }
    }
}
