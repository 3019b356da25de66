#!/usr/bin/env python3
"""Fine-tunes a DINOv2 of transformers plainly, in PyTorch: a checkpoint from elsewhere, for `tpgm project`.

    pip install torch transformers pillow safetensors
    tools/study/finetune_torch.py --model runs/dinov2-small --train runs/letters/train --size 70 --seed 0 --out runs/torch-0

The settings are those of the study's runs: AdamW, a rise over the first tenth of the steps, then a cosine, gradients clipped to 1.
--train is a folder with one folder per class, or a list of `path label` lines. The classifier is one linear layer on the class token,
which `tpgm` reads as `head.weight` and `head.bias`. OUT gets model.safetensors, config.json and log.csv.
"""

import argparse
import csv
import json
import math
import random
import time
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from transformers import Dinov2Model

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def listed(path):
    """Paths and labels of a folder of class folders, or of a list file."""
    if path.is_dir():
        return [(file, file.parent.name) for file in sorted(path.glob("*/*.png"))]
    rows = [line.rsplit(" ", 1) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(path.parent / file, label) for file, label in rows]


def pixels(path, size):
    """The image as [3, size, size], normalised; squashed to size by bicubic interpolation."""
    with Image.open(path) as image:
        image = image.convert("RGB").resize((size, size), Image.BICUBIC)
    values = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(size, size, 3) / 255
    return ((values - MEAN) / STD).permute(2, 0, 1)


class Classifier(nn.Module):
    """A linear layer on the class token after the last norm."""

    def __init__(self, model, classes):
        super().__init__()
        self.tower = Dinov2Model.from_pretrained(model)
        self.head = nn.Linear(self.tower.config.hidden_size, classes)
        nn.init.zeros_(self.head.bias)
        nn.init.normal_(self.head.weight, std=0.01)

    def forward(self, images):
        return self.head(self.tower(images).pooler_output)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", type=Path, required=True, help="folder with model.safetensors and config.json")
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=70)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--clip-norm", type=float, default=1.0)
    parser.add_argument("--flip", action="store_true", help="flip half of the images left to right")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    order = random.Random(args.seed)
    rows = listed(args.train)
    classes = sorted({label for _, label in rows})
    images = torch.stack([pixels(path, args.size) for path, _ in rows])
    labels = torch.tensor([classes.index(label) for _, label in rows])
    model = Classifier(args.model, len(classes)).train()
    # As usual, biases, norms and tokens don't decay.
    flat = [p for n, p in model.named_parameters() if p.ndim < 2 or n.endswith(("_token", "_embeddings"))]
    rest = [p for p in model.parameters() if not any(p is q for q in flat)]
    groups = [{"params": rest, "weight_decay": args.weight_decay}, {"params": flat, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.lr)
    warm = max(1, args.steps // 10)
    factor = lambda t: (t + 1) / warm if t < warm else 0.5 * (1 + math.cos(math.pi * (t - warm) / (args.steps - warm)))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    args.out.mkdir(parents=True, exist_ok=True)
    started, queue = time.monotonic(), []
    with open(args.out / "log.csv", "w", newline="") as file:
        log = csv.writer(file, lineterminator="\n")
        log.writerow(["step", "loss", "seconds"])
        for step in range(args.steps):
            if len(queue) < args.batch_size:  # an epoch's last batch is left out if it is not full
                queue = order.sample(range(len(rows)), len(rows))
            chosen, queue = queue[: args.batch_size], queue[args.batch_size :]
            batch = images[chosen]
            if args.flip:
                flipped = torch.tensor([order.random() < 0.5 for _ in chosen])
                batch = torch.where(flipped[:, None, None, None], batch.flip(-1), batch)
            loss = nn.functional.cross_entropy(model(batch), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), args.clip_norm)
            optimizer.step()
            schedule.step()
            log.writerow([step + 1, f"{loss.item():.6f}", f"{time.monotonic() - started:.1f}"])
            file.flush()

    weights = {name: value.detach().contiguous() for name, value in model.tower.state_dict().items()}
    weights |= {f"head.{name}": value.detach().contiguous() for name, value in model.head.state_dict().items()}
    # What tpgm asks of a file with its own classes: their names, in the order of the outputs.
    save_file(weights, args.out / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((args.model / "config.json").read_text())
    config |= {"id2label": {str(i): name for i, name in enumerate(classes)}, "label2id": {n: i for i, n in enumerate(classes)}}
    (args.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    print(f"{args.out}: {args.steps} steps, the last loss {loss.item():.4f}, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
