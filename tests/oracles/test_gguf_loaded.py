"""GGUF files opened by `minislm.load`, against the transformers model that they were made from."""

from __future__ import annotations

import numpy as np
import pytest

import minislm

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
