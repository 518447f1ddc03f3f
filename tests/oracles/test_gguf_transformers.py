"""GGUF files of tiny models: transformers finds in what is read the model that they were made from."""

from __future__ import annotations

import json

import numpy as np
import pytest

gguf = pytest.importorskip("gguf")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import tokenizers  # noqa: E402
from gguf_models import MODELS, small_model, write_model  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402

from minislm.errors import MinislmError  # noqa: E402
from minislm.files import gguf_model  # noqa: E402
from minislm.files.gguf_model import read_gguf  # noqa: E402
from minislm.ops.blocks import BLOCK_FORMATS, BlockFormat  # noqa: E402
from minislm.testing.cases.blocks import random_blocks  # noqa: E402
from minislm.weights.blocks import Blocks  # noqa: E402

pytestmark = pytest.mark.oracle

LETTERS = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
TOKENIZER = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "gpt-2",
    "tokenizer.ggml.tokens": [*LETTERS, "ab", "<|end|>", *(f"[PAD{n}]" for n in range(258, 262))],
    "tokenizer.ggml.token_type": [1] * 257 + [3] + [5] * 4,
    "tokenizer.ggml.merges": ["a b"],
    "tokenizer.ggml.bos_token_id": 257,
    "tokenizer.ggml.eos_token_id": 257,
    "tokenizer.ggml.add_bos_token": False,
}
SPELLED_OTHERWISE = ("rope_theta", "rope_scaling", "partial_rotary_factor", "n_inner")


def logits(model):
    with torch.no_grad():
        return model(torch.arange(120).reshape(3, 40) * 2).logits


def published(folder, read):
    """Write what was read as a folder, and load it with transformers."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(read.config))
    arrays = {name: np.ascontiguousarray(tensor) for name, tensor in read.tensors.items()}
    save_file(arrays, folder / "model.safetensors", {"format": "pt"})
    model, found = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32
    )
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    assert not found["mismatched_keys"]
    return model.eval()


@pytest.mark.parametrize("name", MODELS)
def test_what_is_read_is_the_model_it_was_made_from(name, tmp_path):
    model = small_model(name)
    write_model(tmp_path / "m.gguf", model, name, TOKENIZER)
    read = read_gguf(tmp_path / "m.gguf")
    state = model.state_dict()
    if model.config.tie_word_embeddings:
        state.pop("lm_head.weight")
    assert set(read.tensors) == set(state)
    for key, tensor in read.tensors.items():
        assert np.array_equal(tensor, state[key].numpy()), key
    assert read.config["model_type"] == model.config.model_type
    for key, value in read.config.items():
        if key not in (*SPELLED_OTHERWISE, *read.generation):
            assert value == getattr(model.config, key, value), key
    assert read.generation == {"bos_token_id": 257, "eos_token_id": 257}
    again = published(tmp_path / "folder", read)
    expected, found = logits(model), logits(again)
    if name == "llama 3 of another context":  # which is said factor by factor
        assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    else:
        assert torch.equal(found, expected)
    inner = tokenizers.Tokenizer.from_str(read.tokenizer)
    assert inner.get_vocab_size() == 258
    assert inner.encode("abc").tokens == ["ab", "c"]


@pytest.mark.parametrize("fault", ["rows", "names", "transposed"])
def test_a_planted_fault_is_caught(fault, tmp_path, monkeypatch):
    if fault == "rows":
        monkeypatch.setattr(gguf_model, "_neighbours", lambda n_rows, *_: np.arange(n_rows))
    changes = {
        "rows": ("llama", {}),
        "names": (
            "phi2",
            {"names": {**gguf_model.ARCHITECTURES["phi2"].names, "blk.{}.ffn_up": "model.layers.{}.mlp.fc2"}},
        ),
        "transposed": ("gpt2", {"transposed": ("c_attn.weight",)}),
    }
    name, change = changes[fault]
    row = gguf_model.ARCHITECTURES[name]
    monkeypatch.setitem(gguf_model.ARCHITECTURES, name, type(row)(**{**vars(row), **change}))
    with pytest.raises((AssertionError, MinislmError, RuntimeError)):
        test_what_is_read_is_the_model_it_was_made_from(name, tmp_path)


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gpt2"])
def test_transformers_finds_the_same_in_the_file(name, tmp_path):
    """So the file is one that others, too, take for a conversion of the model."""
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    model = small_model(name)
    write_model(tmp_path / "m.gguf", model, name, TOKENIZER)
    theirs = load_gguf_checkpoint(str(tmp_path / "m.gguf"), return_tensors=True, model_to_load=model)
    ours = read_gguf(tmp_path / "m.gguf")
    shared = set(theirs["tensors"]) & set(ours.tensors)
    assert len(shared) == len(ours.tensors)
    for key in shared:
        assert np.array_equal(theirs["tensors"][key].numpy(), ours.tensors[key]), key
    shared = set(theirs["config"]) & set(ours.config) - {"rope_theta"}
    assert len(shared) >= 7
    for key in shared:
        assert theirs["config"][key] == pytest.approx(ours.config[key]), key


IN_BLOCKS = {
    "llama": ("model.layers.{}.self_attn.q_proj", "model.layers.{}.self_attn.k_proj", "model.layers.{}.mlp.up_proj"),
    "gpt2": ("transformer.h.{}.attn.c_attn",),
    "phi2, fused": ("transformer.h.{}.mixer.Wqkv",),
}
"""Matrices of the folder, by architecture; a fused one is cut in three as it is read."""


@pytest.mark.parametrize("name", IN_BLOCKS)
@pytest.mark.parametrize("format", BLOCK_FORMATS.values(), ids=str)
def test_rows_in_blocks_are_moved_whole(name, format, tmp_path, rng, monkeypatch):
    """Blocks are the bytes of the file, in the rows of the folder, and never decoded."""
    cls, values, kind = MODELS[name]
    wide = {"n_embd": 256} if kind == "gpt2" else {"hidden_size": 256, "intermediate_size": 256}
    monkeypatch.setitem(MODELS, name, (cls, {**values, **wide}, kind))
    n_rows = {"q_proj": 256, "k_proj": 128, "up_proj": 256, "c_attn": 768, "Wqkv": 768}
    stored = {
        f"{path.format(layer)}.weight": random_blocks(rng, format, n_rows[path.rpartition(".")[2]], 256)
        for path in IN_BLOCKS[name]
        for layer in range(2)
    }
    quantized = gguf.GGMLQuantizationType[format.name.upper()]
    with_types = {key: (blocks, quantized) for key, blocks in stored.items()}
    write_model(tmp_path / "m.gguf", small_model(name), name, TOKENIZER, stored=with_types)
    monkeypatch.setattr(BlockFormat, "decode", None)
    read = read_gguf(tmp_path / "m.gguf")
    found = {key: tensor for key, tensor in read.tensors.items() if isinstance(tensor, Blocks)}
    for key, blocks in stored.items():
        layer = key.split(".")[2]
        parts = [f"model.layers.{layer}.self_attn.{part}_proj.weight" for part in "qkv"] if "Wqkv" in key else [key]
        tensors = [found.pop(part) for part in parts]
        assert np.array_equal(np.concatenate([tensor.blocks for tensor in tensors]), blocks), key
        assert all(tensor.shape == (len(blocks) // len(parts), 256) for tensor in tensors)
    assert not found
