"""Lowering: the flat list of steps that a model's layers append, and the named results among them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minislm.config import Config
from minislm.dispatch import runs_compiled
from minislm.inference.steps import CHOOSING, Step
from minislm.layers.rotary import Turn
from minislm.ops import OPS
from minislm.weights.base import Weight

INPUTS = 3  # buffers that are filled before the first step


@dataclass
class Lowering:
    """What a layer's `lower` appends to: steps that each read some buffers and write one.

    A buffer is known by its number. It holds a float32 row for each packed token, or, after a choice of rows, for each
    chosen one; the first three, filled before the first step, hold a whole number for each token.

    Parameters
    ----------
    config : Config
        Of the model.
    steps : list of Step
        In order.
    results : dict of str to int
        The buffers of named results, which an encoder has several of.
    bias_HS1 : ndarray of float32, (H, S1), optional
        What attention that is biased adds to its scores from now on, as `ops.attention` takes it.
    panels : bool
        Whether quantized matrices are laid out in panels.
    attention : {"float32", "int8"}
        How texts that are read as a whole attend: as they are, or with keys, values, queries and weights as bytes.
    """

    config: Config
    steps: list[Step] = field(default_factory=list)
    results: dict[str, int] = field(default_factory=dict)
    bias_HS1: np.ndarray | None = None
    panels: bool = field(default_factory=lambda: runs_compiled("panel_product"))
    attention: str = "float32"

    ids = 0  # the buffers that are filled before the first step
    positions = 1
    types = 2

    def step(
        self,
        op: str,
        inputs: tuple[int, ...],
        *,
        constants: tuple[Any, ...] = (),
        width: int,
        dtype: Any = np.float32,
        **options: Any,
    ) -> int:
        """Append a step, unless the same op of the same arguments is there already.

        Parameters
        ----------
        op : str
            Name of the op; its first result is kept.
        inputs : tuple of int
            Buffers, passed as arrays (rows, width) before the constants.
        constants : tuple
            Arrays of the model, passed after the inputs.
        width : int
            Numbers in each row of the result.
        dtype : dtype-like
            Of the result.
        **options : Any
            Keyword arguments of the op.

        Returns
        -------
        int
            The buffer of the result.
        """
        for step in self.steps if op in OPS else ():
            if (op, inputs, options) == (step.op, step.inputs, step.options) and same(constants, step.constants):
                return step.result
        chosen = op in CHOOSING or any(self.writer(x).chosen for x in inputs if x >= INPUTS)
        result = len(self.steps) + INPUTS
        self.steps.append(Step(op, inputs, constants, options, result, width, chosen, np.dtype(dtype)))
        return result

    def writer(self, buffer: int) -> Step:
        """Return the step that writes a buffer.

        Parameters
        ----------
        buffer : int
            Not one of the inputs.

        Returns
        -------
        Step
            The step.
        """
        return self.steps[buffer - INPUTS]

    def rows(self, weight: Weight, ids: int) -> int:
        """Append a lookup of rows.

        Parameters
        ----------
        weight : Weight
            The table.
        ids : int
            The buffer with the numbers of the rows: `Lowering.ids`, `positions` or `types`.

        Returns
        -------
        int
            The buffer of the rows.
        """
        return weight.lower_rows(ids, self)

    def scaled(self, x: int, factor: float) -> int:
        """Append a multiplication.

        Parameters
        ----------
        x : int
            A buffer.
        factor : float
            What multiplies it; 1 appends nothing.

        Returns
        -------
        int
            The buffer of the product.
        """
        if factor == 1:
            return x
        width = self.writer(x).width
        return self.step("scale", (x,), constants=(np.full(width, factor, np.float32),), width=width)

    def rotate(self, x: int, d_head: int, turn: Turn) -> int:
        """Append the rotation of heads by their token's position.

        Parameters
        ----------
        x : int
            Queries or keys.
        d_head : int
            Width of a head.
        turn : Turn
            How.

        Returns
        -------
        int
            The buffer of the rotated heads.
        """
        return self.step("rotate", (x, self.positions), width=self.writer(x).width, d_head=d_head, turn=turn)

    def attend(
        self,
        q: int,
        k: int,
        v: int,
        *,
        layer: int,
        n_heads: int,
        d_head: int,
        window: int | None = None,
        scale: float | None = None,
        cap: float | None = None,
        biased: bool = False,
    ) -> int:
        """Append causal attention of each token over its sequence in the cache, which takes the new keys first.

        Parameters
        ----------
        q, k, v : int
            Buffers of as many heads of queries, and of fewer, maybe, of keys and values.
        layer : int
            Index of the layer in the cache.
        n_heads, d_head : int
            Sizes.
        window, scale, cap : optional
            As of `ops.attention`.
        biased : bool
            Whether `bias_HS1` is added to the scores.

        Returns
        -------
        int
            The buffer of the result, of width ``n_heads * d_head``.
        """
        return self.step(
            "attend",
            (q, k, v),
            constants=self._biases(biased),
            width=n_heads * d_head,
            layer=layer,
            d_head=d_head,
            window=window,
            scale=scale,
            cap=cap,
        )

    def attend_all(
        self,
        q: int,
        k: int,
        v: int,
        *,
        n_heads: int,
        d_head: int,
        window: int | None = None,
        scale: float | None = None,
        cap: float | None = None,
        biased: bool = False,
    ) -> int:
        """Append attention of each token over all tokens of its sequence in this run.

        Parameters
        ----------
        q, k, v : int
            Buffers of as many heads of queries, and of fewer, maybe, of keys and values.
        n_heads, d_head : int
            Sizes.
        window, scale, cap : optional
            As of `ops.attention`.
        biased : bool
            Whether `bias_HS1` is added to the scores.

        Returns
        -------
        int
            The buffer of the result, of width ``n_heads * d_head``.
        """
        return self.step(
            "attend_all",
            (q, k, v),
            constants=self._biases(biased),
            width=n_heads * d_head,
            stored=self.attention,
            d_head=d_head,
            window=window,
            scale=scale,
            cap=cap,
        )

    def keep_source(self, k: int, v: int, *, layer: int, d_head: int) -> None:
        """Append the writing of a source's keys and values into the cache.

        Parameters
        ----------
        k, v : int
            Buffers of one width.
        layer : int
            Index of the decoder's layer.
        d_head : int
            Width of a head.
        """
        self.step("keep_source", (k, v), width=0, layer=layer, d_head=d_head)

    def attend_source(
        self, q: int, *, layer: int, n_heads: int, n_kv_heads: int, d_head: int, scale: float | None = None
    ) -> int:
        """Append attention of each token over its sequence's source in the cache.

        Parameters
        ----------
        q : int
            Buffer of width ``n_heads * d_head``.
        layer : int
            Index of the layer in the cache.
        n_heads, n_kv_heads, d_head : int
            Sizes.
        scale : optional
            As of `ops.attention`.

        Returns
        -------
        int
            The buffer of the result, of width ``n_heads * d_head``.
        """
        return self.step(
            "attend_source",
            (q,),
            width=n_heads * d_head,
            layer=layer,
            d_head=d_head,
            n_kv_heads=n_kv_heads,
            scale=scale,
        )

    def outputs(self, x: int) -> int:
        """Append the choice of the rows whose results are wanted: each sequence's last, or all.

        Parameters
        ----------
        x : int
            A buffer with a row for each token.

        Returns
        -------
        int
            The buffer of the chosen rows.
        """
        return self.step("outputs", (x,), width=self.writer(x).width)

    def pool(self, x: int, pooling: str) -> int:
        """Append the making of one row for each sequence.

        Parameters
        ----------
        x : int
            A buffer with a row for each token.
        pooling : {"first", "mean"}
            The row of its first token, or the mean of all.

        Returns
        -------
        int
            The buffer of the pooled rows.
        """
        return self.step(f"pool_{pooling}", (x,), width=self.writer(x).width)

    def result(self, name: str, buffer: int) -> None:
        """Name a result; its buffer keeps it to the end of a run.

        Parameters
        ----------
        name : str
            Under which `run_all` returns it.
        buffer : int
            Where it is.
        """
        self.results[name] = buffer

    def _biases(self, biased: bool) -> tuple[np.ndarray, ...]:
        return (self.bias_HS1,) if biased and self.bias_HS1 is not None else ()


def same(these: tuple[Any, ...], those: tuple[Any, ...]) -> bool:
    """Tell whether two tuples hold the same objects.

    Parameters
    ----------
    these, those : tuple
        Constants of steps.

    Returns
    -------
    bool
        False where they are only equal.
    """
    return len(these) == len(those) and all(a is b for a, b in zip(these, those, strict=True))
