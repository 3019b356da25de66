"""Tries to make tpgm compute something else than the library that a file comes from: changes one key of a configuration after the
other, and compares the logits.

    export TPGM=target/release/tpgm
    python tools/survey/mutations.py timm [PREFIX ...] > mutations.jsonl
    python tools/survey/mutations.py transformers [PREFIX ...] >> mutations.jsonl
    python tools/survey/mutations.py open_clip [PREFIX ...] >> mutations.jsonl
    python tools/survey/mutations.py table mutations.jsonl

A small random model is saved by its library. For each key of its configuration, and each other value of that key, the library
loads the folder again and computes the logits of three images, and so does `tpgm predict`. A line has one of four kinds: `equal`,
`refused` (by tpgm), `home` (the library itself fails, and tpgm computes something) and `differs`. Nothing may differ. The packages
are those of survey.py, and transformers==5.24.0.
"""

import collections
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import survey

CLASSES = 7
CONV = dict(channels=(8, 8, 12, 16), stem_width=8, layers=(1, 1, 1, 1))
VIT = dict(embed_dim=48, depth=2, num_heads=3)

#: Architectures of timm's with the arguments that make them small, and the size of their images.
TIMM = {
    "vit_tiny_patch16_224": (dict(VIT, img_size=32), 32), "deit_tiny_distilled_patch16_224": (dict(VIT, img_size=32), 32),
    "deit3_small_patch16_224": (dict(VIT, img_size=32), 32), "vit_small_patch14_reg4_dinov2": (dict(VIT, img_size=28), 28),
    "vit_base_patch16_siglip_224": (dict(VIT, img_size=32), 32),
    "vit_base_patch32_clip_quickgelu_224": (dict(VIT, img_size=64), 64),
    "aimv2_large_patch14_224": (dict(VIT, img_size=28), 28), "vit_giant_patch14_dinov2": (dict(VIT, img_size=28), 28),
    "eva02_tiny_patch14_224": (dict(VIT, img_size=28, embed_dim=48), 28),
    "vit_small_patch16_dinov3": (dict(VIT, img_size=32), 32), "vit_pe_core_tiny_patch16_384": (dict(VIT, img_size=32), 32),
    "beit_base_patch16_224": (dict(VIT, img_size=32), 32), "beit3_base_patch16_224": (dict(VIT, img_size=32), 32),
    "test_vit": ({}, 160), "test_vit2": ({}, 160), "test_vit3": ({}, 160),
    "resnet26": (CONV, 64), "resnet18": (CONV, 64), "resnet26d": (CONV, 64), "seresnet50": (CONV, 64),
    "ecaresnet26t": (CONV, 64), "resnetaa50": (CONV, 64), "resnetrs50": (CONV, 64), "resnext26ts": ({}, 64),
    "resnet50_gn": (dict(CONV, channels=(32, 32, 32, 32), stem_width=32), 64), "seresnextaa101d_32x8d": (dict(CONV, cardinality=2), 64),
    "resnetv2_50x1_bit": (dict(layers=(1, 1, 1, 1), channels=(32, 64, 64, 64)), 64), "resnetv2_50d_gn": (dict(layers=(1, 1)), 64),
    "resnetv2_18": (dict(layers=(1, 1, 1, 1)), 64), "legacy_seresnet18": ({}, 64), "legacy_seresnext26_32x4d": ({}, 64),
    "convnext_atto": (dict(depths=(1, 1, 1, 1), dims=(8, 12, 16, 20)), 64),
    "convnextv2_atto": (dict(depths=(1, 1, 1, 1), dims=(8, 12, 16, 20)), 64), "test_convnext": ({}, 160),
    "regnety_002": ({}, 64), "regnetx_002": ({}, 64), "regnetz_005": ({}, 64), "test_efficientnet": ({}, 160),
    "efficientnet_b0": ({}, 64), "tf_efficientnetv2_b0": ({}, 64), "mobilenetv2_035": ({}, 64),
    "mobilenetv3_small_050": ({}, 64), "mobilenetv4_conv_small_035": ({}, 64), "lcnet_035": ({}, 64), "vgg11": ({}, 224),
    "vit_tiny_r_s16_p8_224": (dict(img_size=64, embed_dim=48, depth=1), 64), "vitamin_small_224": (dict(img_size=64, depth=1), 64),
}

