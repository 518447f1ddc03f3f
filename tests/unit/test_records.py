"""Records: what files of each kind hold, and how what is wrong with them is named."""

from __future__ import annotations

import gzip

import pytest

from minislm.errors import DataError, NotFoundError
from minislm.text.records import Record, is_table, read_records


def lines(path, *columns):
    return [(record.values, record.line) for record in read_records(path, columns)]


def write(path, text):
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_each_kind_of_file(tmp_path, suffix):
    jsonl = write(tmp_path / f"a.jsonl{suffix}", '\ufeff{"text": "größer", "n": 1}\n\n{"text": "b"}\n')
    assert lines(jsonl) == [({"text": "größer", "n": 1}, 1), ({"text": "b"}, 3)]
    table = write(tmp_path / f"a.csv{suffix}", 'text,label\r\n"one, ""two""\nthree",x\r\n\r\nfour,y\r\n')
    assert lines(table) == [({"text": 'one, "two"\nthree', "label": "x"}, 2), ({"text": "four", "label": "y"}, 5)]
    tabs = write(tmp_path / f"a.tsv{suffix}", "text\tlabel\none, two\tx\n")
    assert lines(tabs) == [({"text": "one, two", "label": "x"}, 2)]
    plain = write(tmp_path / f"a.de{suffix}", "one\r\n\ntwo")
    assert lines(plain) == [({"text": "one"}, 1), ({"text": ""}, 2), ({"text": "two"}, 3)]
    assert [is_table(path) for path in (jsonl, table, tabs, plain)] == [True, True, True, False]


def test_fields_of_fields(tmp_path):
    record = Record({"translation": {"de": "a"}, "x.y": "b", "n": 3}, tmp_path, 7)
    assert record.get("translation.de") == "a"
    assert record.get("x.y") == "b"
    assert [record.get(name) for name in ("translation.en", "translation.de.x", "none", "n.x")] == [None] * 4
    with pytest.raises(DataError, match=f"{tmp_path}, line 7: expected text under 'n'"):
        record.text("n")
    with pytest.raises(DataError, match="half a character"):
        Record({"text": "a \ud83d"}, tmp_path, 7).text("text")


@pytest.mark.parametrize(
    ("name", "text", "code", "words"),
    [
        ("a.jsonl", '{"text": "a"}\n{"text": \n', "bad_record", "line 2"),
        ("a.jsonl", "[1]\n", "bad_record", "line 1"),
        ("a.csv", "text,label\na,b\nc\n", "bad_record", "line 3: 1 values, and 2 columns"),
        ("a.csv", 'text,label\na,b\n"c,d\n\ne,f\n', "bad_record", "line 3"),
        ("a.csv", "text,text,label\na,b,c\n", "bad_record", "line 1: the column 'text' stands twice"),
        (
            "a.csv",
            "\ntext,klasse\na,b\n",
            "column_missing",
            "line 2: there is no column 'label' among 'text', 'klasse'",
        ),
        ("a.csv", "label\n", "column_missing", "line 1: there is no column 'text'"),
        ("a.txt.gz", None, "file_unreadable", "a.txt.gz"),
        ("a.txt", "a\nb\n\0b", "binary_text", "line 3 is no text: byte 4 is a NUL byte"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(tmp_path, name, text, code, words):
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"whole" * 100)[:-20] if text is None else text.encode())
    with pytest.raises(DataError) as caught:
        lines(path, "text", "label")
    assert caught.value.code == code
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


def test_a_field_of_any_length_and_headings_without_a_name(tmp_path):
    long = "word " * 40_000
    path = write(tmp_path / "a.csv", f"text,label,,\n{long},x,,\n")
    assert lines(path, "text") == [({"text": long, "label": "x", "": ""}, 2)]


def test_a_missing_file(tmp_path):
    with pytest.raises(NotFoundError):
        lines(tmp_path / "none.csv")
