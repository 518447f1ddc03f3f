"""Which block of a student learns from which of its teacher's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from minislm.errors import UsageError, unknown

MAPS = ("uniform", "last")
QUERY = ".query.weight"  # what only attention has


class Pair(NamedTuple):
    """A block of the student and one of the teacher.

    Parameters
    ----------
    student, teacher : str
        Paths, such as ``"blocks.1"``.
    reads_source : bool
        Whether the student's block reads the source of an encoder-decoder; see `minislm.models.base.Stack`.
    """

    student: str
    teacher: str
    reads_source: bool


def block_pairs(student: Any, teacher: Any, layers: str | Mapping[str, str] = "uniform") -> tuple[Pair, ...]:
    """Pair the blocks of two models.

    Parameters
    ----------
    student, teacher : Model
        Of one architecture, with any numbers of blocks.
    layers : {"uniform", "last"} or mapping of str to str
        Block m of M learns from the teacher's block ``ceil(m N / M)`` of N, counted from 1; or the student's blocks
        from the teacher's last ones; or, by paths, those that are named, each from the one that it is mapped to.

    Returns
    -------
    tuple of Pair
        In the student's order.

    Raises
    ------
    UnsupportedError
        Code ``unknown_layers`` or ``unknown_block``: a block that a model does not have.
    UsageError
        Code ``bad_option``: a student deeper than its teacher cannot learn from the last ones; or no block is named.

    References
    ----------
    Jiao et al. (2019), "TinyBERT", arXiv 1909.10351, section 3.1 (uniform) and 4.4 (the last, as "top").

    Examples
    --------
    >>> from minislm.models.decoder import Decoder, DecoderConfig
    >>> sizes = {"vocab_size": 8, "d_model": 4, "context": 4, "n_heads": 1}
    >>> student, teacher = (Decoder.create(DecoderConfig.uniform(n_layers=n, **sizes)) for n in (2, 4))
    >>> [(pair.student, pair.teacher) for pair in block_pairs(student, teacher)]
    [('blocks.0', 'blocks.1'), ('blocks.1', 'blocks.3')]
    """
    found: list[Pair] = []
    for stack in student.stacks:
        own, theirs = (_blocks(model, stack) for model in (student, teacher))
        if isinstance(layers, Mapping):
            pairs = [(path, layers[path]) for path in own if path in layers]
        elif layers == "uniform":
            pairs = [(path, theirs[-(-m * len(theirs) // len(own)) - 1]) for m, path in enumerate(own, start=1)]
        elif layers == "last":
            if len(own) > len(theirs):
                raise UsageError(
                    "bad_option",
                    f"distil: the {len(own)} blocks of the student's {stack.path} cannot learn from the last of the "
                    f"teacher's {len(theirs)}; take layers='uniform'",
                )
            pairs = list(zip(own, theirs[-len(own) :], strict=True))
        else:
            raise unknown("layers", layers, MAPS)
        found += [Pair(path, other, stack.reads_source) for path, other in pairs]
    if isinstance(layers, Mapping):
        for model, named in ((student, layers.keys()), (teacher, layers.values())):
            known = [path for stack in model.stacks for path in _blocks(model, stack)]
            for path in named:
                if path not in known:
                    raise unknown("block", path, known)
        if not layers:
            raise UsageError("bad_option", "distil: layers names no block; leave it out, or name some")
    return tuple(found)


def last_pairs(student: Any, teacher: Any) -> tuple[Pair, ...]:
    """Pair the last blocks, whose results are the last hidden states.

    Parameters
    ----------
    student, teacher : Model
        Of one architecture.

    Returns
    -------
    tuple of Pair
        One for each stack of blocks.
    """
    return tuple(
        Pair(_blocks(student, stack)[-1], _blocks(teacher, stack)[-1], stack.reads_source) for stack in student.stacks
    )


def attention_pairs(student: Any, teacher: Any, pairs: tuple[Pair, ...]) -> tuple[Pair, ...]:
    """Pair the attentions of paired blocks.

    Parameters
    ----------
    student, teacher : Model
        Of one architecture.
    pairs : tuple of Pair
        Of their blocks.

    Returns
    -------
    tuple of Pair
        Of the attentions of each block, self-attention and, where there is one, cross-attention.

    Raises
    ------
    UsageError
        Code ``heads_differ``: maps are compared head by head.
    """
    own, theirs = (_heads(model) for model in (student, teacher))
    found = []
    for pair in pairs:
        for path in (path for path in own if path.startswith(f"{pair.student}.")):
            other = pair.teacher + path.removeprefix(pair.student)
            if own[path] != theirs[other]:
                raise UsageError(
                    "heads_differ",
                    f"distil: attention maps are compared head by head; {path} has {own[path]} heads, the teacher's "
                    f"{other} has {theirs[other]}. Set attention_weight to 0, or give the student as many",
                )
            found.append(Pair(path, other, pair.reads_source))
    return tuple(found)


def _blocks(model: Any, stack: Any) -> list[str]:
    return [f"{stack.path}.{i}" for i in range(len(getattr(model.config, stack.sizes)))]


def _heads(model: Any) -> dict[str, int]:
    """Return the number of query heads of every attention by its path."""
    found = {}
    for stack in model.stacks:
        for block, sizes in zip(_blocks(model, stack), getattr(model.config, stack.sizes), strict=True):
            queries = (path for path in model.weights() if path.startswith(f"{block}.") and path.endswith(QUERY))
            found.update({path.removesuffix(QUERY): sizes.n_heads for path in queries})
    return found
