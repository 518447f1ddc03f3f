"""SentencePiece models written byte by byte, with charsmaps in double arrays, for tests without the library itself."""

import struct


def varint(number):
    out = bytearray()
    number &= 2**64 - 1
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def number_field(field, number):
    return varint(field << 3) + varint(number)


def bytes_field(field, data):
    return varint(field << 3 | 2) + varint(len(data)) + data


def piece(text, score=0.0, kind=None):
    data = bytes_field(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score)
    return bytes_field(1, data if kind is None else data + number_field(3, kind))


def model(pieces, *, kind=1, unk_id=0, bos_id=1, eos_id=2, pad_id=-1, byte_fallback=False, **normalizer):
    """Write a .model file; `pieces` are tuples of text, score and kind."""
    training = number_field(3, kind) + number_field(35, byte_fallback)
    for field, number in ((40, unk_id), (41, bos_id), (42, eos_id), (43, pad_id)):
        training += number_field(field, number)
    settings = bytes_field(2, normalizer.get("charsmap", b""))
    settings += number_field(3, normalizer.get("dummy_prefix", True)) + number_field(4, normalizer.get("strip", True))
    return b"".join(piece(*given) for given in pieces) + bytes_field(2, training) + bytes_field(3, settings)


def charsmap(replacements):
    """Write a charsmap: a trie whose nodes each get a block of 256 units."""
    texts, starts = b"", {}
    for key, value in replacements.items():
        starts[key.encode()] = len(texts)
        texts += value.encode() + b"\0"
    beginnings = sorted({key[:n] for key in starts for n in range(len(key) + 1)}, key=len)
    blocks = {beginning: 256 * (place + 1) for place, beginning in enumerate(beginnings)}
    units = [1 << 31] * (256 * (len(blocks) + 1))  # what no letter leads to
    units[0] = 0
    place_of = {b"": 0}
    for beginning in beginnings:
        place = place_of[beginning]
        units[place] |= (place ^ blocks[beginning]) << 10
        if beginning in starts:
            units[place] |= 0x100
            units[blocks[beginning]] = starts[beginning] | 1 << 31
        for child in (key for key in beginnings if len(key) == len(beginning) + 1 and key.startswith(beginning)):
            place_of[child] = blocks[beginning] ^ child[-1]
            units[place_of[child]] = child[-1]
    data = struct.pack(f"<{len(units)}I", *units)
    return struct.pack("<I", len(data)) + data + texts


SPACE = "▁"
CHARACTERS = "abcdehilnorstw" + SPACE
UNIGRAMS = model(
    [("<pad>", 0, 3), ("</s>", 0, 3), ("<unk>", 0, 2)]
    + [(letter, -6.0 - i / 8, 1) for i, letter in enumerate(CHARACTERS)]
    + [("▁the", -2.0, 1), ("he", -3.5, 1), ("▁wor", -3.25, 1), ("ld", -3.125, 1), ("lo", -3.75, 1), ("fi", -4.0, 1)]
    + [("never", -1.0, 5), ("<sep>", 0, 4)],
    pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
    charsmap=charsmap({"ﬁ": "fi", "A": "a", "\t": " ", "é": "e", "e\u0301": "e", "e\u0301\u0301": "é", "\u200b": ""}),
)  # fmt: skip
PAIRS = model(
    [("<unk>", 0, 2), ("<s>", 0, 3), ("</s>", 0, 3)]
    + [(f"<0x{byte:02X}>", 0, 6) for byte in range(256)]
    + [(text, -float(i), 1) for i, text in enumerate(("▁t", "he", "▁the", "ll", "▁▁", "lo", "llo", "▁w", "or", "▁wor"))]
    + [(letter, -100.0 - i, 1) for i, letter in enumerate(CHARACTERS)],
    kind=2, byte_fallback=True, strip=False,
)  # fmt: skip
