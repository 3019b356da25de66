"""How much of what people publish loads, and whether it is understood: every pre-trained tag of timm and of OpenCLIP, and every
classification weight of torchvision.

    pip install torch==2.15.0 torchvision==0.29.2 timm==1.0.31 open_clip_torch==3.3.0 safetensors==0.8.0
    export TPGM=target/release/tpgm
    python tools/survey/survey.py timm [PREFIX ...] > timm.jsonl
    python tools/survey/survey.py open_clip > open_clip.jsonl
    python tools/survey/survey.py torchvision > torchvision.jsonl
    python tools/survey/survey.py table timm.jsonl open_clip.jsonl torchvision.jsonl      # the table of docs/checkpoints.md
    python tools/survey/survey.py logits timm.jsonl [PREFIX ...] > logits.jsonl
    python tools/survey/survey.py arguments > arguments.jsonl

Nothing is downloaded. A model is made on PyTorch's `meta` device; its file has the real header, the right length and no content,
and the library's own configuration stands beside it. `tpgm inspect` is right if it reads the file and says the same as the
library's own module of heads, eps, activation, pooling and preprocessing. `logits` takes one right tag for each structure, with
random weights and few blocks, and compares the logits of `tpgm predict` for three images with timm's. `arguments` changes one
argument of a network after the other: each change is computed as timm computes it, or refused.
"""

import collections
import json
import logging
import os
import re
import struct
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

import torch

TPGM = os.environ.get("TPGM", "tpgm")
DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.int32: "I32",
          torch.bool: "BOOL", torch.uint8: "U8"}
ACTIVATIONS = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu", "SiLU": "silu"}


def write_sparse(tensors, path):
    """A safetensors file with these names, types and shapes, whose content is a hole."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in sorted(tensors.items()):
        size = tensor.numel() * tensor.element_size()
        header[name] = dict(dtype=DTYPES[tensor.dtype], shape=list(tensor.shape), data_offsets=[at, at + size])
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)


def inspect(path):
    """What `tpgm inspect` says: its JSON, or the error."""
    run = subprocess.run([TPGM, "inspect", path, "--json"], capture_output=True, text=True, timeout=600)
    if run.returncode:
        return dict(error=run.stderr.strip().replace(str(path), "").splitlines()[-1][:600])
    return json.loads(run.stdout)


def activation(module):
    """An activation's name, as tpgm spells it."""
    name = type(module).__name__
    return ACTIVATIONS.get("GELUTanh" if getattr(module, "approximate", "") == "tanh" else name)


def compare(said, want):
    """The facts in which two descriptions contradict each other; None is not told."""
    def same(a, b):
        if isinstance(b, (list, tuple)):
            return all(abs(x - y) < 1e-6 for x, y in zip(a, b, strict=True))
        return abs(a - b) < 1e-9 if isinstance(b, float) else a == b
    known = [key for key in want if want[key] is not None and said.get(key) is not None]
    return [f"{key} {said[key]} is {want[key]}" for key in known if not same(said[key], want[key])]


def transformer_facts(blocks, attention, mlp):
    """Of a list of blocks."""
    block = blocks[0]
    norms = {x.eps for x in block.modules() if isinstance(getattr(x, "eps", None), float)}
    return dict(heads=attention(block).num_heads, activation=activation(getattr(mlp(block), "act", None)),
                eps=norms.pop() if len(norms) == 1 else None)


def convolutional_facts(model):
    """What leaves no tensor in a network of convolutions: other activations, anti-aliasing, another stem pool, stride."""
    kinds = collections.Counter(type(x).__name__ for x in model.modules())
    odd = [k for k in kinds if re.search("Blur|SiLU|GELU|LeakyReLU|Swish|GroupNorm|Attn|Squeeze|Eca", k)]
    return dict(odd=", ".join(sorted(odd)) or "nothing")


