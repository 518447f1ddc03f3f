"""GGUF files opened by `minislm.load`, against the transformers model that they were made from."""

from __future__ import annotations

import numpy as np
import pytest

import minislm
from minislm.ops.blocks import BLOCK_FORMATS

torch = pytest.importorskip("torch", reason="needs the oracle extra: pip install -e '.[oracle]'")
pytest.importorskip("transformers", reason="needs the oracle extra: pip install -e '.[oracle]'")
gguf = pytest.importorskip("gguf", reason="needs the oracle extra: pip install -e '.[oracle]'")
pytestmark = pytest.mark.oracle

from gguf_models import MODELS, small_model, write_model  # noqa: E402
from test_gguf_transformers import TOKENIZER  # noqa: E402


@pytest.mark.parametrize("name", MODELS)
def test_logits(name, tmp_path):
    model = small_model(name)
    write_model(tmp_path / "m.gguf", model, name, TOKENIZER)
    lm = minislm.load(tmp_path / "m.gguf")
    ids = np.random.default_rng(0).integers(0, 258, (2, 13))
    with torch.no_grad():
        expected = model(torch.tensor(ids)).logits.numpy()
    assert np.abs(lm.logits(ids) - expected).max() < 1e-4 * np.abs(expected).max()
    assert lm.tokenizer.encode("abc") == [256, 66]
    assert lm.generate("abc", max_new_tokens=3, ignore_eos=True).ids


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_quantized_blocks_are_run_and_saved(name, kind, tmp_path):
    model, stored = small_model(name), {}
    quantized = getattr(gguf.GGMLQuantizationType, kind)
    for path, matrix in model.named_parameters():
        if path.endswith(("up_proj.weight", "mlp.c_fc.weight")):
            rows = matrix.detach().numpy().T if "c_fc" in path else matrix.detach().numpy()
            blocks = gguf.quants.quantize(np.ascontiguousarray(rows), quantized)
            stored[path] = (blocks, quantized)
            back = gguf.quants.dequantize(blocks, quantized)
            matrix.data = torch.tensor(back.T if "c_fc" in path else back)
    assert stored
    write_model(tmp_path / "m.gguf", model, name, TOKENIZER, stored=stored)
    lm = minislm.load(tmp_path / "m.gguf", activations="float")
    ids = np.random.default_rng(0).integers(0, 258, (2, 13))
    with torch.no_grad():
        expected = model(torch.tensor(ids)).logits.numpy()
    assert np.abs(lm.logits(ids) - expected).max() < 1e-4 * np.abs(expected).max()
    rounded = minislm.load(tmp_path / "m.gguf").logits(ids)  # the default, as there
    assert 0 < np.linalg.norm(rounded - expected) < 0.02 * np.linalg.norm(expected)
    minislm.save(lm, tmp_path / "saved")
    np.testing.assert_array_equal(minislm.load(tmp_path / "saved").logits(ids), lm.logits(ids))


@pytest.mark.parametrize("kind", ["Q4_K", "Q6_K"])
def test_blocks_of_two_levels_are_run(kind, tmp_path, monkeypatch):
    cls, values, architecture = MODELS["llama"]
    wide = {**values, "hidden_size": 256, "intermediate_size": 512}  # whole blocks
    monkeypatch.setitem(MODELS, "llama", (cls, wide, architecture))
    model, stored = small_model("llama"), {}
    quantized = getattr(gguf.GGMLQuantizationType, kind)
    record = BLOCK_FORMATS[kind.lower()]
    rng = np.random.default_rng(1)
    for path, matrix in model.named_parameters():
        if path.endswith(("up_proj.weight", "down_proj.weight")):
            blocks = rng.integers(0, 256, (matrix.shape[0], record.row_bytes(matrix.shape[1]))).astype(np.uint8)
            for field in {"scale", "least"} & set(record.record.names):
                blocks.view(record.record)[field] = rng.uniform(1e-5, 1e-4, blocks.view(record.record).shape)
            stored[path] = (blocks, quantized)
            matrix.data = torch.tensor(gguf.quants.dequantize(blocks, quantized))
    assert stored
    write_model(tmp_path / "m.gguf", model, "llama", TOKENIZER, stored=stored)
    ids = rng.integers(0, 258, (2, 13))
    with torch.no_grad():
        expected = model(torch.tensor(ids)).logits.numpy()
    exact = minislm.load(tmp_path / "m.gguf", activations="float")
    assert np.abs(exact.logits(ids) - expected).max() < 1e-4 * np.abs(expected).max()
    lm = minislm.load(tmp_path / "m.gguf")
    assert {spec["activations"] for spec in lm.model.specs().values() if spec["type"] == "blocks"} == {"int8-32"}
    assert 0 < np.linalg.norm(lm.logits(ids) - expected) < 0.02 * np.linalg.norm(expected)
