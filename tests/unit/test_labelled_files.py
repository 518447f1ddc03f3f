"""Examples for tasks: every field as the community names it, and every mistake with its file and line."""

from __future__ import annotations

import csv
import gzip
import json

import pytest

from minislm.errors import DataError, UsageError
from minislm.text.examples import Fields, read_labelled, read_pairs
from minislm.text.spans import Span, bio_labels, spans_of, tags_of


def jsonl(tmp_path, *records):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def table(tmp_path, *rows):
    path = tmp_path / "data.csv"
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


CITY = {"start": 5, "end": 10, "label": "city"}


def test_classes(tmp_path):
    path = jsonl(tmp_path, {"text": "a", "label": "x"}, {"text": "b", "text_pair": "c", "label": 0})
    found = read_labelled([path], ["classify"])
    assert [(e.text, e.pair, e.label, e.spans) for e in found] == [("a", None, "x", None), ("b", "c", "0", None)]
    path = table(tmp_path, ("sentence", "intent", "other"), ("a, b", "x", "1"))
    named = Fields.named({"text": "sentence", "label": "intent"})
    assert [(e.text, e.label, e.record.line) for e in read_labelled([path], ["classify"], named)] == [("a, b", "x", 2)]


def test_tags_and_spans_say_the_same(tmp_path):
    words = {
        "tokens": ["fly", "to", "New", "York", "Bonn"],
        "tags": ["O", "O", "B-city", "I-city", "B-city"],
        "label": 1,
    }
    spans = [{"start": 15, "end": 19, "label": "city"}, {"start": 7, "end": 15 - 1, "label": "city"}]
    marked = {"text": "fly to New York Bonn".replace("York ", "Yrk "), "spans": spans, "label": "1"}
    found = read_labelled([jsonl(tmp_path, words, marked)], ["classify", "tag"])
    assert found[0].text == "fly to New York Bonn"
    assert found[0].spans == (Span(7, 15, "city"), Span(16, 20, "city"))
    assert found[1].spans == (Span(7, 14, "city"), Span(15, 19, "city"))
    assert [e.label for e in found] == ["1", "1"]
    path = table(tmp_path, ("tokens", "tags"), ("fly to Bonn", "O I-x B-city"))
    assert read_labelled([path], ["tag"])[0].spans == (Span(4, 6, "x"), Span(7, 11, "city"))


def test_spans_may_touch(tmp_path):
    spans = [{"start": 3, "end": 7, "label": "b"}, {"start": 0, "end": 3, "label": "a"}]
    found = read_labelled([jsonl(tmp_path, {"text": "10pm 水 x", "spans": spans})], ["tag"])
    assert found[0].spans == (Span(0, 3, "a"), Span(3, 7, "b"))


def test_answers_as_squad_has_them(tmp_path):
    context = "Ana lives in Bonn."
    records = [
        {"question": "Where?", "context": context, "answers": {"text": ["Bonn", "in Bonn"], "answer_start": [13, 10]}},
        {"question": "When?", "context": context, "answers": {"text": [], "answer_start": []}},
    ]
    found = read_labelled([jsonl(tmp_path, *records)], ["answer"])
    assert [context[a.start : a.end] for a in found[0].answers] == ["Bonn", "in Bonn"]
    assert (found[0].text, found[0].pair, found[1].answers) == ("Where?", context, ())


def test_pairs_of_fields_and_of_files(tmp_path):
    path = jsonl(tmp_path, {"translation": {"en": "a", "de": "b"}})
    fields = Fields.named({"source": "translation.en", "target": "translation.de"})
    assert [pair[1:3] for pair in read_pairs([path], fields)] == [("a", "b")]
    (tmp_path / "x.en").write_text("one\ntwo\n")
    with gzip.open(tmp_path / "x.de.gz", "wt") as file:
        file.write("eins\nzwei")
    found = read_pairs([tmp_path / "x.en", tmp_path / "x.de.gz"])
    assert [pair[1:3] for pair in found] == [("one", "eins"), ("two", "zwei")]
    assert [found[1].place(side).path.name for side in ("source", "target")] == ["x.en", "x.de.gz"]
    assert found[1].place("target").line == 2


