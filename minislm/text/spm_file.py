"""SentencePiece's .model files: a strict reader of the protocol buffer, which believes no length unchecked."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from minislm.errors import ModelFileError, UnsupportedError, clipped
from minislm.text.charsmap import Charsmap

NORMAL, UNKNOWN_PIECE, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
UNIGRAM, BPE = 1, 2
VARINT, EIGHT_BYTES, DELIMITED, FOUR_BYTES = 0, 1, 2, 5
MOST_PIECES = 2**20
LONGEST_PIECE = 1000  # bytes

Value = int | bytes


class Piece(NamedTuple):
    """A token of a SentencePiece model.

    Parameters
    ----------
    text : str
        What it spells, with a lower one-eighth block in place of a space.
    score : float
        Log-probability of a unigram model's; of pairs, the higher the earlier it is merged.
    kind : int
        `NORMAL`, `UNKNOWN_PIECE`, `CONTROL`, `USER_DEFINED`, `UNUSED` or `BYTE`.
    """

    text: str
    score: float
    kind: int


@dataclass
class SpmModel:
    """What a .model file says.

    Parameters
    ----------
    pieces : list of Piece
        By their numbers; none twice, and exactly one for what is unknown.
    kind : int
        `UNIGRAM` or `BPE`.
    byte_fallback : bool
        Whether what is unknown is spelled in bytes.
    roles : dict of str to int
        Numbers of the tokens for ``bos``, ``eos`` and ``pad``, those that there are.
    charsmap : bytes
        Precompiled; empty: nothing is replaced.
    dummy_prefix : bool
        Whether a space is put before a text.
    strip : bool
        Whether spaces around a text, and all but one of several, are taken out.
    """

    pieces: list[Piece] = field(default_factory=list)
    kind: int = UNIGRAM
    byte_fallback: bool = False
    roles: dict[str, int] = field(default_factory=lambda: {"bos": 1, "eos": 2})
    charsmap: bytes = b""
    dummy_prefix: bool = True
    strip: bool = True

    @property
    def unknown(self) -> int:
        """The number of the token for what is unknown."""
        return next(number for number, piece in enumerate(self.pieces) if piece.kind == UNKNOWN_PIECE)


def read_spm(data: bytes, origin: str) -> SpmModel:
    """Read a SentencePiece model.

    Parameters
    ----------
    data : bytes
        The file.
    origin : str
        Its name in errors.

    Returns
    -------
    SpmModel
        Checked.

    Raises
    ------
    ModelFileError
        Code ``tokenizer_invalid``: damaged or contradicting itself.
    UnsupportedError
        Code ``unsupported_tokenizer``: a kind of model that is not read here.
    """
    model = SpmModel()
    try:
        for number, value in _fields(data):
            if number == 1:
                model.pieces.append(_piece(_bytes(value)))
                if len(model.pieces) > MOST_PIECES:
                    raise ValueError(f"more than {MOST_PIECES} pieces")
            elif number == 2:
                _read_training(model, _bytes(value), origin)
            elif number == 3:
                _read_normalizer(model, _bytes(value), origin)
            elif number == 5 and any(field == 2 and text for field, text in _fields(_bytes(value))):
                raise _unsupported(origin, "text that is changed after decoding")
        _check(model)
    except (ValueError, struct.error) as error:
        raise ModelFileError(
            "tokenizer_invalid", f"{origin} is no SentencePiece model: {error}. Download the file again"
        ) from error
    if model.charsmap:
        Charsmap.read(model.charsmap, origin)
    return model


def _fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """Yield a message's fields in order: numbers as int, everything else as bytes. ValueError where it is damaged."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise ValueError(f"a field without a number before byte {place}")
        if wire == VARINT:
            value, place = _varint(data, place)
            yield number, value
            continue
        if wire == DELIMITED:
            length, place = _varint(data, place)
        else:
            length = {EIGHT_BYTES: 8, FOUR_BYTES: 4}.get(wire, -1)
        if not 0 <= length <= len(data) - place:
            raise ValueError(f"a field of {clipped(length)} bytes at byte {place} of {len(data)}")
        yield number, data[place : place + length]
        place += length


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Read a whole number, seven bits a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise ValueError(f"it ends in a number, at byte {place}")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), place
    raise ValueError(f"a number without end before byte {place}")


def _bytes(value: Value) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a number where text or a message belongs")
    return value


def _number(value: Value) -> int:
    """Return a number, negative if its highest bit says so."""
    if not isinstance(value, int):
        raise ValueError("text where a number belongs")
    return value - 2**64 if value >= 2**63 else value


def _piece(data: bytes) -> Piece:
    text, score, kind = b"", 0.0, NORMAL
    for number, value in _fields(data):
        if number == 1:
            text = _bytes(value)
        elif number == 2:
            (score,) = struct.unpack("<f", _bytes(value))
        elif number == 3:
            kind = _number(value)
    if not 0 < len(text) <= LONGEST_PIECE or not NORMAL <= kind <= BYTE or not math.isfinite(score):
        raise ValueError(f"the piece {clipped(text)} of kind {clipped(kind)} with the score {score}")
    return Piece(text.decode(), score, kind)


def _read_training(model: SpmModel, data: bytes, origin: str) -> None:
    for number, value in _fields(data):
        if number == 3:
            model.kind = _number(value)
        elif number == 24 and _number(value):
            raise _unsupported(origin, "spaces that end a word")
        elif number == 35:
            model.byte_fallback = bool(_number(value))
        elif number in (41, 42, 43):
            model.roles[("bos", "eos", "pad")[number - 41]] = _number(value)
    if model.kind not in (UNIGRAM, BPE):
        raise _unsupported(origin, f"model type {clipped(model.kind)}, which is neither unigram nor BPE")


def _read_normalizer(model: SpmModel, data: bytes, origin: str) -> None:
    for number, value in _fields(data):
        if number == 2:
            model.charsmap = _bytes(value)
        elif number == 3:
            model.dummy_prefix = bool(_number(value))
        elif number == 4:
            model.strip = bool(_number(value))
        elif number == 5 and not _number(value):
            raise _unsupported(origin, "spaces that stay spaces")


def _check(model: SpmModel) -> None:
    """Refuse a table that no tokenizer can have, and forget roles that it has no tokens for."""
    texts = {piece.text for piece in model.pieces}
    if len(texts) < len(model.pieces):
        raise ValueError("a piece stands in it twice")
    if sum(piece.kind == UNKNOWN_PIECE for piece in model.pieces) != 1:
        raise ValueError("it needs exactly one piece for what is unknown")
    if model.byte_fallback and not {f"<0x{byte:02X}>" for byte in range(256)} <= texts:
        raise ValueError("it spells what is unknown in bytes, and has not a piece for each byte")
    controls = {number for number, piece in enumerate(model.pieces) if piece.kind == CONTROL}
    model.roles = {role: number for role, number in model.roles.items() if number in controls}


def _unsupported(origin: str, what: str) -> UnsupportedError:
    return UnsupportedError("unsupported_tokenizer", f"{origin} has {what}; minislm does not read such a model")
