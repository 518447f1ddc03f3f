"""Transformer: an encoder reads the source, and a decoder writes the target while it looks back at it.

References
----------
.. [1] Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin (2017), "Attention is all you need",
   arXiv 1706.03762.
.. [2] Press, Wolf (2016), "Using the output embedding to improve language models", arXiv 1608.05859.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from minislm.config import Config, LayerSizes
from minislm.errors import ConfigError, DataError
from minislm.layers.base import PLAIN, Context, Grads, Tape
from minislm.layers.block import PostNormBlock, PostNormCrossBlock
from minislm.layers.dropout import Dropout
from minislm.layers.embedding import Embedding
from minislm.layers.mlp import ACTIVATIONS
from minislm.layers.sinusoids import Sinusoids
from minislm.models.base import Model, Stack
from minislm.models.maker import Maker
from minislm.models.parts import Parts

MOST_POSITIONS = 65_536


@dataclass(frozen=True)
class TransformerConfig(Config):
    """Sizes and choices of a `Transformer`.

    Parameters
    ----------
    vocab_size, d_model : int
        As of every `Config`; source and target share one vocabulary.
    context : int
        Largest number of positions of a source, and of a target.
    layers : tuple of LayerSizes
        Of the decoder; those of its attention hold for its cross-attention too.
    encoder_layers : tuple of LayerSizes
        Of the encoder.
    activation : {"gelu", "gelu_tanh", "relu", "silu"}
        Of the feed-forward parts.
    norm_eps : float
        Added to the variance.
    dropout : float
        Rate, while training, after both embeddings and at the end of every part of a block.
    """

    type: ClassVar[str] = "transformer"
    records: ClassVar[Mapping[str, Callable[..., Any]]] = {"layers": LayerSizes, "encoder_layers": LayerSizes}

    encoder_layers: tuple[LayerSizes, ...]
    activation: str = "relu"
    norm_eps: float = 1e-5
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.context > MOST_POSITIONS:  # no stored array bounds the table of sines that is computed
            raise ConfigError("config_invalid", f"context must be at most {MOST_POSITIONS}, not {self.context}")
        self._check_layers("encoder_layers")
        self._check_choice("activation", ACTIVATIONS)
        self._check_rate("dropout")
        self._check_positive("norm_eps")

    @classmethod
    def uniform(
        cls,
        *,
        d_model: int,
        n_layers: int,
        n_heads: int,
        n_kv_heads: int | None = None,
        d_ff: int | None = None,
        n_encoder_layers: int | None = None,
        **choices: Any,
    ) -> Self:
        """Make a Config whose blocks all have the same sizes; the encoder has as many as the decoder unless told."""
        sizes = LayerSizes.of_width(d_model, n_heads, n_kv_heads, d_ff)
        return cls(
            d_model=d_model,
            layers=(sizes,) * n_layers,
            encoder_layers=(sizes,) * (n_layers if n_encoder_layers is None else n_encoder_layers),
            **choices,
        )


@dataclass(frozen=True)
class Transformer(Model):
    """One embedding for source, target and logits; post-norm blocks on both sides.

    Parameters
    ----------
    path : str
        Empty.
    config : TransformerConfig
        Sizes and choices.
    embedding : Embedding
        Token vectors, of length about 1; multiplied by sqrt(D) where tokens come in, and the head where logits go out.
    positions : Sinusoids
        Added to them.
    encoder_dropout : Dropout
        Applied to the source's sum.
    encoder_blocks : tuple of PostNormBlock
        In order; positions of the source see each other in both directions.
    decoder_dropout : Dropout
        Applied to the target's sum.
    decoder_blocks : tuple of PostNormCrossBlock
        In order; a position of the target sees itself, earlier ones and the source.
    """

    stacks: ClassVar[tuple[Stack, ...]] = (
        Stack("encoder.blocks", "encoder_layers", reads_source=True),
        Stack("decoder.blocks", "layers"),
    )

    config: TransformerConfig
    embedding: Embedding
    positions: Sinusoids
    encoder_dropout: Dropout
    encoder_blocks: tuple[PostNormBlock, ...]
    decoder_dropout: Dropout
    decoder_blocks: tuple[PostNormCrossBlock, ...]

    @classmethod
    def wired(cls, config: TransformerConfig, parts: Parts) -> Self:
        """Make the model that `config` describes out of the Weights and vectors that `parts` gives by path.

        Fresh token vectors have the deviation 1 / sqrt(D), and other matrices sqrt(2 / (O + I)), so that no part starts
        louder than another.
        """
        make = Maker(parts, config.d_model, config.activation, config.norm_eps, config.dropout, scale=None)
        return cls(
            "",
            config,
            embedding=make.table("embedding", config.vocab_size, scale=config.d_model**-0.5),
            positions=Sinusoids("positions", config.context, config.d_model),
            encoder_dropout=make.dropout("encoder.dropout"),
            encoder_blocks=tuple(
                make.both_ways(f"encoder.blocks.{i}", i, sizes) for i, sizes in enumerate(config.encoder_layers)
            ),
            decoder_dropout=make.dropout("decoder.dropout"),
            decoder_blocks=tuple(_decoder_block(make, i, sizes) for i, sizes in enumerate(config.layers)),
        )

    def encode(self, source: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Read the source.

        Parameters
        ----------
        source : ndarray of int, (B, S)
            Token ids, each row ended by the end-of-text token.
        context : Context
            The pass: lengths of the source, and the key of dropout.
        tape : Tape, optional
            As in `forward`.

        Returns
        -------
        ndarray, (B, S, D)
            The memory that cross-attention reads.

        Raises
        ------
        DataError
            Code ``empty_source``: a row without a token; and as `checked`.
        GenerationError
            Code ``context_length_exceeded``.
        """
        source_BS = self.checked(source)
        lengths_B = context.source_lengths_B
        if not source_BS.shape[1] or (lengths_B is not None and lengths_B.min(initial=1) < 1):
            raise DataError("empty_source", "a source needs at least one token, such as its end-of-text token")
        own = Context(lengths_B=lengths_B, dropout=context.dropout)
        x = self.encoder_dropout.forward(self._embedded(source_BS, own, tape), own, tape)
        for block in self.encoder_blocks:
            x = block.forward(x, own, tape)
        return x

    def hidden(self, ids: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Return the decoder's last hidden state (B, T, D), given target ids and a source in `context`."""
        ids_BT = self.checked(ids)
        context = self._with_memory(context, len(ids_BT), tape)
        x = self.decoder_dropout.forward(self._embedded(ids_BT, context, tape), context, tape)
        for block in self.decoder_blocks:
            x = block.forward(x, context, tape)
        return x

    def forward(self, x: np.ndarray, context: Context = PLAIN, tape: Tape | None = None) -> Any:
        """Return the logits (B, T, V) of target ids (B, T).

        The encoder reads ``context.source_BS``, unless `context` has its memory already, or a cache that holds it.
        """
        return self.embedding.logits(self.hidden(x, context, tape), tape)

    def backward(self, dy: Any, tape: Tape, grads: Grads) -> np.ndarray:
        """Read `forward` upwards, the decoder before the encoder; return the gradient of the target's embedded tokens.

        Where `forward` was given a memory, the memory's gradient stays in ``grads.side["memory"]``.
        """
        dx = self.embedding.logits_backward(dy, tape, grads)
        for block in reversed(self.decoder_blocks):
            dx = block.backward(dx, tape, grads)
        dx = self.decoder_dropout.backward(dx, tape, grads)
        dx = self._embedded_backward(dx, tape, grads)
        memory_BSD = tape.take("memory")
        if memory_BSD is not None:
            self._encode_backward(grads.joined("memory", np.zeros_like(memory_BSD)), tape, grads)
        return dx

    def lower(self, x: int, program: Any) -> int:
        """Append the decoder, from the target ids in buffer `x` to the logits of the rows that are asked for."""
        h = self._lower_embedded(x, program)
        for block in self.decoder_blocks:
            h = block.lower(h, program)
        return self.embedding.weight.lower(program.outputs(h), program)

    def lower_source(self, x: int, program: Any) -> int:
        """Append the encoder to another Program, with the keys and values that each decoder block makes of its memory.

        Parameters
        ----------
        x : int
            Buffer that holds the source ids.
        program : Program
            What is appended to.

        Returns
        -------
        int
            Buffer that holds the memory.
        """
        h = self._lower_embedded(x, program)
        for block in self.encoder_blocks:
            h = block.lower(h, program)
        program.result("hidden", h)
        for decoder_block in self.decoder_blocks:
            decoder_block.cross_attention.lower_memory(h, program)
        return h

    def _with_memory(self, context: Context, n_rows: int, tape: Tape | None) -> Context:
        """Run the encoder, unless its memory is there already; what `backward` is to do about it goes on the tape."""
        held = context.cache is not None and bool((context.cache.source_lengths_C[context.slots_B] > 0).all())
        memory_BSD = None
        if context.memory_BSD is None and not held:
            if context.source_BS is None:
                raise DataError("source_missing", "an encoder-decoder needs a source: give source_BS or memory_BSD")
            memory_BSD = self.encode(context.source_BS, context, tape)
            context = dataclasses.replace(context, memory_BSD=memory_BSD)
        if context.memory_BSD is not None and len(context.memory_BSD) != n_rows:
            raise DataError("source_mismatch", f"{n_rows} targets came with {len(context.memory_BSD)} sources")
        if tape is not None:
            tape.push("memory", memory_BSD)
        return context

    def _encode_backward(self, dx: np.ndarray, tape: Tape, grads: Grads) -> None:
        """Undo `encode`."""
        for block in reversed(self.encoder_blocks):
            dx = block.backward(dx, tape, grads)
        dx = self.encoder_dropout.backward(dx, tape, grads)
        self._embedded_backward(dx, tape, grads)

    def _embedded(self, ids_BT: np.ndarray, context: Context, tape: Tape | None) -> np.ndarray:
        """Return scaled token vectors with their positions."""
        x = self.embedding.forward(ids_BT, context, tape) * math.sqrt(self.config.d_model)
        embedded: np.ndarray = x + self.positions.forward(self.places(ids_BT, context), context, tape)
        return embedded

    def _embedded_backward(self, dx: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Undo `_embedded`."""
        self.positions.backward(dx, tape, grads)
        return self.embedding.backward(dx * math.sqrt(self.config.d_model), tape, grads)

    def _lower_embedded(self, x: int, program: Any) -> int:
        """Append what `_embedded` does to the ids in buffer `x`."""
        width = self.config.d_model
        factors = np.full(width, math.sqrt(width), np.float32)
        h = program.step("scale", (self.embedding.lower(x, program),), constants=(factors,), width=width)
        lowered: int = program.step("add", (h, self.positions.lower(program.positions, program)), width=width)
        return lowered


def _decoder_block(make: Maker, i: int, sizes: LayerSizes) -> PostNormCrossBlock:
    """Make one block of the decoder."""
    path = f"decoder.blocks.{i}"
    return PostNormCrossBlock(
        path,
        attention=make.attention(f"{path}.attention", i, sizes),
        dropout_1=make.dropout(f"{path}.dropout_1"),
        norm_1=make.norm(f"{path}.norm_1"),
        cross_attention=make.cross_attention(f"{path}.cross_attention", i, sizes),
        dropout_2=make.dropout(f"{path}.dropout_2"),
        norm_2=make.norm(f"{path}.norm_2"),
        mlp=make.mlp(f"{path}.mlp", sizes.d_ff),
        dropout_3=make.dropout(f"{path}.dropout_3"),
        norm_3=make.norm(f"{path}.norm_3"),
    )