ANSWER = {"question": "Where?", "context": "in Bonn", "answers": {"text": ["Bonn"], "answer_start": [3]}}


@pytest.mark.parametrize(
    ("tasks", "record", "code"),
    [
        ("classify", {"label": "x"}, "bad_record"),
        ("classify", {"text": 5, "label": "x"}, "bad_record"),
        ("classify", {"text": " ", "label": "x"}, "empty_text"),
        ("classify", {"text": "a"}, "labels_missing"),
        ("classify", {"text": "a", "label": None}, "labels_missing"),
        ("classify", {"text": "a", "label": ""}, "labels_missing"),
        ("classify", {"text": "a", "label": [1]}, "unknown_label"),
        ("classify", {"text": "a", "label": True}, "unknown_label"),
        ("classify", {"text": "a", "text_pair": 1, "label": "x"}, "bad_record"),
        ("tag", {"text": "in Bonn"}, "labels_missing"),
        ("tag", {"tokens": ["a"]}, "labels_missing"),
        ("tag", {"tokens": ["a", "b"], "tags": ["O"]}, "labels_misaligned"),
        ("tag", {"tokens": ["a"], "tags": ["O", "O"]}, "labels_misaligned"),
        ("tag", {"tokens": ["a"], "tags": ["city"]}, "unknown_label"),
        ("tag", {"tokens": ["a"], "tags": ["B-"]}, "unknown_label"),
        ("tag", {"tokens": ["a"], "tags": [3]}, "bad_record"),
        ("tag", {"tokens": ["a", ""], "tags": ["O", "O"]}, "bad_record"),
        ("tag", {"text": "go to Bonn", "spans": [CITY, {"start": 9, "end": 10, "label": "x"}]}, "spans_overlap"),
        ("tag", {"text": "go to Bonn", "spans": [CITY, CITY]}, "spans_overlap"),
        ("tag", {"text": "go to", "spans": [CITY]}, "span_outside_text"),
        ("tag", {"text": "go to Bonn", "spans": [{**CITY, "start": -5}]}, "span_outside_text"),
        ("tag", {"text": "go to Bonn", "spans": [{**CITY, "end": 5}]}, "span_outside_text"),
        ("tag", {"text": "go to Bonn", "spans": [{**CITY, "end": 6}]}, "span_outside_text"),
        ("tag", {"text": "go to Bonn", "spans": [{**CITY, "end": 9.0}]}, "span_outside_text"),
        ("tag", {"text": "go to Bonn", "spans": [{**CITY, "label": ""}]}, "labels_missing"),
        ("tag", {"text": "go to Bonn", "spans": [{"start": 5}]}, "bad_record"),
        ("tag", {"text": "go to Bonn", "spans": [7]}, "bad_record"),
        ("classify,tag", {"tokens": ["a"], "tags": ["O"]}, "labels_missing"),
        ("answer", {**ANSWER, "question": ""}, "empty_text"),
        ("answer", {**ANSWER, "context": None}, "bad_record"),
        ("answer", {**ANSWER, "answers": None}, "labels_missing"),
        ("answer", {**ANSWER, "answers": {"text": ["Bonn"], "answer_start": []}}, "labels_missing"),
        ("answer", {**ANSWER, "answers": {"text": ["Bonn"], "answer_start": ["3"]}}, "bad_record"),
        ("answer", {**ANSWER, "answers": {"text": ["Bonn"], "answer_start": [2]}}, "labels_misaligned"),
        ("answer", {**ANSWER, "answers": {"text": ["Bonn"], "answer_start": [4]}}, "span_outside_text"),
    ],
)
def test_bad_labels_are_named_with_file_and_line(tmp_path, tasks, record, code):
    good = {"text": "in Bonn", "label": "x", "tokens": ["in", "Bonn"], "tags": ["O", "O"], **ANSWER}
    path = jsonl(tmp_path, good, record)
    with pytest.raises(DataError) as caught:
        read_labelled([path], tasks.split(","))
    assert caught.value.code == code
    assert f"{path}, line 2: " in str(caught.value)