def timm_facts(model):
    """What timm's own module is made of."""
    from timm.data import resolve_model_data_config
    data = resolve_model_data_config(model)
    facts = dict(mean=data["mean"], std=data["std"], crop_mode=data["crop_mode"], crop_pct=float(data["crop_pct"]),
                 interpolation=data["interpolation"], image_size=data["input_size"][1])
    if hasattr(model, "blocks") and hasattr(model.blocks[0], "attn"):
        facts |= transformer_facts(model.blocks, lambda b: b.attn, lambda b: getattr(b, "mlp", None))
        facts["pool"] = {"token": "cls", "avg": "mean", "map": "attention"}.get(model.global_pool, model.global_pool)
        # Of one tag the two disagree: the images are those that the model takes.
        facts["image_size"] = model.patch_embed.img_size[0]
        facts["tokens"] = model.patch_embed.num_patches + model.num_prefix_tokens
    elif type(model).__name__ == "ResNet":
        facts |= convolutional_facts(model)
        pools = [type(x).__name__ for x in model.maxpool.modules() if not list(x.children())]
        facts["stem_pool"], facts["stride"] = pools[-1], model.feature_info[-1]["reduction"]
    return facts


def said_facts(told):
    """What tpgm says, under the same names."""
    config, facts = told["config"], dict(told["preprocess"])
    facts |= {key: config.get(key) for key in ("heads", "activation", "eps", "pool")}
    facts["tokens"] = told.get("tokens")
    gates = dict(swiglu="silu", geglu="gelu")
    facts["activation"] = gates.get(facts["activation"], facts["activation"])
    if "stages" in config:
        # What the network of this name has; whatever else the module has is a difference.
        blur = config.get("blur")
        parts = dict(BlurPool2d=blur, EcaModule="neighbours" in json.dumps(config), GroupNorm=config.get("norm_groups"),
                     SplitAttn='"radix"' in json.dumps(config))
        pool = "AvgPool2d" if config.get("anti_alias") else "ReLU" if config.get("stem_pool_conv") else "MaxPool2d"
        odd = ", ".join(name for name, there in parts.items() if there) or "nothing"
        facts |= dict(odd=odd, stem_pool="BlurPool2d" if blur else pool, stride=32, eps=None)
    return facts


def result(tag, module, told, facts):
    """A line of the survey."""
    out = dict(tag=tag, module=module)
    if "error" in told:
        return out | dict(kind="refused", error=told["error"])
    wrong = compare(said_facts(told), facts())
    return out | (dict(kind="differs", differs=wrong) if wrong else dict(kind="right"))


def on_meta(build):
    """A model without content, or with, where it computes something while it is built."""
    try:
        with torch.device("meta"):
            return build()
    except Exception:
        return build()


def build_timm(tag):
    import timm
    return on_meta(lambda: timm.create_model(tag, pretrained=False))


def survey_timm(folder, prefixes):
    import timm
    from timm.models._hub import save_config_for_hf
    from timm.models._registry import _model_to_module
    for tag in timm.list_pretrained():
        if prefixes and not tag.startswith(tuple(prefixes)):
            continue
        model = build_timm(tag)
        write_sparse(model.state_dict(), folder / "model.safetensors")
        save_config_for_hf(model, folder / "config.json")
        yield result(tag, _model_to_module[tag.split(".")[0]], inspect(folder), lambda: timm_facts(model))


def open_clip_facts(visual, preprocess):
    facts = dict(mean=preprocess.mean, std=preprocess.std, crop_pct=1.0,
                 interpolation=preprocess.interpolation, image_size=torch.nn.modules.utils._pair(visual.image_size)[0],
                 crop_mode=dict(shortest="center", squash="squash", longest="longest")[preprocess.resize_mode])
    if hasattr(visual, "trunk"):
        return timm_facts(visual.trunk) | facts
    if hasattr(visual, "transformer"):
        facts |= transformer_facts(visual.transformer.resblocks, lambda b: b.attn, lambda b: None)
        facts["activation"] = activation(visual.transformer.resblocks[0].mlp.gelu)
        facts["pool"] = {"tok": "cls", "avg": "mean"}.get(visual.pool_type, visual.pool_type)
    return facts


