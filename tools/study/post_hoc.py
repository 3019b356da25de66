#!/usr/bin/env python3
"""Does a projection help checkpoints that PyTorch fine-tuned? The table of what `tools/study/run` left in a folder.

    pip install scipy
    tools/study/post_hoc.py runs/dinov2-torch STEPS SEED...

Rows: as fine-tuned, in %, and what the projections in both norms change, in percentage points, paired by seed, with 95 % intervals. p is
that of the OOD difference, after Holm's correction over both norms; the verdict follows by the rule of `decide.py` at a margin of 1 point.
"""

import json
import statistics
import sys
from pathlib import Path

from decide import holm, interval, verdict

ID = "sans"
MARGIN = 1.0  # percentage points


def scores(file):
    """ID and OOD top-1 in %, and each set's."""
    sets = {entry["data"]: 100 * entry["top1"] for entry in json.loads(file.read_text())}
    return sets[ID], statistics.mean(top1 for name, top1 in sets.items() if name != ID)


def main():
    folder, steps, seeds = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    found = {kind: [scores(folder / f"{steps}-{seed}{kind}.json") for seed in seeds] for kind in ("", "-l2", "-mars")}
    changes = {kind: [[a - b for a, b in zip(*pair)] for pair in zip(found[kind], found[""])] for kind in ("-l2", "-mars")}
    if len(seeds) < 2:
        sys.exit("post_hoc.py: two seeds are the least for intervals")
    print("| checkpoint | seeds | ID | OOD | p, Holm | verdict |\n| --- | --- | --- | --- | --- | --- |")
    means = " | ".join(f"{statistics.mean(each):.1f}" for each in zip(*found[""]))
    print(f"| as fine-tuned | {len(seeds)} | {means} | | |")
    parts = {kind: [interval(values) for values in zip(*rows)] for kind, rows in changes.items()}
    for (kind, (id_, ood)), p in zip(parts.items(), holm([part[1][2] for part in parts.values()])):
        answer = verdict(id_[:2], ood[:2], p, MARGIN)
        print(f"| projected, {kind[1:]} | {len(seeds)} | {id_[0]:+.1f} ± {id_[1]:.1f} | {ood[0]:+.1f} ± {ood[1]:.1f} | {p:.3f} | {answer} |")


if __name__ == "__main__":
    main()
