"""The GGUF reader against the gguf package: what it writes is read, and nothing is read that it refuses."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from minislm.errors import MinislmError
from minislm.files import gguf as ours
from minislm.ops.blocks import BLOCK_FORMATS
from minislm.testing.cases.blocks import random_blocks
from minislm.weights.blocks import Blocks

gguf = pytest.importorskip("gguf")
pytestmark = pytest.mark.oracle


def write(path, rng, alignment=None):
    """Write settings of every type and tensors of every type that is read."""
    writer = gguf.GGUFWriter(path, "llama")
    settings = {"u8": 7, "i8": -7, "u16": 700, "i16": -700, "u32": 70_000, "i32": -70_000, "u64": 7**20}
    settings |= {"i64": -(7**20), "f32": 0.25, "f64": 1e-300, "bool": True, "text": "größe"}
    settings |= {"texts": ["a", "", "β"], "floats": [0.5, 2.0]}
    for name in ("u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64"):
        kind = {"u": "uint", "i": "int", "f": "float"}[name[0]] + name[1:]
        getattr(writer, f"add_{kind}")(f"of.{name}", settings[name])
    writer.add_bool("of.bool", settings["bool"])
    writer.add_string("of.text", settings["text"])
    writer.add_array("of.texts", settings["texts"])
    writer.add_array("of.floats", settings["floats"])
    if alignment:
        writer.add_custom_alignment(alignment)
    tensors = {"w.f32": rng.normal(size=(3, 5)).astype(np.float32), "b.f16": rng.normal(size=7).astype(np.float16)}
    for name, array in tensors.items():
        writer.add_tensor(name, array)
    tensors["w.bf16"] = rng.normal(size=(2, 4)).astype(ml_dtypes.bfloat16)
    writer.add_tensor("w.bf16", tensors["w.bf16"].view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
    for name, format in BLOCK_FORMATS.items():
        tensors[f"w.{name}"] = random_blocks(rng, format, 3, 256)
        writer.add_tensor(f"w.{name}", tensors[f"w.{name}"], raw_dtype=gguf.GGMLQuantizationType[name.upper()])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return settings, tensors


@pytest.mark.parametrize("alignment", [None, 8, 256])
def test_what_the_package_writes_is_read(tmp_path, rng, alignment):
    settings, tensors = write(tmp_path / "m.gguf", rng, alignment)
    found = ours.read(tmp_path / "m.gguf")
    assert found.settings.pop("general.architecture") == "llama"
    assert found.settings.pop("general.alignment", None) == alignment
    read = {name[3:]: each.tolist() if isinstance(each, np.ndarray) else each for name, each in found.settings.items()}
    assert read == settings
    assert set(found.tensors) == set(tensors)
    for name, expected in tensors.items():
        tensor = found.tensors[name]
        if isinstance(tensor, Blocks):
            kind = gguf.GGMLQuantizationType[name[2:].upper()]
            assert np.array_equal(tensor.dense(), gguf.quants.dequantize(expected, kind))
            tensor = tensor.blocks
        assert tensor.dtype == expected.dtype
        assert np.array_equal(tensor.view(np.uint8), expected.view(np.uint8))


def test_nothing_is_accepted_here_and_refused_there(tmp_path, rng):
    path = tmp_path / "m.gguf"
    write(path, rng)
    whole = path.read_bytes()
    accepted = 0
    for _ in range(400):
        data = bytearray(whole)
        data[int(rng.integers(4, 1200))] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        try:
            ours.read(path)
        except MinislmError:
            continue
        accepted += 1
        gguf.GGUFReader(path)
    assert accepted > 20
