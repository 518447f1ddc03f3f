"""Faster versions of `minislm.ops`: arrays in, arrays out.

Each row says which function may run in place of an op, in which technology, for which dtypes, and for which sizes it is
preferred. A kernel takes its op's arguments plus keyword-only `out` and `threads`, and must equal the op within the
tolerance that `minislm.testing` derives. `minislm.dispatch` reads this table; nothing here is imported until it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Kernel(NamedTuple):
    """A row of the table.

    Parameters
    ----------
    op : str
        The op, or the op's backward, that it stands for.
    technology : str
        ``"cython"`` or ``"numba"``.
    function : str
        ``"module:function"`` inside `minislm.kernels`.
    dtypes : tuple of str
        Dtypes of the op's first array for which it may run.
    preferred : callable, optional
        Given the op's arguments, whether it is the faster choice for these sizes; None: always.
    """

    op: str
    technology: str
    function: str
    dtypes: tuple[str, ...] = ("float32",)
    preferred: Callable[..., bool] | None = None


KERNELS: tuple[Kernel, ...] = ()
