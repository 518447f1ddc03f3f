"""Corpora: nothing of the held-out text occurs in training, and bad text is named with its place."""

import json
import os
import re
import subprocess
import sys

import pytest

from minislm.errors import DataError, NotFoundError
from minislm.text import corpus as corpora
from minislm.text.corpus import from_documents, from_files, python_corpus

WORDS = ["for", "while", "if", "with", "try", "assert", "return", "yield", "class", "def", "import", "lambda"]


def sentences(n, seed=0):
    """Return `n` different lines."""
    return [f"{WORDS[(i * 7 + seed) % 12]} {i} {WORDS[(i + seed) % 12]} {seed}" for i in range(n)]


def paragraphs(*sides):
    """Return the paragraphs of each side, without regard to spaces and case."""
    separator = r"\n\s*\n" if any("\n\n" in text for side in sides for text in side) else "\n"
    return [[" ".join(p.split()).casefold() for text in side for p in re.split(separator, text)] for side in sides]


def all_paragraphs(corpus):
    return {paragraph for side in paragraphs(corpus.train, corpus.held_out) for paragraph in side}


def check(corpus):
    """Check the promises of every corpus."""
    whole = corpus.train_bytes + corpus.held_out_bytes
    assert corpus.held_out_bytes == sum(len(text.encode()) for text in corpus.held_out)
    assert 0.1 * whole <= corpus.held_out_bytes < whole
    apart = paragraphs(corpus.train, corpus.held_out)
    assert not set(apart[0]) & set(apart[1])
    for side in apart:
        assert len(side) == len(set(side))


@pytest.fixture(scope="module")
def of_python():
    return python_corpus()


def test_python_corpus(of_python):
    check(of_python)
    assert of_python.held_out_bytes < 0.15 * of_python.train_bytes
    assert of_python.train_bytes > 1_000_000
    text = "\n".join(of_python.train + of_python.held_out)
    assert 'The "for" statement is used to iterate over the elements' in text  # the language reference
    assert "Return a shallow copy" in text  # docstrings


def test_python_corpus_repeats_and_imports_nothing(of_python):
    code = """
import sys
from minislm.text.corpus import python_corpus
corpus = python_corpus()
print(ascii((corpus.train, corpus.held_out)))
print([name for name in ("pydoc_data", "antigravity", "this", "turtle", "tokenizers") if name in sys.modules])
"""
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert again.stdout == f"{(of_python.train, of_python.held_out)!a}\n[]\n"


def test_duplicates_are_dropped_whatever_their_spaces_and_case():
    texts = [f"Same  words.\n\nOnly {i}: {line}" for i, line in enumerate(sentences(30))]
    corpus = from_documents([*texts, "same\n  WORDS.\n\nLast."])
    check(corpus)
    assert sum("words" in text.casefold() for text in corpus.train + corpus.held_out) == 1


def test_a_copy_goes_where_its_original_goes():
    shared = "\n\n".join(sentences(5, seed=3))
    for number in range(40):  # whatever the hashes are
        others = ["\n\n".join(sentences(6, seed=100 + 50 * number + i)) for i in range(30)]
        originals = [f"{shared}\n\nThe original {number}.", *others, f"An edited copy {number}.\n\n{shared}"]
        corpus = from_documents(originals)
        check(corpus)
        sides = [any(word in text for text in corpus.held_out) for word in ("The original", "An edited copy")]
        assert sides[0] == sides[1]


def test_a_common_header_does_not_gather_everything():
    header = "Copyright and licence of everything here."
    corpus = from_documents([f"{header}\n\n" + "\n\n".join(sentences(9, seed=i)) for i in range(40)])
    check(corpus)
    assert corpus.held_out_bytes < 0.2 * corpus.train_bytes


@pytest.mark.parametrize("separator", ["\n\n", "\n", "\r\n\r\n", "\n \t\n\n"])
def test_one_long_document_is_cut_at_paragraphs(separator):
    lines = sentences(500)
    corpus = from_documents([separator.join(lines)])
    check(corpus)
    assert corpus.held_out_bytes < 0.2 * corpus.train_bytes
    assert all_paragraphs(corpus) == {line.casefold() for line in lines}


def test_indentation_stays():
    documents = [f"Code {i}:\n\n    {line}\n        inner" for i, line in enumerate(sentences(20))]
    corpus = from_documents(documents)
    assert f"\n\n    {sentences(1)[0]}\n        inner" in "".join(corpus.train + corpus.held_out)


def test_unequal_documents_leave_enough_to_train():
    for seed in range(20):
        corpus = from_documents(["\n".join(sentences(300, seed)), *sentences(40, seed + 1000)])
        check(corpus)
        assert corpus.held_out_bytes < 0.25 * corpus.train_bytes


