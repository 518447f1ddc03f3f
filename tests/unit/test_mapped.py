"""Pages of mapped files are let go: a large model is quantized or copied in little more than the output's memory."""

import json
import mmap
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import minislm
from minislm.evaluation.memory import forget_peak, resident_peak
from minislm.files import safetensors
from minislm.models.decoder import Decoder, DecoderConfig
from minislm.text.tokenizer import Tokenizer
from minislm.weights.mapped import release
from minislm.weights.panels import Panels
from minislm.weights.quantized import Quantized

linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no way to ask what is resident")
MIB = 2**20


def resident_of_files():
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("RssFile:")[2].split()[0]) * 1024


@linux
@pytest.mark.parametrize("view", [lambda a: a, lambda a: a.T, lambda a: a[::-1, 3:], lambda a: a.view(np.uint16)[5:]])
def test_pages_are_let_go_and_come_again(tmp_path, view):
    stored = np.arange(4 * MIB, dtype=np.int32).reshape(4096, -1)
    safetensors.write(tmp_path / "m.safetensors", {"a": stored, "b": stored[:7]})
    mapped = safetensors.read(tmp_path / "m.safetensors")
    part = view(mapped["a"])
    expected = part.copy()
    before = resident_of_files()
    release(part)
    assert before - resident_of_files() > 0.9 * expected.nbytes
    np.testing.assert_array_equal(part, expected)
    np.testing.assert_array_equal(mapped["b"], stored[:7])


def test_what_is_not_mapped_for_reading_stays_as_it_is(tmp_path):
    (tmp_path / "file").write_bytes(bytes(8192))
    for array in (np.zeros(3), np.zeros((0, 4)), np.frombuffer(bytes(8), np.uint8), np.float32(2.0)):
        release(np.asarray(array))
    with (tmp_path / "file").open("rb") as file:
        private = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)
    private[:] = 7  # in memory alone: letting go of it would lose it
    release(private)
    assert (private == 7).all()


@linux
def test_a_matrix_is_laid_out_without_being_in_memory_twice(tmp_path):
    weight = Quantized.nearest(np.zeros((8192, 4096), np.float32), "int8")
    safetensors.write(tmp_path / "m.safetensors", {f"w{name}": array for name, array in weight.arrays().items()})
    stored = safetensors.read(tmp_path / "m.safetensors")
    mapped = Quantized.from_arrays(weight.spec(), {name.removeprefix("w"): array for name, array in stored.items()})
    before = forget_peak()
    panels = Panels.of(mapped)
    size = panels.lines.nbytes + panels.scales.nbytes
    assert resident_peak() - before < size + 24 * MIB  # of the 32 that the file has
    np.testing.assert_array_equal(panels.repacked("canonical").codes, weight.codes)


def test_saving_lets_go_of_what_it_read(tmp_path, monkeypatch):
    released = []
    monkeypatch.setattr(safetensors, "release", lambda array: released.append(array.size))
    safetensors.write(tmp_path / "m.safetensors", {"a": np.ones(3), "b": np.ones(5)})
    assert released == [3, 5, 3, 5]  # once written, once compared


DO = """
import json, sys
import minislm
from minislm.compression import compress
from minislm.compression.quantize import Quantize
from minislm.evaluation.memory import forget_peak, resident_peak
small, what, source, target = sys.argv[1:]
for path in (small, source):  # the small one loads all code
    before = forget_peak()
    lm = minislm.load(path)
    if what == "quantize":
        lm, _ = compress(lm, Quantize("int4-32"))
    minislm.save(lm, target)
print(json.dumps({"growth": resident_peak() - before, "output": lm.model.nbytes}))
"""


def half_size_decoder(path, **sizes):
    """Save a decoder in bfloat16; return the bytes of its largest tensor."""
    model = Decoder.create(DecoderConfig.uniform(context=64, n_heads=8, vocab_size=512, tied=False, **sizes))
    arrays = {
        name: array.astype(ml_dtypes.bfloat16) if array.ndim > 1 else array for name, array in model.arrays().items()
    }
    minislm.save(minislm.LanguageModel(model.with_arrays(arrays), Tokenizer.train([], kind="bytes")), path)
    return max(array.nbytes for array in arrays.values()), sum(array.nbytes for array in arrays.values())


@linux
@pytest.mark.slow
@pytest.mark.parametrize("what", ["quantize", "copy"])
def test_memory_grows_by_the_output_and_one_tensor(tmp_path, what):
    half_size_decoder(tmp_path / "small", d_model=64, n_layers=1)
    largest, size = half_size_decoder(tmp_path / "source", d_model=2048, n_layers=5)
    assert size > 400 * MIB
    command = [sys.executable, "-c", DO, tmp_path / "small", what, tmp_path / "source", tmp_path / "out"]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    found = json.loads(subprocess.run(command, capture_output=True, check=True, env=environment).stdout)
    output = found["output"] if what == "quantize" else 0
    assert found["growth"] < output + largest + 48 * MIB