ACTIVATIONS = ["relu", "gelu", "gelu_tanh", "quick_gelu", "silu", "swish", "leaky_relu", "hard_swish", "relu6", "mish", "GELU", "tanh"]
NORMS = ["layernorm", "layernorm(eps=1e-3)", "layernorm2d", "rmsnorm", "rmsnorm2d", "batchnorm2d", "groupnorm", "groupnorm1", "simplenorm",
         "frozenbatchnorm2d", "LayerNorm", "batchnorm2d(eps=1e-2)"]
POOLS = ["", "avg", "token", "map", "max", "avgmax", "catavgmax", "fast", "fastavg"]
#: Other values of a key by its name.
BY_NAME = {
    "act_layer": ACTIVATIONS, "norm_layer": NORMS, "global_pool": POOLS, "embed_norm_layer": NORMS[:4],
    "aa_layer": ["avg", "blur", "blurpc", "max", "AvgPool2d"],
    "block_args": [{}, {"attn_layer": "se"}, {"attn_layer": "eca"}, {"attn_layer": "ese"}, {"radix": 2}],
    "stem_type": ["", "deep", "deep_tiered", "same", "fixed", "patch", "overlap", "tiered", "overlap_tiered"],
    "interpolation": ["bilinear", "bicubic", "nearest", "lanczos", "hamming", "box", "random", "lanczos3"],
    "crop_mode": ["center", "squash", "border", "tile"], "crop_pct": [0.5, 0.875, 1.0, 1.2, 0.0, "0.9"],
    "mean": [[0.1, 0.2, 0.3], [0.4], 0.5, [0.4, 0.4], [0.0] * 3], "std": [[0.1, 0.2, 0.3], [0.4], 0.5],
    "input_size": [[3, 96, 96], [1, 64, 64], [3, 64, 96], [4, 64, 64], 96, [64, 64]],
    "pos_embed": ["", "none", "learn", "sincos"], "num_classes": [0, 5, 9], "img_size": [48, [32, 64], "32"],
    "block": ["Bottleneck", "BasicBlock", "bottleneck", "basic"], "layers": [[2, 1, 1, 1], [1, 1]], "depth": [1, 3],
    "pad_type": ["", "same", "valid", "3"], "se_layer": ["SqueezeExcite(gate_layer=hard_sigmoid)", "eca", "SqueezeExcite", "SEModule"],
    "conv_layer": ["StdConv2d", "std_conv", "conv2d"], "mlp_layer": ["SwiGLU", "GluMlp", "SwiGLUPacked", "Mlp"],
    "block_fn": ["ParallelScalingBlock", "ResPostBlock", "Block", "DiffParallelScalingBlock", "ParallelThingsBlock"],
    "rope_type": ["", "none", "axial", "cat", "mixed", "dinov3", "mrope"], "weight_init": ["jax", "skip"], "output_stride": [8, 16],
    "pool_type": ["avg", "max", ""], "label_offset": [0, 1], "fixed_input_size": [True, False],
    "test_input_size": [[3, 96, 96]], "test_crop_pct": [0.5], "first_conv": ["conv1", "nothing"], "classifier": ["head", "fc", "none"],
    "fix_stem": [True], "round_chs_fn": ["round_channels"], "attn_layer": ["diff", "attention"], "ref_feat_shape": [[4, 4], [14, 14], 8],
    "kernel_sizes": [5, 3, [7, 5, 5, 3]], "patch_size": [8, [16, 8]], "in_chans": [1, 4], "stem_kernel_size": [5, 7],
    "rope_temperature": [1.0, 1000.0], "rope_mixed_mode": [True], "grid_indexing": ["xy", "ij"], "rope_grid_indexing": ["xy", "ij"],
    "dynamic_img_size": [True], "patch_drop_rate": [0.5], "class_token": [False, True], "no_embed_class": [True, False],
    "init_values": [0.1, None], "reg_tokens": [1, 4], "tag": ["x"], "architecture": ["resnet50", "vit_small_patch16_224"],
    "color": ["BGR"], "bgr": [True], "input_range": [[0, 255]], "model_card": ["x"], "num_features": [33],
    "hidden_act": ACTIVATIONS + ["gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python", "gelu_10", "linear", "QuickGELU"],
    "problem_type": ["regression", "multi_label_classification"], "layer_type": ["basic", "bottleneck"],
    "rope_parameters": [{"rope_type": "default", "rope_theta": 10.0}, {"rope_type": "linear", "factor": 2.0}],
    "resample": [0, 1, 2, 3, 4, 5], "size": [{"height": 48, "width": 48}, {"shortest_edge": 48}, 48, {"longest_edge": 40},
                                           {"height": 40, "width": 48}, {"max_height": 20, "max_width": 20}],
    "crop_size": [{"height": 24, "width": 24}, 24, {"height": 24, "width": 30}], "image_mean": [[0.1, 0.2, 0.3], 0.4, [0.4]],
    "image_std": [[0.1, 0.2, 0.3], 0.4], "rescale_factor": [1.0, 0.01], "do_convert_rgb": [False], "do_pad": [True],
    "do_resize": [False], "do_rescale": [False], "do_normalize": [False], "do_center_crop": [True, False], "crop_pct ": [0.5],
    "image_size": [16, 48, [32, 48], "32", 0], "torch_dtype": ["float16"], "dtype": ["bfloat16", "float32"], "model_type": ["vit", "beit"],
    "architectures": [["ViTModel"]], "id2label": [{}], "attention_bias": [True, False], "pooler_act": ["relu", "gelu"],
    "pooler_output_size": [24], "attn_implementation": ["eager"], "_attn_implementation": ["eager", "sdpa"], "chunk_size_feed_forward": [1],
    "is_decoder": [True], "output_hidden_states": [True], "tie_word_embeddings": [False], "interpolate_mode": ["nearest", "bilinear"],
    "resize_mode": ["shortest", "squash", "longest"], "fill_color": [0, 9], "norm_kwargs": [{"eps": 1e-2}, {}, {"bias": False}],
    "act_kwargs": [{"approximate": "tanh"}, {}, {"inplace": True}], "quick_gelu": [True, False], "custom_text": [True, False],
    "timm_pool": ["", "avg", "map", "token"], "timm_proj": ["", "linear", "mlp", "none"], "heads": [1], "head_width": [8, 16, 32],
    "pos_embed_type": ["learnable", "sin_cos_2d", "none"], "pool_type ": ["tok", "avg", "none"], "mlp_ratio": [2.0, 4.0, 3.0],
}
#: Keys that no configuration of that library has in its file, but that it reads.
ADDED = dict(
    timm=dict(pretrained_cfg=["crop_mode", "label_offset", "test_input_size", "test_crop_pct", "color", "bgr", "input_range", "fixed_input_size"],
              top=["global_pool", "num_features", "mean", "interpolation", "input_size", "model_card"]),
)
#: What changes the head's outputs is the library's to start anew, which gives other numbers on each call.
RANDOM = {"num_classes"}