def test_a_large_cluster_is_not_held_out_if_others_do():
    for seed in range(0, 4000, 400):
        chain = ["\n\n".join(sentences(200, seed)[i * 6 : i * 6 + 10]) for i in range(30)]  # each shares with the next
        corpus = from_documents([*chain, *("\n\n".join(sentences(6, seed + 1000 + i)) for i in range(30))])
        check(corpus)
        assert corpus.held_out_bytes < 0.25 * corpus.train_bytes


def test_order_of_documents_does_not_change_the_sides():
    documents = ["\n".join(sentences(5, seed)) for seed in range(50)]
    forwards, backwards = from_documents(documents), from_documents(documents[::-1])
    assert set(forwards.held_out) == set(backwards.held_out)


def test_files_and_folders(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    lines = sentences(60)
    (tmp_path / "deep" / "a.txt").write_text("\n\n".join(lines[:20]))
    (tmp_path / "deep" / "er" / "b.txt").write_text("\ufeff" + "\r\n\r\n".join(lines[20:40]), newline="")
    (tmp_path / "deep" / "no.md").write_text("not read")
    records = "\n".join(json.dumps({"id": 1, "text": line}) for line in lines[40:])
    (tmp_path / "c.jsonl").write_text(records + "\n\n")
    corpus = from_files([tmp_path / "deep", tmp_path / "c.jsonl"])
    check(corpus)
    assert all_paragraphs(corpus) == {line.casefold() for line in lines}
    assert all_paragraphs(from_files(tmp_path / "deep", pattern="[ab].*")) == {line.casefold() for line in lines[:40]}
    (tmp_path / "d.jsonl").write_text(records.replace('"text"', '"body"'))
    assert from_files(tmp_path / "d.jsonl", field="body").train_bytes > 100


def failing(call, *arguments, **options):
    with pytest.raises(DataError) as caught:
        call(*arguments, **options)
    return caught.value.code, str(caught.value)


@pytest.mark.parametrize(
    ("data", "place", "what"),
    [
        (b"good text\0more", 9, "NUL"),
        (b"\xff\xfeg\0o\0", 0, "0xff"),
        (b"caf\xe9 au lait", 3, "0xe9"),
        (b"ends inside \xe2\x82", 12, "0xe2"),
        (b"a\0\xff", 1, "NUL"),
        (b"\x89PNG\r\n\x1a\n\0", 0, "0x89"),
    ],
)
def test_binary_files_are_named_with_the_byte(tmp_path, data, place, what):
    (tmp_path / "bad.txt").write_bytes(data)
    code, message = failing(from_files, tmp_path / "bad.txt")
    assert code == "binary_text"
    assert f"{tmp_path / 'bad.txt'}, line 1 is no text: byte {place} is " in message
    assert what in message


@pytest.mark.parametrize("line", ["{", "[]", "17", '{"txt": "a"}', '{"text": 5}', '{"text": null}', "[" * 100_000])
def test_bad_records_are_named_with_the_line(tmp_path, line):
    (tmp_path / "bad.jsonl").write_text('{"text": "fine"}\n\n' + line + "\n")
    code, message = failing(from_files, tmp_path / "bad.jsonl")
    assert code == "bad_record"
    assert f"{tmp_path / 'bad.jsonl'}, line 3" in message


def test_empty_and_short(tmp_path):
    for name, content in [("e.txt", ""), ("s.txt", " \n\n \t"), ("e.jsonl", ""), ("s.jsonl", '{"text": " "}\n')]:
        (tmp_path / name).write_text(content)
        code, message = failing(from_files, tmp_path / name)
        assert code == "empty_text"
        assert name in message
    (tmp_path / "folder").mkdir()
    assert failing(from_files, tmp_path / "folder")[0] == "empty_text"
    for documents in ([], [""], ["one line"], ["the same", "The  same"]):
        assert failing(from_documents, documents)[0] == "text_too_short"
    check(from_documents(["one\ntwo"]))


def test_missing_paths(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "no.txt", tmp_path / "pipe"):
        with pytest.raises(NotFoundError) as caught:
            from_files([path])
        assert caught.value.code == "file_not_found"


def test_a_split_that_leaks_is_caught(monkeypatch):
    """The check above must see a paragraph on both sides: plant the fault of not dropping duplicates."""
    monkeypatch.setattr(
        corpora, "_without_duplicates", lambda documents: ([d.text for d in documents], list(range(len(documents))))
    )
    corpus = from_documents([f"Same words.\n\n{line}" for line in sentences(30)])
    with pytest.raises(AssertionError):
        check(corpus)
