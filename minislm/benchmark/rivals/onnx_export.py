"""Encoders as ONNX: exported from torch once, with onnxruntime's own fusions and dynamic int8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minislm.benchmark.shapes import kept_name, model_folder


def onnx_file(model: str, cache: Path, kind: str) -> Path:
    """Find an encoder's ONNX file, or make it.

    Parameters
    ----------
    model : str
        A shape or a model folder.
    cache : Path
        Where it is kept.
    kind : {"plain", "fused", "int8"}
        As torch exports it; with onnxruntime's fused attention, GELU and norms; and that with dynamic int8.

    Returns
    -------
    Path
        The file.
    """
    path = cache / f"{kept_name(model)}-{kind}.onnx"
    if not path.exists():
        part = path.with_suffix(".part.onnx")
        {"plain": _export, "fused": _fuse, "int8": _quantize}[kind](model, cache, part)
        part.rename(path)
    return path


def _export(model: str, cache: Path, path: Path) -> None:
    import torch
    import transformers

    folder, _ = model_folder(model, cache)
    net = transformers.AutoModel.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True, add_pooling_layer=False
    ).eval()

    class Hidden(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.net(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    ids = torch.ones((2, 16), dtype=torch.int64)
    axes = {0: "batch", 1: "sequence"}
    torch.onnx.export(
        Hidden(),
        (ids, ids),
        str(path),
        input_names=["input_ids", "attention_mask"],
        output_names=["hidden"],
        dynamic_axes={"input_ids": axes, "attention_mask": axes, "hidden": axes},
        opset_version=17,
        dynamo=False,
    )


def _fuse(model: str, cache: Path, path: Path) -> None:
    from onnxruntime.transformers import optimizer

    from minislm.files.folder import CONFIG, read_json

    config = read_json(model_folder(model, cache)[0] / CONFIG)
    optimized = optimizer.optimize_model(
        str(onnx_file(model, cache, "plain")),
        model_type="bert",
        num_heads=config["num_attention_heads"],
        hidden_size=config["hidden_size"],
        opt_level=1,
    )
    optimized.save_model_to_file(str(path))


def _quantize(model: str, cache: Path, path: Path) -> None:
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        str(onnx_file(model, cache, "fused")),
        str(path),
        per_channel=True,
        weight_type=QuantType.QInt8,
        extra_options={
            "DefaultTensorType": TensorProto.FLOAT
        },  # of what fused operators return: no shapes are inferred
    )
