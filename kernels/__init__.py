"""Faster versions of `minislm.ops`: arrays in, arrays out.

Each row says which function may run in place of an op, in which technology, for which dtypes, and for which sizes it is
preferred. A kernel takes its op's arguments plus keyword-only `out` and `threads`, and must equal the op within the
tolerance that `minislm.testing` derives. `minislm.dispatch` reads this table; nothing here is imported until it runs.

``<op>_numba.py`` holds the Numba version of one op and its backward. ``<family>_cython.pyx`` is the border of a family
of compiled kernels: it checks its arguments with `border` and hands addresses to ``c/<family>.c``, which is compiled
once for each instruction set (``c/kernel.h`` says how) and runs on the one thread pool (``c/threads.h``). A new family
needs these three files and its rows below; `setup.py` finds it by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


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


class InstructionSets(NamedTuple):
    """What the compiled kernels can use on this machine.

    Parameters
    ----------
    chosen : str
        The one in use; empty when the compiled kernels are not built.
    available : tuple of str
        Those that were compiled and that the processor has, slowest first.
    """

    chosen: str
    available: tuple[str, ...]


def instruction_set(name: str | None = None) -> InstructionSets:
    """Set or tell the instruction set of the compiled kernels.

    Parameters
    ----------
    name : str, optional
        The one to use from now on. None: only tell. The default is the best one available, or what the environment
        variable MINISLM_INSTRUCTION_SET says at import.

    Returns
    -------
    InstructionSets
        What is in force.

    Raises
    ------
    ValueError
        It was not compiled, or this processor lacks it.
    """
    try:
        from minislm.kernels import runtime_cython
    except ModuleNotFoundError:
        if name is not None:
            raise ValueError(f"no instruction set {name!r}: the compiled kernels are not built") from None
        return InstructionSets("", ())
    if name is not None:
        runtime_cython.choose(name)
    return InstructionSets(runtime_cython.chosen(), runtime_cython.AVAILABLE)
