"""SequencePairs: texts, and what an encoder-decoder should make of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minislm.errors import ConfigError, DataError, UnsupportedError
from minislm.text.examples import TextPair
from minislm.text.tokenizer import Tokenizer
from minislm.training.data import Batch, check_ids, check_length
from minislm.training.objective import NOT_JUDGED
from minislm.training.tasks.bucketed import Bucketed
from minislm.training.tasks.ragged import Ragged
from minislm.weights.base import Arrays


class SequencePairs(Bucketed):
    """Sources and targets, both ended by the end-of-text token.

    Parameters
    ----------
    sources, targets : Ragged
        Tokens of each, the last one `eos_id`.
    eos_id : int
        The end-of-text token.
    start_id : int
        The token with which the decoder begins.
    """

    def __init__(self, sources: Ragged, targets: Ragged, eos_id: int, start_id: int) -> None:
        super().__init__(targets.lengths, sources.lengths)
        self.sources, self.targets, self.eos_id, self.start_id = sources, targets, eos_id, start_id

    @classmethod
    def of(
        cls,
        pairs: Sequence[TextPair],
        tokenizer: Tokenizer,
        context: int,
        *,
        start_id: int | None = None,
        cut: bool = False,
    ) -> SequencePairs:
        """Encode pairs of texts.

        Parameters
        ----------
        pairs : sequence of TextPair
            At least one.
        tokenizer : Tokenizer
            Of both sides.
        context : int
            Positions of the model, on each side.
        start_id : int, optional
            The token with which the decoder begins; None: the end-of-text token.
        cut : bool
            Whether a longer text loses tokens at its end. False: it is an error.

        Returns
        -------
        SequencePairs
            The examples.

        Raises
        ------
        DataError
            Code ``too_long``, ``empty_text``: no pairs.
        UnsupportedError
            Code ``no_special_tokens``: the tokenizer has no end-of-text token.
        """
        eos = tokenizer.eos_id
        if eos is None:
            raise UnsupportedError(
                "no_special_tokens", "sequences need a tokenizer with an end-of-text token, such as bpe"
            )
        if not pairs:
            raise DataError("empty_text", "there are no pairs of texts to learn from; give a file that holds some")
        sides = []
        for side, reader in (("source", tokenizer), ("target", tokenizer.target or tokenizer)):
            rows = reader.encode_batch([getattr(pair, side) for pair in pairs])
            for pair, ids in zip(pairs, rows, strict=True):
                if len(ids) >= context and not cut:
                    raise pair.place(side).error(
                        "too_long",
                        f"the {side} has {len(ids) + 1} tokens with its end, and the model has {context} positions. "
                        "Shorten the text, let it be cut (--cut), or give the model a longer context (--context)",
                    )
            sides.append(Ragged.of([[*ids[: context - 1], eos] for ids in rows]))
        sources, targets = sides
        return cls(sources, targets, eos, eos if start_id is None else start_id)

    def take(self, rows: np.ndarray) -> Batch:
        """Put some pairs together; the decoder reads the target one token late."""
        targets_BT = self.targets.padded(rows, NOT_JUDGED)
        ids_BT = np.full_like(targets_BT, self.start_id)
        ids_BT[:, 1:] = np.where(targets_BT[:, :-1] == NOT_JUDGED, self.eos_id, targets_BT[:, :-1])
        return Batch(
            ids_BT,
            targets_BT,
            lengths_B=self.targets.lengths[rows],
            source_BS=self.sources.padded(rows, self.eos_id),
            source_lengths_B=self.sources.lengths[rows],
        )

    def check(self, model: Any) -> None:
        """Refuse a model that reads no source, or has too few positions or tokens."""
        if not hasattr(model.config, "encoder_layers"):
            raise ConfigError(
                "config_invalid", f"pairs of texts are for an encoder-decoder, and this model is a {model.config.type}"
            )
        for side in (self.sources, self.targets):
            check_length(side.lengths, model)
            check_ids(side.values, model)

    def arrays(self) -> Arrays:
        """Return both sides."""
        return {
            "sources": self.sources.values,
            "source lengths": self.sources.lengths,
            "targets": self.targets.values,
            "target lengths": self.targets.lengths,
        }
