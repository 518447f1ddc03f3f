"""Published LLaMA folders as GGUF: the same weights in float16, then in llama.cpp's types by its own quantizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np

from minislm.benchmark.shapes import kept_name, model_folder
from minislm.files.folder import CONFIG, read_folder, read_json
from minislm.files.gguf_names import ARCHITECTURES

PURE = ("q4_0", "q8_0")
"""Types in which every matrix is stored, as minislm does; the others mix types as llama.cpp means them to."""
FILE_TYPES = {"q4_0": 2, "q8_0": 7, "q4_k_m": 15}


def gguf_file(model: str, cache: Path, kind: str) -> Path:
    """Find a decoder's GGUF file, or make it.

    Parameters
    ----------
    model : str
        A shape or a published LLaMA folder.
    cache : Path
        Where it is kept.
    kind : str
        ``"f16"`` or one of `FILE_TYPES`.

    Returns
    -------
    Path
        The file.
    """
    path = cache / f"{kept_name(model)}-{kind}.gguf"
    if not path.exists():
        part = path.with_suffix(".part")
        if kind == "f16":
            _write(model_folder(model, cache)[0], part)
        else:
            _quantize(gguf_file(model, cache, "f16"), part, kind)
        part.rename(path)
    return path


def _quantize(source: Path, target: Path, kind: str) -> None:
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype, options.pure = FILE_TYPES[kind], kind in PURE
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), options):
        raise ValueError(f"llama.cpp cannot quantize {source} to {kind}")


def _write(folder: Path, path: Path) -> None:
    """Write tensor after tensor; queries and keys in the order that llama.cpp's rotation wants."""
    config = read_json(folder / CONFIG)
    names = {theirs: ours for ours, theirs in ARCHITECTURES["llama"].names.items()}
    writer = gguf.GGUFWriter(path, "llama", use_temp_file=False)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    _add_vocabulary(writer, config["vocab_size"])
    tensors = read_folder(folder).arrays
    for name, array in tensors.items():
        stem = name.removesuffix(".weight")
        parts = stem.split(".")
        layer = parts[2] if parts[1:2] == ["layers"] else None
        pattern = stem.replace(f"layers.{layer}.", "layers.{}.") if layer else stem
        theirs = names[pattern].replace("{}", layer or "")
        writer.add_tensor(f"{theirs}.weight", _ordered(array, theirs, config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _ordered(array: np.ndarray, name: str, config: dict[str, Any]) -> np.ndarray:
    """Return a tensor as the file stores it: vectors in float32, matrices in float16."""
    if array.ndim == 1:
        return array.astype(np.float32)
    heads = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}.get(name.split(".")[-1])
    array = array.astype(np.float16)
    if heads is None:
        return array
    n_heads, (n_rows, n_inputs) = config[heads], array.shape
    return array.reshape(n_heads, 2, n_rows // n_heads // 2, n_inputs).swapaxes(1, 2).reshape(n_rows, n_inputs)


def _add_vocabulary(writer: Any, size: int) -> None:
    """Name the tokens somehow: only their numbers are used."""
    special = [b"<unk>", b"<s>", b"</s>", *(f"<0x{byte:02X}>".encode() for byte in range(256))]
    tokens = [*special, *(f"token{i}".encode() for i in range(len(special), size))]
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL, *[gguf.TokenType.BYTE] * 256]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens[:size])
    writer.add_token_scores([0.0] * size)
    writer.add_token_types([*kinds, *[gguf.TokenType.NORMAL] * (size - len(kinds))][:size])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
