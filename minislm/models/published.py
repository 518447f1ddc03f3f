"""Published checkpoints: what another library's config.json and tensor names say, in this library's words and back.

Each architecture's file holds one `Published`: a two-way table of names, and two functions between config.json and a
Config of ours. Reading what was written gives the same model again, bit for bit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from minislm.config import Config
from minislm.errors import ConfigError, MinislmError, ModelFileError, clipped, listed
from minislm.models.fields import Fields
from minislm.ops.tiles import row_tiles
from minislm.weights.base import Weight
from minislm.weights.blocks import Blocks

T = TypeVar("T")
OLD_NAMES = {  # of the first BERT files
    "LayerNorm.weight": "LayerNorm.gamma",
    "LayerNorm.bias": "LayerNorm.beta",
    "predictions.decoder.bias": "predictions.bias",
}
FLOATS = ("float64", "float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Published:
    """How checkpoints of one ``model_type`` are read and written.

    Parameters
    ----------
    model_type : str
        As config.json has it.
    family : str
        What it is read into, a key of `MODELS`.
    read : callable
        From the fields of config.json and the names of the tensors to a Config.
    write : callable
        From a Config to the values of config.json. What these cannot say is lost: `said` compares.
    names : mapping of str to str
        From our full names to theirs, ``{}`` standing for a number. Several of ours with one of theirs are its rows, in
        the order of the table.
    prefix : str
        What the names in a checkpoint without a head lack.
    transposed : tuple of str
        Endings of their names whose tensors are stored inputs x outputs.
    passed_over : tuple of str
        Endings of their names that hold nothing that was learned.
    variants : tuple of mapping of str to str
        Names that stand in for some of `names` in a model that has all of ours in one of them.
    one_row : tuple of str
        Endings of their names whose vectors are stored as matrices of one row.
    """

    model_type: str
    family: str
    read: Callable[[Fields, Collection[str]], Config]
    write: Callable[[Any], dict[str, Any]]
    names: Mapping[str, str]
    prefix: str = ""
    transposed: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()
    variants: tuple[Mapping[str, str], ...] = ()
    one_row: tuple[str, ...] = ()

    def said(self, config: Config, tensors: Iterable[str]) -> dict[str, Any] | None:
        """Say a Config in config.json's words.

        Parameters
        ----------
        config : Config
            Of this family.
        tensors : iterable of str
            Our names of what the model holds.

        Returns
        -------
        dict or None
            Values that `read` makes an equal Config from; None: there are none, or names are missing.
        """
        patterns = {_pattern(path) for path in tensors}
        if config.type != self.family or patterns - set(self._names_of(patterns)):
            return None
        try:
            values = {"model_type": self.model_type, **self.write(config)}
            stored = self._stored(dict.fromkeys(tensors, ()))
            return values if self.read(Fields(values), stored) == config else None
        except MinislmError:
            return None

    def loaded(
        self, arrays: Mapping[str, np.ndarray | Blocks], shapes: Mapping[str, tuple[int, ...]], origin: str
    ) -> dict[str, np.ndarray | Weight]:
        """Name a checkpoint's tensors as the model does.

        Parameters
        ----------
        arrays : mapping of str to ndarray or Blocks
            By their names; Blocks are outputs x inputs, whatever `transposed` says.
        shapes : mapping of str to tuple of int
            What the model is made of, by our names.
        origin : str
            The file in errors.

        Returns
        -------
        dict of str to ndarray or Weight
            By our names; matrices are views of what came, vectors are float32.

        Raises
        ------
        ModelFileError
            Code ``config_vs_weights``: a tensor is missing, left over, or not of the declared size. Code
            ``unsupported_dtype``: it does not hold floats.
        """
        found: dict[str, np.ndarray | Weight] = {}
        used = set()
        for theirs, ours in self._stored(shapes).items():
            name = self._spelled(theirs, arrays)
            if name is None:
                raise ModelFileError(
                    "config_vs_weights", f"{origin}: the config asks for tensor {theirs}; the file does not hold it"
                )
            used.add(name)
            found.update(self._parts(arrays[name], name, {path: shapes[path] for path in ours}, origin))
        self._check_left(arrays, used, origin)
        return found

    def saved(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Name the model's arrays as a checkpoint does; undoes `loaded`.

        Parameters
        ----------
        arrays : mapping of str to ndarray
            By our names.

        Returns
        -------
        dict of str to ndarray
            By their names.
        """
        stored = self._stored({name: array.shape for name, array in arrays.items()})
        return {theirs: self._joined([arrays[path] for path in ours], theirs) for theirs, ours in stored.items()}

    def _stored(self, ours: Iterable[str]) -> dict[str, list[str]]:
        """Tell which of our arrays each of their tensors holds, in the order of its rows."""
        wanted = {_pattern(path): [] for path in ours}  # type: dict[str, list[str]]
        for path in ours:
            wanted[_pattern(path)].append(path)
        names = self._names_of(wanted)
        if strange := sorted(set(wanted) - set(names)):
            raise KeyError(f"the table of {self.model_type} has no name for {strange[0]}")
        found: dict[str, list[str]] = {}
        for pattern, theirs in names.items():
            for path in wanted.get(pattern, ()):
                found.setdefault(theirs.format(*_numbers(path)), []).append(path)
        return found

    def _names_of(self, patterns: Collection[str]) -> Mapping[str, str]:
        """Return the table that holds for a model of these parts."""
        names = dict(self.names)
        for variant in self.variants:
            if variant.keys() <= set(patterns):
                names.update(variant)
        return names

    def _spelled(self, theirs: str, arrays: Collection[str]) -> str | None:
        """Find a tensor under the name of the table or one of the other ways it is spelled."""
        spellings = [theirs, theirs.removeprefix(self.prefix)]
        for new, old in OLD_NAMES.items():
            spellings += [name.removesuffix(new) + old for name in spellings if name.endswith(new)]
        return next((name for name in spellings if name in arrays), None)

    def _parts(
        self, array: np.ndarray | Blocks, name: str, shapes: Mapping[str, tuple[int, ...]], origin: str
    ) -> Mapping[str, np.ndarray | Weight]:
        """Cut a tensor into the rows of each of ours, after a check of its size."""
        sizes = list(shapes.values())
        declared = (sum(size[0] for size in sizes), *sizes[0][1:])
        if isinstance(array, Blocks):
            if array.shape != declared:
                raise _misshaped(origin, name, declared, array.shape)
            ends = np.cumsum([size[0] for size in sizes])
            return {
                path: array.cut(end - shapes[path][0], end) for path, end in zip(shapes, ends.tolist(), strict=True)
            }
        if array.dtype.name not in FLOATS:
            raise ModelFileError(
                "unsupported_dtype", f"{origin}: tensor {clipped(name)} holds {array.dtype}, not {listed(FLOATS)}"
            )
        rows = array.T if name.endswith(self.transposed) else array
        if rows.size == rows.shape[-1] and len(declared) == 1:
            rows = rows.reshape(-1)  # a vector stored as a matrix of one row
        if rows.shape != declared:
            shown = declared[::-1] if name.endswith(self.transposed) else declared
            raise _misshaped(origin, name, shown, array.shape)
        found: dict[str, np.ndarray | Weight] = {}
        start = 0
        for path, size in shapes.items():
            part = rows[start : start + size[0]]
            found[path] = part if len(size) > 1 else part.astype(np.float32, copy=False)
            start += size[0]
        return found

    def _joined(self, parts: list[np.ndarray], theirs: str) -> np.ndarray:
        rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if theirs.endswith(self.one_row):
            return rows[None]
        return rows.T if theirs.endswith(self.transposed) else rows

    def _check_left(self, arrays: Mapping[str, np.ndarray | Blocks], used: Collection[str], origin: str) -> None:
        """Refuse tensors that the model has no place for, unless they are a copy of one that it has."""
        for name in sorted(set(arrays) - set(used)):
            same = (other for other in used if arrays[other].shape == arrays[name].shape)
            if not name.endswith(self.passed_over) and not any(_equal(arrays[name], arrays[other]) for other in same):
                raise ModelFileError(
                    "config_vs_weights", f"{origin} holds tensor {clipped(name)}, which the config has no place for"
                )


