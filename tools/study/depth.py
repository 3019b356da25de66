#!/usr/bin/env python3
"""Are lower layers held more tightly? Radii and drift of TPGM by block, from the folders of `tpgm compare`.

    pip install scipy
    tools/study/depth.py runs/dinov2-letters/letters

By block, means over seeds of the median over the block's matrices: the radius after the last step (one that Adam left below 0 lets
nothing move and counts as 0); the drift (the largest sum of a row's |Δ|), and that of plain fine-tuning at its chosen rate with the
same seed. `held` is the ratio of both drifts. Below stands Spearman's ρ between block and radius, and between block and ratio, mean
and 95 % interval over seeds.
"""

import csv
import re
import statistics
import sys
from pathlib import Path

from decide import interval
from scipy import stats

BLOCK = re.compile(r"(?:layer|blocks)\.(\d+)\..*\.weight$")


def by_block(file, column):
    """Block to the median of a column over its matrices, at the last step of the file."""
    with open(file, newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    found = {}
    for row in rows:
        block = BLOCK.search(row["tensor"])
        if block and "norm" not in row["tensor"] and row["step"] == rows[-1]["step"]:
            found.setdefault(int(block[1]), []).append(max(float(row[column]), 0.0))
    return {block: statistics.median(values) for block, values in sorted(found.items())}


def main():
    folder = Path(sys.argv[1])

    def runs(method):
        """Seed to run, of the grid's chosen point: the one that has all seeds."""
        points = {}
        for file in folder.glob(f"{method}/**/seed-*/drift.csv"):
            points.setdefault(file.parent.parent, {})[file.parent.name] = file.parent
        return max(points.values(), key=len, default={})

    tpgm, plain = runs("tpgm"), runs("vanilla")
    seeds = sorted(tpgm.keys() & plain.keys())
    if len(seeds) < 2:
        sys.exit(f"depth.py: {folder} has {len(seeds)} seeds of tpgm and vanilla in common: two are the least")
    radius = [by_block(tpgm[seed] / "radii.csv", "radius") for seed in seeds]
    drift = [by_block(tpgm[seed] / "drift.csv", "mars_drift") for seed in seeds]
    free = [by_block(plain[seed] / "drift.csv", "mars_drift") for seed in seeds]
    held = [{block: mine[block] / other[block] for block in mine} for mine, other in zip(drift, free)]
    blocks = list(radius[0])
    print("| block | radius | drift | drift, plain | held |\n| --- | --- | --- | --- | --- |")
    for block in blocks:
        row = [statistics.mean(part[block] for part in each) for each in (radius, drift, free, held)]
        print(f"| {block + 1} | " + " | ".join(f"{value:.3g}" for value in row) + " |")
    for name, each in (("radius", radius), ("held", held)):
        mean, half, _ = interval([stats.spearmanr(blocks, [part[block] for block in blocks]).statistic for part in each])
        print(f"\nSpearman's ρ of block and {name}: {mean:+.2f} ± {half:.2f}")


if __name__ == "__main__":
    main()