def survey_open_clip(folder, prefixes):
    import open_clip
    from open_clip.factory import get_model_config
    from open_clip.model import _build_vision_tower
    from open_clip.pretrained import get_pretrained_cfg
    from open_clip.transform import PreprocessCfg
    for name, tag in open_clip.list_pretrained():
        if prefixes and not name.startswith(tuple(prefixes)):
            continue
        model_cfg, published = get_model_config(name), get_pretrained_cfg(name, tag)
        if published.get("quick_gelu"):
            model_cfg["quick_gelu"] = True
        keys = ("mean", "std", "interpolation", "resize_mode")
        preprocess = {key: published[key] for key in keys if published.get(key) is not None}
        quick = model_cfg.get("quick_gelu", False)
        visual = on_meta(lambda: _build_vision_tower(model_cfg["embed_dim"], model_cfg["vision_cfg"], quick))
        tensors = {f"visual.{key}": value for key, value in visual.state_dict().items()}
        write_sparse(tensors, folder / "open_clip_model.safetensors")
        config = dict(model_cfg=model_cfg, preprocess_cfg=preprocess)
        (folder / "open_clip_config.json").write_text(json.dumps(config))
        told = inspect(folder / "open_clip_model.safetensors")
        module = model_cfg["vision_cfg"].get("timm_model_name") or type(visual).__name__
        yield result(f"{name}/{tag}", module.split("_")[0], told, lambda: open_clip_facts(visual, PreprocessCfg(**preprocess)))


def survey_torchvision(folder, prefixes):
    from torchvision import models
    for name in models.list_models(module=models):
        if prefixes and not name.startswith(tuple(prefixes)):
            continue
        for weights in models.get_model_weights(name):
            size = dict(image_size=weights.transforms().crop_size[0]) if name.startswith("vit_") else {}
            model = on_meta(lambda: models.get_model(name, weights=None, **size))
            path = folder / (weights.url.split("/")[-1].rsplit(".", 1)[0] + ".safetensors")
            write_sparse(model.state_dict(), path)
            t = weights.transforms()
            facts = dict(mean=t.mean, std=t.std, interpolation=t.interpolation.value, image_size=t.crop_size[0],
                         crop_mode="center", resized=t.resize_size[0])
            if name.startswith("vit_"):
                block = model.encoder.layers[0]
                facts |= dict(heads=block.num_heads, eps=block.ln_1.eps, activation=activation(block.mlp[1]), pool="cls")
            told = inspect(path)
            if "preprocess" in told:
                told["preprocess"]["resized"] = int(t.crop_size[0] / told["preprocess"]["crop_pct"])
            path.unlink()
            yield result(f"{name}.{weights.name}", type(model).__module__.split(".")[-1], told, lambda: facts)


def reason(error):
    """A refusal without the names and numbers of the one file."""
    error = re.sub(r"^error: [^:]*: ", "", error).split(": its")[0]
    error = re.sub(r"^architecture \S+ is (timm's \w+).*", r"\1", error)
    error = re.sub(r"^architecture \S+: ", "", error)
    error = re.sub(r"^is torchvision's .*", "torchvision's, by the file's name", error)
    error = re.sub(r"(\.|\b)\d+(\.|\b)", r"\1N\2", error)
    return error.split(": not supported")[0][:110]


