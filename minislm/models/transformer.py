"""Transformer: an encoder reads the source, and a decoder writes the target while it looks back at it.

References
----------
.. [1] Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin (2017), "Attention is all you need",
   arXiv 1706.03762.
.. [2] Press, Wolf (2016), "Using the output embedding to improve language models", arXiv 1608.05859.
.. [3] Raffel et al. (2020), "Exploring the limits of transfer learning with a unified text-to-text transformer", arXiv
   1910.10683: biases by distance, norms before each part.
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
from minislm.layers.block import PostNormBlock, PostNormCrossBlock, PreNormBlock, PreNormCrossBlock
from minislm.layers.dropout import Dropout
from minislm.layers.embedding import Embedding
from minislm.layers.linear import Linear
from minislm.layers.mlp import ACTIVATIONS
from minislm.layers.norm import Norm
from minislm.layers.relative_bias import RelativeBias
from minislm.layers.sinusoids import Sinusoids
from minislm.models.base import Stack, TokenModel
from minislm.models.maker import Maker, check_mlp_and_biases
from minislm.models.parts import Parts

MOST_POSITIONS = 65_536
CHOICES = {
    "positions": ("interleaved", "halves", "relative"),
    "norm": ("layer", "rms"),
    "norm_place": ("after", "before"),
    "mlp": ("plain", "gated"),
    "activation": ACTIVATIONS,
}


@dataclass(frozen=True)
class TransformerConfig(Config):
    """Sizes and choices of a `Transformer`.

    Parameters
    ----------
    vocab_size, d_model : int
        As of every `Config`; the vocabulary of targets.
    context : int
        Largest number of positions of a source, and of a target.
    layers : tuple of LayerSizes
        Of the decoder; those of its attention hold for its cross-attention too.
    encoder_layers : tuple of LayerSizes
        Of the encoder.
    source_vocab_size : int, optional
        Number of token ids of sources, which then have a table of their own; None: they share that of targets.
    positions : {"interleaved", "halves", "relative"}
        Sines and cosines added to the embedding, alternating or one after the other; or biases of attention's scores,
        which a table for each stack has for distances.
    n_buckets, max_distance : int
        Rows of these tables, and the distance from which on all are in one row.
    norm : {"layer", "rms"}
        Kind of normalization.
    norm_place : {"after", "before"}
        Where it stands: after each part of a block and its sum, or before each part and at the end of both stacks.
    norm_eps : float
        Added to the variance or mean square.
    mlp : {"plain", "gated"}
        Kind of feed-forward part.
    activation : {"gelu", "gelu_tanh", "relu", "silu"}
        Its activation; a gated one does not take relu.
    biases : tuple of {"attention", "output", "mlp", "norm", "head"}
        What has biases, as of `DecoderConfig`; those of the head are added to the logits.
    tied : bool
        Whether the target's embedding is the head too.
    attention_scale : float, optional
        Factor of attention's scores; None: 1 / sqrt(d_head).
    embedding_scale : float, optional
        Factor of embedded tokens; None: sqrt(d_model).
    logit_scale : float
        Factor of what the head reads.
    dropout : float
        Rate, while training, after both embeddings and at the end of every part of a block.
    """

    type: ClassVar[str] = "transformer"
    records: ClassVar[Mapping[str, Callable[..., Any]]] = {"layers": LayerSizes, "encoder_layers": LayerSizes}

    encoder_layers: tuple[LayerSizes, ...]
    source_vocab_size: int | None = None
    positions: str = "interleaved"
    n_buckets: int = 32
    max_distance: int = 128
    norm: str = "layer"
    norm_place: str = "after"
    norm_eps: float = 1e-5
    mlp: str = "plain"
    activation: str = "relu"
    biases: tuple[str, ...] = ("attention", "output", "mlp", "norm")
    tied: bool = True
    attention_scale: float | None = None
    embedding_scale: float | None = None
    logit_scale: float = 1.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.context > MOST_POSITIONS:  # no stored array bounds the table of sines that is computed
            raise ConfigError("config_invalid", f"context must be at most {MOST_POSITIONS}, not {self.context}")
        self._check_layers("encoder_layers")
        for name, allowed in CHOICES.items():
            self._check_choice(name, allowed)
        check_mlp_and_biases(self.mlp, self.activation, self.biases)
        self._check_rate("dropout")
        for name in ("norm_eps", "attention_scale", "embedding_scale", "logit_scale"):
            if getattr(self, name) is not None:
                self._check_positive(name)
        if self.source_vocab_size is not None:
            self._check_whole("source_vocab_size", 1, 2**31 - 1)
        if self.positions == "relative":
            self._check_whole("n_buckets", 4, MOST_POSITIONS)
            self._check_whole("max_distance", self.n_buckets // 2 + 1, MOST_POSITIONS)
            for name in ("layers", "encoder_layers"):
                if len({sizes.n_heads for sizes in getattr(self, name)}) > 1:
                    raise ConfigError("config_invalid", f"{name} share biases and must have as many heads each")

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

    @property
    def longest_context(self) -> int | None:
        """The most positions that it learned; None: it tells positions by their distance."""
        return None if self.positions == "relative" else self.context

    @property
    def source(self) -> TransformerConfig:
        """The same with the vocabulary of sources."""
        return dataclasses.replace(self, vocab_size=self.source_vocab_size or self.vocab_size)

    @property
    def embedding_factor(self) -> float:
        """What embedded tokens are multiplied by."""
        return math.sqrt(self.d_model) if self.embedding_scale is None else self.embedding_scale

    def _check_whole(self, name: str, least: int, most: int) -> None:
        """Refuse what is no whole number in a range."""
        value = getattr(self, name)
        if type(value) is not int or not least <= value <= most:
            raise ConfigError("config_invalid", f"{name} must be a whole number from {least} to {most}, not {value!r}")


@dataclass(frozen=True)
class Transformer(TokenModel):
    """Embedding, the encoder's blocks, the decoder's blocks, a head.

    Parameters
    ----------
    path : str
        Empty.
    config : TransformerConfig
        Sizes and choices.
    embedding : Embedding
        Token vectors, multiplied by a factor where tokens come in; the head too, when tied.
    source_embedding : Embedding, optional
        Token vectors of sources; None: those of targets.
    positions : Sinusoids, optional
        Added to them; None with relative positions.
    encoder_bias, decoder_bias : RelativeBias, optional
        What all self-attention of a stack adds to its scores, with relative positions.
    encoder_dropout : Dropout
        Applied to the source's sum.
    encoder_blocks : tuple of PostNormBlock or PreNormBlock
        In order; positions of the source see each other in both directions.
    encoder_norm : Norm, optional
        Applied to the encoder's stream, where norms come before.
    decoder_dropout : Dropout
        Applied to the target's sum.
    decoder_blocks : tuple of PostNormCrossBlock or PreNormCrossBlock
        In order; a position of the target sees itself, earlier ones and the source.
    decoder_norm : Norm, optional
        Applied to the decoder's stream, where norms come before.
    head : Linear, optional
        From D to V; None when tied.
    logit_bias : ndarray of float, (V,), optional
        Added to the logits.
    """

    stacks: ClassVar[tuple[Stack, ...]] = (
        Stack("encoder.blocks", "encoder_layers", reads_source=True),
        Stack("decoder.blocks", "layers"),
    )

    config: TransformerConfig
    embedding: Embedding
    source_embedding: Embedding | None
    positions: Sinusoids | None
    encoder_bias: RelativeBias | None
    decoder_bias: RelativeBias | None
    encoder_dropout: Dropout
    encoder_blocks: tuple[PostNormBlock | PreNormBlock, ...]
    encoder_norm: Norm | None
    decoder_dropout: Dropout
    decoder_blocks: tuple[PostNormCrossBlock | PreNormCrossBlock, ...]
    decoder_norm: Norm | None
    head: Linear | None
    logit_bias: np.ndarray | None

    @classmethod
    def wired(cls, config: TransformerConfig, parts: Parts) -> Self:
        """Make the model that `config` describes out of the Weights and vectors that `parts` gives by path.

        Fresh token vectors have the deviation 1 / sqrt(D), and other matrices sqrt(2 / (O + I)), so that no part starts
        louder than another.
        """
        make = Maker(
            parts,
            config.d_model,
            config.activation,
            config.norm_eps,
            config.dropout,
            norm_kind=config.norm,
            gated=config.mlp == "gated",
            biases=set(config.biases) - {"head"},
            scale=None,
        )
        before, own, deviation = config.norm_place == "before", config.source_vocab_size, config.d_model**-0.5
        positions = encoder_bias = decoder_bias = None
        if config.positions == "relative":
            n_heads = config.encoder_layers[0].n_heads, config.layers[0].n_heads
            encoder_bias = _relative_bias(make, config, "encoder.bias", n_heads[0], causal=False)
            decoder_bias = _relative_bias(make, config, "decoder.bias", n_heads[1], causal=True)
        else:
            positions = Sinusoids("positions", config.context, config.d_model, config.positions == "interleaved")
        return cls(
            "",
            config,
            embedding=make.table("embedding", config.vocab_size, scale=deviation),
            source_embedding=make.table("source_embedding", own, scale=deviation) if own is not None else None,
            positions=positions,
            encoder_bias=encoder_bias,
            decoder_bias=decoder_bias,
            encoder_dropout=make.dropout("encoder.dropout"),
            encoder_blocks=tuple(_encoder_block(make, config, i) for i in range(len(config.encoder_layers))),
            encoder_norm=make.norm("encoder.norm") if before else None,
            decoder_dropout=make.dropout("decoder.dropout"),
            decoder_blocks=tuple(_decoder_block(make, config, i) for i in range(config.n_layers)),
            decoder_norm=make.norm("decoder.norm") if before else None,
            head=None if config.tied else make.linear("head", config.vocab_size, config.d_model),
            logit_bias=parts.vector("logit_bias", config.vocab_size, value=0.0) if "head" in config.biases else None,
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
        source_BS = self.checked(source, self.config.source)
        lengths_B = context.source_lengths_B
        if not source_BS.shape[1] or (lengths_B is not None and lengths_B.min(initial=1) < 1):
            raise DataError("empty_source", "a source needs at least one token, such as its end-of-text token")
        own = Context(lengths_B=lengths_B, dropout=context.dropout)
        x = self.encoder_dropout.forward(self._embedded(self._source_table, source_BS, own, tape), own, tape)
        own = _biased(self.encoder_bias, own, tape)
        for block in self.encoder_blocks:
            x = block.forward(x, own, tape)
        return x if self.encoder_norm is None else self.encoder_norm.forward(x, own, tape)

    def hidden(self, ids: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Return the decoder's last hidden state (B, T, D), given target ids (B, T).

        The encoder reads ``context.source_BS``, unless `context` has its memory already, or a cache that holds it.
        """
        ids_BT = self.checked(ids)
        context = self._with_memory(context, len(ids_BT), tape)
        x = self.decoder_dropout.forward(self._embedded(self.embedding, ids_BT, context, tape), context, tape)
        context = _biased(self.decoder_bias, context, tape)
        for block in self.decoder_blocks:
            x = block.forward(x, context, tape)
        return x if self.decoder_norm is None else self.decoder_norm.forward(x, context, tape)

    def logits(self, h: np.ndarray, context: Context = PLAIN, tape: Tape | None = None) -> np.ndarray:
        """Return the logits (..., V) of hidden states (..., D)."""
        h = h if self.config.logit_scale == 1 else h * self.config.logit_scale
        logits = self.embedding.logits(h, tape) if self.head is None else self.head.forward(h, context, tape)
        if self.logit_bias is not None:
            logits += self.logit_bias
        return logits

    def logits_backward(self, dlogits: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Read `logits` upwards; return the gradient of the hidden states, (..., D)."""
        if self.logit_bias is not None:
            grads.add("logit_bias", dlogits.sum(axis=tuple(range(dlogits.ndim - 1))))
        if self.head is None:
            dh = self.embedding.logits_backward(dlogits, tape, grads)
        else:
            dh = self.head.backward(dlogits, tape, grads)
        return dh if self.config.logit_scale == 1 else dh * self.config.logit_scale

    def hidden_backward(self, dh: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Read `hidden` upwards, the decoder before the encoder; return the gradient of the target's embedded tokens.

        Where `hidden` was given a memory, the memory's gradient stays in ``grads.side["memory"]``.
        """
        dx = dh
        if self.decoder_norm is not None:
            dx = self.decoder_norm.backward(dx, tape, grads)
        for block in reversed(self.decoder_blocks):
            dx = block.backward(dx, tape, grads)
        _biased_backward(self.decoder_bias, tape, grads)
        dx = self.decoder_dropout.backward(dx, tape, grads)
        dx = self._embedded_backward(self.embedding, dx, tape, grads)
        memory_BSD = tape.take("memory")
        if memory_BSD is not None:
            self._encode_backward(grads.joined("memory", np.zeros_like(memory_BSD)), tape, grads)
        return dx

    def lower(self, x: int, program: Any) -> int:
        """Append the decoder, from the target ids in buffer `x` to the logits of the rows that are asked for."""
        h = self._lower_embedded(self.embedding, x, program)
        if self.decoder_bias is not None:
            h = self.decoder_bias.lower(h, program)
        for block in self.decoder_blocks:
            h = block.lower(h, program)
        h = program.outputs(h)
        if self.decoder_norm is not None:
            h = self.decoder_norm.lower(h, program)
        h = program.scaled(h, self.config.logit_scale)
        h = self.embedding.weight.lower(h, program) if self.head is None else self.head.lower(h, program)
        if self.logit_bias is not None:
            h = program.step("add_bias", (h,), constants=(self.logit_bias,), width=self.logit_bias.size)
        return h

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
        h = self._lower_embedded(self._source_table, x, program)
        if self.encoder_bias is not None:
            h = self.encoder_bias.lower(h, program)
        for block in self.encoder_blocks:
            h = block.lower(h, program)
        if self.encoder_norm is not None:
            h = self.encoder_norm.lower(h, program)
        program.result("hidden", h)
        for decoder_block in self.decoder_blocks:
            decoder_block.cross_attention.lower_memory(h, program)
        return h

    @property
    def _source_table(self) -> Embedding:
        return self.embedding if self.source_embedding is None else self.source_embedding

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
        if self.encoder_norm is not None:
            dx = self.encoder_norm.backward(dx, tape, grads)
        for block in reversed(self.encoder_blocks):
            dx = block.backward(dx, tape, grads)
        _biased_backward(self.encoder_bias, tape, grads)
        dx = self.encoder_dropout.backward(dx, tape, grads)
        self._embedded_backward(self._source_table, dx, tape, grads)

    def _embedded(self, table: Embedding, ids_BT: np.ndarray, context: Context, tape: Tape | None) -> np.ndarray:
        """Return scaled token vectors with their positions."""
        x = table.forward(ids_BT, context, tape) * self.config.embedding_factor
        at_BT = self.places(ids_BT, context)
        embedded: np.ndarray = x if self.positions is None else x + self.positions.forward(at_BT, context, tape)
        return embedded

    def _embedded_backward(self, table: Embedding, dx: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Undo `_embedded`."""
        if self.positions is not None:
            self.positions.backward(dx, tape, grads)
        return table.backward(dx * self.config.embedding_factor, tape, grads)

    def _lower_embedded(self, table: Embedding, x: int, program: Any) -> int:
        """Append what `_embedded` does to the ids in buffer `x`."""
        h: int = program.scaled(table.lower(x, program), self.config.embedding_factor)
        if self.positions is None:
            return h
        lowered: int = program.step(
            "add", (h, self.positions.lower(program.positions, program)), width=self.config.d_model
        )
        return lowered


def _relative_bias(make: Maker, config: TransformerConfig, path: str, n_heads: int, *, causal: bool) -> RelativeBias:
    """Make the biases of a stack."""
    weight = make.parts.matrix(f"{path}.weight", config.n_buckets, n_heads)
    return RelativeBias(path, weight, config.max_distance, causal)


def _biased(bias: RelativeBias | None, context: Context, tape: Tape | None) -> Context:
    """Give the blocks of a stack their biases."""
    if bias is None:
        return context
    return dataclasses.replace(context, bias_HS1=bias.forward(bias.distances(), context, tape))


def _biased_backward(bias: RelativeBias | None, tape: Tape, grads: Grads) -> None:
    """Undo `_biased`: the blocks have put the gradients of what they all added aside."""
    if bias is not None:
        bias.backward(grads.side.pop("bias"), tape, grads)


def _encoder_block(make: Maker, config: TransformerConfig, i: int) -> PostNormBlock | PreNormBlock:
    """Make one block of the encoder."""
    path, sizes = f"encoder.blocks.{i}", config.encoder_layers[i]
    kind = PostNormBlock if config.norm_place == "after" else PreNormBlock
    return kind(
        path,
        attention=make.attention(f"{path}.attention", i, sizes, causal=False, **_attending(config)),
        dropout_1=make.dropout(f"{path}.dropout_1"),
        norm_1=make.norm(f"{path}.norm_1"),
        mlp=make.mlp(f"{path}.mlp", sizes.d_ff),
        dropout_2=make.dropout(f"{path}.dropout_2"),
        norm_2=make.norm(f"{path}.norm_2"),
    )


def _decoder_block(make: Maker, config: TransformerConfig, i: int) -> PostNormCrossBlock | PreNormCrossBlock:
    """Make one block of the decoder."""
    path, sizes = f"decoder.blocks.{i}", config.layers[i]
    kind = PostNormCrossBlock if config.norm_place == "after" else PreNormCrossBlock
    return kind(
        path,
        attention=make.attention(f"{path}.attention", i, sizes, **_attending(config)),
        dropout_1=make.dropout(f"{path}.dropout_1"),
        norm_1=make.norm(f"{path}.norm_1"),
        cross_attention=make.cross_attention(f"{path}.cross_attention", i, sizes, scale=config.attention_scale),
        dropout_2=make.dropout(f"{path}.dropout_2"),
        norm_2=make.norm(f"{path}.norm_2"),
        mlp=make.mlp(f"{path}.mlp", sizes.d_ff),
        dropout_3=make.dropout(f"{path}.dropout_3"),
        norm_3=make.norm(f"{path}.norm_3"),
    )


def _attending(config: TransformerConfig) -> dict[str, Any]:
    """Say how the self-attention of a block sees."""
    return {"scale": config.attention_scale, "biased": config.positions == "relative"}
