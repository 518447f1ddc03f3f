"""Held: one sequence that stays in a cache between calls, so that only what is new of it is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from minislm.config import Config
from minislm.inference.cache import KVCache


@dataclass
class Held:
    """A cache slot, and the tokens that it holds.

    Parameters
    ----------
    cache : KVCache
        With room for the model's whole context; memory is taken as positions are filled.
    slot : int
        Claimed.
    ids : list of int
        Tokens whose keys and values are there.
    """

    cache: KVCache
    slot: int
    ids: list[int] = field(default_factory=list)

    @classmethod
    def empty(cls, config: Config, dtype: str = "float32") -> Self:
        """Begin with nothing.

        Parameters
        ----------
        config : Config
            Of the model.
        dtype : str
            How keys and values are kept, as `KVCache.create` takes it.

        Returns
        -------
        Held
            A new one.
        """
        cache = KVCache.create(config.layers, 1, config.context, dtype=dtype)
        return cls(cache, cache.claim())

    def keep(self, ids: list[int]) -> int:
        """Forget all but what a text begins with.

        Parameters
        ----------
        ids : list of int
            The text, at least one token.

        Returns
        -------
        int
            How many of its tokens need not be read again; the last one always must, for its logits.
        """
        same = (a == b for a, b in zip(self.ids, ids[:-1], strict=False))
        count = next((i for i, equal in enumerate(same) if not equal), min(len(self.ids), len(ids) - 1))
        self.cache.truncate(self.slot, count)
        self.ids = ids[:count]
        return count
