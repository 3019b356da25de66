// Lanes of a workgroup side by side along `p.cols` columns, and in several rows where there are fewer columns than lanes.

// A lane's column, its first row, and the step to its next row; a step of 0 where there is nothing to do.
struct Seat { col: u32, sub: u32, step: u32 }

fn seat(group: vec3u, lane: u32) -> Seat {
    let across = min(WG, p.cols);
    let sub = lane / across;
    let col = group.x * across + lane % across;
    return Seat(col, sub, select(0u, WG / across, col < p.cols && sub < WG / across));
}
