"""Pages of mapped files: they count as memory in use until they are let go."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds


def release(array: np.ndarray) -> None:
    """Let go of the memory that a mapped array takes; where it is read again, it comes from its file again.

    Parameters
    ----------
    array : ndarray
        Any; nothing happens unless it lies in a file that is mapped for reading only.

    Notes
    -----
    Whoever goes through a large model tensor by tensor calls this after each, or the whole file would be resident in
    the end. Other arrays in the same pages are as safe as this one.
    """
    owner: Any = array
    while isinstance(owner, np.ndarray) and owner.base is not None:
        owner = owner.base
    if not (isinstance(owner, memoryview) and owner.readonly and isinstance(owner.obj, mmap.mmap)):
        return
    origin = np.frombuffer(owner, np.uint8).ctypes.data
    start, stop = (place - origin for place in byte_bounds(array))
    start -= start % mmap.PAGESIZE
    owner.obj.madvise(mmap.MADV_DONTNEED, start, stop - start)
