"""Writes src/checkpoint/torchvision_table.jsonl: how each of torchvision's classification weights wants its images.

    pip install torch==2.15.0 torchvision==0.29.2
    python tools/zoo/make_torchvision_table.py

One line per file, sorted: [name of the file without its ending, architecture, crop, resize, interpolation, mean, std]; crop
and resize in pixels.
"""

import json
from pathlib import Path

import torchvision
from torchvision import models
from torchvision.transforms._presets import ImageClassification

PINNED = "0.29.2"
TABLE = Path(__file__).parents[2] / "src/checkpoint/torchvision_table.jsonl"


def main():
    assert torchvision.__version__.split("+")[0] == PINNED, f"torchvision {torchvision.__version__}, not {PINNED}"
    rows = {}
    for name in models.list_models(module=models):
        for weights in models.get_model_weights(name):
            transforms = weights.transforms()
            assert isinstance(transforms, ImageClassification), weights
            stem = weights.url.split("/")[-1].rsplit(".", 1)[0]
            [crop], [resize], by = transforms.crop_size, transforms.resize_size, transforms.interpolation.value
            row = [stem, name, crop, resize, by, transforms.mean, transforms.std]
            assert rows.setdefault(stem, row) == row, weights
    TABLE.write_text("".join(json.dumps(rows[stem], separators=(",", ":")) + "\n" for stem in sorted(rows)))
    print(f"{TABLE.name}: {len(rows)} files, {TABLE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
