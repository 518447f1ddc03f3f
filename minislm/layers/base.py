"""What every layer shares: the Layer itself, the Context of a pass, the Tape and the gradient store."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from minislm.layers.coupling import Coupling
from minislm.weights import build
from minislm.weights.base import Arrays, Weight, below, join


@dataclass(frozen=True)
class Context:
    """One pass over a batch, as every layer sees it. Layers keep no state.

    Parameters
    ----------
    lengths_B : ndarray of int64, (B,), optional
        Valid positions of each row, the rest being padding at the end; None: all are valid.
    cache : KVCache, optional
        Where attention reads earlier keys and values and appends the new ones.
    slots_B : ndarray of int64, (B,), optional
        The cache slot of each row; with `cache` only.
    dropout : tuple of int, optional
        (seed, step, microbatch), the key of this pass's dropout; None: no dropout.
    types_BT : ndarray of int64, (B, T), optional
        Which of its texts each token belongs to, for an encoder that reads pairs; None: all to the first.
    source_BS : ndarray of int64, (B, S), optional
        What the encoder of an encoder-decoder reads.
    source_lengths_B : ndarray of int64, (B,), optional
        Valid positions of each row of the source, the rest being padding at the end; None: all are valid.
    memory_BSD : ndarray, (B, S, D), optional
        What the encoder made of the source, as cross-attention reads it.
    bias_HS1 : ndarray, (H, S1), optional
        What self-attention adds to its scores for each distance, as `ops.attention` takes it.
    """

    lengths_B: np.ndarray | None = None
    cache: Any = None
    slots_B: np.ndarray | None = None
    dropout: tuple[int, int, int] | None = None
    types_BT: np.ndarray | None = None
    source_BS: np.ndarray | None = None
    source_lengths_B: np.ndarray | None = None
    memory_BSD: np.ndarray | None = None
    bias_HS1: np.ndarray | None = None

    def starts(self, n_rows: int) -> np.ndarray:
        """Tell where each row's new tokens begin.

        Parameters
        ----------
        n_rows : int
            B.

        Returns
        -------
        ndarray of int64, (B,)
            Position of the first new token: how many the cache holds, or zeros.
        """
        if self.cache is None:
            return np.zeros(n_rows, np.int64)
        starts_B: np.ndarray = self.cache.lengths_C[self.slots_B]
        return starts_B

    def key_mask(self, n_keys: int) -> np.ndarray | None:
        """Tell which keys are valid.

        Parameters
        ----------
        n_keys : int
            S.

        Returns
        -------
        ndarray of bool, (B, S), or None
            None: all.
        """
        return _valid(self.lengths_B, n_keys)

    def source_mask(self, n_keys: int) -> np.ndarray | None:
        """Tell which positions of the source are valid.

        Parameters
        ----------
        n_keys : int
            S.

        Returns
        -------
        ndarray of bool, (B, S), or None
            None: all.
        """
        return _valid(self.source_lengths_B, n_keys)


PLAIN = Context()  # whole rows, no cache, no dropout


def _valid(lengths_B: np.ndarray | None, n_keys: int) -> np.ndarray | None:
    return None if lengths_B is None else np.arange(n_keys) < lengths_B[:, None]


class Tape(list[tuple[str, Any]]):
    """What forward saved, in order; backward takes it in reverse, and calibration reads it by path.

    Parameters
    ----------
    watched : collection of str
        Paths of layers whose results or saved arrays are kept in `seen` too, such as ``blocks.1`` (the stream that a
        block returns) and ``blocks.1.attention`` (what attention saved).
    saving : bool
        Whether what is pushed is kept for a backward; False for a pass that is only watched, such as a teacher's.
    """

    def __init__(self, watched: Collection[str] = (), *, saving: bool = True) -> None:
        super().__init__()
        self.watched = frozenset(watched)
        self.saving = saving
        self.seen: dict[str, Any] = {}

    def watch(self, paths: Collection[str]) -> None:
        """Watch more layers.

        Parameters
        ----------
        paths : collection of str
            As `watched`.
        """
        self.watched |= frozenset(paths)

    def see(self, path: str, y: np.ndarray) -> None:
        """Keep a layer's result, if its path is watched.

        Parameters
        ----------
        path : str
            Of the layer.
        y : ndarray
            What it returns.
        """
        if path in self.watched:
            self.seen[path] = y

    def push(self, path: str, saved: Any) -> None:
        """Put something on top.

        Parameters
        ----------
        path : str
            Of the layer that saved it.
        saved : object
            What its backward needs.
        """
        if self.saving:
            self.append((path, saved))
        self.see(path, saved)

    def take(self, path: str) -> Any:
        """Take the top away.

        Parameters
        ----------
        path : str
            Of the layer that takes it; the same must have pushed it.

        Returns
        -------
        object
            What was pushed.

        Raises
        ------
        RuntimeError
            Another layer pushed it: a backward that is not its forward reversed.
        """
        pushed_by, saved = self.pop()
        if pushed_by != path:
            raise RuntimeError(f"backward of {path!r} met what {pushed_by!r} saved: backward is not forward reversed")
        return saved


class Grads(dict[str, np.ndarray]):
    """The gradient store: the one place where gradients accumulate.

    Parameters
    ----------
    wanted : callable, optional
        Tells by its full name whether an array's gradient is kept; None: all are.
    into : mapping of str to ndarray, optional
        Zeroed arrays to accumulate into, such as views of the trainer's flat buffer.
    """

    def __init__(
        self, wanted: Callable[[str], bool] | None = None, into: Mapping[str, np.ndarray] | None = None
    ) -> None:
        super().__init__(into or {})
        self.wanted = wanted or (lambda name: True)
        self.side: Arrays = {}  # what `aside` was given

    def add(self, name: str, gradient: np.ndarray) -> None:
        """Add the gradient of one array.

        Parameters
        ----------
        name : str
            Full name of the array.
        gradient : ndarray
            Of the array's shape; it belongs to the store from now on.
        """
        if not self.wanted(name):
            return
        if name in self:
            self[name] += gradient
        else:
            self[name] = gradient

    def aside(self, name: str, gradient: np.ndarray) -> None:
        """Add a gradient that reaches a layer by another way than from the layer after it.

        Parameters
        ----------
        name : str
            What it belongs to, such as ``memory``, which every cross-attention reads, or the path of a block whose
            result a loss judges.
        gradient : ndarray
            Of that array's shape; it belongs to the store from now on.
        """
        self.side[name] = self.side[name] + gradient if name in self.side else gradient

    def joined(self, name: str, dy: np.ndarray) -> np.ndarray:
        """Add to a gradient what was put aside under its name, and forget that.

        Parameters
        ----------
        name : str
            As in `aside`.
        dy : ndarray
            The gradient that came from the layer after; not changed.

        Returns
        -------
        ndarray
            The sum; `dy` itself where nothing was put aside.
        """
        extra = self.side.pop(name, None)
        return dy if extra is None else dy + extra

    def add_weight(self, path: str, weight: Weight, gradients: Callable[[], Arrays]) -> None:
        """Add a Weight's gradients, computing them only when one of its arrays is wanted.

        Parameters
        ----------
        path : str
            Full path of the Weight.
        weight : Weight
            The Weight.
        gradients : callable
            Computes its gradients, by the names of its arrays.
        """
        if any(self.wanted(join(path, name)) for name in weight.trainable()):
            for name, gradient in gradients().items():
                self.add(join(path, name), gradient)


@dataclass(frozen=True)
class Layer(ABC):
    """Named Weights, vectors and sub-layers, and the wiring of ops over them.

    Fields that are Weights, vectors (ndarray), Layers or tuples of Layers are its parts; all others are options.
    Abstract or final: a class either has abstract methods or no subclass.

    Parameters
    ----------
    path : str
        Its name in the model, such as ``blocks.0.attention``; the prefix of its arrays and its key on the tape.
    """

    path: str

    @abstractmethod
    def forward(self, x: np.ndarray, context: Context, tape: Tape | None = None) -> np.ndarray:
        """Compute the output.

        Parameters
        ----------
        x : ndarray
            Input.
        context : Context
            The pass that this is part of.
        tape : Tape, optional
            Where to push what backward needs; None: nowhere, and nothing is kept.

        Returns
        -------
        ndarray
            Output.
        """

    @abstractmethod
    def backward(self, dy: np.ndarray, tape: Tape, grads: Grads) -> np.ndarray:
        """Compute the gradient of the input, and add those of the parameters to the store.

        Parameters
        ----------
        dy : ndarray
            Gradient of forward's output; not changed.
        tape : Tape
            What forward pushed, on top; taken away.
        grads : Grads
            Receives the parameters' gradients under their full names.

        Returns
        -------
        ndarray
            Gradient of forward's `x`.
        """

    @abstractmethod
    def lower(self, x: int, program: Any) -> int:
        """Append the layer's steps to a Program.

        Parameters
        ----------
        x : int
            Buffer that holds the input.
        program : Program
            What is appended to.

        Returns
        -------
        int
            Buffer that holds the output.
        """

    def parts(self) -> Iterator[tuple[str, Any]]:
        """Walk over everything that the layer stores, sub-layers included.

        Yields
        ------
        tuple of (str, Weight or ndarray)
            Full path, and the Weight or vector there.
        """
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Weight | np.ndarray):
                yield join(self.path, field.name), value
            elif isinstance(value, Layer):
                yield from value.parts()
            elif isinstance(value, tuple):
                for item in value:
                    if isinstance(item, Layer):
                        yield from item.parts()

    def couplings(self) -> Iterator[Coupling]:
        """Walk over the inner units that can only go, or be scaled, together; those of sub-layers, here.

        Yields
        ------
        Coupling
            One for each layer that has such units.
        """
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            for item in value if isinstance(value, tuple) else (value,):
                if isinstance(item, Layer):
                    yield from item.couplings()

    def weights(self) -> dict[str, Weight]:
        """Collect the Weights.

        Returns
        -------
        dict of str to Weight
            By full path, such as ``blocks.0.attention.query.weight``.
        """
        return {path: part for path, part in self.parts() if isinstance(part, Weight)}

    def arrays(self) -> Arrays:
        """Collect every stored array.

        Returns
        -------
        dict of str to ndarray
            Vectors under their full path, a Weight's arrays under its path and their own name.
        """
        found: Arrays = {}
        for path, part in self.parts():
            if isinstance(part, Weight):
                found.update({join(path, name): array for name, array in part.arrays().items()})
            else:
                found[path] = part
        return found

    def parameters(self) -> Arrays:
        """Collect the arrays that have gradients.

        Returns
        -------
        dict of str to ndarray
            By full name.
        """
        found: Arrays = {}
        for path, part in self.parts():
            if isinstance(part, Weight):
                arrays = part.arrays()
                found.update({join(path, name): arrays[name] for name in part.trainable()})
            else:
                found[path] = part
        return found

    def replaced(self, parts: Mapping[str, Weight | np.ndarray]) -> Self:
        """Exchange Weights and vectors.

        Parameters
        ----------
        parts : mapping of str to Weight or ndarray
            The new ones by full path.

        Returns
        -------
        Layer
            A layer with these parts, sharing all others.
        """
        changes: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Weight | np.ndarray):
                changes[field.name] = parts.get(join(self.path, field.name), value)
            elif isinstance(value, Layer):
                changes[field.name] = value.replaced(parts)
            elif isinstance(value, tuple) and any(isinstance(item, Layer) for item in value):
                changes[field.name] = tuple(item.replaced(parts) for item in value)
        return dataclasses.replace(self, **changes)

    def with_arrays(self, arrays: Mapping[str, np.ndarray]) -> Self:
        """Exchange stored arrays.

        Parameters
        ----------
        arrays : mapping of str to ndarray
            The new ones by full name, of unchanged shapes.

        Returns
        -------
        Layer
            A layer over these arrays, sharing all others.
        """
        parts: dict[str, Weight | np.ndarray] = {}
        for path, part in self.parts():
            if isinstance(part, Weight):
                own = part.arrays()
                new = {name: arrays[join(path, name)] for name in own if join(path, name) in arrays}
                if new:
                    parts[path] = type(part).from_arrays(part.spec(), {**own, **new})
            elif path in arrays:
                parts[path] = arrays[path]
        return self.replaced(parts)

    def rebuilt(self, specs: Mapping[str, Mapping[str, Any]], arrays: Mapping[str, np.ndarray]) -> Self:
        """Exchange everything that is stored, its storage included.

        Parameters
        ----------
        specs : mapping of str to mapping
            The spec of every Weight, by full path.
        arrays : mapping of str to ndarray
            Every stored array by full name, as `arrays` returned them.

        Returns
        -------
        Layer
            A layer of these parts.
        """
        return self.replaced(
            {
                path: build(specs[path], below(path, arrays)) if isinstance(part, Weight) else arrays[path]
                for path, part in self.parts()
            }
        )
