#!/usr/bin/env python3
"""What the study's questions come to, by the rules of docs/study/dinov2.md, which were written before the runs.

    pip install scipy
    tools/study/decide.py runs/dinov2-letters/results.csv --method tpgm --against vanilla vanilla-gentle lp-ft l2-sp wise --margin 1

For each pair: the differences METHOD − rival with the same seed in percentage points, ID and OOD, mean and 95 % interval (Student's
t over seeds), the p of the OOD difference, and that after Holm's correction over the pairs. Then the verdict:

    yes        OOD: Holm's p is under 0.05 and the mean above 0; and ID: the interval lies above −MARGIN.
               "yes, small" if the OOD interval lies below +MARGIN
    no         OOD: the interval lies below +MARGIN; or ID: the interval lies below −MARGIN
    undecided  anything else

"no" means no gain of MARGIN points at equal ID accuracy; the method may still be as good as its rival.

With --differs the verdict is of another question: yes if the interval of the OOD or of the ID difference excludes 0, else no.
"""

import argparse
import csv
import itertools
import math
import statistics
import sys
from pathlib import Path

from scipy import stats


def scores(files, groups):
    """By method and seed: mean ID and OOD top-1 in %, each group of OOD sets counting once."""
    found = {}
    for file in files:
        with open(file, newline="", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                if row["seed"]:
                    sets = found.setdefault((row["method"], row["seed"]), {"id": {}, "ood": {}})
                    sets[row["kind"]].setdefault(row["set"], 100 * float(row["top1"]))
    out = {}
    for (method, seed), sets in found.items():
        grouped = [name for group in groups for name in group]
        parts = [statistics.mean(sets["ood"][name] for name in group) for group in groups]
        parts += [top1 for name, top1 in sets["ood"].items() if name not in grouped]
        out.setdefault(method, {})[seed] = (statistics.mean(sets["id"].values()), statistics.mean(parts))
    return out


def interval(values):
    """Mean, half of the 95 % interval, and the p of a mean of 0."""
    mean, n = statistics.mean(values), len(values)
    error = statistics.stdev(values) / math.sqrt(n)
    t = mean / error if error else (math.inf if mean else 0.0)
    return mean, stats.t.ppf(0.975, n - 1) * error, 2 * stats.t.sf(abs(t), n - 1)


def holm(ps):
    """Holm's adjusted p-values."""
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = largest
    return adjusted


def differs(id_, ood):
    """Whether one of the intervals, mean and half, excludes 0."""
    return "yes" if any(abs(mean) > half for mean, half in (id_, ood)) else "no"


def verdict(id_, ood, adjusted, margin):
    """The answer by the means and half intervals of both differences, and the adjusted p of the OOD difference."""
    if adjusted < 0.05 and ood[0] > 0 and id_[0] - id_[1] > -margin:
        return "yes" if ood[0] + ood[1] >= margin else "yes, small"
    return "no" if ood[0] + ood[1] < margin or id_[0] + id_[1] < -margin else "undecided"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("results", type=Path, nargs="+", help="results.csv of `tpgm compare`; of a method in two, the first counts")
    parser.add_argument("--method", nargs="+", default=["tpgm"])
    parser.add_argument("--against", nargs="+", required=True, metavar="METHOD")
    parser.add_argument("--margin", type=float, default=1.0, help="percentage points")
    parser.add_argument("--group", action="append", default=[], metavar="A,B", help="OOD sets that count once; may be repeated")
    parser.add_argument("--differs", action="store_true", help="ask whether methods differ, in whichever direction")
    args = parser.parse_args()
    by_method = scores(args.results, [group.split(",") for group in args.group])
    missing = [name for name in [*args.method, *args.against] if name not in by_method]
    if missing:
        sys.exit(f"decide.py: no results by seed of {', '.join(missing)}")
    rows = []
    for mine, rival in itertools.product(args.method, args.against):
        seeds = sorted(by_method[mine].keys() & by_method[rival].keys())
        if len(seeds) < 2:
            sys.exit(f"decide.py: {mine} and {rival} have {len(seeds)} seeds in common: two are the least")
        each = [[by_method[mine][s][k] - by_method[rival][s][k] for s in seeds] for k in (0, 1)]
        rows.append((f"{mine} − {rival}", len(seeds), interval(each[0]), interval(each[1])))
    print("| difference | seeds | ID | OOD | p | p, Holm | verdict |\n| --- | --- | --- | --- | --- | --- | --- |")
    for (pair, n, (id_, id_half, _), (ood, half, p)), adjusted in zip(rows, holm([row[3][2] for row in rows])):
        own = (id_, id_half), (ood, half)
        answer = differs(*own) if args.differs else verdict(*own, adjusted, args.margin)
        print(f"| {pair} | {n} | {id_:+.1f} ± {id_half:.1f} | {ood:+.1f} ± {half:.1f} | {p:.3f} | {adjusted:.3f} | {answer} |")


if __name__ == "__main__":
    main()
