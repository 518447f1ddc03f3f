"""Attention: four Linears around `ops.attention`; self-attention adds norms, rotary positions and the KV cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minislm.dispatch import ops
from minislm.layers.base import Context, Grads, Layer, Tape
from minislm.layers.coupling import Coupling
from minislm.layers.linear import Linear
from minislm.layers.norm import Norm
from minislm.layers.rotary import Turn


@dataclass(frozen=True)
class MultiHead(Layer):
    """What self- and cross-attention have in common: the projections, whose rows hold the heads side by side.

    Parameters
    ----------
    path : str
        Its name in the model.
    query, key, value, output : Linear
        The projections: D to H*K, D to G*K, D to G*K, and H*K to D.
    layer : int
        Number of the block: its place in the KV cache.
    n_heads, n_kv_heads, d_head : int
        H, G and K.
    """

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    layer: int
    n_heads: int
    n_kv_heads: int
    d_head: int

    def project(self, linear: Linear, x: np.ndarray, context: Context, tape: Tape | None) -> np.ndarray:
        """Apply one of the first three projections.

        Parameters
        ----------
        linear : Linear
            Which.
        x : ndarray, (B, T, D)
            Input.
        context : Context
            The pass.
        tape : Tape, optional
            As in `forward`.

        Returns
        -------
        ndarray, (B, T, heads, K)
            Queries, keys or values.
        """
        y = linear.forward(x, context, tape)
        return y.reshape(*y.shape[:2], y.shape[2] // self.d_head, self.d_head)

    def mix(self, q: np.ndarray, k: np.ndarray, v: np.ndarray, tape: Tape | None, **options: Any) -> np.ndarray:
        """Attend; `mix_backward` undoes it.

        Parameters
        ----------
        q : ndarray, (B, T, H, K)
            Queries.
        k, v : ndarray, (B, S, G, K)
            Keys and values.
        tape : Tape, optional
            As in `forward`.
        **options : Any
            Keyword arguments of `ops.attention`.

        Returns
        -------
        ndarray, (B, T, H*K)
            Mixed values, as `output` takes them.
        """
        y_BTHK, saved = ops.attention(q, k, v, **options)
        if tape is not None:
            tape.push(self.path, saved)
        mixed: np.ndarray = y_BTHK.reshape(*q.shape[:2], self.n_heads * self.d_head)
        return mixed

    def mix_backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Undo `mix`, and add what a loss that judges the attention map put aside.

        The gradient of the bias is put aside under ``bias``, because every block of a stack adds the same one.

        Parameters
        ----------
        dy : ndarray, (B, T, H*K)
            Gradient of the mixed values.
        tape : Tape
            As in `backward`.
        grads : Grads
            As in `backward`.

        Returns
        -------
        dq_BTHK : ndarray, (B, T, H, K)
            Gradient of the queries.
        dk_BSGK, dv_BSGK : ndarray, (B, S, G, K)
            Gradients of keys and values.
        """
        dy_BTHK = dy.reshape(*dy.shape[:2], self.n_heads, self.d_head)
        dq_BTHK, dk_BSGK, dv_BSGK, dbias_HS1 = ops.attention_backward(dy_BTHK, tape.take(self.path))
        if dbias_HS1 is not None:
            grads.aside("bias", grads.joined(f"{self.path}.bias", dbias_HS1))
        dq_BTHK = grads.joined(f"{self.path}.query", dq_BTHK)
        dk_BSGK = grads.joined(f"{self.path}.key", dk_BSGK)
        return dq_BTHK, dk_BSGK, dv_BSGK

    def project_backward(self, linear: Linear, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Undo `project`.

        Parameters
        ----------
        linear : Linear
            The same.
        dy : ndarray, (B, T, heads, K)
            Gradient of its result.
        tape : Tape
            As in `backward`.
        grads : Grads
            As in `backward`.

        Returns
        -------
        ndarray, (B, T, D)
            Gradient of its input.
        """
        return linear.backward(dy.reshape(*dy.shape[:2], linear.weight.shape[0]), tape, grads)

    def couplings(self) -> Iterator[Coupling]:
        """Yield the heads: each key and value head with its queries, or the queries alone where all share one."""
        if self.n_kv_heads == 1:
            yield Coupling(self.path, self.n_heads, {"n_heads": 1}, (self.query.path,), (self.output.path,))
        else:
            sizes = {"n_heads": self.n_heads // self.n_kv_heads, "n_kv_heads": 1}
            producers = (self.query.path, self.key.path, self.value.path)
            yield Coupling(self.path, self.n_kv_heads, sizes, producers, (self.output.path,))


@dataclass(frozen=True)
class Attention(MultiHead):
    """Multi-head self-attention.

    Parameters
    ----------
    path : str
        Its name in the model.
    query, key, value, output : Linear
        The projections.
    layer, n_heads, n_kv_heads, d_head : int
        As of `MultiHead`.
    causal : bool
        Whether a position sees only itself and earlier ones.
    window : int, optional
        How many positions back, itself counted, a position sees; None: all.
    scale : float, optional
        Factor of the scores; None: 1 / sqrt(K).
    cap : float, optional
        Soft bound of the scores; None: none.
    biased : bool
        Whether ``context.bias_HS1`` is added to the scores.
    turn : Turn, optional
        Rotation of queries and keys; None: none.
    query_norm, key_norm : Norm, optional
        Applied before it to each head, or to all heads together where as wide as these; None: none (Henry et al., 2020,
        arXiv 2010.04245).
    """

    causal: bool = True
    window: int | None = None
    scale: float | None = None
    cap: float | None = None
    biased: bool = False
    turn: Turn | None = None
    query_norm: Norm | None = None
    key_norm: Norm | None = None

    def forward(self, x: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Mix positions: (B, T, D) to (B, T, D)."""
        q_BTHK = self.project(self.query, x, context, tape)
        k_BSGK = self.project(self.key, x, context, tape)
        v_BSGK = self.project(self.value, x, context, tape)
        starts_B = context.starts(len(x))
        q_BTHK = _normed(self.query_norm, q_BTHK, context, tape)
        k_BSGK = _normed(self.key_norm, k_BSGK, context, tape)
        if self.turn is not None:
            q_BTHK = self._rotate(self.turn, "query", q_BTHK, starts_B, tape)
            k_BSGK = self._rotate(self.turn, "key", k_BSGK, starts_B, tape)
        if context.cache is not None:
            k_BSGK, v_BSGK, starts_B = context.cache.append(
                self.layer, context.slots_B, k_BSGK, v_BSGK, context.lengths_B
            )
        y = self.mix(
            q_BTHK,
            k_BSGK,
            v_BSGK,
            tape,
            bias_HS1=context.bias_HS1 if self.biased else None,
            causal=self.causal,
            key_mask_BS=None if self.causal else context.key_mask(k_BSGK.shape[1]),
            window=self.window,
            starts_B=starts_B,
            scale=self.scale,
            cap=self.cap,
        )
        return self.output.forward(y, context, tape)

    def backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Return the gradient of the input, (B, T, D)."""
        dmixed = self.output.backward(dy, tape, grads)
        dq_BTHK, dk_BTGK, dv_BTGK = self.mix_backward(dmixed, tape, grads)
        if self.turn is not None:
            dk_BTGK = self._unrotate("key", dk_BTGK, tape)
            dq_BTHK = self._unrotate("query", dq_BTHK, tape)
        dk_BTGK = _normed_backward(self.key_norm, dk_BTGK, tape, grads)
        dq_BTHK = _normed_backward(self.query_norm, dq_BTHK, tape, grads)
        dx = self.project_backward(self.value, dv_BTGK, tape, grads)
        dx += self.project_backward(self.key, dk_BTGK, tape, grads)
        dx += self.project_backward(self.query, dq_BTHK, tape, grads)
        return dx

    def couplings(self) -> Iterator[Coupling]:
        """Yield the heads, unless they are biased: the columns of that table belong to other blocks, too."""
        if self.biased:
            return
        for coupling in super().couplings():
            norms = (self.query, self.query_norm), (self.key, self.key_norm)
            wide = [
                f"{norm.path}.weight"
                for linear, norm in norms
                if norm and linear.path in coupling.producers and norm.weight.size == linear.weight.shape[0]
            ]
            yield coupling._replace(vectors=tuple(wide))

    def lower(self, x: int, program: Any) -> int:
        """Append the projections and one attention step: over the cache, or over the whole text when not causal."""
        q, k, v = (linear.lower(x, program) for linear in (self.query, self.key, self.value))
        q, k = self._prepared(self.query_norm, q, program), self._prepared(self.key_norm, k, program)
        sizes = {"n_heads": self.n_heads, "d_head": self.d_head}
        options = {"window": self.window, "scale": self.scale, "cap": self.cap, "biased": self.biased}
        if self.causal:
            attended: int = program.attend(q, k, v, layer=self.layer, **sizes, **options)
        else:
            attended = program.attend_all(q, k, v, **sizes, **options)
        return self.output.lower(attended, program)

    def _prepared(self, norm: Norm | None, x: int, program: Any) -> int:
        """Append the norm and the rotation of queries or keys."""
        if norm is not None:
            x = norm.lower_parts(x, program)
        return x if self.turn is None else program.rotate(x, self.d_head, self.turn)

    def _rotate(
        self, turn: Turn, which: str, x_BTHK: np.ndarray, starts_B: np.ndarray, tape: Tape | None
    ) -> np.ndarray:
        b, t, h, k = x_BTHK.shape
        positions_N = (starts_B[:, None] + np.arange(t)).reshape(-1)
        y_NHK, saved = ops.rotary(
            x_BTHK.reshape(b * t, h, k),
            positions_N,
            turn.frequencies,
            interleaved=turn.interleaved,
            factor=turn.factor,
        )
        if tape is not None:
            tape.push(f"{self.path}.rotary_{which}", saved)
        rotated: np.ndarray = y_NHK.reshape(x_BTHK.shape)
        return rotated

    def _unrotate(self, which: str, dy_BTHK: np.ndarray, tape: Tape) -> np.ndarray:
        b, t, h, k = dy_BTHK.shape
        dx_NHK = ops.rotary_backward(dy_BTHK.reshape(b * t, h, k), tape.take(f"{self.path}.rotary_{which}"))
        unrotated: np.ndarray = dx_NHK.reshape(dy_BTHK.shape)
        return unrotated


def _normed(norm: Norm | None, x_BTHK: np.ndarray, context: Context, tape: Tape | None) -> np.ndarray:
    """Normalize each head, or all of a position together, as wide as the norm is."""
    if norm is None:
        return x_BTHK
    return norm.forward(x_BTHK.reshape(-1, norm.weight.size), context, tape).reshape(x_BTHK.shape)


def _normed_backward(norm: Norm | None, dy_BTHK: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
    if norm is None:
        return dy_BTHK
    return norm.backward(dy_BTHK.reshape(-1, norm.weight.size), tape, grads).reshape(dy_BTHK.shape)
