#!/usr/bin/env python3
"""Which image size keeps the features' accuracy? Zero-training k-NN accuracy of every test set at several sizes, as a table.

    tools/study/knn.py --model runs/dinov2-small --train runs/letters/train --data sans=runs/letters/sans serif=runs/letters/serif \\
        --out runs/knn-letters

Runs `tpgm eval --knn 20` once per size (--sizes). OUT/SIZE.json has what it said; a size with one is not run again. With --every N
each set is thinned to every N-th image of each class, by lists that are written to OUT. Seconds are those of the whole program,
reading and compiling shaders included; per image over all images that pass through the model.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

SIZES = [28, 42, 56, 70, 98, 112]


def rows(path):
    """Paths and labels of a folder of class folders, or of a list file."""
    if path.is_dir():
        return [(file, file.parent.name) for file in sorted(path.glob("*/*.png"))]
    lines = [line.rsplit(" ", 1) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(path.parent / file, label) for file, label in lines]


def thinned(path, name, every, out):
    """A list of every N-th image of each class, and how many they are."""
    seen, kept = {}, []
    for file, label in rows(path):
        if seen.get(label, 0) % every == 0:
            kept.append(f"{os.path.relpath(file, out)} {label}\n")
        seen[label] = seen.get(label, 0) + 1
    place = out / f"{name}.txt"
    place.write_text("".join(kept), encoding="utf-8")
    return place, len(kept)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--tpgm", default="tpgm", help="the program")
    parser.add_argument("--model", required=True)
    parser.add_argument("--train", type=Path, required=True, help="the images that vote")
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=PATH")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--every", type=int, default=1, metavar="N")
    parser.add_argument("--mean", nargs="+", metavar="NAME", help="the sets whose mean is shown (default: all)")
    parser.add_argument("--nice", type=int, default=0, help="added to the program's niceness")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    train, images = thinned(args.train, "voters", args.every, args.out)
    sets = {}
    for word in args.data:
        name, path = word.split("=", 1)
        sets[name], count = thinned(Path(path), name, args.every, args.out)
        images += count
    for size in args.sizes:
        file = args.out / f"{size}.json"
        if file.is_file():
            continue
        command = ["nice", "-n", str(args.nice), args.tpgm, "eval", "--model", args.model, "--image-size", str(size), "--crop-pct", "1"]
        command += ["--knn", "20", "--train", str(train), "--json", "--quiet", "--no-tune"]
        command += [word for name, path in sets.items() for word in ("--data", f"{name}={path}")]
        started, cpu = time.monotonic(), os.times()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"knn.py: {' '.join(command)} ended with {done.returncode}")
        wall, used = time.monotonic() - started, os.times()
        seconds = {"wall": wall, "cpu": used.children_user + used.children_system - cpu.children_user - cpu.children_system}
        part = file.with_suffix(".part")
        part.write_text(json.dumps({"images": images, "seconds": seconds, "eval": json.loads(done.stdout)}, indent=1))
        os.replace(part, file)
    print("| pixels | " + " | ".join(sets) + " | mean | CPU ms per image |")
    print("| --- " * (len(sets) + 3) + "|")
    for size in args.sizes:
        found = json.loads((args.out / f"{size}.json").read_text())
        top1 = {entry["data"]: 100 * entry["top1"] for entry in found["eval"]}
        cells = " | ".join(f"{top1[name]:.1f}" for name in sets)
        mean = statistics.mean(top1[name] for name in args.mean or sets)
        print(f"| {size} | {cells} | {mean:.1f} | {1000 * found['seconds']['cpu'] / found['images']:.0f} |")


if __name__ == "__main__":
    main()
