"""Loads models that `tpgm export` wrote into the programs that they are for, and compares logits with tpgm's.

    cargo test --release --test families        # saves a small random model of every family to target/tmp/families
    cargo build --release
    python tools/export/verify.py onnx target/tmp/families
    python tools/export/verify.py hf target/tmp/families            # or timm, or torchvision
    python tools/export/verify.py make published                    # random weights in published architectures, then onnx, hf ...
    python tools/export/verify.py preprocess assets/vit-emoji.safetensors

    pip install torch==2.15.0 torchvision==0.29.2 timm==1.0.31 transformers==5.24.0 safetensors==0.8.0 onnx==1.23.2 onnxruntime==1.32.0

`onnx`: onnx.checker passes, and onnxruntime's logits for three images and for one are within 1e-4 of the largest. `hf`, `timm` and
`torchvision`: the folder loads without edits and strictly, with the same logits; a model that the library does not have is refused,
which is listed and counts as no failure. `preprocess`: the graph that resizes, crops and normalises by itself against `tpgm predict`,
on images that the script draws. Prints a line per model; the exit code is 1 where one fails.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

os.environ.setdefault("HF_HUB_OFFLINE", "1")

TOLERANCE = 1e-4


class Refused(Exception):
    """tpgm says that the library has no such network."""


def tpgm(args, *command):
    """Runs tpgm; returns what it prints."""
    done = subprocess.run([args.tpgm, "--quiet", *map(str, command)], capture_output=True, text=True)
    if done.returncode:
        raise (Refused if "is not written for" in done.stderr else RuntimeError)(done.stderr.strip())
    return done.stdout


def relative(got, want):
    """The largest error as a share of the largest logit."""
    assert got.shape == want.shape, (got.shape, want.shape)
    return float(np.abs(got - want).max() / np.abs(want).max())


def session(path):
    """A model in onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def onnx_error(args, home, want, folder):
    """The error of an ONNX file, and how large it is."""
    import onnx

    path = Path(folder) / "model.onnx"
    size = want["images"].shape[2]
    tpgm(args, "export", "--model", home, "--format", "onnx", "--out", path, "--image-size", size, "--weights", args.weights)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    net = session(path)
    images = want["images"][:, : net.get_inputs()[0].shape[1]]
    (three,), (one,) = net.run(None, {"images": images[:3]}), net.run(None, {"images": images[3:]})
    return max(relative(three, want["logits"][:3]), relative(one, want["logits"][3:])), f"{len(model.graph.node)} nodes"


def library_error(args, home, want, folder):
    """The error of a folder in its library, and the class that loads it."""
    import torch

    folder = Path(folder) / "model"
    tpgm(args, "export", "--model", home, "--format", args.what, "--out", folder, "--image-size", want["images"].shape[2])
    images = torch.from_numpy(want["images"])
    if args.what == "hf":
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        net, told = AutoModelForImageClassification.from_pretrained(folder, output_loading_info=True)
        left = {key: value for key, value in told.items() if value}
        assert not left, left
        assert len(net.config.id2label) == want["logits"].shape[1]
        assert AutoImageProcessor.from_pretrained(folder).image_mean is not None
        images = images[:, : getattr(net.config, "num_channels", 3)]
        predict = lambda x: net.eval().float()(x).logits
    elif args.what == "timm":
        import timm

        try:
            net = timm.create_model(f"local-dir:{folder}", pretrained=True).eval().float()
        except Exception as reason:
            # Small models have arguments that their architecture's function does not take, whoever wrote them.
            try:
                timm.create_model(f"local-dir:{home}", pretrained=True)
            except Exception:
                raise Refused("is not written for timm: it does not load the source itself either") from reason
            raise
        assert net.pretrained_cfg["input_size"][1] == want["images"].shape[2]
        images = images[:, : net.pretrained_cfg["input_size"][0]]
        predict = net
    else:
        # The lines of the card, as a reader would copy them.
        lines = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)[1]
        if "ARCHITECTURE" in lines:
            raise Refused("is not written for torchvision: nobody says the architecture; the file keeps its names")
        known = {}
        exec(lines.replace('"model/', f'"{folder}/'), known)
        net = predict = known["model"]
    with torch.no_grad():
        return relative(predict(images).numpy(), want["logits"]), type(net).__name__


def families(args):
    """Every model below the folder."""
    homes = sorted(path.parent for path in Path(args.path).glob("*/logits.safetensors"))
    homes = [home for home in homes if not args.only or home.name in args.only]
    failed, refused = 0, 0
    for home in homes:
        want = load_file(home / "logits.safetensors")
        try:
            with tempfile.TemporaryDirectory() as folder:
                error, more = (onnx_error if args.what == "onnx" else library_error)(args, home, want, folder)
            good = error < args.tolerance
            print(f"{home.name:28} {error:.1e} {'ok' if good else 'FAILED'}  {more}")
        except Refused as reason:
            good, refused = True, refused + 1
            print(f"{home.name:28} refused  {str(reason).split('is not written for ')[1]}")
        except Exception as reason:
            good = False
            print(f"{home.name:28} FAILED  {type(reason).__name__}: {str(reason)[:400]}")
        failed += not good
    print(f"{len(homes)} models: {len(homes) - failed - refused} agree, {refused} refused, {failed} failed")
    return failed > 0 or not homes


