"""CompressionReport: what compression did to every tensor, in bytes and in error."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from minislm.ops.tiles import row_tiles
from minislm.weights.base import Weight
from minislm.weights.blocks import Blocks
from minislm.weights.dense import Dense
from minislm.weights.diagonal import Diagonal
from minislm.weights.fake_quantized import FakeQuantized
from minislm.weights.mapped import release
from minislm.weights.masked import Masked
from minislm.weights.product import Product
from minislm.weights.quantized import Quantized
from minislm.weights.sparse import Sparse
from minislm.weights.sum import Sum


@dataclass(frozen=True)
class TensorReport:
    """One tensor.

    Parameters
    ----------
    path : str
        Its full name.
    shape : tuple of int
        Its logical shape after compression.
    storage : str
        How it is stored after compression; see `storage_of`.
    bytes_before, bytes_after : int
        Bytes of its arrays; before, 0 if the original has no tensor of this name.
    bits_per_weight : float
        Stored bits for each entry, after compression.
    relative_error : float, optional
        Frobenius norm of the difference from the original over the original's; None where the two models have not the
        same layers, or the original's tensor is all zeros.
    cosine : float, optional
        Cosine of the angle between both, as vectors; None as above.
    """

    path: str
    shape: tuple[int, ...]
    storage: str
    bytes_before: int
    bytes_after: int
    bits_per_weight: float
    relative_error: float | None
    cosine: float | None


@dataclass(frozen=True)
class CompressionReport:
    """Every tensor of a compressed model beside the original's, and the totals.

    An error is the distance from the original's numbers, and so includes what training changed on purpose.

    Parameters
    ----------
    tensors : tuple of TensorReport
        In the model's order.
    bytes_before, bytes_after : int
        Of all tensors; those of a saved file save for its header.
    parameters_before, parameters_after : int
        Numbers that the weights and vectors hold.
    """

    COLUMNS: ClassVar = ("tensor", "shape", "storage", "bytes before", "after", "bits", "error", "cosine")

    tensors: tuple[TensorReport, ...]
    bytes_before: int
    bytes_after: int
    parameters_before: int
    parameters_after: int

    @classmethod
    def of(cls, original: Any, compressed: Any) -> Self:
        """Compare two models.

        Parameters
        ----------
        original, compressed : Model
            Before and after. Tensors are compared by name where both models have the same layers, and not at all where
            they have not, since names then mean other things.

        Returns
        -------
        CompressionReport
            The record.
        """
        before = dict(original.parts())
        comparable = before if original.config == compressed.config else {}
        return cls(
            tensors=tuple(_tensor(path, part, before.get(path), comparable) for path, part in compressed.parts()),
            bytes_before=original.nbytes,
            bytes_after=compressed.nbytes,
            parameters_before=original.n_parameters,
            parameters_after=compressed.n_parameters,
        )

    @property
    def bits_per_weight(self) -> float:
        """Stored bits for each logical entry of the compressed model's tensors."""
        return 8 * self.bytes_after / sum(int(np.prod(tensor.shape)) for tensor in self.tensors)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values.

        Returns
        -------
        dict
            All fields, and the bits per weight.
        """
        return {**dataclasses.asdict(self), "bits_per_weight": self.bits_per_weight}

    def rows(self) -> list[tuple[str, ...]]:
        """Return the cells of a table.

        Returns
        -------
        list of tuple of str
            A row for each tensor, under the headings `COLUMNS`, and one of totals.
        """
        before, after, bits = f"{self.bytes_before:,}", f"{self.bytes_after:,}", f"{self.bits_per_weight:.2f}"
        return [*map(_cells, self.tensors), ("total", "", "", before, after, bits, "", "")]

    def summary(self) -> str:
        """Return one line.

        Returns
        -------
        str
            Bytes before and after, and bits per weight.
        """
        share = self.bytes_after / self.bytes_before
        return (
            f"{self.bytes_before:,} bytes before, {self.bytes_after:,} after ({share:.1%}), "
            f"{self.bits_per_weight:.2f} bits per weight"
        )

    def to_text(self) -> str:
        """Return an aligned table.

        Returns
        -------
        str
            A line for each row, headings first.
        """
        rows = [self.COLUMNS, *self.rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for row in rows:
            cells = [cell.ljust(widths[i]) if i < 3 else cell.rjust(widths[i]) for i, cell in enumerate(row)]
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines)


def storage_of(part: Any) -> str:
    """Say in a few words how a tensor is stored.

    Parameters
    ----------
    part : Weight or ndarray
        A Weight, or a vector.

    Returns
    -------
    str
        Such as ``"float32"``, ``"int4-32"``, ``"int8 x int8-row"`` (weights x activations), ``"2:4 of float32"`` or
        ``"float32 @ float32"``.

    Examples
    --------
    >>> storage_of(Dense(np.ones((4, 2), np.float32)) @ Dense(np.ones((2, 4), np.float32)))
    'float32 @ float32'
    """
    match part:
        case Dense():
            return str(part.array.dtype)
        case Quantized() | Blocks():
            return part.format.name if part.activations == "float" else f"{part.format.name} x {part.activations}"
        case Sparse():
            return f"{part.pattern} of {storage_of(part.values)}"
        case Product():
            return f"{storage_of(part.left)} @ {storage_of(part.right)}"
        case Sum():
            return f"{storage_of(part.a)} + {storage_of(part.b)}"
        case Diagonal():
            return "diagonal"
        case Masked():
            return f"masked {part.array.dtype}"
        case FakeQuantized():
            return f"{part.array.dtype} rounded as {part.format.name}"
        case np.ndarray():
            return str(part.dtype)
    raise TypeError(f"not a Weight or an array: {type(part).__name__}")


def _tensor(path: str, part: Any, before: Any, comparable: dict[str, Any]) -> TensorReport:
    error, cosine = _difference(comparable[path], part) if path in comparable else (None, None)
    return TensorReport(
        path=path,
        shape=tuple(part.shape),
        storage=storage_of(part),
        bytes_before=0 if before is None else before.nbytes,
        bytes_after=part.nbytes,
        bits_per_weight=8 * part.nbytes / int(np.prod(part.shape)),
        relative_error=error,
        cosine=cosine,
    )


def _difference(before: Any, after: Any) -> tuple[float | None, float | None]:
    """Return the relative error and the cosine; None where they are not defined.

    Tensors are compared a few rows at a time: neither is decoded whole, nor left in memory if it is mapped.
    """
    n_rows, row_bytes = (len(after), 8) if isinstance(after, np.ndarray) else (after.shape[0], 8 * after.shape[1])
    products = np.zeros(4)  # of the difference, before and after with themselves, and of before with after
    for rows in row_tiles(n_rows, row_bytes):
        b, a = _rows(before, rows), _rows(after, rows)
        d = a - b
        products += d @ d, b @ b, a @ a, b @ a
    for part in (before, after):
        for array in [part] if isinstance(part, np.ndarray) else part.arrays().values():
            release(array)
    apart, norm_before, norm_after = np.sqrt(products[:3])
    error = float(apart / norm_before) if norm_before else None
    cosine = float(products[3] / (norm_before * norm_after)) if norm_before and norm_after else None
    return error, cosine


def _rows(part: Any, rows: slice) -> np.ndarray:
    """Return the numbers of some rows of a Weight, or of some entries of a vector, as a float64 vector."""
    array = part.rows(np.arange(rows.start, rows.stop)) if isinstance(part, Weight) else part[rows]
    return np.asarray(array, np.float64).ravel()


def _cells(tensor: TensorReport) -> tuple[str, ...]:
    """Return one line of the table."""
    return (
        tensor.path,
        "x".join(str(size) for size in tensor.shape),
        tensor.storage,
        f"{tensor.bytes_before:,}" if tensor.bytes_before else "-",
        f"{tensor.bytes_after:,}",
        f"{tensor.bits_per_weight:.2f}",
        "-" if tensor.relative_error is None else f"{tensor.relative_error:.4f}",
        "-" if tensor.cosine is None else f"{tensor.cosine:.5f}",
    )
