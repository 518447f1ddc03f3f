"""The tour, at the smallest size: every row made, measured and reported; resumed without doing anything twice."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import sys

import numpy as np
import pytest

from minislm.cli.terminal import print_table
from minislm.errors import UnsupportedError, UsageError
from minislm.evaluation.memory import Memory
from minislm.language_model import load
from minislm.text.corpus import from_documents
from minislm.tour import measure, run
from minislm.tour.measure import Figures
from minislm.tour.plan import PLANS, plan_named, rows
from minislm.tour.report import COLUMNS, Target, table, targets

SMALLEST = dataclasses.replace(
    PLANS["quick"],
    name="smallest",
    corpus_bytes=0,
    vocab_size=270,
    context=48,
    teacher_tokens=600,
    student_tokens=300,
    tuning_tokens=200,
    held_out_tokens=200,
)
ROWS = [row.name for row in rows(SMALLEST)]


@pytest.fixture(scope="module")
def taken(tmp_path_factory):
    """Take a tour of numbered sentences, interrupted once; measure memory once instead of in a process for each row."""
    sentences = [f"Sentence {i} says that {i} and {i + 1} make {2 * i + 1}, which is odd." for i in range(300)]
    corpus = from_documents("\n\n".join(sentences[i : i + 5]) for i in range(0, 300, 5))
    directory = tmp_path_factory.mktemp("tour")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "python_corpus", lambda: corpus)
        patch.setattr(measure, "peak_memory", lambda folder, **options: Memory(0, 1000))
        with pytest.raises(KeyboardInterrupt):
            run.run_tour(directory, SMALLEST, report=stop_at_int4)
        events = []
        document, figures = run.run_tour(directory, SMALLEST, report=events.append)
        yield directory, document, figures, events


def stop_at_int4(event):
    """Interrupt when the stage that makes int4 begins."""
    if isinstance(event, run.StageStarted) and event.name == "make int4":
        raise KeyboardInterrupt


def test_the_tour_makes_every_row_and_reports_it(taken):
    directory, document, figures, _ = taken
    assert [f.name for f in figures] == ROWS
    assert json.loads((directory / "report.json").read_text()) == json.loads(json.dumps(document))
    teacher = figures[0]
    assert (teacher.kl_nats, teacher.top_1, teacher.bits_per_weight) == (0.0, 1.0, 32.0)
    report = (directory / "report.md").read_text()
    assert all(f"| {name} |" in report for name in ROWS)
    for picture in ("size_quality", "weights", "singular_values", "masks", "attention"):
        assert (directory / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
    assert not list((directory / "checkpoints").iterdir())


def test_an_interrupted_tour_goes_on_where_it_was(taken):
    resumed = [event.name for event in taken[3] if isinstance(event, run.StageDone) and event.resumed]
    assert resumed == [f"make {name}" for name in ROWS[: ROWS.index("int4")]]


def test_a_finished_tour_does_nothing_twice(taken):
    directory, document, _, _ = taken
    events = []
    again, _ = run.run_tour(directory, SMALLEST, report=events.append)
    assert again["rows"] == document["rows"]
    done = [event.name for event in events if isinstance(event, run.StageDone) and not event.resumed]
    assert done == ["read the text, train the tokenizer", "draw the pictures"]


def test_compressed_rows_are_smaller_on_disk(taken):
    size = {f.name: f.disk_bytes for f in taken[2]}
    assert all(size[name] < size["teacher"] for name in ROWS if name not in ("teacher", "control"))
    assert size["combined"] < size["int3"] < size["int4"] < size["int8"] < size["pruned-50"]


def test_another_plan_in_the_same_directory_is_refused(taken):
    with pytest.raises(UsageError) as caught:
        run.run_tour(taken[0], dataclasses.replace(SMALLEST, tuning_tokens=201))
    assert caught.value.code == "tour_differs"


def test_a_directory_that_cannot_be_is_named_before_any_work(tmp_path):
    (tmp_path / "file").write_text("mine")
    events = []
    with pytest.raises(UsageError) as error:
        run.run_tour(tmp_path / "file" / "tour", SMALLEST, report=events.append)
    assert (error.value.code, events) == ("bad_directory", [])


def test_another_seed_makes_other_models(tmp_path, monkeypatch):
    sentences = [f"Sentence {i} says that {i} and {i + 1} make {2 * i + 1}, which is odd." for i in range(300)]
    monkeypatch.setattr(
        run, "python_corpus", lambda: from_documents("\n\n".join(sentences[i : i + 5]) for i in range(0, 300, 5))
    )
    for seed in (0, 1):
        with pytest.raises(KeyboardInterrupt):
            run.run_tour(tmp_path / str(seed), dataclasses.replace(SMALLEST, seed=seed), report=stop_at_int4)
    for name in ("teacher", "control", "distilled", "pruned-50"):
        one, other = (load(tmp_path / str(seed) / "models" / name).model.arrays() for seed in (0, 1))
        assert any(not np.array_equal(one[array], other[array]) for array in one)


def test_an_unknown_plan_is_named():
    with pytest.raises(UnsupportedError, match="quick"):
        plan_named("quik")


def test_the_full_tour_trains_each_student_alone_too():
    names = [row.name for row in rows(plan_named("full"))]
    assert [n for n in names if n.startswith(("distilled", "alone"))] == [
        "distilled", "alone", "distilled-2", "alone-2", "distilled-3", "alone-3",
    ]  # fmt: skip


def test_targets_hold_not_a_number_for_missed():
    assert not Target("x", float("nan"), 1.0).met
    assert not Target("x", float("nan"), 1.0, at_most=False).met
    assert Target("x", 1.0, 1.0).met
    assert not Target("x", 0.9, 1.0, at_most=False).met


def test_targets_are_computed_from_the_rows(taken):
    figures = taken[2]
    nll = {"teacher": 2.0, "control": 1.9, "int8": 2.001, "int4": 2.01, "int3": 2.4, "int3-qat": 2.0, "pruned-50": 1.92}
    changed = [dataclasses.replace(f, nll_nats=nll.get(f.name, 1.95)) for f in figures]
    found = {t.what: t.value for t in targets(changed)}
    assert found["perplexity of int8 / teacher"] == pytest.approx(1.0010005)
    assert found["share of int3's loss that int3-qat recovers"] == pytest.approx(0.8)
    assert found["perplexity of pruned-50 / control"] == pytest.approx(1.0202013)
    assert all(len(cells) == len(COLUMNS) for cells in table(figures))


def test_the_table_of_the_full_tour_fits_80_columns_with_its_numbers_whole(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    sizes = (932_864, 3_742_000, 12_345_000, 32.0)
    rows = table([Figures("distilled-3", "", "teacher", *sizes, 1.5, 2.9384, 0.0471, 1.0, 55_123.0, 1_044.0, "")])
    print_table(COLUMNS, rows, right=range(1, len(COLUMNS)))
    lines = re.sub(r"\x1b\[\d*m", "", terminal.getvalue()).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-1].split() == list(rows[0])
