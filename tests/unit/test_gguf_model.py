"""GGUF files as models: what a file may not say, and where its rows go. Transformers judges whole models elsewhere."""

import re

import numpy as np
import pytest
from gguf_bytes import written

from minislm.errors import MinislmError, ModelFileError, UnsupportedError
from minislm.evaluation.layers import reference_states
from minislm.files.gguf_model import read_gguf
from minislm.files.gguf_names import llama3_factors
from minislm.language_model import load

TOKENIZER = [
    ("tokenizer.ggml.model", "text", "gpt2"),
    ("tokenizer.ggml.pre", "text", "gpt-2"),
    ("tokenizer.ggml.tokens", "list", ("text", ["a", "b", "ab"])),
    ("tokenizer.ggml.merges", "list", ("text", ["a b"])),
    ("tokenizer.ggml.eos_token_id", "u32", 2),
]
LLAMA = {
    "context_length": ("u32", 16),
    "embedding_length": ("u32", 8),
    "feed_forward_length": ("u32", 12),
    "block_count": ("u32", 1),
    "attention.head_count": ("u32", 2),
    "attention.head_count_kv": ("u32", 1),
    "attention.layer_norm_rms_epsilon": ("f32", 1e-5),
}
TENSORS = {
    "token_embd.weight": (3, 8),
    "output_norm.weight": (8,),
    "blk.0.attn_q.weight": (8, 8),
    "blk.0.attn_k.weight": (4, 8),
}


def write(path, changes=(), tensors=(), architecture="llama", tokenizer=TOKENIZER):
    """Write a small file; a change of None takes a setting or a tensor away."""
    values = {**LLAMA, **dict(changes)}
    settings = [("general.architecture", "text", architecture)] if architecture else []
    settings += [(f"{architecture}.{name}", *value) for name, value in values.items() if value] + list(tokenizer)
    shapes = {name: shape for name, shape in {**TENSORS, **dict(tensors)}.items() if shape is not None}
    arrays = {
        name: shape if isinstance(shape, np.ndarray) else np.arange(np.prod(shape, dtype=int), dtype=np.float32)
        for name, shape in shapes.items()
    }
    entries = [
        (name, 0, (shapes[name].shape if isinstance(shapes[name], np.ndarray) else shapes[name])[::-1], array.tobytes())
        for name, array in arrays.items()
    ]
    path.write_bytes(written(settings, entries))


def test_the_config_is_that_of_the_folder(tmp_path):
    write(tmp_path / "m.gguf")
    read = read_gguf(tmp_path / "m.gguf")
    assert read.config == {
        "model_type": "llama",
        "vocab_size": 3,
        "hidden_size": 8,
        "intermediate_size": 12,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 4,
        "max_position_embeddings": 16,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "rope_scaling": None,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "eos_token_id": 2,
    }
    assert read.generation == {"eos_token_id": 2}
    assert read.roles == {"eos_token": "ab"}
    assert set(read.tensors) == {
        "model.embed_tokens.weight",
        "model.norm.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.k_proj.weight",
    }
    rows = read.tensors["model.layers.0.self_attn.q_proj.weight"][:, 0] / 8
    assert rows.tolist() == [0, 2, 1, 3, 4, 6, 5, 7]  # in the file, the halves of a head of four take turns


def test_llama3_slows_slow_waves_down(tmp_path):
    formula = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    factors = llama3_factors(formula, 500_000.0, 128)
    assert factors[0] == 1.0
    assert factors[-1] == 8.0
    assert (np.diff(factors) >= 0).all()
    few = llama3_factors(formula, 10_000.0, 4).astype(np.float32)
    write(tmp_path / "m.gguf", tensors={"rope_freqs.weight": few})
    assert read_gguf(tmp_path / "m.gguf").config["rope_scaling"]["rope_type"] == "llama3"
    write(tmp_path / "m.gguf", tensors={"rope_freqs.weight": np.array([1.5, 3.0], np.float32)})
    scaling = read_gguf(tmp_path / "m.gguf").config["rope_scaling"]
    assert (scaling["rope_type"], scaling["long_factor"], scaling["attention_factor"]) == ("longrope", [1.5, 3.0], 1.0)


