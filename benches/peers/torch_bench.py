#!/usr/bin/env python3
"""The workloads of `tpgm bench` in PyTorch, as a peer of benches/compare. It needs torch alone.

    torch_bench.py --threads 2 matmul_1024 vit_tiny_train
    torch_bench.py --device cuda --precision tf32 --seconds 2 resnet50_train
    torch_bench.py --device cuda -                 # workloads are read from stdin, one on each line

It prints one line for each workload on stdout, `workload median_ms min_ms`; everything else goes to stderr. Every repeat ends when the
device is done. Weights and images are random; images and labels lie on the device, so what `tpgm` spends on moving them
counts against `tpgm`.

f32 is f32 throughout (no TF32, no bf16 inside); tf32 lets products and convolutions round their operands to it (CUDA); bf16
is autocast of forward pass and loss, and products of bf16 matrices.
"""

import argparse
import contextlib
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F


class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        batch, tokens, dim = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).reshape(batch, tokens, dim))


class Block(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Vit(nn.Module):
    """timm's layout: a class token, learned positions, norms before the layers."""

    def __init__(self, size, patch, dim, depth, heads, classes):
        super().__init__()
        self.patch = nn.Conv2d(3, dim, patch, patch)
        self.cls = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.pos = nn.Parameter(torch.randn(1, (size // patch) ** 2 + 1, dim) * 0.02)
        self.blocks = nn.Sequential(*[Block(dim, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, classes)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.pos
        return self.head(self.norm(self.blocks(x))[:, 0])


class Residual(nn.Module):
    """torchvision's basic block (expansion 1) or bottleneck (expansion 4)."""

    def __init__(self, inp, inner, stride, expansion):
        super().__init__()
        out = inner * expansion
        if expansion == 1:
            shapes = [(inp, inner, 3, stride), (inner, out, 3, 1)]
        else:
            shapes = [(inp, inner, 1, 1), (inner, inner, 3, stride), (inner, out, 1, 1)]
        self.convs = nn.ModuleList(nn.Conv2d(i, o, k, s, k // 2, bias=False) for i, o, k, s in shapes)
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for _, o, _, _ in shapes)
        shortcut = [nn.Conv2d(inp, out, 1, stride, bias=False), nn.BatchNorm2d(out)]
        self.shortcut = nn.Sequential(*shortcut) if stride != 1 or inp != out else None

    def forward(self, x):
        y = x
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms)):
            y = norm(conv(F.relu(y) if i else y))
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(nn.Module):
    def __init__(self, depths, width, expansion, classes, small):
        super().__init__()
        stem = nn.Conv2d(3, width, 3, 1, 1, bias=False) if small else nn.Conv2d(3, width, 7, 2, 3, bias=False)
        layers = [stem, nn.BatchNorm2d(width), nn.ReLU()] + ([] if small else [nn.MaxPool2d(3, 2, 1)])
        channels = width
        for stage, depth in enumerate(depths):
            for i in range(depth):
                inner = width << stage
                layers.append(Residual(channels, inner, 2 if stage and i == 0 else 1, expansion))
                channels = inner * expansion
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels, classes)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


# Name, model, parameters, images per batch, pixels per side, classes, learning rate: those of src/bench/models.rs.
NETS = {
    "vit_tiny": (lambda: Vit(224, 16, 192, 12, 3, 1000), 5_717_416, 4, 224, 1000, 1e-4),
    "vit_small": (lambda: Vit(224, 16, 384, 12, 6, 1000), 22_050_664, 32, 224, 1000, 1e-4),
    "vit_base": (lambda: Vit(224, 16, 768, 12, 12, 1000), 86_567_656, 16, 224, 1000, 1e-4),
    "vit32": (lambda: Vit(32, 4, 64, 4, 4, 10), 208_074, 64, 32, 10, 1e-3),
    "resnet18": (lambda: ResNet([2, 2, 2, 2], 64, 1, 1000, False), 11_689_512, 4, 224, 1000, 1e-2),
    "resnet50": (lambda: ResNet([3, 4, 6, 3], 64, 4, 1000, False), 25_557_032, 16, 224, 1000, 1e-2),
    "resnet20": (lambda: ResNet([3, 3, 3], 16, 1, 10, True), 272_474, 64, 32, 10, 1e-2),
}

PRODUCTS = {
    "matmul_512": (512, 512, 512),
    "matmul_1024": (1024, 1024, 1024),
    "matmul_2048": (2048, 2048, 2048),
    "matmul_4096": (4096, 4096, 4096),
    "matmul_vit": (8 * 197, 768, 3072),
}


def say(text):
    print(text, file=sys.stderr, flush=True)


class Bench:
    def __init__(self, args):
        self.args = args
        torch.manual_seed(0)
        if args.threads:
            torch.set_num_threads(args.threads)
        torch.set_float32_matmul_precision("high" if args.precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = args.precision == "tf32"
        self.bf16 = args.precision == "bf16"

    def autocast(self):
        return torch.autocast(self.args.device, dtype=torch.bfloat16) if self.bf16 else contextlib.nullcontext()

    def wait(self):
        if self.args.device != "cpu":
            getattr(torch, self.args.device).synchronize()

    def time(self, name, f):
        """Repeats after a warm-up until the seconds are over, three at least."""
        for _ in range(self.args.warmup):
            f()
        self.wait()
        times, start = [], time.perf_counter()
        while len(times) < 3 or (len(times) < 1000 and time.perf_counter() - start < self.args.seconds):
            begun = time.perf_counter()
            f()
            self.wait()
            times.append((time.perf_counter() - begun) * 1e3)
        times.sort()
        n = len(times)
        print(f"{name} {(times[(n - 1) // 2] + times[n // 2]) / 2:.4f} {times[0]:.4f}", flush=True)
        say(f"{name}: {n} repeats")

    def tensor(self, *shape):
        return torch.rand(*shape, device=self.args.device) * 2 - 1

    def model(self, net):
        make, parameters, batch, size, classes, lr = NETS[net]
        model = make()
        count = sum(p.numel() for p in model.parameters())
        assert count == parameters, f"{net} has {count} parameters here, not {parameters}"
        model = model.to(self.args.device)
        labels = (torch.arange(batch) * 7919 % classes).to(self.args.device)
        return model, self.tensor(batch, 3, size, size), labels, lr

    def infer(self, name, net):
        model, images, _, _ = self.model(net)
        run = torch.compile(model.eval()) if self.args.compile else model.eval()
        with torch.inference_mode(), self.autocast():
            self.time(name, lambda: run(images))

    def train(self, name, net):
        model, images, labels, lr = self.model(net)
        if net.startswith("vit"):
            optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
        else:
            optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
        run = torch.compile(model.train()) if self.args.compile else model.train()
        last = None

        def step():
            nonlocal last
            optimizer.zero_grad(set_to_none=True)
            with self.autocast():
                last = F.cross_entropy(run(images), labels)
            last.backward()
            optimizer.step()

        self.time(name, step)
        assert torch.isfinite(last), f"{name}: the last loss is {last}"

    def product(self, name):
        m, k, n = PRODUCTS[name]
        a, b = self.tensor(m, k), self.tensor(k, n)
        if self.bf16:
            a, b = a.bfloat16(), b.bfloat16()
        with torch.inference_mode():
            self.time(name, lambda: a @ b)

    def run(self, name):
        net, _, kind = name.rpartition("_")
        if name in PRODUCTS:
            self.product(name)
        elif net in NETS and kind in ("infer", "train"):
            getattr(self, kind)(name, net)
        elif name == "launch":
            a = self.tensor(64)
            self.time(name, lambda: a + 1.0)
        elif name == "add_16m":
            a, b = self.tensor(1 << 24), self.tensor(1 << 24)
            out = torch.empty_like(a)
            self.time(name, lambda: torch.add(a, b, out=out))
        else:
            names = list(PRODUCTS) + [f"{net}_{kind}" for net in NETS for kind in ("infer", "train")]
            raise ValueError(f"unknown workload {name}: there are launch, add_16m, {', '.join(names)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", metavar="WORKLOAD", nargs="+", help="or - for stdin")
    parser.add_argument("--device", choices=["cpu", "cuda", "mps", "xpu"], default="cpu")
    parser.add_argument("--precision", choices=["f32", "tf32", "bf16"], default="f32")
    parser.add_argument("--threads", metavar="N", type=int, help="of the CPU [default: PyTorch's own]")
    parser.add_argument("--seconds", metavar="S", type=float, default=5.0, help="for each workload [default: 5]")
    parser.add_argument("--warmup", metavar="N", type=int, default=3, help="repeats that don't count [default: 3]")
    parser.add_argument("--compile", action="store_true", help="models through torch.compile")
    args = parser.parse_args()
    bench = Bench(args)
    if args.device == "cuda":
        say(f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}")
    say(f"torch {torch.__version__}, {args.device}, {args.precision}, {torch.get_num_threads()} threads")
    if args.workloads != ["-"]:
        for name in args.workloads:
            bench.run(name)
        return
    # Whoever asks over stdin waits for a line for each name: one that fails must not end the others.
    for line in sys.stdin:
        name = line.strip()
        try:
            bench.run(name)
        except (RuntimeError, ValueError, AssertionError) as error:
            text = " ".join(str(error).split())
            print(f"{name} failed: {text}", flush=True)
        if args.device != "cpu":
            getattr(torch, args.device).empty_cache()


if __name__ == "__main__":
    main()
