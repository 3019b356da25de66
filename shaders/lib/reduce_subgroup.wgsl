// lib/reduce.wgsl by subgroup operations: two barriers instead of a tree of them, or none. Takes its place where the host
// appends `const ONE_SUBGROUP = …;`: true if a workgroup is no larger than the adapter's smallest subgroup.
//
// Right for subgroups of any size, of several sizes, and whatever lanes they are made of: the first lane of each leaves its
// subgroup's sum, the others nothing, and then every subgroup adds all of that up, each lane its share.

var<workgroup> reduce_scratch: array<f32, WG>;

// A lane's place among those of its subgroup, and how many they are.
fn reduce_place() -> vec2u { return vec2u(subgroupExclusiveAdd(1u), subgroupAdd(1u)); }

fn reduce_sum(value: f32, lane: u32) -> f32 {
    if ONE_SUBGROUP { return subgroupAdd(value); }
    workgroupBarrier(); // the last reduction has been read by everyone
    let place = reduce_place();
    let own = subgroupAdd(value);
    reduce_scratch[lane] = select(0.0, own, place.x == 0u);
    workgroupBarrier();
    var sum = 0.0;
    for (var i = place.x; i < WG; i += place.y) { sum += reduce_scratch[i]; }
    return subgroupAdd(sum);
}

fn reduce_max(value: f32, lane: u32) -> f32 {
    if ONE_SUBGROUP { return subgroupMax(value); }
    workgroupBarrier(); // as in reduce_sum
    let place = reduce_place();
    reduce_scratch[lane] = subgroupMax(value); // in every lane: there is no number below all others to leave
    workgroupBarrier();
    var largest = reduce_scratch[lane];
    for (var i = place.x; i < WG; i += place.y) { largest = max(largest, reduce_scratch[i]); }
    return subgroupMax(largest);
}
