"""Writes src/checkpoint/timm_table.jsonl: what each architecture of timm is built from.

    pip install torch==2.15.0 timm==1.0.31
    python tools/zoo/make_table.py

First one line per class, sorted: {"class": ..., "defaults": {argument: value}}. Then one line per architecture, sorted:
[architecture, module, class, {argument: value}], with the arguments that timm's own entry point hands to the class, without
those that equal the class's default. A former name of an architecture has the present one beside it.

A function or a class is written as its name, `functools.partial` as `Name(argument=value)`, a dataclass as an object of what
differs from its defaults. Of a stage's blocks equal neighbours are one, with their number `n`. No model is built.
"""

import dataclasses
import enum
import functools
import inspect
import json
import pkgutil
import warnings
from importlib import import_module
from pathlib import Path

warnings.filterwarnings("ignore")
import timm
import timm.models
import torch
from timm.models._registry import _deprecated_models, _model_entrypoints, _model_to_module

PINNED = "1.0.31"
TABLE = Path(__file__).parents[2] / "src/checkpoint/timm_table.jsonl"

#: Arguments of timm's builder that are not the class's.
BUILDER = {"pretrained_strict", "pretrained_filter_fn", "pretrained_model_args", "pretrained_cfg_overlay", "pretrained_custom_load",
           "feature_cfg", "kwargs_filter", "cache_dir", "out_indices", "features_only"}


class Built(Exception):
    """What reached timm's builder."""


def build(model_cls, variant, pretrained=False, pretrained_cfg=None, model_cfg=None, **kwargs):
    raise Built(model_cls, model_cfg, kwargs)


def plain(value):
    """A value as JSON."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, functools.partial):
        inner = ", ".join([repr(plain(a)) for a in value.args] + [f"{k}={plain(v)}" for k, v in value.keywords.items()])
        return f"{value.func.__name__}({inner})" if inner else value.func.__name__
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        out = {}
        for field in dataclasses.fields(value):
            own, default = getattr(value, field.name), field.default
            if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
            if default is dataclasses.MISSING or own != default:
                out[field.name] = plain(own)
        return out
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "__name__"):
        return value.__name__
    if isinstance(value, torch.nn.Module):
        return type(value).__name__
    raise TypeError(f"{value!r} has no form in the table")


def repeated(blocks):
    """A list of blocks with each run of equal ones as one, `n` of them, and without values that are null or false."""
    out = []
    for block in blocks:
        block = {k: v for k, v in block.items() if v not in (None, False)} if isinstance(block, dict) else block
        if out and isinstance(block, dict) and {k: v for k, v in out[-1].items() if k != "n"} == block:
            out[-1]["n"] += 1
        else:
            out.append(dict(n=1, **block) if isinstance(block, dict) else block)
    return out


def defaults(cls):
    """What the class, or the class that it passes the rest on to, takes if nothing is said."""
    out = {}
    for base in reversed(inspect.getmro(cls) if inspect.isclass(cls) else (cls,)):
        init = base.__init__ if inspect.isclass(base) else base
        if inspect.isclass(base) and "__init__" not in vars(base):
            continue
        parameters = inspect.signature(init).parameters.values()
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            out = {}
        known = [p for p in parameters if p.default is not p.empty and p.name not in ("device", "dtype")]
        out |= {p.name: plain(p.default) for p in known}
    return out


def row(architecture, classes):
    """The architecture's line; its class's defaults go to `classes`."""
    if architecture in _deprecated_models:
        return [architecture, _deprecated_models[architecture].split(".")[0]]
    try:
        _model_entrypoints[architecture](pretrained=False)
    except Built as built:
        cls, model_cfg, kwargs = built.args
    usual = classes.setdefault(cls.__name__, defaults(cls))
    args = {k: plain(v) for k, v in kwargs.items() if k not in BUILDER}
    args = {k: v for k, v in args.items() if k not in usual or usual[k] != v}
    if isinstance(args.get("block_args"), list):
        args["block_args"] = [repeated(stage) for stage in args["block_args"]]
    if model_cfg is not None:
        args["cfg"] = plain(model_cfg)
    return [architecture, _model_to_module[architecture], cls.__name__, dict(sorted(args.items()))]


def main():
    assert timm.__version__ == PINNED, f"timm {timm.__version__}, not {PINNED}"
    for module in pkgutil.iter_modules(timm.models.__path__):
        module = import_module(f"timm.models.{module.name}")
        if module.__name__ != "timm.models._builder" and hasattr(module, "build_model_with_cfg"):
            module.build_model_with_cfg = build
    classes = {}
    rows = [row(architecture, classes) for architecture in sorted(_model_entrypoints)]
    lines = [{"class": name, "defaults": classes[name]} for name in sorted(classes)] + rows
    TABLE.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    print(f"{TABLE.name}: {len(classes)} classes, {len(rows)} architectures, {TABLE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
