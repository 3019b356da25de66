"""Reads a run's event files with the tensorboard package and compares them with the run's records.

    pip install tensorboard==2.20.0
    python tools/check_tensorboard.py RUN

It exits with 1 if a figure differs, is missing, or is there twice for one step.
"""

import json
import sys
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def main(run):
    board = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "histograms": 0})
    board.Reload()
    tags = board.Tags()
    expected = {}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = max((line["step"] + 1 for line in lines if "train_loss" in line), default=0)
    for line in lines:
        group, step = "train", line["step"] + 1
        if "eval" in line:
            group, step = line["eval"] + (f"/{line['model']}" if line.get("final") else ""), line["step"]
        elif "wise_alpha" in line or "lines_alpha" in line:
            group, step = "wise" if "wise_alpha" in line else "lines", line["step"]
        elif "train_loss" not in line:
            step += steps
        for key, value in line.items():
            if isinstance(value, float):
                expected.setdefault(f"{group}/{key.removeprefix('train_')}", []).append((step, value))
    wrong = 0
    for tag, points in expected.items():
        found = [(e.step, e.value) for e in board.Scalars(tag)] if tag in tags["scalars"] else []
        same = [step for step, _ in found] == [step for step, _ in points] and np.allclose(
            [value for _, value in found], np.float32([value for _, value in points]), rtol=1e-6
        )
        wrong += not same
        print("ok   " if same else "WRONG", tag, len(points), "" if same else f"{found[:3]} … for {points[:3]} …")
    for tag in tags["histograms"]:
        events = board.Histograms(tag)
        same = all(sum(e.histogram_value.bucket) == e.histogram_value.num for e in events)
        in_order = all(a.step < b.step for a, b in zip(events, events[1:]))
        wrong += not (same and in_order)
        print("ok   " if same and in_order else "WRONG", tag, len(events))
    images = [(tag, [(e.width, e.height) for e in board.Images(tag)]) for tag in tags["images"]]
    print("images", images)
    others = sorted(set(tags["scalars"]) - set(expected))
    print("also", others)
    return wrong > 0 or not images or not tags["histograms"]


sys.exit(main(Path(sys.argv[1])))