def named(known: Mapping[str, T], meaning: T) -> str:
    """Translate back what `Fields.choice` translated.

    Parameters
    ----------
    known : mapping
        The same.
    meaning : object
        One of its values.

    Returns
    -------
    str
        The first name that means this.

    Raises
    ------
    ConfigError
        Code ``config_invalid``: no name does.
    """
    for name, own in known.items():
        if own == meaning:
            return name
    raise ConfigError("config_invalid", f"{meaning!r} has no name among {', '.join(sorted(map(str, known)))}")


def _pattern(path: str) -> str:
    """Put ``{}`` in place of the numbers of a path."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "{}", path)


def _numbers(path: str) -> list[str]:
    return re.findall(r"(?<=\.)\d+(?=\.)", path)


def _equal(a: np.ndarray | Blocks, b: np.ndarray | Blocks) -> bool:
    """Compare arrays of one shape, which may be the largest there are, as far as the first tile that differs."""
    if isinstance(a, Blocks) or isinstance(b, Blocks) or a.dtype != b.dtype:
        return False
    ours, theirs = np.atleast_1d(a), np.atleast_1d(b)
    tiles = row_tiles(len(ours), ours.nbytes // max(1, len(ours)))
    return all(np.array_equal(ours[rows], theirs[rows]) for rows in tiles)


def _misshaped(origin: str, name: str, declared: tuple[int, ...], shape: tuple[int, ...]) -> ModelFileError:
    """Make the error for a tensor that is not of the declared size."""
    return ModelFileError(
        "config_vs_weights",
        f"{origin}: config.json declares tensor {clipped(name)} as {declared}; the file holds {shape}",
    )
