"""Cross-attention: a decoder's positions ask, and the encoder's memory of the source answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minislm.layers.attention import MultiHead
from minislm.layers.base import Context, Grads, Tape


@dataclass(frozen=True)
class CrossAttention(MultiHead):
    """Attention with queries from the stream, and keys and values from ``context.memory_BSD``.

    With a cache, the keys and values of a memory are put there once; passes without a memory read them again. The
    memory's gradient is put aside under ``memory``, because every block reads the same one.

    Parameters
    ----------
    path : str
        Its name in the model.
    query, key, value, output : Linear
        The projections.
    layer, n_heads, n_kv_heads, d_head : int
        As of `MultiHead`.
    scale : float, optional
        Factor of the scores; None: 1 / sqrt(K).
    """

    scale: float | None = None

    def forward(self, x: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Mix the memory into the stream: (B, T, D) to (B, T, D)."""
        q_BTHK = self.project(self.query, x, context, tape)
        k_BSGK, v_BSGK, mask_BS = self._memory(context, tape)
        y = self.mix(q_BTHK, k_BSGK, v_BSGK, tape, key_mask_BS=mask_BS, scale=self.scale)
        return self.output.forward(y, context, tape)

    def backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Return the gradient of the stream, (B, T, D)."""
        dmixed = self.output.backward(dy, tape, grads)
        dq_BTHK, dk_BSGK, dv_BSGK = self.mix_backward(dmixed, tape, grads)
        dmemory_BSD = self.project_backward(self.value, dv_BSGK, tape, grads)
        dmemory_BSD += self.project_backward(self.key, dk_BSGK, tape, grads)
        grads.aside("memory", dmemory_BSD)
        return self.project_backward(self.query, dq_BTHK, tape, grads)

    def lower(self, x: int, program: Any) -> int:
        """Append the query, attention to the source in the cache, and the output."""
        attended: int = program.attend_source(
            self.query.lower(x, program),
            layer=self.layer,
            n_heads=self.n_heads,
            n_kv_heads=self.n_kv_heads,
            d_head=self.d_head,
            scale=self.scale,
        )
        return self.output.lower(attended, program)

    def lower_memory(self, memory: int, program: Any) -> None:
        """Append the keys and values of a memory, which the cache keeps.

        Parameters
        ----------
        memory : int
            Buffer that holds it.
        program : Program
            The encoder's.
        """
        program.keep_source(
            self.key.lower(memory, program),
            self.value.lower(memory, program),
            layer=self.layer,
            d_head=self.d_head,
        )

    def _memory(self, context: Context, tape: Tape | None) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Return the keys and values of this pass's memory or of the cache's, and which of them there are."""
        if context.memory_BSD is None:
            return self._cached(context)
        k_BSGK = self.project(self.key, context.memory_BSD, context, tape)
        v_BSGK = self.project(self.value, context.memory_BSD, context, tape)
        if context.cache is None:
            return k_BSGK, v_BSGK, context.source_mask(k_BSGK.shape[1])
        context.cache.fill_source(self.layer, context.slots_B, k_BSGK, v_BSGK, context.source_lengths_B)
        return self._cached(context)

    def _cached(self, context: Context) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return what the cache holds."""
        k_BSGK, v_BSGK, lengths_B = context.cache.source(self.layer, context.slots_B)
        return k_BSGK, v_BSGK, np.arange(k_BSGK.shape[1]) < lengths_B[:, None]