def table(paths):
    total = collections.Counter()
    for path in paths:
        rows = [json.loads(line) for line in open(path)]
        modules = collections.defaultdict(collections.Counter)
        reasons = collections.defaultdict(collections.Counter)
        for row in rows:
            modules[row["module"]][row["kind"]] += 1
            total[row["kind"]] += 1
            if row["kind"] == "refused":
                reasons[row["module"]][reason(row["error"])] += 1
        right = sum(m["right"] for m in modules.values())
        differs = sum(m["differs"] for m in modules.values())
        print(f"\n{Path(path).stem}: {right} of {len(rows)} right, {differs} differ\n")
        print("| module | tags | right | differ | refused, by the reasons that are stated |\n| --- | --- | --- | --- | --- |")
        rest = collections.Counter()
        for module, counts in sorted(modules.items(), key=lambda item: (-sum(item[1].values()), item[0])):
            stated = reasons[module].most_common(4)
            more = sum(reasons[module].values()) - sum(n for _, n in stated)
            texts = [f"{n} {text}" for text, n in stated] + ([f"{more} others"] if more else [])
            whole = len(reasons[module]) == 1 and not counts["right"]
            if whole and sum(counts.values()) < 20:
                rest += counts
                continue
            print(f"| {module} | {sum(counts.values())} | {counts['right']} | {counts['differs']} | {'; '.join(texts) or '–'} |")
        if rest:
            print(f"| others, whole | {sum(rest.values())} | 0 | 0 | each is refused by its name |")
        for row in rows:
            if row["kind"] == "differs":
                print(f"\n{row['tag']} differs: {'; '.join(row['differs'])}")


def randomise(model, seed=0):
    """Every parameter and statistic away from its start, so that each shows in the logits."""
    random = torch.Generator().manual_seed(seed)
    # In a deep network of residual branches each branch's last norm is small, as in one that is trained: else rounding alone changes f32's
    # logits. Of timm's EfficientNetV2-M, which has 57 branches, f32 and f64 then have nothing in common.
    names = {name for name, _ in model.named_parameters()}
    last = {name for name in names if re.fullmatch(r"layer\d+\.\d+\.bn3\.weight|blocks\.\d+\.\d+\.bn[23]\.weight", name)}
    last -= {name for name in last if name.replace("bn2", "bn3") in last and "bn2" in name}
    deep = len(last) > 30
    for name, value in model.named_parameters():
        noise = torch.randn(value.shape, generator=random)
        if value.ndim > 1 and not re.search("pos|token|latent|probe", name):
            value.data = noise * (1.7 / value[0].numel()) ** 0.5
        elif value.ndim > 1:
            value.data = 0.5 * noise
        else:
            centre = 0.3 if "gamma" in name else 1.0 if name.endswith("weight") else 0.0
            value.data = (centre + 0.2 * noise) * (0.2 if deep and name in last else 1.0)
    for name, value in model.named_buffers():
        if name.endswith("running_var"):
            value.copy_(0.6 + 0.8 * torch.rand(value.shape, generator=random))
        elif name.endswith("running_mean"):
            value.copy_(0.2 * torch.randn(value.shape, generator=random))


def structure(model):
    """What makes two models the same but for their widths and depths."""
    kinds = frozenset(type(x).__name__ for x in model.modules())
    names = frozenset(re.sub(r"\d+", "N", name) for name in model.state_dict())
    facts = timm_facts(model)
    return kinds, names, facts.get("pool"), facts.get("activation"), facts.get("eps"), facts["crop_mode"]


# timm's modules whose networks are compared whole: their depth is no argument.
WHOLE = ("convnext", "efficientnet", "mobilenetv3", "hardcorenas", "regnet", "resnetv2", "senet", "vgg")


def logits(path, prefixes):
    import timm
    seen = set()
    for row in map(json.loads, open(path)):
        tag = row["tag"]
        if row["kind"] != "right" or prefixes and not tag.startswith(tuple(prefixes)):
            continue
        model = build_timm(tag)
        key = structure(model)
        if key in seen:
            continue
        seen.add(key)
        # As many blocks as show a difference.
        few = dict(layers=[1, 2, 1, 1]) if "resne" in tag else dict(depth=2) if hasattr(model, "blocks") else {}
        if row["module"] in WHOLE:
            few = {}
        if not model.num_classes:
            few["num_classes"] = 7
        print(json.dumps(compare_logits(tag, few)), flush=True)


