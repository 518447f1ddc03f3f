"""The decoders of `minislm.models.PUBLISHED`, small and odd."""

from __future__ import annotations

from published import Case

SMALL = {"vocab_size": 101, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}

ROTATED = {**SMALL, "hidden_size": 36, "intermediate_size": 50, "num_hidden_layers": 3, "max_position_embeddings": 48}
ONE_WIDTH = {**ROTATED, "num_attention_heads": 6, "num_key_value_heads": 2}  # heads of 6, three queries to a key
OTHER_WIDTH = {**ONE_WIDTH, "head_dim": 10}
FACTORS = {"short_factor": [1.0, 1.5, 2.0], "long_factor": [1.0, 3.0, 9.0]}


def rope(kind: str, **values: object) -> dict[str, object]:
    """Say a rotary scaling."""
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 500.0, **values}}


CASES = {
    "gpt2": Case(
        "GPT2LMHeadModel",
        "GPT2Config",
        {**SMALL, "n_positions": 40, "n_embd": 33, "n_layer": 3, "n_head": 3, "n_inner": 50},
    ),
    "gpt2, untied, relu": Case(
        "GPT2LMHeadModel",
        "GPT2Config",
        {**SMALL, "n_positions": 40, "n_embd": 20, "n_layer": 2, "n_head": 2, "activation_function": "relu"}
        | {"tie_word_embeddings": False, "layer_norm_epsilon": 1e-3},
    ),
    "gpt_neo": Case(
        "GPTNeoForCausalLM",
        "GPTNeoConfig",
        {**SMALL, "hidden_size": 33, "num_layers": 4, "num_heads": 3, "attention_types": [[["global", "local"], 2]]}
        | {"window_size": 5, "max_position_embeddings": 40, "intermediate_size": 70},
    ),
    "gptj": Case(
        "GPTJForCausalLM",
        "GPTJConfig",
        {**SMALL, "n_positions": 40, "n_embd": 30, "n_layer": 3, "n_head": 3, "rotary_dim": 4},
    ),
    "phi": Case("PhiForCausalLM", "PhiConfig", {**ROTATED, "num_attention_heads": 3, "num_key_value_heads": 3}),
    "phi, grouped, 0.7": Case(
        "PhiForCausalLM",
        "PhiConfig",
        {**ROTATED, "num_attention_heads": 6, "num_key_value_heads": 3}
        | {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.7}},
    ),
    "llama": Case("LlamaForCausalLM", "LlamaConfig", {**ONE_WIDTH}),
    "llama, tied, biases": Case(
        "LlamaForCausalLM",
        "LlamaConfig",
        {**OTHER_WIDTH, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
    ),
    "llama, linear": Case("LlamaForCausalLM", "LlamaConfig", {**ONE_WIDTH, **rope("linear", factor=3.0)}),
    "llama, dynamic": Case("LlamaForCausalLM", "LlamaConfig", {**ONE_WIDTH, **rope("dynamic", factor=3.0)}),
    "llama, llama3": Case(
        "LlamaForCausalLM",
        "LlamaConfig",
        {**OTHER_WIDTH, **rope("llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0)}
        | {
            "rope_parameters": {"rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0}
            | {"high_freq_factor": 4.0, "original_max_position_embeddings": 16}
        },
    ),
    "llama, yarn": Case(
        "LlamaForCausalLM",
        "LlamaConfig",
        {**OTHER_WIDTH, **rope("yarn", factor=3.0, original_max_position_embeddings=16)},
    ),
    "mistral": Case("MistralForCausalLM", "MistralConfig", {**ONE_WIDTH, "sliding_window": 5}),
    "qwen2": Case("Qwen2ForCausalLM", "Qwen2Config", {**ONE_WIDTH, "tie_word_embeddings": True}),
    "qwen2, window": Case(
        "Qwen2ForCausalLM",
        "Qwen2Config",
        {**ONE_WIDTH, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    ),
    "qwen3": Case("Qwen3ForCausalLM", "Qwen3Config", {**OTHER_WIDTH, "tie_word_embeddings": False}),
    "smollm3": Case(
        "SmolLM3ForCausalLM", "SmolLM3Config", {**ONE_WIDTH, "no_rope_layer_interval": 2, "use_sliding_window": False}
    ),
    "phi3": Case("Phi3ForCausalLM", "Phi3Config", {**ONE_WIDTH, "sliding_window": 6}),
    "phi3, longrope": Case(
        "Phi3ForCausalLM",
        "Phi3Config",
        {**ONE_WIDTH, "original_max_position_embeddings": 24, **rope("longrope", **FACTORS)},
    ),
    "olmo2": Case("Olmo2ForCausalLM", "Olmo2Config", {**ONE_WIDTH}),
    "granite": Case(
        "GraniteForCausalLM",
        "GraniteConfig",
        {**ONE_WIDTH, "embedding_multiplier": 3.0, "residual_multiplier": 0.3, "attention_multiplier": 0.2}
        | {"logits_scaling": 4.0, "tie_word_embeddings": True},
    ),
    "gemma2": Case(
        "Gemma2ForCausalLM",
        "Gemma2Config",
        {**OTHER_WIDTH, "sliding_window": 5, "query_pre_attn_scalar": 9, "attn_logit_softcapping": 2.0}
        | {"final_logit_softcapping": 3.0},
    ),
    "gemma3": Case(
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        {**OTHER_WIDTH, "num_hidden_layers": 4, "sliding_window": 5, "query_pre_attn_scalar": 9}
        | {"layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]},
    ),
}
