"""Sparse: only the entries that are kept, and where they belong."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np

from minislm.dispatch import ops, runs_compiled
from minislm.errors import UsageError, unknown
from minislm.ops.bitmap import mask_starts, pack_bitmap
from minislm.ops.bits import unpack_bits, unpack_mask
from minislm.ops.block_sparse import block_sparse_entries, pack_block_sparse, pack_block_sparse_panels
from minislm.ops.csr import pack_csr
from minislm.ops.formats import Format
from minislm.ops.masked_panels import pack_masked_panels
from minislm.ops.nm import nm_entries, pack_nm, place_bits
from minislm.ops.panels import BLOCK, OUTPUTS, pack_groups
from minislm.ops.tiles import row_tiles
from minislm.weights.base import Arrays, Weight, below, under
from minislm.weights.checks import check_array, check_names, claims_of_a_file, field_of, shape_of
from minislm.weights.dense import Dense
from minislm.weights.mapped import release
from minislm.weights.panel_product import PanelProduct
from minislm.weights.quantized import Quantized


@dataclass(frozen=True, eq=False)
class Sparse(Weight):
    """A matrix most of whose entries are not stored. It is not trained: `Masked` is, and becomes one.

    Parameters
    ----------
    pattern : str
        ``"bitmap"``: one bit says for every entry whether it is stored. ``"2:4"`` or any other ``"n:m"``: at most n of
        every m inputs are. ``"csr"``: each stored entry has its column. ``"16x32"``: whole blocks of 16 outputs, of
        which there must be a multiple, and 32 inputs.
    n_inputs : int
        Columns of the matrix.
    values : Weight
        A Dense (float32, float64) or Quantized: (1, stored) for bitmap and csr, row by row; (O, U) for n:m, where
        ``U = ceil(n_inputs / m) * n``; (16 * stored, 32) for blocks. Its activations are those of the matrix, and other
        than float ones only where `rounds` says so.
    index : mapping of str to ndarray
        Where the values belong. Bitmap: ``mask``; n:m: ``places``; csr: ``columns`` and ``starts``; blocks: ``blocks``;
        each as `minislm.ops.bitmap`, `nm`, `csr` and `block_sparse` describe it.

    Raises
    ------
    UsageError
        Code ``bad_index``, ``size_mismatch``, ``bad_shape``, ``unknown_dtype`` or ``bad_values``.
    UnsupportedError
        Code ``unknown_pattern``.

    Examples
    --------
    >>> import numpy as np
    >>> w_OI = np.array([[0.0, 2.0, 3.0, 0.0]])
    >>> weight = Sparse.from_dense(w_OI, w_OI != 0, "2:4")
    >>> weight.apply(np.array([[1.0, 10.0, 100.0, 1000.0]]))
    array([[320.]])
    """

    pattern: str
    n_inputs: int
    values: Weight
    index: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        family = FAMILIES[_family(self.pattern)]
        if set(self.index) != set(family.names):
            raise UsageError("bad_index", f"{self.pattern} needs {family.names}, not {sorted(self.index)}")
        if not isinstance(self.values, Dense | Quantized) or (isinstance(self.values, Dense) and self.values.half):
            raise UsageError("bad_values", "the values of a Sparse are a Dense of float32 or float64, or a Quantized")
        if self.activations == "static" or (self.activations != "float" and not self.rounds):
            raise UsageError(
                "bad_values", f"{self.pattern} of such values takes float activations, not {self.activations}"
            )
        wanted = family.values_shape(self.index, self.n_inputs, self.pattern)
        if self.values.shape != wanted:
            raise UsageError("size_mismatch", f"the index is for values of shape {wanted}, not {self.values.shape}")

    @classmethod
    def from_dense(cls, w_OI: np.ndarray, mask_OI: np.ndarray, pattern: str, value_format: str | None = None) -> Self:
        """Keep the masked entries of a matrix.

        Parameters
        ----------
        w_OI : ndarray, (O, I), float32 or float64
            The matrix.
        mask_OI : ndarray, (O, I), bool
            True where an entry is kept.
        pattern : str
            ``"bitmap"``, ``"csr"``, ``"n:m"``, or ``"16x32"``: every block with a masked entry is stored, and zeros for
            its others.
        value_format : str, optional
            The format in which the values are stored, rounded to nearest; None: as they are. Values of bitmap and csr
            are one stream: without groups, they would all share one scale.

        Returns
        -------
        Sparse
            Copies what it keeps.

        Raises
        ------
        UsageError
            Code ``size_mismatch``: mask and matrix differ in shape, or blocks do not divide it; ``bad_mask``: a group
            keeps more than n of m.
        UnsupportedError
            Code ``unknown_pattern`` or ``unknown_format``.
        """
        if w_OI.shape != mask_OI.shape:
            raise UsageError("size_mismatch", f"a mask {mask_OI.shape} does not fit a matrix {w_OI.shape}")
        family = _family(pattern)
        index: Arrays
        if family == "nm":
            n, m = _n_of_m(pattern)
            values, places = pack_nm(w_OI, mask_OI, n=n, m=m)
            index = {"places": places}
        elif family == "csr":
            stream, columns, starts = pack_csr(w_OI, mask_OI)
            values, index = stream[None], {"columns": columns, "starts": starts}
        elif family == "block_sparse":
            if len(w_OI) % OUTPUTS:
                raise UsageError("size_mismatch", f"{pattern} needs a multiple of {OUTPUTS} outputs, not {len(w_OI)}")
            blocks, values = pack_block_sparse(w_OI, mask_OI)
            index = {"blocks": blocks}
        else:
            mask, stream, _ = pack_bitmap(w_OI, mask_OI)
            values, index = stream[None], {"mask": mask}
        stored = Quantized.nearest(values, value_format) if value_format else Dense(values)
        return cls(pattern, w_OI.shape[1], stored, index)

    @property
    def shape(self) -> tuple[int, int]:
        """Logical (outputs, inputs)."""
        rows = self.index["starts"][1:] if "starts" in self.index else next(iter(self.index.values()))
        return len(rows) * (OUTPUTS if "blocks" in self.index else 1), self.n_inputs

    @property
    def n_parameters(self) -> int:
        """The stored values."""
        return self.values.n_parameters

    @property
    def activations(self) -> str:
        """How inputs enter the product."""
        return self.values.activations if isinstance(self.values, Quantized) else "float"

    @property
    def rounds(self) -> bool:
        """Whether there is a product with rounded inputs: of blocks, and of n:m whose scales stand each for blocks."""
        if not isinstance(self.values, Quantized):
            return False
        family = _family(self.pattern)
        return family == "block_sparse" or (family == "nm" and self._panel_format is not None)

    def with_activations(self, activations: str) -> Weight:
        """Return the same matrix with other activations, if it `rounds`."""
        return replace(self, values=self.values.with_activations(activations)) if self.rounds else self

    def apply(self, x_NI: np.ndarray) -> np.ndarray:
        """Return ``x @ W.T``, (N, O), its inputs as the values' `activations` say."""
        if self._takes_panels(x_NI.dtype == np.float32):
            return self._panels.apply(x_NI)
        family, constants, options = self._product
        y_NO: np.ndarray = getattr(ops, f"{family}_product")(x_NI, *constants, **options)
        return y_NO

    def apply_t(self, dy_NO: np.ndarray) -> np.ndarray:
        """Return ``dy @ W``, (N, I)."""
        family, constants, options = self._product
        product = getattr(ops, f"{family}_product_t")
        dx_NI: np.ndarray = product(dy_NO, *constants, n_inputs=self.n_inputs, **options)
        return dx_NI

    def grads(self, x_NI: np.ndarray, dy_NO: np.ndarray) -> Arrays:
        """Return nothing: it is not trained."""
        return {}

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return the rows `ids`, (N, I)."""
        family, constants, options = self._product
        w_NI: np.ndarray = getattr(ops, f"{family}_rows")(ids, *constants, n_inputs=self.n_inputs, **options)
        return w_NI

    def rows_grads(self, ids: np.ndarray, dw_NI: np.ndarray) -> Arrays:
        """Return nothing: it is not trained."""
        return {}

    def dense(self) -> np.ndarray:
        """Return the matrix with its zeros."""
        return self.rows(np.arange(self.shape[0]))

    def arrays(self) -> Arrays:
        """Return the values, prefixed, and the index."""
        return {**under("values", self.values.arrays()), **self.index}

    def spec(self) -> dict[str, Any]:
        """Return type, shape, pattern and the values' own spec."""
        return {"type": "sparse", "shape": list(self.shape), "pattern": self.pattern, "values": self.values.spec()}

    @classmethod
    def from_arrays(cls, spec: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """Rebuild it over the given arrays."""
        from minislm.weights import build

        pattern, (n_outputs, n_inputs) = field_of(spec, "pattern", str), shape_of(spec)
        names = FAMILIES[_family(pattern)].names
        values = below("values", arrays)
        check_names(spec, arrays, [*under("values", values), *names])
        with claims_of_a_file():
            stored = build(field_of(spec, "values", dict), values)
            weight = cls(pattern, n_inputs, stored, {name: arrays[name] for name in names})
            if weight.shape[0] != n_outputs:
                raise UsageError("size_mismatch", f"{n_outputs} rows were promised; {weight.shape[0]} are indexed")
        return weight

    def lower(self, slot: int, program: Any) -> int:
        """Append one step, or those of the panels."""
        if self._takes_panels(program.panels):
            return self._panels.lower(slot, program)
        family, constants, options = self._product
        width = self.shape[0]
        return int(program.step(f"{family}_product", (slot,), constants=constants, width=width, **options))

    def lower_affine(self, slot: int, b_O: np.ndarray, program: Any) -> int:
        """Append the same with the bias."""
        if self._takes_panels(program.panels):
            return self._panels.lower(slot, program, b_O)
        return super().lower_affine(slot, b_O, program)

    def _takes_panels(self, compiled: bool) -> bool:
        """Whether masked panels multiply in its place: where inputs are rounded, or a compiled kernel takes them."""
        if self.activations != "float":
            return True
        if self.pattern == "csr" or not (compiled and runs_compiled("decoded_masked_panel_product")):
            return False
        if isinstance(self.values, Quantized):
            return _family(self.pattern) != "block_sparse" and self._panel_format is not None
        return self.values.dense().dtype == np.float32

    @cached_property
    def _panel_format(self) -> Format | None:
        """The format of quantized values in groups of inputs, stored or not; None: no such group has one scale."""
        format: Format = self.values.format  # type: ignore[attr-defined]
        if not format.group:
            return format
        if _family(self.pattern) != "nm":
            return None
        n, m = _n_of_m(self.pattern)
        group = format.group // n * m
        return replace(format, group=group) if format.group % n == 0 and group % BLOCK == 0 else None

    @cached_property
    def _panels(self) -> PanelProduct:
        """The matrix as kernels multiply it, made once; pages of a mapped file are let go."""
        (n_outputs, n_inputs), values, format = self.shape, self.values, None
        op, arrays = "decoded_masked_panel_product", tuple[np.ndarray | None, ...]()
        if isinstance(values, Quantized) and _family(self.pattern) == "block_sparse":
            op, format = "block_sparse_panel_product", values.format
            layout = pack_block_sparse_panels(self.index["blocks"], *values.stored, format=format)
            arrays = tuple(layout)
        elif isinstance(values, Quantized):
            format = self._panel_format
            op = op if values.activations == "float" else "masked_panel_product"
            codes = pack_masked_panels(self._entries, n_outputs, n_inputs, values.codes.dtype, values.format.bits)
            groups = (pack_groups(np.broadcast_to(x, (n_outputs, x.shape[1]))) for x in values.stored[1:])
            arrays = (*codes, *groups, *(() if values.zeros is not None else (None,)))
        else:
            floats = pack_masked_panels(self._entries, n_outputs, n_inputs, values.dense().dtype)
            arrays = (*floats, None, None)
        panels = PanelProduct(self.shape, op, arrays, format, self.activations)
        for array in self.arrays().values():
            release(array)
        return panels

    def _entries(self, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """Return which entries of some rows are stored, (rows, I), and their values, or codes."""
        values, n_inputs = self.values, self.n_inputs
        if _family(self.pattern) == "nm":
            if isinstance(values, Quantized):
                stored = values.format.unpack(values.codes[rows], values.n_inputs)
            else:
                stored = values.dense()[rows]
            return nm_entries(stored, self.index["places"][rows], *_n_of_m(self.pattern), n_inputs)
        if "blocks" in self.index:
            before = np.bitwise_count(self.index["blocks"][: rows.start // OUTPUTS]).sum(dtype=np.int64) * OUTPUTS
            blocks = self.index["blocks"][rows.start // OUTPUTS : rows.stop // OUTPUTS]
            count = np.bitwise_count(blocks).sum(dtype=np.int64) * OUTPUTS
            return block_sparse_entries(blocks, values.dense()[before : before + count], n_inputs)
        starts, kept_OI = self._product[1][2], unpack_mask(self.index["mask"][rows], n_inputs)
        first, last = int(starts[rows.start]), int(starts[rows.stop])
        if isinstance(values, Quantized):
            begin = first // 8  # where a byte does
            codes = values.codes[:, begin * values.format.bits :]
            stored = values.format.unpack(codes, last - 8 * begin)[0, first - 8 * begin :]
        else:
            stored = values.dense()[0, first:last]
        stored_OI = np.zeros(kept_OI.shape, stored.dtype)
        stored_OI[kept_OI] = stored
        return kept_OI, stored_OI

    @cached_property
    def _product(self) -> tuple[str, tuple[np.ndarray, ...], dict[str, Any]]:
        """The family of ops that multiplies it, their arrays and their options."""
        family, index = _family(self.pattern), self.index
        options: dict[str, Any] = {}
        scales: tuple[np.ndarray, ...] = ()
        if isinstance(self.values, Quantized):
            values, scales = self.values.codes, self.values.stored[1:]
            options["format"] = self.values.format
        else:
            values = self.values.dense() if family in ("nm", "block_sparse") else self.values.dense()[0]
        if family == "nm":
            options["n"], options["m"] = _n_of_m(self.pattern)
            return family, (values, index["places"], *scales), options
        if family == "block_sparse":
            return family, (index["blocks"], values, *scales), options
        if family == "csr":
            return family, (values, index["columns"], index["starts"], *scales), options
        return family, (index["mask"], values, mask_starts(index["mask"]), *scales), options


def _bitmap_values(index: Mapping[str, np.ndarray], n_inputs: int, pattern: str) -> tuple[int, int]:
    """Check a bitmap; return the shape that its values must have."""
    mask_OP = index["mask"]
    check_array("the mask of a bitmap", mask_OP, (None, -(-n_inputs // 8)), ["uint8"])
    if n_inputs % 8 and (mask_OP[:, -1] >> (n_inputs % 8)).any():
        raise UsageError("bad_index", f"the mask keeps entries beyond the last of {n_inputs} inputs")
    return 1, int(mask_starts(mask_OP)[-1])


def _nm_values(index: Mapping[str, np.ndarray], n_inputs: int, pattern: str) -> tuple[int, int]:
    """Check the places of n:m; return the shape that its values must have."""
    places_OP, (n, m) = index["places"], _n_of_m(pattern)
    n_values = -(-n_inputs // m) * n
    check_array(f"the places of {pattern}", places_OP, (None, -(-n_values * place_bits(m) // 8)), ["uint8"])
    for rows in row_tiles(len(places_OP), 4 * n_values):
        places = unpack_bits(places_OP[rows], place_bits(m), n_values).reshape(-1, n).astype(np.int16)
        if (places >= m).any() or (np.diff(places, axis=1) <= 0).any():
            raise UsageError("bad_index", f"the places inside a group of {m} must increase and stay below {m}")
    return len(places_OP), n_values


def _csr_values(index: Mapping[str, np.ndarray], n_inputs: int, pattern: str) -> tuple[int, int]:
    """Check columns and starts; return the shape that their values must have."""
    columns, starts = index["columns"], index["starts"]
    check_array("the starts of csr", starts, (None,), ["int64"])
    check_array("the columns of csr", columns, (None,), ["int32"])
    if not len(starts) or starts[0] != 0 or starts[-1] != len(columns) or (np.diff(starts) < 0).any():
        raise UsageError("bad_index", f"starts must increase from 0 to the number of columns, {len(columns)}")
    if len(columns) and (columns.min() < 0 or columns.max() >= n_inputs):
        raise UsageError("bad_index", f"columns must lie in 0 to {n_inputs - 1}")
    within_row = np.ones(len(columns) + 1, np.bool_)
    within_row[starts] = False
    if (np.diff(columns)[within_row[1:-1]] <= 0).any():
        raise UsageError("bad_index", "the columns of a row must increase")
    return 1, len(columns)


def _block_values(index: Mapping[str, np.ndarray], n_inputs: int, pattern: str) -> tuple[int, int]:
    """Check which blocks are stored; return the shape that their values must have."""
    blocks_CQ, across = index["blocks"], -(-n_inputs // BLOCK)
    check_array(f"the blocks of {pattern}", blocks_CQ, (None, -(-across // 8)), ["uint8"])
    if across % 8 and (blocks_CQ[:, -1] >> (across % 8)).any():
        raise UsageError("bad_index", f"a block beyond the last of {n_inputs} inputs is stored")
    return int(np.bitwise_count(blocks_CQ).sum(dtype=np.int64)) * OUTPUTS, BLOCK


class _Family(NamedTuple):
    """What tells patterns apart: the names of the index arrays, and their check."""

    names: tuple[str, ...]
    values_shape: Callable[[Mapping[str, np.ndarray], int, str], tuple[int, int]]


FAMILIES = {
    "bitmap": _Family(("mask",), _bitmap_values),
    "nm": _Family(("places",), _nm_values),
    "csr": _Family(("columns", "starts"), _csr_values),
    "block_sparse": _Family(("blocks",), _block_values),
}


def _family(pattern: str) -> str:
    """Return the family of ops for a pattern: ``nm`` for every n:m."""
    if pattern in ("bitmap", "csr"):
        return pattern
    if pattern == f"{OUTPUTS}x{BLOCK}":
        return "block_sparse"
    _n_of_m(pattern)
    return "nm"


def _n_of_m(pattern: str) -> tuple[int, int]:
    """Return n and m of ``"n:m"``."""
    match = re.fullmatch(r"([1-9]\d{0,2}):([1-9]\d{0,2})", pattern)
    if not match or not int(match[1]) < int(match[2]) <= 256:
        raise unknown("pattern", pattern, ["bitmap", "csr", "16x32", "2:4", "any n:m with n < m <= 256"])
    return int(match[1]), int(match[2])
