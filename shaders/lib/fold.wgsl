// The index of a workgroup in a one-dimensional grid that the host folded into x and y, because x alone would have
// passed 65,535. The last row may run past the end: the caller checks its range.
fn fold_index(group: vec3u, groups: vec3u) -> u32 {
    return group.x + group.y * groups.x;
}
