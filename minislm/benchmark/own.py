"""minislm as an engine: its decoders and encoders."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import minislm
from minislm.benchmark.engine import Engine, Facts
from minislm.benchmark.inputs import encoder_batch, prompt_ids, sentences
from minislm.benchmark.stored import stored_folder
from minislm.inference.cache import KVCache
from minislm.inference.decoding import PROMPT_CHUNK
from minislm.inference.program import Program
from minislm.training.environment import environment

LONGEST = 4096 + 256
"""Positions of the cache."""
ROWS_COMPARED = 32
"""Positions of a prompt whose logits are compared."""


def own_facts(program: Program, settings: str, weights_bytes: int) -> Facts:
    """Describe a Program.

    Parameters
    ----------
    program : Program
        What runs.
    settings : str
        To be shown.
    weights_bytes : int
        Of the model.

    Returns
    -------
    Facts
        With what one token reads and multiplies.
    """
    costs = program.describe(1, 64)
    products = sum(cost.operations for cost in costs if cost.op == "linear" or "product" in cost.op) // 2
    instructions = environment()["kernels"] or "NumPy alone"
    return Facts(
        minislm.__version__, instructions, settings, weights_bytes, sum(cost.size_bytes for cost in costs), products
    )


class Decoder(Engine):
    """A decoder, run by its Program as `minislm.generate` runs it, greedily.

    Parameters
    ----------
    model : str
        A shape or a model folder.
    cache : str
        Where models are kept.
    format : str
        What its weights are stored in.
    kept : str
        What its keys and values are, as `KVCache.create` takes it.
    """

    def __init__(self, model: str, cache: str, format: str, kept: str = "float32") -> None:
        lm = minislm.load(stored_folder(model, Path(cache), format))
        self.settings = f"{format}, cache {kept}, prompts in chunks of {PROMPT_CHUNK}"
        self.weights_bytes = lm.model.nbytes
        self.config, self.program = lm.model.config, lm.program()
        self.cache = KVCache.create(self.config.layers, 1, min(self.config.context, LONGEST), dtype=kept)
        self.slots = np.array([self.cache.claim()])

    def facts(self) -> Facts:
        """Tell the format, and what a token costs."""
        return own_facts(self.program, self.settings, self.weights_bytes)

    def output(self) -> np.ndarray:
        """Return the logits of every position of a short prompt."""
        ids = prompt_ids(ROWS_COMPARED, self.config.vocab_size)
        self.cache.truncate(int(self.slots[0]), 0)
        return self.program.run(ids, self.slots, np.array([ids.size]), self.cache, every=True)

    def run(self, work: Mapping[str, Any]) -> float:
        """Read a prompt, or go on from one, which is not counted."""
        ids = prompt_ids(work["prompt"], self.config.vocab_size)
        self.cache.truncate(int(self.slots[0]), 0)
        start = time.perf_counter()
        for first in range(0, ids.size, PROMPT_CHUNK):
            logits = self._pass(ids[first : first + PROMPT_CHUNK])
        token = logits.argmax()
        if new_tokens := work.get("new"):
            start = time.perf_counter()
            for _ in range(new_tokens):
                token = self._pass(np.array([token])).argmax()
        return time.perf_counter() - start

    def _pass(self, ids: np.ndarray) -> np.ndarray:
        logits_V: np.ndarray = self.program.run(ids, self.slots, np.array([ids.size]), self.cache)[-1]
        return logits_V


class Encoder(Engine):
    """An encoder, its texts packed without padding.

    Parameters
    ----------
    model : str
        A shape or a model folder.
    cache : str
        Where models are kept.
    format : str
        What its weights are stored in.
    attention : str
        As `minislm.load` takes it.
    """

    def __init__(self, model: str, cache: str, format: str, attention: str = "float32") -> None:
        self.lm = minislm.load(stored_folder(model, Path(cache), format), attention=attention)
        self.settings = f"{format}, attention {attention}"
        self.vocab_size = self.lm.model.config.vocab_size
        self.program = Program.of(self.lm.model, ["hidden"], attention=attention)
        self.texts: list[str] = []

    def facts(self) -> Facts:
        """Tell the format and the bytes of the weights."""
        return own_facts(self.program, self.settings, self.lm.model.nbytes)

    def output(self) -> np.ndarray:
        """Return the hidden states of a small batch."""
        return self._hidden(*encoder_batch(4, 32, self.vocab_size))

    def run(self, work: Mapping[str, Any]) -> None:
        """Read a batch of one length, or turn texts into vectors."""
        if "texts" in work:
            self.texts = self.texts or sentences()
            self.lm.embed(self.texts[: work["texts"]], pooling="mean", cut=True)
        else:
            self._hidden(*encoder_batch(work["sequences"], work["tokens"], self.vocab_size))

    def _hidden(self, ids_BT: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
        hidden_ND: np.ndarray = self.program.run_all(ids_BT.ravel(), mask_BT.sum(axis=1))["hidden"]
        hidden_BTD: np.ndarray = hidden_ND.reshape(*ids_BT.shape, -1)
        return hidden_BTD
