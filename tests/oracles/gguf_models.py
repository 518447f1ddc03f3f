"""Tiny models of transformers, and GGUF files of them as llama.cpp's converter writes them."""

from __future__ import annotations

import re

import gguf
import numpy as np
import torch
import transformers

SIZES = {"vocab_size": 262, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
ROPE = {"rope_theta": 20_000.0, "rope_type": "default"}
STEEP = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
PHI = {**SIZES, **HEADS, "num_key_value_heads": 4, "layer_norm_eps": 1e-4}
GPT2 = {"vocab_size": 262, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "layer_norm_epsilon": 2e-5}

# Class of the config, its values, and the architecture in GGUF.
MODELS = {
    "llama": (transformers.LlamaConfig, {**SIZES, **HEADS, "rope_parameters": ROPE}, "llama"),
    "llama, tied": (transformers.LlamaConfig, {**SIZES, **HEADS, "tie_word_embeddings": True}, "llama"),
    "llama, biases": (transformers.LlamaConfig, {**SIZES, **HEADS, "attention_bias": True, "mlp_bias": True}, "llama"),
    "llama, wide heads": (transformers.LlamaConfig, {**SIZES, **HEADS, "head_dim": 16}, "llama"),
    "llama, linear": (
        transformers.LlamaConfig,
        {**SIZES, **HEADS, "rope_parameters": {"rope_theta": 10_000.0, "rope_type": "linear", "factor": 4.0}},
        "llama",
    ),
    "llama 3.1": (
        transformers.LlamaConfig,
        {**SIZES, **HEADS, "rope_parameters": {**STEEP, "rope_theta": 500_000.0, "rope_type": "llama3", "factor": 8.0}},
        "llama",
    ),
    "llama 3 of another context": (
        transformers.LlamaConfig,
        {
            **SIZES,
            **HEADS,
            "rope_parameters": {
                "rope_theta": 10_000.0,
                "rope_type": "llama3",
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 8.0,
                "original_max_position_embeddings": 32,
            },
        },
        "llama",
    ),
    "qwen2": (transformers.Qwen2Config, {**SIZES, **HEADS, "rope_parameters": ROPE}, "qwen2"),
    "qwen2, yarn": (
        transformers.Qwen2Config,
        {
            **SIZES,
            **HEADS,
            "rope_parameters": {
                "rope_theta": 10_000.0,
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        },
        "qwen2",
    ),
    "qwen3": (transformers.Qwen3Config, {**SIZES, **HEADS, "head_dim": 16, "tie_word_embeddings": True}, "qwen3"),
    "gpt2": (transformers.GPT2Config, GPT2, "gpt2"),
    "gpt2, narrow": (transformers.GPT2Config, {**GPT2, "n_inner": 48}, "gpt2"),
    "phi2": (transformers.PhiConfig, PHI, "phi2"),
    "phi2, fused": (transformers.PhiConfig, PHI, "phi2"),
}


def small_model(name):
    """Make a model whose numbers are all different, biases and norms too."""
    cls, values, _ = MODELS[name]
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(cls(**values)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def interleaved(rows, n_heads):
    """Order rows as llama.cpp's converter does: the halves of each head take turns."""
    halves = rows.reshape(n_heads, 2, len(rows) // n_heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


def write_model(path, model, name, tokenizer, *, stored=None):
    """Write a GGUF file; `stored` may give other bytes, and their type, for a tensor of the folder."""
    config, architecture = model.config, MODELS[name][2]
    writer = gguf.GGUFWriter(path, architecture)
    write_settings(writer, config, architecture)
    for key, value in tokenizer.items():
        write_value(writer, key, value)
    kind = next(kind for kind, text in gguf.MODEL_ARCH_NAMES.items() if text == architecture)
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    if config.tie_word_embeddings:
        state.pop("lm_head.weight")
    if name.endswith("fused"):
        for layer in range(config.num_hidden_layers):
            for end in ("weight", "bias"):
                parts = [state.pop(f"model.layers.{layer}.self_attn.{part}_proj.{end}") for part in "qkv"]
                state[f"transformer.h.{layer}.mixer.Wqkv.{end}"] = np.concatenate(parts)
    for key, array in state.items():
        if key.endswith((".attn.bias", ".attn.masked_bias")):
            continue
        if architecture == "gpt2" and re.search(r"(c_attn|c_proj|c_fc)\.weight$", key):
            array = array.T
        quantized = (stored or {}).get(key)
        array = quantized[0] if quantized else array
        if architecture == "llama" and re.search(r"[qk]_proj\.(weight|bias)$", key):
            array = interleaved(array, config.num_attention_heads if "q_proj" in key else config.num_key_value_heads)
        full = names.get_name(key, try_suffixes=(".weight", ".bias"))
        writer.add_tensor(full, np.ascontiguousarray(array), raw_dtype=quantized[1] if quantized else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_settings(writer, config, architecture):
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    if architecture == "gpt2":
        writer.add_feed_forward_length(config.n_inner or 4 * config.hidden_size)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    d_head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = config.rope_parameters
    if architecture == "phi2":
        writer.add_layer_norm_eps(config.layer_norm_eps)
        writer.add_rope_dimension_count(int(rope["partial_rotary_factor"] * d_head))
        return
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    if architecture in ("llama", "qwen3"):
        writer.add_key_length(d_head)
        writer.add_value_length(d_head)
        writer.add_rope_dimension_count(d_head)
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    elif rope["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    elif rope["rope_type"] == "llama3":
        usual = rope["rope_theta"] ** (torch.arange(0, d_head, 2).float() / d_head)
        inverse, _ = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
        writer.add_tensor("rope_freqs.weight", (1 / (inverse * usual)).numpy().astype(np.float32))


def write_value(writer, key, value):
    """Write a setting of the tokenizer as `minislm.files.gguf` reads it."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, [each.item() if hasattr(each, "item") else each for each in value])
