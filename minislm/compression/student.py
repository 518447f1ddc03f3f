"""Students: how one is made from its teacher, and what it carries along while it learns."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from minislm.config import Config, LayerSizes
from minislm.errors import UnsupportedError, UsageError
from minislm.layers.base import PLAIN, Context, Grads, Layer, Tape
from minislm.layers.linear import Linear
from minislm.layers.rotary import Rotary
from minislm.models.base import Model, TokenModel
from minislm.weights.dense import Dense

SIZES = ("n_layers", "n_encoder_layers", "d_model", "n_heads", "n_kv_heads", "d_ff")


@dataclass(frozen=True)
class Student(Layer):
    """A model that learns, and the projections from its widths to its teacher's, which are dropped in the end.

    Parameters
    ----------
    path : str
        Empty: names in it are those of the model.
    model : Model
        The student itself.
    projections : tuple of Linear
        Trained with it; the loss that compares hidden states applies them.
    """

    model: Model
    projections: tuple[Linear, ...]

    @property
    def config(self) -> Config:
        """The model's."""
        return self.model.config

    def hidden(self, ids: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Run the model's body.

        Parameters
        ----------
        ids, context, tape : ndarray, Context, Tape
            As of `Model.hidden`.

        Returns
        -------
        ndarray, (B, T, D)
            The same.
        """
        return self.model.hidden(ids, context, tape)

    def logits(self, h: np.ndarray, context: Context = PLAIN, tape: Tape | None = None) -> np.ndarray:
        """Run the head of a `TokenModel`.

        Parameters
        ----------
        h, context, tape : ndarray, Context, Tape
            As of `TokenModel.logits`.

        Returns
        -------
        ndarray, (..., V)
            The same.
        """
        return cast("TokenModel", self.model).logits(h, context, tape)

    def forward(self, x: np.ndarray, context: Context = PLAIN, tape: Tape | None = None) -> Any:
        """Run the model."""
        return self.model.forward(x, context, tape)

    def backward(self, dy: Any, tape: Tape, grads: Grads) -> np.ndarray:
        """Undo `forward`."""
        return self.model.backward(dy, tape, grads)

    def lower(self, x: int, program: Any) -> int:
        """Append the model."""
        return self.model.lower(x, program)

    def specs(self) -> dict[str, dict[str, Any]]:
        """Collect the specs of the Weights, as `Model.specs` does.

        Returns
        -------
        dict of str to dict
            JSON by full path.
        """
        return {path: weight.spec() for path, weight in self.weights().items()}


def fresh_projection(number: int, n_outputs: int, n_inputs: int, seed: int) -> Linear:
    """Make a projection that keeps the size of what it is given, on average.

    Parameters
    ----------
    number : int
        Its place among the student's.
    n_outputs, n_inputs : int
        Widths of teacher and student.
    seed : int
        Its numbers are a function of it and of its place.

    Returns
    -------
    Linear
        Without a bias.
    """
    w_OI = np.random.default_rng([seed, number]).standard_normal((n_outputs, n_inputs), dtype=np.float32)
    return Linear(f"projections.{number}", Dense(w_OI / np.float32(np.sqrt(n_inputs))))


def every_other_layer(teacher: Any) -> Any:
    """Return a model of the teacher's blocks 0, 2, 4 and so on, of each of its stacks.

    Parameters
    ----------
    teacher : Model
        Stays as it is.

    Returns
    -------
    Model
        Over the teacher's own numbers.
    """
    layers = {stack.sizes: getattr(teacher.config, stack.sizes)[::2] for stack in teacher.stacks}
    student = type(teacher).create(dataclasses.replace(teacher.config, **layers))
    parts = dict(teacher.parts())
    return student.replaced({path: parts[_doubled(path, teacher)] for path, _ in student.parts()})


def _doubled(path: str, teacher: Any) -> str:
    """Return where the teacher has the part at `path`: ``blocks.1.mlp.up.weight`` comes from ``blocks.2.``."""
    for stack in teacher.stacks:
        if path.startswith(f"{stack.path}."):
            number, _, rest = path.removeprefix(f"{stack.path}.").partition(".")
            return f"{stack.path}.{2 * int(number)}.{rest}"
    return path


def resized(config: Any, sizes: Mapping[str, int]) -> Any:
    """Return a Config with other sizes and the same choices.

    Parameters
    ----------
    config : Config
        The teacher's.
    sizes : mapping of str to int
        Any of `SIZES`; ``n_encoder_layers`` for an encoder-decoder, by default ``n_layers`` if that is given.

    Returns
    -------
    Config
        The blocks of each stack are of one size.

    Raises
    ------
    UsageError
        Code ``bad_option``: the width is no multiple of the number of heads, or there is no encoder to size.
    """
    d_model = sizes.get("d_model", config.d_model)
    layers = {"layers": _resized(config.layers, config, d_model, sizes, sizes.get("n_layers"))}
    if hasattr(config, "encoder_layers"):
        n_layers = sizes.get("n_encoder_layers", sizes.get("n_layers"))
        layers["encoder_layers"] = _resized(config.encoder_layers, config, d_model, sizes, n_layers)
    elif "n_encoder_layers" in sizes:
        raise UsageError("bad_option", f"distil: n_encoder_layers is for an encoder-decoder, not for a {config.type}")
    further = {"rotaries": _turning(config, layers["layers"][0])} if hasattr(config, "rotaries") else {}
    return dataclasses.replace(config, d_model=d_model, **layers, **further)


def _turning(config: Any, sizes: LayerSizes) -> tuple[Rotary, ...]:
    """Return the kinds of rotation with the same share of a head of another width."""
    before, after = config.layers[0].d_head, sizes.d_head
    return tuple(dataclasses.replace(r, width=max(2, r.width * after // before // 2 * 2)) for r in config.rotaries)


def _resized(
    layers: tuple[LayerSizes, ...], config: Config, d_model: int, sizes: Mapping[str, int], n_layers: int | None
) -> tuple[LayerSizes, ...]:
    """Return the sizes of a stack of blocks, all of one size."""
    first = layers[0]
    n_heads = sizes.get("n_heads", first.n_heads)
    if n_heads < 1 or d_model % n_heads:
        raise UsageError("bad_option", f"distil: d_model ({d_model}) must be a multiple of n_heads ({n_heads})")
    layer = LayerSizes(
        n_heads=n_heads,
        n_kv_heads=sizes.get("n_kv_heads", n_heads if "n_heads" in sizes else first.n_kv_heads),
        d_head=d_model // n_heads,
        d_ff=sizes.get("d_ff", first.d_ff * d_model // config.d_model),
    )
    return (layer,) * (len(layers) if n_layers is None else n_layers)


def same_answers(student: Any, teacher: Any) -> None:
    """Refuse a teacher whose answers mean something else, as far as the configs tell.

    Parameters
    ----------
    student, teacher : Model
        To be compared.

    Raises
    ------
    UnsupportedError
        Code ``architecture_differs``, ``vocabulary_differs`` or ``heads_differ``.
    """
    own, theirs = student.config, teacher.config
    if own.type != theirs.type:
        raise UnsupportedError(
            "architecture_differs", f"a student of type {own.type} cannot learn from a teacher of type {theirs.type}"
        )
    if own.vocab_size != theirs.vocab_size:
        raise UnsupportedError(
            "vocabulary_differs",
            f"the model's vocabulary has {own.vocab_size} tokens, the teacher's {theirs.vocab_size}; "
            "distillation compares probabilities token by token, so take a teacher with the same tokenizer",
        )
    known = getattr(theirs, "heads", ())
    for head in getattr(own, "heads", ()):
        if head not in known:
            raise UnsupportedError(
                "heads_differ",
                f"the student's head {head.name!r} ({head.kind}, {len(head.labels)} labels) has no equal in the "
                f"teacher, which has {[other.name for other in known]}; train the teacher for the same task first",
            )
