"""Encoder: reads a text in both directions, and says about it what its heads are for, in the manner of BERT.

References
----------
.. [1] Devlin, Chang, Lee, Toutanova (2018), "BERT", arXiv 1810.04805.
.. [2] Vaswani et al. (2017), "Attention is all you need", arXiv 1706.03762: the post-norm block.
.. [3] Reimers, Gurevych (2019), "Sentence-BERT", arXiv 1908.10084: the mean of the positions as a text's vector.
.. [4] Sun et al. (2020), "MobileBERT", arXiv 2004.02984: the bottleneck.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from minislm.config import LABELLED, Config, Head, LayerSizes
from minislm.errors import ConfigError, DataError
from minislm.layers.affine import Affine
from minislm.layers.base import PLAIN, Context, Grads, Tape
from minislm.layers.block import PostNormBlock
from minislm.layers.bottleneck import BottleneckBlock
from minislm.layers.dropout import Dropout
from minislm.layers.embedding import Embedding
from minislm.layers.heads import ClassHead, MaskedHead, SpanHead
from minislm.layers.linear import Linear
from minislm.layers.mlp import ACTIVATIONS
from minislm.layers.norm import Norm
from minislm.layers.pooling import POOLER_ACTIVATIONS, Pooling
from minislm.layers.trigrams import Trigrams
from minislm.models.base import Model
from minislm.models.bottleneck import Bottleneck, affine
from minislm.models.maker import Maker
from minislm.models.parts import Parts, RandomParts

CHOICES = {
    "activation": ACTIVATIONS,
    "pooling": ("first", "mean"),
    "pooler_activation": POOLER_ACTIVATIONS,
}


@dataclass(frozen=True)
class EncoderConfig(Config):
    """Sizes and choices of an `Encoder`.

    Parameters
    ----------
    vocab_size, d_model, context : int
        As of every `Config`.
    layers : tuple of LayerSizes
        As of every `Config`.
    heads : tuple of Head
        What it says about a text; names differ. None: it only encodes.
    n_types : int
        Of how many texts its input may consist; 0: it does not tell them apart.
    activation : {"gelu", "gelu_tanh", "relu", "silu"}
        Of the feed-forward parts and of masked heads.
    pooling : {"first", "mean"}
        What stands for a whole text: the first position, or the mean of all.
    pooler : bool
        Whether sequence heads read what a dense layer makes of it.
    pooler_activation : {"tanh", "relu"}
        After that layer.
    tied : bool
        Whether masked heads use the embedding's table; if not, they have their own.
    normalized : bool
        Whether `LanguageModel.embed` gives vectors the length 1 unless it is told otherwise.
    embed_tokens : int, optional
        Most tokens of a text that it reads; None: as many as the context holds.
    bottleneck : Bottleneck, optional
        That blocks are narrower inside, as MobileBERT's [4]_; a mapping with its fields makes one. None: they are not.
    norm_eps : float
        Added to the variance.
    dropout : float
        Rate, while training, after the embedding, at the end of both parts of a block, and before class heads.
    """

    type: ClassVar[str] = "encoder"
    records: ClassVar[Mapping[str, Callable[..., Any]]] = {"layers": LayerSizes, "heads": Head}

    heads: tuple[Head, ...] = ()
    n_types: int = 2
    activation: str = "gelu"
    pooling: str = "first"
    pooler: bool = True
    pooler_activation: str = "tanh"
    tied: bool = True
    normalized: bool = True
    embed_tokens: int | None = None
    bottleneck: Bottleneck | None = None
    norm_eps: float = 1e-12
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in CHOICES.items():
            self._check_choice(name, allowed)
        self._check_rate("dropout")
        self._check_positive("norm_eps")
        if type(self.n_types) is not int or self.n_types < 0:
            raise ConfigError("config_invalid", f"n_types must be a whole number of at least 0, not {self.n_types!r}")
        tokens = self.embed_tokens
        if tokens is not None and not (type(tokens) is int and 3 <= tokens <= self.context):
            raise ConfigError(
                "config_invalid", f"embed_tokens must lie between 3 and the context of {self.context}, not {tokens!r}"
            )
        given: Any = self.bottleneck  # a mapping, where a file said it
        if isinstance(given, Mapping):
            object.__setattr__(self, "bottleneck", Bottleneck(**given))
        if self.bottleneck is not None and not self.bottleneck.d_embedding < self.d_model:
            raise ConfigError(
                "config_invalid",
                f"bottleneck.d_embedding ({self.bottleneck.d_embedding}) must be less than d_model ({self.d_model})",
            )
        names = [head.name for head in self.heads]
        if len(set(names)) < len(names):
            raise ConfigError("config_invalid", f"two heads have one name: {names}")


@dataclass(frozen=True)
class Encoder(Model):
    """Embedding, a norm, post-norm blocks, heads.

    Parameters
    ----------
    path : str
        Empty.
    config : EncoderConfig
        Sizes and choices.
    embedding, positions : Embedding
        Vectors of tokens and of positions.
    types : Embedding, optional
        Vectors that tell a pair's texts apart; None: it does not.
    trigrams : Trigrams, optional
        Makes vectors of the stream's width of those of tokens; None: they have it.
    embedding_norm : Norm or Affine
        Applied to their sum.
    dropout : Dropout
        Applied after that.
    blocks : tuple of PostNormBlock or BottleneckBlock
        In order.
    pooling : Pooling
        Makes the vector of a text.
    heads : tuple of MaskedHead, ClassHead or SpanHead
        In the order of the config.
    """

    config: EncoderConfig
    embedding: Embedding
    positions: Embedding
    types: Embedding | None
    trigrams: Trigrams | None
    embedding_norm: Norm | Affine
    dropout: Dropout
    blocks: tuple[PostNormBlock | BottleneckBlock, ...]
    pooling: Pooling
    heads: tuple[MaskedHead | ClassHead | SpanHead, ...]

    @classmethod
    def wired(cls, config: EncoderConfig, parts: Parts) -> Self:
        """Make the model that `config` describes out of the Weights and vectors that `parts` gives by path.

        Fresh matrices have the deviation 0.02 [1]_.
        """
        make = _maker(config, parts)
        inner = config.bottleneck
        embedding = _table(make, config, "embedding")
        return cls(
            "",
            config,
            embedding=embedding,
            positions=make.table("positions", config.context),
            types=make.table("types", config.n_types) if config.n_types else None,
            trigrams=None if inner is None else inner.trigrams(make),
            embedding_norm=(
                make.norm("embedding_norm") if inner is None else affine(make, "embedding_norm", config.d_model)
            ),
            dropout=make.dropout("dropout"),
            blocks=tuple(
                make.both_ways(f"blocks.{i}", i, sizes) if inner is None else inner.block(make, f"blocks.{i}", i, sizes)
                for i, sizes in enumerate(config.layers)
            ),
            pooling=Pooling(
                "pooling",
                config.pooling,
                make.linear("pooler", config.d_model, config.d_model) if config.pooler else None,
                config.pooler_activation,
            ),
            heads=tuple(_head(make, config, head, embedding) for head in config.heads),
        )

    def with_heads(self, heads: Iterable[Head], seed: int = 0) -> Encoder:
        """Exchange the heads, as fine-tuning for another task begins.

        Parameters
        ----------
        heads : iterable of Head
            What the new model says about a text. Heads that this one has, equal in every field, are kept.
        seed : int
            The parameters of the other ones are a function of it.

        Returns
        -------
        Encoder
            Shares everything else with this one.

        Raises
        ------
        ConfigError
            Code ``config_invalid``: two heads have one name.
        """
        config = dataclasses.replace(self.config, heads=tuple(heads))
        make = _maker(config, RandomParts(seed, self.embedding_norm.weight.dtype))
        own = dict(zip(self.config.heads, self.heads, strict=True))
        made = tuple(own[head] if head in own else _head(make, config, head, self.embedding) for head in config.heads)
        return dataclasses.replace(self, config=config, heads=made)

    def hidden(self, ids: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Return the last hidden state (B, T, D)."""
        ids_BT = self.checked(ids)
        if not ids_BT.shape[1]:
            raise DataError("empty_text", "an encoder needs at least one token of each text")
        x = self.embedding.forward(ids_BT, context, tape)
        if self.trigrams is not None:
            x = self.trigrams.forward(x, context, tape)
        x = x + self.positions.forward(self.places(ids_BT, context), context, tape)
        if self.types is not None:
            x = x + self.types.forward(self._types(ids_BT, context), context, tape)
        x = self.embedding_norm.forward(x, context, tape)
        x = self.dropout.forward(x, context, tape)
        for block in self.blocks:
            x = block.forward(x, context, tape)
        return x

    def pooled(self, h: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Make one vector of each text, as sequence heads read it.

        Parameters
        ----------
        h : ndarray, (B, T, D)
            Last hidden states.
        context : Context
            The same pass.
        tape : Tape, optional
            As in `forward`.

        Returns
        -------
        ndarray, (B, D)
            Vectors.
        """
        return self.pooling.forward(h, context, tape)

    def forward(self, x: np.ndarray, context: Context = PLAIN, tape: Tape | None = None) -> Any:
        """Return what each head says about token ids (B, T), by its name.

        A masked head gives logits (B, T, V), a sequence head (B, C), a token head (B, T, C), and a span head (B, 2, T)
        with a very low number at padding.
        """
        h = self.hidden(x, context, tape)
        pooled = self.pooled(h, context, tape) if self._pools else h
        said: dict[str, np.ndarray] = {}
        for head, layer in zip(self.config.heads, self.heads, strict=True):
            if tape is not None:
                tape.push(layer.path, None)  # where the head begins, for a backward that it has no part in
            said[head.name] = layer.forward(pooled if head.kind == "sequence" else h, context, tape)
        if tape is not None:
            tape.push("hidden", h)
        return said

    def backward(self, dy: Any, tape: Tape, grads: Grads) -> np.ndarray:
        """Read `forward` and `hidden` upwards; return the gradient of the embedded tokens, (B, T, D).

        `dy` holds gradients by the names of heads; those that it leaves out have none. What a loss put aside under
        ``hidden`` is added to the gradient of the last hidden state.
        """
        dx = grads.joined("hidden", np.zeros_like(tape.take("hidden")))
        dpooled: np.ndarray | None = None
        for head, layer in zip(reversed(self.config.heads), reversed(self.heads), strict=True):
            if head.name not in dy:
                _skip(tape, layer.path)
                continue
            dread = layer.backward(dy[head.name], tape, grads)
            tape.take(layer.path)
            if head.kind != "sequence":
                dx = dx + dread
            else:
                dpooled = dread if dpooled is None else dpooled + dread
        if dpooled is not None:
            dx = dx + self.pooling.backward(dpooled, tape, grads)
        elif self._pools:
            _skip(tape, self.pooling.path)
        for block in reversed(self.blocks):
            dx = block.backward(dx, tape, grads)
        dx = self.dropout.backward(dx, tape, grads)
        dx = self.embedding_norm.backward(dx, tape, grads)
        if self.types is not None:
            self.types.backward(dx, tape, grads)
        self.positions.backward(dx, tape, grads)
        if self.trigrams is not None:
            dx = self.trigrams.backward(dx, tape, grads)
        return self.embedding.backward(dx, tape, grads)

    def lower(self, x: int, program: Any) -> int:
        """Append the whole model, from the ids in buffer `x` to every head; the result is the last hidden state."""
        width = self.config.d_model
        h = self.embedding.lower(x, program)
        if self.trigrams is not None:
            h = self.trigrams.lower(h, program)
        h = program.step("add", (h, self.positions.lower(program.positions, program)), width=width)
        if self.types is not None:
            h = program.step("add", (h, self.types.lower(program.types, program)), width=width)
        h = self.embedding_norm.lower(h, program)
        for block in self.blocks:
            h = block.lower(h, program)
        program.result("hidden", h)
        pooled = self.pooling.lower(h, program) if self._pools else h
        for head, layer in zip(self.config.heads, self.heads, strict=True):
            program.result(head.name, layer.lower(pooled if head.kind == "sequence" else h, program))
        return h

    @property
    def _pools(self) -> bool:
        """Whether any head reads the pooled vector."""
        return any(head.kind == "sequence" for head in self.config.heads)

    def _types(self, ids_BT: np.ndarray, context: Context) -> np.ndarray:
        """Return which text each token belongs to, after a check."""
        if context.types_BT is None:
            return np.zeros_like(ids_BT)
        types_BT = np.asarray(context.types_BT)
        n_types = self.config.n_types
        whole = types_BT.shape == ids_BT.shape and types_BT.dtype.kind in "iu"
        if not whole or types_BT.min(initial=0) < 0 or types_BT.max(initial=0) >= n_types:
            raise DataError(
                "bad_token_types",
                f"token types must be whole numbers in 0..{n_types - 1}, one for each of {ids_BT.shape} tokens; these "
                f"are {types_BT.dtype} {types_BT.shape}",
            )
        return types_BT


def _maker(config: EncoderConfig, parts: Parts) -> Maker:
    """Say how an encoder's layers are made."""
    return Maker(parts, config.d_model, config.activation, config.norm_eps, config.dropout)


def _head(make: Maker, config: EncoderConfig, head: Head, embedding: Embedding) -> MaskedHead | ClassHead | SpanHead:
    """Make one head."""
    path = f"heads.{head.name}"
    if head.kind in LABELLED:
        output = make.linear(f"{path}.output", len(head.labels), make.d_model)
        return ClassHead(path, make.dropout(f"{path}.dropout"), output)
    if head.kind == "span":
        return SpanHead(path, make.linear(f"{path}.output", 2, make.d_model))
    others = config.d_model - embedding.weight.shape[1]
    rest = make.parts.matrix(f"{path}.rest.weight", config.vocab_size, others) if others else None
    return MaskedHead(
        path,
        transform=make.linear(f"{path}.transform", make.d_model, make.d_model),
        activation=make.activation,
        norm=make.norm(f"{path}.norm"),
        embedding=embedding if config.tied else _table(make, config, f"{path}.table"),
        bias=make.parts.vector(f"{path}.bias", config.vocab_size, value=0.0),
        rest=None if rest is None else Linear(f"{path}.rest", rest),
    )


def _table(make: Maker, config: EncoderConfig, path: str) -> Embedding:
    """Make a table of the vectors of tokens."""
    width = config.d_model if config.bottleneck is None else config.bottleneck.d_embedding
    return Embedding(path, make.parts.matrix(f"{path}.weight", config.vocab_size, width))


def _skip(tape: Tape, path: str) -> None:
    """Drop what was pushed from `path` on: the layers of a head that no gradient reaches."""
    while tape.pop()[0] != path:
        pass
