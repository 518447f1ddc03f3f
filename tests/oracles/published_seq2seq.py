"""The encoder-decoders of `minislm.models.PUBLISHED`, small and odd."""

from __future__ import annotations

from published import Case

T5 = {
    "vocab_size": 101,
    "d_model": 20,
    "d_kv": 7,
    "d_ff": 33,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 11,
    "n_positions": 40,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
MARIAN = {
    "vocab_size": 101,
    "d_model": 24,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_ffn_dim": 37,
    "decoder_ffn_dim": 29,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 4,
    "max_position_embeddings": 40,
    "decoder_start_token_id": 100,
    "pad_token_id": 100,
    "eos_token_id": 0,
    "forced_eos_token_id": 0,
}
CASES = {
    "t5": Case("T5ForConditionalGeneration", "T5Config", T5),
    "t5 1.1": Case(
        "T5ForConditionalGeneration",
        "T5Config",
        {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "layer_norm_epsilon": 1e-3},
    ),
    "marian": Case(
        "MarianMTModel", "MarianConfig", {**MARIAN, "activation_function": "swish", "scale_embedding": True}
    ),
    "marian, tables apart": Case(
        "MarianMTModel",
        "MarianConfig",
        {**MARIAN, "activation_function": "relu", "vocab_size": 101, "decoder_vocab_size": 101}
        | {"share_encoder_decoder_embeddings": False, "tie_word_embeddings": False},
    ),
}
LARGE_T5 = {"vocab_size": 32128, "d_kv": 64, "decoder_start_token_id": 0}
FLAN = {**LARGE_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
OPUS = {"d_model": 512, "encoder_layers": 6, "decoder_layers": 6, "encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048}
SIZES = {  # as published, with their numbers of parameters; those of Flan and OPUS without a second head or bias
    "t5-small": (CASES["t5"]._replace(values={**LARGE_T5, "d_model": 512, "d_ff": 2048}), 60_506_624),
    "t5-base": (
        CASES["t5"]._replace(values={**LARGE_T5, "d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12}),
        222_903_552,
    ),
    "flan-t5-base": (
        CASES["t5"]._replace(values={**FLAN, "d_model": 768, "d_ff": 2048, "num_layers": 12, "num_heads": 12}),
        247_577_856 - 32128 * 768,
    ),
    "opus-mt-en-de": (
        CASES["marian"]._replace(
            values={**OPUS, "encoder_attention_heads": 8, "decoder_attention_heads": 8, "vocab_size": 58101}
            | {"activation_function": "swish", "scale_embedding": True, "max_position_embeddings": 512}
        ),
        None,
    ),
}
