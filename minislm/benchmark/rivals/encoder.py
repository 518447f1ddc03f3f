"""What every rival's encoder has in common: tokenization by Hugging Face's library, padded batches, mean pooling."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from minislm.benchmark.engine import Engine
from minislm.benchmark.inputs import encoder_batch, sentences
from minislm.benchmark.shapes import model_folder
from minislm.files.folder import CONFIG, read_json

BATCH = 32
"""Sentences of about one length that are read together."""


class RivalEncoder(Engine):
    """An encoder of another engine.

    Parameters
    ----------
    model : str
        A shape or a model folder.
    cache : str
        Where models are kept, those in the engine's own format too.
    format : str
        One of the engine's.
    """

    def __init__(self, model: str, cache: str, format: str) -> None:
        self.folder, _ = model_folder(model, Path(cache))
        self.model, self.cache, self.format = model, Path(cache), format
        self.config = read_json(self.folder / CONFIG)
        self.vocab_size: int = self.config["vocab_size"]
        self.threads = int(os.environ["OMP_NUM_THREADS"])
        self.texts: list[str] = []
        self.load()

    @abstractmethod
    def load(self) -> None:
        """Make the model ready in `format`, for `threads`."""

    @abstractmethod
    def hidden(self, ids_BT: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
        """Run the model.

        Parameters
        ----------
        ids_BT, mask_BT : ndarray of int64, (B, T)
            Token ids, and ones where they are real.

        Returns
        -------
        ndarray of float32, (B, T, D)
            Last hidden states.
        """

    def output(self) -> np.ndarray:
        """Return the hidden states of a small batch."""
        return np.asarray(self.hidden(*encoder_batch(4, 32, self.vocab_size)), np.float32)

    def run(self, work: Mapping[str, Any]) -> None:
        """Read a batch of one length, or turn texts into vectors."""
        if "texts" in work:
            self._embed(work["texts"])
        else:
            self.hidden(*encoder_batch(work["sequences"], work["tokens"], self.vocab_size))

    def _embed(self, n_texts: int) -> np.ndarray:
        """Turn texts into vectors as sentence-transformers does: in batches, those of about one length together."""
        if not self.texts:
            self.texts = sentences()
            self.tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
            self.tokenizer.no_padding()
            self.tokenizer.enable_truncation(min(256, self.config["max_position_embeddings"]))
        encoded = self.tokenizer.encode_batch(self.texts[:n_texts])
        order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i].ids))
        vectors_ND = np.empty((len(encoded), self.config["hidden_size"]), np.float32)
        for first in range(0, len(order), BATCH):
            group = order[first : first + BATCH]
            longest = len(encoded[group[0]].ids)
            ids_BT, mask_BT = np.zeros((2, len(group), longest), np.int64)
            for row, i in enumerate(group):
                ids = encoded[i].ids
                ids_BT[row, : len(ids)], mask_BT[row, : len(ids)] = ids, 1
            hidden_BTD = self.hidden(ids_BT, mask_BT)
            sums_BD = np.einsum("btd,bt->bd", hidden_BTD, mask_BT.astype(np.float32))
            vectors_ND[group] = sums_BD / mask_BT.sum(axis=1, keepdims=True)
        return vectors_ND