TORCHVISION = ["resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "convnext_tiny"]
TIMM = {
    "resnet18": 64, "resnet50": 64, "resnext50_32x4d": 64, "vit_tiny_patch16_224": 224, "vit_small_patch14_reg4_dinov2": 70,
    "convnext_atto": 64, "convnextv2_atto": 64, "efficientnet_b0": 64, "mobilenetv3_large_100": 64, "regnety_002": 64,
    "resnetv2_50": 64, "eva02_tiny_patch14_224": 70, "beit_base_patch16_224": 224, "legacy_seresnet18": 64, "seresnet50": 64,
    "resnest14d": 64, "mixnet_s": 64, "vit_tiny_r_s16_p8_224": 64,
}


def make(args):
    """Homes of models with published architectures and random weights, for the other checks."""
    import json

    import timm
    import torch
    import torchvision
    import transformers
    from safetensors.torch import save_file

    def write(name, net, size, config=None):
        torch.manual_seed(1)
        for key, value in net.state_dict().items():
            if value.is_floating_point() and value.dim() == 1 and "running_var" not in key:
                value.add_(0.1 * torch.randn_like(value))
        images = torch.randn(4, 3, size, size)
        with torch.no_grad():
            logits = net.eval()(images)
        home = Path(args.path) / name
        home.mkdir(parents=True, exist_ok=True)
        logits = getattr(logits, "logits", logits)
        if config is None and hasattr(net, "save_pretrained"):
            net.save_pretrained(home)
        else:
            save_file({key: value.contiguous() for key, value in net.state_dict().items()}, home / "model.safetensors")
        if config:
            (home / "config.json").write_text(json.dumps(config))
        save_file({"images": images, "logits": logits.contiguous()}, home / "logits.safetensors")

    torch.manual_seed(0)
    for name in TORCHVISION:
        write(f"torchvision_{name}", torchvision.models.get_model(name, num_classes=7), 64)
    for name, size in TIMM.items():
        sized = {"img_size": size} if name.startswith(("vit", "eva", "beit")) else {}
        net = timm.create_model(name, num_classes=7, **sized)
        cfg = {"input_size": [3, size, size], "num_classes": 7, "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 0.9, "interpolation": "bicubic"}
        write(f"timm_{name}", net, size, {"architecture": name, "num_classes": 7, "model_args": sized, "pretrained_cfg": cfg})
    small = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3, "num_labels": 7, "image_size": 64}
    write("hf_vit", transformers.ViTForImageClassification(transformers.ViTConfig(intermediate_size=192, **small)), 64)
    write("hf_dinov2", transformers.Dinov2ForImageClassification(transformers.Dinov2Config(patch_size=16, **small)), 64)
    write("hf_resnet", transformers.ResNetForImageClassification(transformers.ResNetConfig(num_labels=7)), 64)
    write("hf_convnext", transformers.ConvNextForImageClassification(transformers.ConvNextConfig(num_labels=7)), 64)
    return False


def preprocess(args):
    """The graph with preprocessing, for every filter and crop, on images of several shapes."""
    from PIL import Image

    rng, worst = np.random.default_rng(0), 0.0
    with tempfile.TemporaryDirectory() as folder:
        images, path, logits = Path(folder) / "images", Path(folder) / "model.onnx", Path(folder) / "logits.safetensors"
        images.mkdir()
        for i, (height, width) in enumerate([(90, 120), (333, 517), (64, 64), (512, 300), (48, 200), (1000, 700)]):
            blobs = Image.fromarray(rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8))
            pixels = np.asarray(blobs.resize((width, height), Image.BICUBIC)).astype(int)
            pixels = np.clip(pixels + rng.integers(-40, 40, pixels.shape), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(images / f"{i}.png")
        pixels = [np.asarray(Image.open(file).convert("RGB")) for file in sorted(images.glob("*.png"))]
        for interpolation in ("bilinear", "bicubic"):
            for mode in ("center", "center-floor", "squash", "squash-floor"):
                for share in (1.0, 0.875):
                    flags = ["--interpolation", interpolation, "--crop-mode", mode, "--crop-pct", share]
                    tpgm(args, "export", "--model", args.path, "--format", "onnx", "--out", path, "--with-preprocessing", *flags)
                    tpgm(args, "predict", "--model", args.path, "--data", images, "--logits", logits, *flags)
                    net, want = session(path), load_file(logits)["logits"]
                    got = np.concatenate([net.run(None, {"pixels": image[None]})[0] for image in pixels])
                    two = net.run(None, {"pixels": np.stack([pixels[0]] * 2)})[0]
                    error = max(relative(got, want), relative(two, np.stack([want[0]] * 2)))
                    same = (got.argmax(1) == want.argmax(1)).sum()
                    worst = max(worst, error)
                    print(f"{interpolation:9} {mode:13} {share:5}  logits {error:.1e}, {same} of {len(want)} classes the same")
    print(f"worst {worst:.1e}")
    return worst > 1e-2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["onnx", "hf", "timm", "torchvision", "make", "preprocess"])
    parser.add_argument("path", help="a folder of models with their logits, or one model")
    parser.add_argument("--tpgm", default="target/release/tpgm")
    parser.add_argument("--weights", default="f32", help="of ONNX files")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE)
    parser.add_argument("--only", nargs="*", help="these models alone")
    args = parser.parse_args()
    sys.exit({"make": make, "preprocess": preprocess}.get(args.what, families)(args))


if __name__ == "__main__":
    main()
