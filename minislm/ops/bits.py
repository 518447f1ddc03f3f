"""Small whole numbers side by side: codes of a few bits, and masks of one.

A packed row is a little-endian bit stream in bytes: bit k of the stream is bit ``k % 8``, counted from the low end, of
byte ``k // 8``. Rows end on whole bytes.
"""

from __future__ import annotations

import numpy as np


def pack_bits(codes_OI: np.ndarray, bits: int, row_bytes: int) -> np.ndarray:
    """Put small whole numbers side by side as bits, row by row.

    Parameters
    ----------
    codes_OI : ndarray, (O, I), uint8
        Numbers below ``2**bits``.
    bits : int
        Bits of each, 1 to 8.
    row_bytes : int
        Bytes of a packed row; what the numbers do not fill is zero.

    Returns
    -------
    ndarray, (O, P), uint8
        Number i of a row takes the bits ``[i * bits, (i + 1) * bits)`` of its little-endian bit stream.

    Notes
    -----
    Whatever the width, eight numbers fill ``bits`` bytes: they are gathered in one 64-bit word, of which the low
    ``bits`` bytes are kept.

    Examples
    --------
    >>> import numpy as np
    >>> pack_bits(np.array([[1, 2, 3]], np.uint8), bits=3, row_bytes=2)  # 011 010 001, from the low end
    array([[209,   0]], dtype=uint8)
    """
    n_outputs, n_codes = codes_OI.shape
    n_words = -(-n_codes // 8)
    words = np.zeros((n_outputs, n_words), "<u8")
    for place in range(min(8, n_codes)):
        column = codes_OI[:, place::8].astype("<u8")
        words[:, : column.shape[1]] |= column << np.uint64(place * bits)
    filled = words.view(np.uint8).reshape(n_outputs, n_words, 8)[:, :, :bits].reshape(n_outputs, n_words * bits)
    packed_OP = np.zeros((n_outputs, row_bytes), np.uint8)
    n_bytes = -(-n_codes * bits // 8)
    packed_OP[:, :n_bytes] = filled[:, :n_bytes]
    return packed_OP


def unpack_bits(packed_OP: np.ndarray, bits: int, n_codes: int) -> np.ndarray:
    """Undo `pack_bits`.

    Parameters
    ----------
    packed_OP : ndarray, (O, P), uint8
        Packed rows.
    bits : int
        Bits of each number, 1 to 8.
    n_codes : int
        Numbers in a row, I.

    Returns
    -------
    ndarray, (O, I), uint8
        One number in each byte.

    Examples
    --------
    >>> import numpy as np
    >>> unpack_bits(np.array([[209, 0]], np.uint8), bits=3, n_codes=3)
    array([[1, 2, 3]], dtype=uint8)
    """
    n_outputs, n_words = len(packed_OP), -(-n_codes // 8)
    n_bytes = -(-n_codes * bits // 8)
    filled = np.zeros((n_outputs, n_words * bits), np.uint8)
    filled[:, :n_bytes] = packed_OP[:, :n_bytes]
    eight = np.zeros((n_outputs, n_words, 8), np.uint8)
    eight[:, :, :bits] = filled.reshape(n_outputs, n_words, bits)
    words = eight.reshape(n_outputs, n_words * 8).view("<u8")
    codes_OI = np.empty((n_outputs, n_codes), np.uint8)
    for place in range(min(8, n_codes)):
        column = codes_OI[:, place::8]
        column[...] = (words[:, : column.shape[1]] >> np.uint64(place * bits)) & np.uint64(2**bits - 1)
    return codes_OI


def pack_mask(mask_OI: np.ndarray) -> np.ndarray:
    """Store a mask as bits.

    Parameters
    ----------
    mask_OI : ndarray, (O, I), bool
        True where an entry is kept.

    Returns
    -------
    ndarray, (O, P), uint8
        Bit i of a row's little-endian bit stream is entry i; rows end on whole bytes, filled with zero bits.

    Examples
    --------
    >>> import numpy as np
    >>> pack_mask(np.array([[True, False, True]]))
    array([[5]], dtype=uint8)
    """
    return np.packbits(mask_OI, axis=1, bitorder="little")


def unpack_mask(mask_OP: np.ndarray, n_inputs: int) -> np.ndarray:
    """Undo `pack_mask`.

    Parameters
    ----------
    mask_OP : ndarray, (O, P), uint8
        Packed rows.
    n_inputs : int
        Entries of a row, which the bytes alone do not tell.

    Returns
    -------
    ndarray, (O, I), bool
        True where an entry is kept.
    """
    return np.unpackbits(mask_OP, axis=1, count=n_inputs, bitorder="little").view(np.bool_)