def others(key, value):
    """Other values of a key than `value`."""
    if key in BY_NAME:
        values = BY_NAME[key]
    elif isinstance(value, bool):
        values = [not value]
    elif isinstance(value, int):
        values = [value + 1, 2 * value] if value else [1, 2]
    elif isinstance(value, float):
        values = [value * 1.5 + 0.1, 1]
    elif isinstance(value, str):
        values = [value + "x"]
    elif isinstance(value, (list, tuple)):
        values = [list(value)[::-1], list(value)[:-1]]
    elif value is None:
        values = [True, 1, 2, 0.5, "x"]
    else:
        values = []
    return [v for v in values if v != value or type(v) is not type(value)]


def images(folder):
    random = np.random.default_rng(3)
    folder.mkdir()
    for i, (height, width) in enumerate([(157, 213), (331, 97), (300, 400)]):
        coarse = random.integers(0, 256, (height // 12, width // 12, 3)).astype(np.uint8)
        Image.fromarray(coarse).resize((width, height), Image.BICUBIC).save(folder / f"{i}.png")


def predict(model, folder, features):
    """tpgm's logits or features, or its error."""
    out = folder / "out.safetensors"
    command = [survey.TPGM, *(["embed", "--out", out] if features else ["predict", "--logits", out])]
    command += ["--model", model, "--data", folder / "images", "--no-tune", "--batch-size", "3"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if run.returncode:
        assert run.returncode in (1, 2), run.stderr[-2000:]
        return None, run.stderr.strip().splitlines()[-1][:300]
    return load_file(out)["features" if features else "logits"], None


def compare(line, model, folder, home, most=1e-3, features=False):
    """A line: what tpgm makes of the folder `model`, against `home()`."""
    try:
        got, error = predict(model, folder, features)
    except (AssertionError, subprocess.TimeoutExpired) as crash:
        return line | dict(kind="differs", crash=str(crash)[-500:])
    if error:
        return line | dict(kind="refused", error=error)
    try:
        torch.manual_seed(1)
        with torch.no_grad():
            want = home().float()
            torch.manual_seed(2)
            again = home().float()
    except Exception as error:
        return line | dict(kind="home", home=f"{type(error).__name__}: {error}"[:200])
    if want.shape != got.shape:
        return line | dict(kind="differs", shapes=[list(got.shape), list(want.shape)])
    relative = ((got - want).abs().max() / want.abs().max()).item()
    if (want - again).abs().max() > 1e-6 * want.abs().max():
        return line | dict(kind="home", home="other numbers on each call", relative=relative)
    return line | dict(kind="equal" if relative < most else "differs", relative=relative)


#: Stands for a key that is not there.
LEFT_OUT = "(left out)"


def mutated(config, path, key, value):
    config = json.loads(json.dumps(config))
    at = config
    for part in path:
        at = at.setdefault(part, {})
    if value == LEFT_OUT:
        at.pop(key, None)
    else:
        at[key] = value
    return config


def timm_home(model, folder):
    import timm
    from timm.data import create_transform, resolve_model_data_config
    net = timm.create_model(f"local-dir:{model}", pretrained=True).eval()
    transform = create_transform(**resolve_model_data_config(net), is_training=False)
    return net(torch.stack([transform(Image.open(folder / "images" / f"{i}.png").convert("RGB")) for i in range(3)]))


def run_timm(prefixes):
    import inspect
    import timm
    from timm.models._hub import save_for_hf
    for architecture, (few, size) in TIMM.items():
        if prefixes and not architecture.startswith(tuple(prefixes)):
            continue
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            model = folder / "model"
            images(folder / "images")
            args = dict(few, num_classes=CLASSES)
            try:
                net = timm.create_model(architecture, pretrained=False, **args).eval()
            except Exception as error:
                print(json.dumps(dict(tag=architecture, kind="home", home=repr(error)[:200])), flush=True)
                continue
            survey.randomise(net)
            save_for_hf(net, model, model_args=few, safe_serialization=True)
            config = json.loads((model / "config.json").read_text())
            config["pretrained_cfg"]["input_size"] = [3, size, size]
            config["pretrained_cfg"].pop("pool_size", None)
            home = lambda: timm_home(model, folder)
            (model / "config.json").write_text(json.dumps(config))
            plain = compare(dict(tag=architecture, key="-", value=None), model, folder, home)
            print(json.dumps(plain), flush=True)
            if plain["kind"] != "equal":
                continue
            keys = inspect.signature(type(net).__init__).parameters
            usual = {key: p.default for key, p in keys.items() if isinstance(p.default, (bool, int, float, str, type(None)))}
            cases = [(["model_args"], key, value) for key in keys if key not in ("self", "kwargs", "cfg")
                     for value in others(key, few.get(key, usual.get(key)))]
            written = config["pretrained_cfg"]
            cases += [(["pretrained_cfg"], key, value) for key in [*written, *ADDED["timm"]["pretrained_cfg"]]
                      for value in others(key, written.get(key))]
            cases += [([], key, value) for key in [*config, *ADDED["timm"]["top"]] if not isinstance(config.get(key), dict)
                      for value in others(key, config.get(key))]
            cases += [(path, key, LEFT_OUT) for path, entries in (
                ([], config), (["pretrained_cfg"], written), (["model_args"], few)) for key in entries if key != "architecture"]
            for path, key, value in cases:
                changed = mutated(config, path, key, value)
                # The pooling of the saved model stands at the top, too, where only tpgm reads it.
                if path == ["model_args"] and key == "global_pool":
                    del changed["global_pool"]
                (model / "config.json").write_text(json.dumps(changed))
                line = dict(tag=architecture, key=".".join([*path, key]), value=value)
                print(json.dumps(compare(line, model, folder, home)), flush=True)


def transformers_models():
    """Small models of transformers' with their processors."""
    import transformers as T
    small = dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=96, image_size=32, patch_size=16)
    heads = dict(num_labels=CLASSES)
    stages = dict(hidden_sizes=[16, 16, 24, 32], depths=[1, 1, 1, 1])
    size = dict(size=dict(height=32, width=32))
    crop = dict(size=dict(shortest_edge=40), crop_size=dict(height=32, width=32))
    return {
        "vit": (T.ViTForImageClassification, T.ViTConfig(**small, **heads), T.ViTImageProcessor(**size)),
        "deit": (T.DeiTForImageClassification, T.DeiTConfig(**small, **heads), T.DeiTImageProcessor(**crop)),
        "vit_msn": (T.ViTMSNForImageClassification, T.ViTMSNConfig(**small, **heads), T.ViTImageProcessor(**size)),
        "beit": (T.BeitForImageClassification,
                 T.BeitConfig(**small, **heads, use_relative_position_bias=True, layer_scale_init_value=0.1, use_mask_token=False),
                 T.BeitImageProcessor(**size, do_center_crop=False)),
        "data2vec": (T.Data2VecVisionForImageClassification,
                     T.Data2VecVisionConfig(**small, **heads, use_relative_position_bias=True), T.BeitImageProcessor(**size, do_center_crop=False)),
        "dinov2": (T.Dinov2ForImageClassification, T.Dinov2Config(**dict(small, mlp_ratio=2), **heads), T.BitImageProcessor(**crop)),
        "dinov2_reg": (T.Dinov2WithRegistersForImageClassification,
                       T.Dinov2WithRegistersConfig(**dict(small, mlp_ratio=2), num_register_tokens=2, **heads), T.BitImageProcessor(**crop)),
        "clip": (T.CLIPForImageClassification, T.CLIPConfig(vision_config=small, text_config=dict(
            hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=64), **heads), T.CLIPImageProcessor(**crop)),
        "siglip": (T.SiglipForImageClassification, T.SiglipConfig(vision_config=small, text_config=dict(
            hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=64), **heads), T.SiglipImageProcessor(**size)),
        "resnet": (T.ResNetForImageClassification, T.ResNetConfig(**stages, embedding_size=16, **heads), T.ConvNextImageProcessor(
            size=dict(shortest_edge=64), crop_pct=0.875)),
        "convnext": (T.ConvNextForImageClassification, T.ConvNextConfig(**stages, **heads), T.ConvNextImageProcessor(
            size=dict(shortest_edge=64), crop_pct=0.875)),
        "convnextv2": (T.ConvNextV2ForImageClassification, T.ConvNextV2Config(**stages, **heads), T.ConvNextImageProcessor(
            size=dict(shortest_edge=64), crop_pct=0.875)),
    }


def run_transformers(prefixes):
    import transformers as T
    for name, (cls, own, processor) in transformers_models().items():
        if prefixes and not name.startswith(tuple(prefixes)):
            continue
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            model = folder / "model"
            images(folder / "images")
            net = cls(own).eval()
            survey.randomise(net)
            net.save_pretrained(model)
            processor.save_pretrained(model)
            config = json.loads((model / "config.json").read_text())
            beside = next(model.glob("*processor_config.json"))
            processing = json.loads(beside.read_text())

            # Its processors resize within a level of ours.
            def checked(line):
                line = compare(line, model, folder, home, 1e-2)
                print(json.dumps(line, default=str), flush=True)
                return line

            def home():
                # The library computes in the format that is written.
                read = cls.from_pretrained(model, dtype=torch.float32).eval()
                batch = [Image.open(folder / "images" / f"{i}.png").convert("RGB") for i in range(3)]
                return read(**T.AutoImageProcessor.from_pretrained(model)(batch, return_tensors="pt")).logits

            if checked(dict(tag=name, key="-", value=None))["kind"] != "equal":
                continue
            defaults = json.loads(type(own)().to_json_string(use_diff=False))
            inside = ["vision_config"] if "vision_config" in config else []
            known = dict(json.loads(type(own.vision_config)().to_json_string(use_diff=False)) if inside else defaults)
            known |= config["vision_config"] if inside else config
            cases = [(inside, key, value) for key in known for value in others(key, known[key])]
            if inside:
                cases += [([], key, value) for key in config if not isinstance(config[key], dict) for value in others(key, config[key])]
            cases += [(inside, key, LEFT_OUT) for key in (config["vision_config"] if inside else config)]
            for path, key, value in cases:
                (model / "config.json").write_text(json.dumps(mutated(config, path, key, value)))
                checked(dict(tag=name, key=".".join([*path, key]), value=value))
            (model / "config.json").write_text(json.dumps(config))
            for key in [*processing, "crop_pct", "do_center_crop", "do_pad", "do_convert_rgb"]:
                for value in [*others(key, processing.get(key)), *([LEFT_OUT] if key in processing else [])]:
                    beside.write_text(json.dumps(mutated(processing, [], key, value)))
                    checked(dict(tag=name, key="processor." + key, value=value))


#: Image towers of OpenCLIP's, small, by the settings they have besides.
TOWER = dict(image_size=32, layers=2, width=48, head_width=16, patch_size=16)
OPEN_CLIP = {
    "vit": dict(vision_cfg=TOWER), "vit_quick": dict(vision_cfg=TOWER, quick_gelu=True),
    "vit_mean": dict(vision_cfg=dict(TOWER, pool_type="avg", no_ln_pre=True, final_ln_after_pool=True)),
    # Of another width than the tower: with the same, PyTorch keeps the pool's three weights as one.
    "coca": dict(embed_dim=64, vision_cfg=dict(TOWER, attentional_pool=True, attn_pooler_queries=4, attn_pooler_heads=4)),
    "resnet": dict(vision_cfg=dict(image_size=64, layers=[1, 1, 1, 1], width=16, head_width=16, patch_size=None)),
    "timm_vit": dict(vision_cfg=dict(timm_model_name="test_vit", timm_model_pretrained=False, timm_pool="avg", timm_proj="linear",
                                     image_size=160)),
    "timm_convnext": dict(vision_cfg=dict(timm_model_name="test_convnext", timm_model_pretrained=False, timm_pool="", timm_proj="linear",
                                          image_size=160)),
}
TEXT = dict(context_length=8, vocab_size=64, width=32, heads=2, layers=1)


def run_open_clip(prefixes):
    import open_clip
    for name, cfg in OPEN_CLIP.items():
        if prefixes and not name.startswith(tuple(prefixes)):
            continue
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            model = folder / "model"
            model.mkdir()
            images(folder / "images")
            config = dict(model_cfg=dict(dict(embed_dim=48, text_cfg=TEXT), **cfg),
                          preprocess_cfg=dict(mean=[0.5, 0.4, 0.3], std=[0.3, 0.25, 0.2], interpolation="bicubic", resize_mode="shortest"))
            trunk = "timm_model_name" in cfg["vision_cfg"]
            net = (open_clip.CustomTextCLIP if trunk else open_clip.CLIP)(**config["model_cfg"]).eval()
            if trunk:
                config["model_cfg"]["custom_text"] = True
            survey.randomise(net)
            save_file(dict(net.state_dict()), model / "open_clip_model.safetensors", {"format": "pt"})
            written = model / "open_clip_config.json"

            def home():
                read, _, transform = open_clip.create_model_and_transforms(f"local-dir:{model}")
                batch = [Image.open(folder / "images" / f"{i}.png") for i in range(3)]
                return read.eval().encode_image(torch.stack([transform(image) for image in batch]))

            def checked(line):
                line = compare(line, model, folder, home, features=True)
                print(json.dumps(line, default=str), flush=True)
                return line

            written.write_text(json.dumps(config))
            if checked(dict(tag=name, key="-", value=None))["kind"] != "equal":
                continue
            vision = {key: value for key, value in vars(open_clip.CLIPVisionCfg()).items()} | config["model_cfg"]["vision_cfg"]
            cases = [(["model_cfg", "vision_cfg"], key, value) for key in vision for value in [*others(key, vision[key]), LEFT_OUT]]
            top = ["embed_dim", "quick_gelu", "init_logit_scale", "init_logit_bias", "output_dict", "custom_text", "cast_dtype"]
            cases += [(["model_cfg"], key, value) for key in top for value in others(key, config["model_cfg"].get(key))]
            keys = [*config["preprocess_cfg"], "size", "mode", "fill_color"]
            cases += [(["preprocess_cfg"], key, value) for key in keys
                      for value in [*others(key, config["preprocess_cfg"].get(key)), LEFT_OUT]]
            for path, key, value in cases:
                written.write_text(json.dumps(mutated(config, path, key, value)))
                checked(dict(tag=name, key=".".join([*path, key]), value=value))


def table(paths):
    rows = [json.loads(line) for path in paths for line in open(path)]
    kinds = collections.Counter(row["kind"] for row in rows)
    print(f"{len(rows)} changes: " + ", ".join(f"{n} {kind}" for kind, n in kinds.most_common()))
    for row in rows:
        if row["kind"] == "differs":
            print(json.dumps(row))


def main():
    command, *words = sys.argv[1:]
    dict(timm=run_timm, transformers=run_transformers, open_clip=run_open_clip, table=table)[command](words)


if __name__ == "__main__":
    main()