def test_tables_need_their_columns(tmp_path):
    path = table(tmp_path, ("text", "labels"), ("a", "x"))
    for tasks, missing in ((["classify"], "label"), (["tag"], "tokens"), (["answer"], "question")):
        with pytest.raises(DataError, match=f"line 1: there is no column '{missing}'") as caught:
            read_labelled([path], tasks)
        assert caught.value.code == "column_missing"
    with pytest.raises(DataError, match="no column 'source'"):
        read_pairs([path])


@pytest.mark.parametrize(
    ("source", "target", "code", "place"),
    [
        ("a\nb\n", "x\n", "pairs_differ", "x.en, line 2"),
        ("a\n", "x\ny\nz\n", "pairs_differ", "x.de, line 2"),
        ("", "x\n", "pairs_differ", "x.de, line 1"),
        ("a\n \n", "x\ny\n", "empty_source", "x.en, line 2"),
        ("a\nb\n", "x\n\n", "empty_target", "x.de, line 2"),
        ("", "", "empty_text", "x.en and .*x.de are empty"),
    ],
)
def test_bad_pairs_are_named_with_file_and_line(tmp_path, source, target, code, place):
    (tmp_path / "x.en").write_text(source)
    (tmp_path / "x.de").write_text(target)
    with pytest.raises(DataError, match=place) as caught:
        read_pairs([tmp_path / "x.en", tmp_path / "x.de"])
    assert caught.value.code == code


def test_what_cannot_hold_labels_is_refused(tmp_path):
    (tmp_path / "x.txt").write_text("a\n")
    for call in (
        lambda: read_labelled([tmp_path / "x.txt"], ["classify"]),
        lambda: read_labelled([tmp_path], ["classify"]),
        lambda: read_labelled([], ["classify"]),
        lambda: read_pairs([]),
        lambda: read_pairs([tmp_path / "x.txt"]),
        lambda: Fields.named({"txt": "a"}),
    ):
        with pytest.raises(UsageError) as caught:
            call()
        assert caught.value.code == "bad_option"


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv"])
def test_a_file_without_records_is_named(tmp_path, name):
    full = table(tmp_path, ("text", "label"), ("a", "x"))
    (tmp_path / name).write_text("text,label\n" if name.endswith("csv") else "\n")
    with pytest.raises(DataError, match=rf"{name} holds no records") as caught:
        read_labelled([full, tmp_path / name], ["classify"])
    assert caught.value.code == "empty_text"


OFFSETS = [(0, 0), (0, 3), (4, 6), (7, 7), (7, 9), (9, 12), (12, 13), (0, 0)]


@pytest.mark.parametrize(
    "spans", [(), ((0, 3, "a"),), ((4, 12, "b"),), ((0, 3, "a"), (4, 6, "a"), (7, 12, "b")), ((12, 13, "c"),)]
)
def test_tags_tell_the_spans_that_they_were_made_of(spans):
    spans = [Span(*span) for span in spans]
    tags = tags_of(spans, OFFSETS)
    assert spans_of(tags, OFFSETS) == spans
    assert set(tags) <= {None, *bio_labels("abc")}
    assert [tag is None for tag in tags] == [start == end for start, end in OFFSETS]


def test_a_span_that_begins_inside_a_token_takes_it_whole():
    assert tags_of([Span(5, 8, "x"), Span(8, 12, "y")], OFFSETS)[1:-1] == ["O", "B-x", None, "I-x", "B-y", "O"]


def test_tags_that_make_no_sense_are_read_as_they_are_counted():
    offsets = [(i, i + 1) for i in range(6)]
    tags = ["I-a", "I-b", "I-b", "O", "I-b", "B-b"]
    assert spans_of(tags, offsets) == [Span(0, 1, "a"), Span(1, 3, "b"), Span(4, 5, "b"), Span(5, 6, "b")]


@pytest.mark.oracle
def test_spans_are_counted_as_others_count_them(rng):
    scheme = pytest.importorskip("seqeval.metrics.sequence_labeling")
    labels = bio_labels("ab")
    for _ in range(200):
        tags = [labels[i] for i in rng.integers(0, 5, 8)]
        expected = [(label, first, last) for label, first, last in scheme.get_entities(tags)]
        offsets = [(i, i + 1) for i in range(8)]
        assert [(s.label, s.start, s.end - 1) for s in spans_of(tags, offsets)] == expected
