"""What every engine is given to read: the same token ids and the same sentences."""

from __future__ import annotations

import re
from pydoc_data.topics import topics

import numpy as np

N_SENTENCES = 1000
CLS, SEP = 101, 102  # of BERT's vocabularies


def prompt_ids(n_tokens: int, vocab_size: int) -> np.ndarray:
    """Draw a prompt.

    Parameters
    ----------
    n_tokens : int
        Its length.
    vocab_size : int
        Ids lie below it.

    Returns
    -------
    ndarray of int64, (N,)
        Always the same.
    """
    return np.random.default_rng(1).integers(0, vocab_size, n_tokens)


def encoder_batch(n_sequences: int, n_tokens: int, vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a batch for an encoder.

    Parameters
    ----------
    n_sequences, n_tokens : int
        Its shape.
    vocab_size : int
        Ids lie below it.

    Returns
    -------
    ids_BT : ndarray of int64, (B, T)
        Each row begins and ends as BERT's do, where the vocabulary is as large.
    mask_BT : ndarray of int64, (B, T)
        Ones: nothing is padded.
    """
    ids_BT = np.random.default_rng(2).integers(0, vocab_size, (n_sequences, n_tokens))
    if vocab_size > SEP:
        ids_BT[:, 0], ids_BT[:, -1] = CLS, SEP
    return ids_BT, np.ones_like(ids_BT)


def sentences() -> list[str]:
    """Take sentences out of the language reference that every Python carries.

    Returns
    -------
    list of str
        A thousand, short and long ones mixed; the same for one version of Python.
    """
    found: dict[str, None] = {}
    for document in topics.values():
        for sentence in re.split(r"(?<=[.!?])\s+", document):
            words = " ".join(sentence.split())
            if 20 <= len(words) <= 600 and words[0].isupper():
                found.setdefault(words)
    chosen = np.random.default_rng(3).permutation(list(found))[:N_SENTENCES]
    return [str(sentence) for sentence in chosen]
