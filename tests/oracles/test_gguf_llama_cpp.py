"""GGUF files in llama.cpp itself: logits, tokens and quantized blocks are those that are read here.

It needs the extras `oracle` and `bench`, which has the binding llama-cpp-python.
"""

from __future__ import annotations

import ctypes
import unicodedata

import numpy as np
import pytest

llama_cpp = pytest.importorskip("llama_cpp", reason="needs the bench extra: pip install -e '.[bench]'")
pytest.importorskip("gguf")
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import tokenizers  # noqa: E402
from gguf_models import MODELS, small_model, write_model  # noqa: E402

from minislm.files.gguf_model import read_gguf  # noqa: E402
from minislm.files.gguf_tokenizer import WORDS  # noqa: E402
from minislm.weights.blocks import Blocks  # noqa: E402
from tests.oracles import test_gguf_sentencepiece as spm  # noqa: E402
from tests.oracles.test_gguf_transformers import TOKENIZER  # noqa: E402
from tests.unit.test_gguf_tokenizer import learned, settings_of, some_texts  # noqa: E402

pytestmark = pytest.mark.oracle

IDS = range(5, 45)
TYPES = {"q4_0": 2, "q8_0": 7, "q4_k": 14, "q6_k": 18}
"""What llama.cpp's quantizer calls the type of most matrices of a file."""


def loaded(path, **options):
    return llama_cpp.Llama(str(path), n_gpu_layers=0, n_threads=1, n_threads_batch=1, verbose=False, **options)


def logits(path):
    """Read token by token, in 32 bits all through."""
    floats = {"type_k": llama_cpp.GGML_TYPE_F32, "type_v": llama_cpp.GGML_TYPE_F32, "flash_attn": False}
    model = loaded(path, n_ctx=64, logits_all=True, **floats)
    for token in IDS:
        model.eval([token])
    return model.scores[: len(IDS)].copy()


def expected_logits(model):
    with torch.no_grad():
        return model(torch.tensor(IDS)[None]).logits[0].numpy()


@pytest.mark.parametrize("name", MODELS)
def test_the_file_is_the_same_model_there(name, tmp_path):
    model = small_model(name)
    write_model(tmp_path / "m.gguf", model, name, TOKENIZER)
    bound = 2e-3 if name.startswith(("gpt2", "phi2")) else 1e-5  # its GELU is a table in 16 bits
    np.testing.assert_allclose(logits(tmp_path / "m.gguf"), expected_logits(model), rtol=0, atol=bound)


@pytest.mark.parametrize("format", TYPES)
def test_what_its_quantizer_writes_is_read(format, tmp_path, monkeypatch):
    cls, values, kind = MODELS["llama"]
    wide = {**values, "hidden_size": 256, "intermediate_size": 256}
    monkeypatch.setitem(MODELS, "llama", (cls, wide, kind))
    model = small_model("llama")
    write_model(tmp_path / "whole.gguf", model, "llama", TOKENIZER)
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.pure = TYPES[format], 1, True
    paths = (str(tmp_path / name).encode() for name in ("whole.gguf", "m.gguf"))
    assert llama_cpp.llama_model_quantize(*paths, ctypes.byref(params)) == 0
    read, state, before = read_gguf(tmp_path / "m.gguf"), model.state_dict(), expected_logits(model)
    found = {name: tensor for name, tensor in read.tensors.items() if isinstance(tensor, Blocks)}
    assert len(found) >= 14
    assert {str(tensor.format) for tensor in found.values()} == {format}
    for name, tensor in found.items():
        w = state[name].numpy()
        error = np.linalg.norm(tensor.dense() - w) / np.linalg.norm(w)
        assert error < {"q8_0": 0.01, "q6_k": 0.03}.get(format, 0.12), name
        state[name].copy_(torch.from_numpy(tensor.dense()))
    theirs, ours = logits(tmp_path / "m.gguf"), expected_logits(model)
    # There, activations are rounded to bytes on their way into a product.
    assert np.linalg.norm(theirs - ours) < 0.06 * np.linalg.norm(ours)
    assert np.linalg.norm(theirs - ours) < 0.7 * np.linalg.norm(theirs - before)


@pytest.mark.parametrize("name", [*WORDS, "spaced"])
def test_tokens_are_the_same_there(name, tmp_path, rng, monkeypatch):
    if name == "spaced":
        settings, texts = spm.settings_of(spm.trained()), spm.some_texts(rng)
    else:
        settings, texts = settings_of(learned("gpt-2" if name == "default" else name), name), some_texts(rng)
    if name == "default":
        settings.pop("tokenizer.ggml.pre")
    cls, values, kind = MODELS["gpt2"]
    monkeypatch.setitem(MODELS, "gpt2", (cls, {**values, "vocab_size": len(settings["tokenizer.ggml.tokens"])}, kind))
    write_model(tmp_path / "m.gguf", small_model("gpt2"), "gpt2", settings)
    model = loaded(tmp_path / "m.gguf", vocab_only=True)
    inner = tokenizers.Tokenizer.from_str(read_gguf(tmp_path / "m.gguf").tokenizer)
    inner.encode_special_tokens = True
    for text in texts:
        text = unicodedata.normalize("NFC", text).replace("\0", "")  # which it does not do, and which ends a text there
        theirs = model.tokenize(text.encode(), add_bos=False, special=False)
        assert theirs == inner.encode(text, add_special_tokens=False).ids, text