def compare_logits(tag, kwargs):
    """tpgm's logits against timm's, relative to the largest."""
    import numpy as np
    import timm
    from PIL import Image
    from safetensors.torch import load_file
    from timm.data import create_transform, resolve_model_data_config
    from timm.models._hub import save_for_hf
    model = timm.create_model(tag, pretrained=False, **kwargs).eval()
    randomise(model)
    random = np.random.default_rng(3)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        images = folder / "images"
        images.mkdir()
        for i, (height, width) in enumerate([(157, 213), (331, 97), (300, 400)]):
            coarse = random.integers(0, 256, (height // 12, width // 12, 3)).astype(np.uint8)
            Image.fromarray(coarse).resize((width, height), Image.BICUBIC).save(images / f"{i}.png")
        save_for_hf(model, folder / "model", model_args=kwargs, safe_serialization=True)
        transform = create_transform(**resolve_model_data_config(model), is_training=False)
        batch = torch.stack([transform(Image.open(images / f"{i}.png")) for i in range(3)])
        with torch.no_grad():
            want = model(batch)
        out = folder / "out.safetensors"
        command = [TPGM, "predict", "--model", folder / "model", "--data", images, "--logits", out, "--no-tune"]
        run = subprocess.run([*command, "--batch-size", "1"], capture_output=True, text=True)
        if run.returncode:
            return dict(tag=tag, error=run.stderr.strip().splitlines()[-1][:400])
        got = load_file(out)["logits"]
    assert got.shape == want.shape, (tag, got.shape, want.shape)
    return dict(tag=tag, relative=((got - want).abs().max() / want.abs().max()).item())


#: Other values than the defaults, for the arguments of a class; timm itself refuses some of them.
ARGUMENTS = {
    "test_vit": dict(
        depth=2, change=dict(
            patch_size=8, num_heads=4, mlp_ratio=2.0, qkv_bias=False, qk_norm=True, scale_attn_norm=True, scale_mlp_norm=True,
            proj_bias=False, init_values=0.1, pos_embed=["none", ""], no_embed_class=True, reg_tokens=2, pre_norm=True,
            final_norm=False, fc_norm=True, pool_include_prefix=True, dynamic_img_size=True, dynamic_img_pad=True,
            drop_rate=0.1, pos_drop_rate=0.1, patch_drop_rate=0.1, proj_drop_rate=0.1, attn_drop_rate=0.1,
            drop_path_rate=0.1, weight_init=["jax", "moco"], fix_init=True, norm_layer=["layernorm", "rmsnorm"],
            act_layer=["gelu", "gelu_tanh", "quick_gelu", "relu", "silu"], attn_layer="diff", embed_norm_layer="layernorm",
            global_pool=["avg", "max", "avgmax", "map", "prr"])),
    "resnet50": dict(
        layers=[1, 1, 1, 1], change=dict(
            output_stride=[16, 8], cardinality=2, base_width=32, stem_width=32, stem_type=["deep", "deep_tiered"],
            replace_stem_pool=True, block_reduce_first=2, down_kernel_size=3, avg_down=True, drop_path_rate=0.1,
            act_layer=["relu", "silu", "gelu", "leaky_relu"], norm_layer=["batchnorm2d", "groupnorm"], drop_block_rate=0.1,
            zero_init_last=False, global_pool=["max", "avgmax", "fast", "catavgmax"],
            block_args=[dict(attn_layer="se"), dict(attn_layer="eca"), {}])),
}


def arguments():
    for architecture, few in ARGUMENTS.items():
        few = dict(few, num_classes=7)
        for key, values in few.pop("change").items():
            for value in values if isinstance(values, list) else [values]:
                changed = {key: value}
                try:
                    line = compare_logits(architecture, few | changed)
                except Exception as error:  # timm's own
                    line = dict(tag=architecture, timm=repr(error)[:100])
                print(json.dumps(line | dict(changed=changed)), flush=True)


def main():
    command, *words = sys.argv[1:]
    if command == "table":
        return table(words)
    if command == "logits":
        return logits(words[0], words[1:])
    if command == "arguments":
        return arguments()
    survey = dict(timm=survey_timm, open_clip=survey_open_clip, torchvision=survey_torchvision)[command]
    with tempfile.TemporaryDirectory() as folder:
        for line in survey(Path(folder), words):
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