BAD = {
    "no architecture": ({"architecture": ""}, "config_invalid"),
    "unknown architecture": ({"architecture": "lama"}, "unknown_architecture"),
    "no width": ({"changes": {"embedding_length": None}}, "config_invalid"),
    "width 0": ({"changes": {"embedding_length": ("u32", 0)}}, "config_invalid"),
    "negative width": ({"changes": {"embedding_length": ("i32", -8)}}, "config_invalid"),
    "width 2^40": ({"changes": {"embedding_length": ("u64", 2**40)}}, "config_invalid"),
    "width as a float": ({"changes": {"embedding_length": ("f32", 8.0)}}, "config_invalid"),
    "width as a truth": ({"changes": {"embedding_length": ("bool", True)}}, "config_invalid"),
    "width as a text": ({"changes": {"embedding_length": ("text", "8")}}, "config_invalid"),
    "heads by layer": ({"changes": {"attention.head_count_kv": ("list", ("u32", [1]))}}, "config_invalid"),
    "no epsilon": ({"changes": {"attention.layer_norm_rms_epsilon": None}}, "config_invalid"),
    "epsilon that is no number": (
        {"changes": {"attention.layer_norm_rms_epsilon": ("f32", float("nan"))}},
        "config_invalid",
    ),
    "infinite theta": ({"changes": {"rope.freq_base": ("f32", float("inf"))}}, "config_invalid"),
    "scaling as a number": ({"changes": {"rope.scaling.type": ("u32", 1)}}, "config_invalid"),
    "unknown scaling": ({"changes": {"rope.scaling.type": ("text", "ntk")}}, "unsupported_config"),
    "experts": ({"changes": {"expert_count": ("u32", 8)}}, "unsupported_config"),
    "a sliding window": ({"changes": {"attention.sliding_window": ("u32", 8)}}, "unsupported_config"),
    "half of a head rotated": ({"changes": {"rope.dimension_count": ("u32", 2)}}, "unsupported_config"),
    "values of another width": ({"changes": {"attention.value_length": ("u32", 2)}}, "unsupported_config"),
    "other rows than tokens": ({"changes": {"vocab_size": ("u32", 4)}}, "config_vs_weights"),
    "no embedding": ({"tensors": {"token_embd.weight": None}}, "config_vs_weights"),
    "a vector for an embedding": ({"tensors": {"token_embd.weight": (3,)}}, "config_vs_weights"),
    "rows that heads cannot share": ({"tensors": {"blk.0.attn_q.weight": (6, 8)}}, "config_vs_weights"),
    "a scalar for a projection": ({"tensors": {"blk.0.attn_q.weight": ()}}, "config_vs_weights"),
    "an unknown tensor": ({"tensors": {"blk.0.ssm_a.weight": (2,)}}, "unsupported_config"),
    "an unknown end": ({"tensors": {"blk.0.attn_q.scale": (2,)}}, "unsupported_config"),
    "factors of another number": ({"tensors": {"rope_freqs.weight": (3,)}}, "config_vs_weights"),
    "factors of zero": ({"tensors": {"rope_freqs.weight": np.zeros(2, np.float32)}}, "non_finite_weight"),
    "no tokenizer": ({"tokenizer": []}, "tokenizer_invalid"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_a_file_may_not_say_is_named(name, tmp_path):
    options, code = BAD[name]
    write(tmp_path / "m.gguf", **options)
    with pytest.raises(MinislmError) as caught:
        read_gguf(tmp_path / "m.gguf")
    assert caught.value.code == code
    assert isinstance(caught.value, UnsupportedError) is code.startswith(("un",))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"attention.head_count": ("u32", 3), "attention.head_count_kv": ("u32", 2)},
            "llama.attention.head_count (3) must be a multiple of llama.attention.head_count_kv (2)",
        ),
        ({"context_length": ("u64", 2**40)}, "llama.context_length must be"),
        ({"block_count": ("u32", 10**6)}, "llama.block_count must be"),
    ],
)
def test_sizes_are_told_in_the_words_of_the_file(changes, told, tmp_path):
    write(tmp_path / "m.gguf", changes, {"blk.0.attn_q.weight": (12, 8)})
    with pytest.raises(MinislmError) as caught:
        load(tmp_path / "m.gguf")
    assert told in str(caught.value)
    assert not re.search(r"hidden_size|num_|max_position", str(caught.value))


def test_a_file_is_known_by_its_ending_and_named_for_its_folder(tmp_path):
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder" / "M.GGUF")
    with pytest.raises(ModelFileError, match=r"has no config\.json; name the GGUF file in it: .*folder/M\.GGUF"):
        load(tmp_path / "folder")
    with pytest.raises(MinislmError, match="asks for tensor"):  # this small file lacks most
        load(tmp_path / "folder" / "M.GGUF")


def test_another_library_runs_folders_alone(tmp_path):
    write(tmp_path / "m.gguf")
    with pytest.raises(UnsupportedError, match="name the folder that the file was made from") as caught:
        reference_states(tmp_path / "m.gguf", None, np.zeros((1, 1), int))
    assert caught.value.code == "needs_folder"


def test_random_mutations_are_named(tmp_path, rng):
    """Whatever bytes of the header change, the answer is an error of ours or another model."""
    path = tmp_path / "m.gguf"
    write(path)
    whole = path.read_bytes()
    codes = set()
    for _ in range(1500):
        data = bytearray(whole)
        start = int(rng.integers(24, 1000))
        if rng.random() < 0.5:
            data[start] ^= 1 << int(rng.integers(8))
        else:
            data[start : start + 4] = rng.bytes(4)
        path.write_bytes(data)
        try:
            read_gguf(path)
            codes.add(None)
        except MinislmError as error:
            codes.add(error.code)
    assert {None, "truncated", "config_invalid", "unsupported_config", "tokenizer_invalid"} <= codes


def test_fused_rows_and_their_parts_cannot_both_be_there(tmp_path):
    norm = {"attention.layer_norm_rms_epsilon": None, "attention.layer_norm_epsilon": ("f32", 1e-5)}
    for tensors, code in (
        ({"blk.0.attn_qkv.weight": (24, 8)}, "config_vs_weights"),
        ({"blk.0.attn_qkv.weight": (25, 8), "blk.0.attn_q.weight": None}, "config_vs_weights"),
    ):
        write(tmp_path / "m.gguf", norm, tensors, architecture="phi2")
        with pytest.raises(MinislmError) as caught:
            read_gguf(tmp_path / "m.gguf")
        assert caught.value.code == code
