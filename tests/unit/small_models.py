"""A small model of every family, for tests that hold for all of them."""

from __future__ import annotations

import numpy as np

from minislm.config import Head
from minislm.models.decoder import Decoder, DecoderConfig
from minislm.models.encoder import Encoder, EncoderConfig
from minislm.models.transformer import Transformer, TransformerConfig

MODERN = {"positions": "rotary", "norm": "rms", "mlp": "gated", "activation": "silu", "biases": (), "tied": False}
T5 = {"positions": "relative", "norm": "rms", "norm_place": "before", "biases": (), "attention_scale": 1.0}
BOTTLENECK = {"width": 10, "n_mlps": 2, "d_embedding": 7}
HEADS = (
    Head("words", "masked"),
    Head("topic", "sequence", ("a", "b", "c")),
    Head("names", "token", ("O", "B-x", "I-x")),
    Head("answer", "span"),
)
FAMILIES = {
    "gpt2": (Decoder, DecoderConfig, {}),
    "llama": (Decoder, DecoderConfig, {**MODERN, "n_kv_heads": 2}),
    "encoder": (Encoder, EncoderConfig, {"heads": HEADS}),
    "mobilebert": (Encoder, EncoderConfig, {"heads": HEADS, "bottleneck": BOTTLENECK}),
    "transformer": (Transformer, TransformerConfig, {}),
    "t5": (Transformer, TransformerConfig, T5),
}


def small_model(family, seed=1, dtype=np.float32, **sizes):
    """Create a model with 2 blocks in each stack, 4 heads and random biases and gains."""
    cls, config, choices = FAMILIES[family]
    sizes = {"vocab_size": 23, "d_model": 16, "context": 8, "n_layers": 2, "n_heads": 4, "d_ff": 20, **choices, **sizes}
    model = cls.create(config.uniform(**sizes), seed=seed, dtype=dtype)
    rng = np.random.default_rng(seed)
    return model.with_arrays(
        {name: (a + 0.1 * rng.standard_normal(a.shape)).astype(dtype) for name, a in model.arrays().items()}
    )
