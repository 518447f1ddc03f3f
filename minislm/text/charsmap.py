"""A SentencePiece charsmap: which strings of characters a normalizer replaces, as a trie in a double array.

The array's units are 32 bits wide. From a place, the letter (a byte of UTF-8, never 0) `c` leads to the unit at
``place ^ c`` if the label there is `c`, and from there to the place ``place ^ c ^ offset`` of that unit. If the unit
ends a key, the unit at this last place holds its value: where the replacement begins in the text behind the array, in
which a zero byte ends each.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Self

import numpy as np

from minislm.errors import ModelFileError

MOST_UNITS = 2**22  # those of NFKC have 60,000
CHUNK = 256  # places looked at together
LETTERS = np.arange(1, 256)
LABEL, ENDS_KEY, VALUE = 0x800000FF, 0x100, 0x7FFFFFFF


@dataclass(frozen=True, eq=False)
class Charsmap:
    """Replaces the longest known strings, from left to right.

    Parameters
    ----------
    units : memoryview of uint32
        The array; no step leads out of it.
    texts : bytes
        The replacements, in UTF-8.
    """

    units: memoryview
    texts: bytes

    @classmethod
    def read(cls, data: bytes, origin: str) -> Self:
        """Read a precompiled charsmap, all of which is checked: a wrong one stops the process in other readers.

        Parameters
        ----------
        data : bytes
            Number of bytes of the array (32 bits, little-endian), the array, the replacements.
        origin : str
            Its name in errors.

        Returns
        -------
        Charsmap
            Ready to use.

        Raises
        ------
        ModelFileError
            Code ``tokenizer_invalid``.
        """
        n_bytes = struct.unpack_from("<I", data)[0] if len(data) >= 8 else 0
        if n_bytes % 4 or not 0 < n_bytes <= min(len(data) - 4, 4 * MOST_UNITS):
            raise _damaged(origin, f"an array of {n_bytes} bytes in {len(data)}")
        units = np.frombuffer(data, "<u4", n_bytes // 4, 4).astype(np.uint32)
        texts = data[4 + n_bytes :]
        try:
            texts.decode()
        except UnicodeDecodeError as error:
            raise _damaged(origin, f"its text is no UTF-8 at byte {error.start}") from error
        _check(units, np.frombuffer(texts, np.uint8), origin)
        return cls(units.data, texts)

    def apply(self, text: str) -> str:
        """Replace what is known.

        Parameters
        ----------
        text : str
            Any text.

        Returns
        -------
        str
            The text with the longest known string replaced wherever one begins, from left to right.
        """
        data = text.encode()
        parts: list[bytes] = []
        kept = place = 0
        while place < len(data):
            end, value = self._longest(data, place)
            if end:
                parts += [data[kept:place], self._replacement(value)]
                kept = place = end
                continue
            place += 1
            while place < len(data) and data[place] & 0xC0 == 0x80:
                place += 1
        return (b"".join(parts) + data[kept:]).decode()

    def _longest(self, data: bytes, start: int) -> tuple[int, int]:
        """Return where the longest key that begins here ends, and its value; 0, 0: there is none."""
        units, end, value = self.units, 0, 0
        place = _offset(units[0])
        for at in range(start, len(data)):
            place ^= data[at]
            unit = units[place]
            if unit & LABEL != data[at] or not data[at]:
                break
            place ^= _offset(unit)
            if unit & ENDS_KEY:
                end, value = at + 1, units[place] & VALUE
        return end, value

    def _replacement(self, start: int) -> bytes:
        end = self.texts.find(b"\0", start)
        return self.texts[start : len(self.texts) if end < 0 else end]


def _offset(unit: int) -> int:
    """Return how far a unit leads."""
    return (unit >> 10) << ((unit & 0x200) >> 6)


def _check(units: np.ndarray, texts: np.ndarray, origin: str) -> None:
    """Refuse an array with a step out of it, or with a value that is not the beginning of a character."""
    offsets = (units.astype(np.int64) >> 10) << ((units & 0x200) >> 6)
    is_seen = np.zeros(len(units), bool)
    places = offsets[:1]
    while len(places):
        reached_parts = []
        for first in range(0, len(places), CHUNK):
            targets = places[first : first + CHUNK, None] ^ LETTERS
            if targets.max() >= len(units):
                raise _damaged(origin, "a step out of its array")
            reached_parts.append(targets[(units[targets] & LABEL) == LETTERS])
        reached = np.unique(np.concatenate(reached_parts))
        reached = reached[~is_seen[reached]]
        is_seen[reached] = True
        places = reached ^ offsets[reached]
        ends = places[(units[reached] & ENDS_KEY) > 0]
        if len(ends) and ends.max() >= len(units):
            raise _damaged(origin, "a step out of its array")
        values = units[ends] & VALUE
        if len(values) and (values.max() >= len(texts) or (texts[values] & 0xC0 == 0x80).any()):
            raise _damaged(origin, "a replacement that begins nowhere in its text")
        places = np.unique(places)


def _damaged(origin: str, text: str) -> ModelFileError:
    return ModelFileError("tokenizer_invalid", f"{origin}: damaged charsmap: {text}. Download the file again")
