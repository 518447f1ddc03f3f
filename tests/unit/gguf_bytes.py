"""GGUF files written byte by byte, so that any field of them can be wrong."""

from __future__ import annotations

import struct

import numpy as np

KINDS = {"u8": 0, "i8": 1, "u16": 2, "i16": 3, "u32": 4, "i32": 5, "f32": 6, "bool": 7, "text": 8, "list": 9}
KINDS |= {"u64": 10, "i64": 11, "f64": 12}
LETTERS = dict(zip(KINDS, ["B", "b", "H", "h", "I", "i", "f", "?", "", "", "Q", "q", "d"], strict=True))
SIZES = {0: (1, 4), 1: (1, 2), 30: (1, 2), 2: (32, 18), 8: (32, 34), 12: (256, 144), 14: (256, 210)}


def text(value):
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def value(kind, content):
    """Encode one value; a list is a pair of its items' kind and its items."""
    if kind == "text":
        return text(content)
    if kind == "list":
        of, items = content
        return struct.pack("<IQ", KINDS[of], len(items)) + b"".join(value(of, item) for item in items)
    return struct.pack(f"<{LETTERS[kind]}", content)


def setting(name, kind, content):
    return text(name) + struct.pack("<I", KINDS[kind]) + value(kind, content)


def entry(name, kind, dims, offset):
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def n_bytes(kind, dims):
    inputs, size = SIZES[kind]
    return int(np.prod(dims, dtype=object)) // inputs * size


def raw(settings=(), entries=(), data=b"", *, magic=b"GGUF", version=3, n_tensors=None, n_settings=None, alignment=32):
    """Join encoded settings and entries to a file."""
    counts = (len(entries) if n_tensors is None else n_tensors, len(settings) if n_settings is None else n_settings)
    head = magic + struct.pack("<IQQ", version, *counts) + b"".join(settings) + b"".join(entries)
    return head + (bytes(-len(head) % alignment) + data if data or entries else b"")


def written(settings=(), tensors=(), alignment=32):
    """Write a file of settings (name, kind, content) and tensors (name, type, dims, bytes), all as it should be."""
    if alignment != 32:
        settings = [*settings, ("general.alignment", "u32", alignment)]
    entries, data = [], b""
    for name, kind, dims, content in tensors:
        data += bytes(-len(data) % alignment)
        entries.append(entry(name, kind, dims, len(data)))
        data += content
    data += bytes(-len(data) % alignment)
    return raw([setting(*each) for each in settings], entries, data, alignment=alignment)
