"""Assignments, the verb ``train`` on top of them, and the estimate of a run's cost: files in, a working model out."""

from __future__ import annotations

import csv
import dataclasses
import json

import numpy as np
import pytest
from click.testing import CliRunner
from task_runs import RUNS, labelled_texts, pairs, questions
from training_runs import same_bits, tiny_data, tiny_model

import minislm
from minislm import cli
from minislm.cli.train_options import OWN_TASK, SIZES, TASK_NAMES
from minislm.compression.lora import Lora
from minislm.config import Head
from minislm.errors import DataError, UnsupportedError, UsageError
from minislm.language_model import load
from minislm.models import MODELS
from minislm.training.assignments import TASKS, read
from minislm.training.assignments.base import Files, split
from minislm.training.estimate import estimate
from minislm.training.objective import NextToken
from minislm.training.run import Run
from minislm.training.settings import TrainSettings
from minislm.training.train import create

SMALL = ["--layers", "1", "--width", "16", "--heads", "2", "--context", "32", "--quiet"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A file for every task."""
    folder = tmp_path_factory.mktemp("data")
    records = [{"text": e.text, "label": e.label, "spans": [s._asdict() for s in e.spans]} for e in labelled_texts()]
    (folder / "commands.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    with open(folder / "intents.csv", "w", newline="") as file:
        csv.writer(file).writerows([("sentence", "intent"), *((e.text, e.label) for e in labelled_texts())])
    asked = [
        {
            "question": e.text,
            "context": e.pair,
            "answers": {"text": [e.pair[s:t] for s, t, _ in e.answers], "answer_start": [s for s, _, _ in e.answers]},
        }
        for e in questions()
    ]
    (folder / "squad.jsonl").write_text("".join(json.dumps(record) + "\n" for record in asked))
    for side in ("source", "target"):
        (folder / f"texts.{side}").write_text("".join(getattr(pair, side) + "\n" for pair in pairs()))
    words = ("one", "two", "three", "four", "five", "six")
    lines = [f"Line {i} says that {words[i % 6]} is {i * i}." for i in range(54)]
    (folder / "text.txt").write_text("\n\n".join(lines))
    return folder


def called(*arguments):
    return CliRunner().invoke(cli.main, ["train", *map(str, arguments)])


def trained(*arguments):
    """Train by the command line; return the model and the result."""
    result = called(*arguments, *(["--quiet"] if "--from" in arguments else SMALL), "--json")
    assert result.exit_code == 0, result.stderr
    values = json.loads(result.stdout)
    return load(values["model"]), values


@pytest.fixture(scope="module")
def reader(data, tmp_path_factory):
    """An encoder that knows a little about the text."""
    folder = tmp_path_factory.mktemp("models") / "reader"
    trained(data / "text.txt", "--task", "masked", "--tokens", 3000, "--vocab-size", 110, "-o", folder)
    return folder


@pytest.fixture(scope="module")
def writer(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "writer"
    trained(data / "text.txt", "--tokens", 3000, "--vocab-size", 280, "-o", folder)
    return folder


# The verb


def test_the_tables_of_the_verb_are_those_of_the_library():
    assert tuple(TASKS) == TASK_NAMES
    assert set(SIZES) == set(MODELS)
    assert set(OWN_TASK) < set(MODELS)
    assert set(OWN_TASK.values()) < set(TASKS)


def test_words_are_guessed(data, reader, tmp_path):
    lm = load(reader)
    assert [len(fillings) for fillings in lm.fill_mask("Line [MASK] says [MASK]")] == [5, 5]
    sizes = ["--vocab-size", 110, "--tokens", 2000, "-o", tmp_path / "next"]
    lm, values = trained(data / "text.txt", "--task", "masked+next-sentence", *sizes)
    assert [head.name for head in lm.model.config.heads] == ["masked", "next"]
    assert 0 < values["held_out_loss"] < 10


def test_texts_are_labelled(data, tmp_path):
    options = ["--epochs", 25, "--learning-rate", 1e-2, "--vocab-size", 80]
    lm, values = trained(data / "commands.jsonl", "--task", "classify+tag", *options, "-o", tmp_path / "out")
    assert {"accuracy", "span_f1", "frame_accuracy", "span_precision", "span_recall"} <= values.keys()
    assert values["span_f1"] > 0.5
    assert lm.classify(["fly to Bonn"])[0].label in ("fly", "go", "walk")
    assert [entity.label for entity in lm.tag(["fly to Bonn"])[0]] == ["city"]


def test_a_model_is_made_fit_for_another_task(data, reader, tmp_path):
    named = ["--field", "text=sentence", "--field", "label=intent", "--task", "classify", "--epochs", 2]
    lm, values = trained(data / "intents.csv", *named, "--from", reader, "-o", tmp_path / "out")
    assert lm.model.config.heads == (Head("label", "sequence", ("fly", "go", "walk")),)
    assert 0 <= values["accuracy"] <= 1
    before = load(reader)
    assert lm.tokenizer.tokens == before.tokenizer.tokens
    frozen = ["--freeze", "embedding.*", "--freeze", "blocks.*", "-o", tmp_path / "frozen"]
    lm, _ = trained(data / "intents.csv", *named, "--from", reader, *frozen)
    stayed = {n for n, a in lm.model.arrays().items() if np.array_equal(a, before.model.arrays().get(n))}
    assert {name for name in lm.model.arrays() if name.startswith(("embedding.", "blocks."))} <= stayed
    assert not any(name.startswith("heads.") for name in stayed)
    again, _ = trained(data / "intents.csv", *named, "--from", tmp_path / "out", "-o", tmp_path / "again")
    assert again.model.config.heads == lm.model.config.heads


def test_questions_are_answered(data, tmp_path):
    lm, values = trained(
        data / "squad.jsonl", "--task", "answer", "--epochs", 3, "--vocab-size", 80, "-o", tmp_path / "a"
    )
    assert {"exact_match", "answer_f1"} <= values.keys()
    context = "I fly to Rome"
    found = lm.answer("where", context)
    assert found.text == context[found.start : found.end]


def test_texts_are_turned_into_texts(data, tmp_path):
    files = [data / "texts.source", data / "texts.target"]
    options = ["--task", "translate", "--epochs", 2, "--vocab-size", 280, "--label-smoothing", 0.1]
    lm, values = trained(*files, *options, "-o", tmp_path / "out")
    assert "exact_match" in values
    assert len(lm.translate(["fly to Rome"], max_new_tokens=3)) == 1
    again, _ = trained(*files, "--from", tmp_path / "out", "--epochs", 1, "-o", tmp_path / "more")
    assert not same_bits(again.model.arrays(), lm.model.arrays())


@pytest.mark.parametrize("kept", [False, True])
def test_updates_of_low_rank_are_trained_and_merged_or_kept(data, reader, writer, tmp_path, kept):
    flag = ["--keep-updates"] if kept else []
    lm, _ = trained(data / "text.txt", "--from", writer, "--lora", 2, "--tokens", 2000, *flag, "-o", tmp_path / "w")
    before = load(writer).model
    stored = lm.model.weights()["blocks.0.mlp.up.weight"].spec()["type"]
    assert stored == ("sum" if kept else "dense")
    moved = lm.model.weights()["blocks.0.mlp.up.weight"].dense() - before.weights()["blocks.0.mlp.up.weight"].dense()
    assert np.linalg.matrix_rank(moved, tol=1e-6) == 2
    assert np.array_equal(lm.model.embedding.weight.dense(), before.embedding.weight.dense())
    labels = ["--task", "classify", "--epochs", 2, "--lora", 2, *flag]
    lm, _ = trained(data / "commands.jsonl", "--from", reader, *labels, "-o", tmp_path / "r")
    assert lm.model.arrays()["heads.label.output.bias"].any(), "a new head is trained whole"
    assert np.array_equal(lm.model.embedding.weight.dense(), load(reader).model.embedding.weight.dense())


def test_it_tells_the_cost_and_stops(data, tmp_path):
    arguments = [data / "commands.jsonl", "--task", "tag", "--vocab-size", 80, *SMALL, "-o", tmp_path / "out"]
    values = json.loads(called(*arguments, "--dry-run", "--json").stdout)
    assert values["trained_parameters"] == values["parameters"]
    assert values["total_bytes"] == sum(
        values[f"{n}_bytes"] for n in ("weights", "gradients", "moments", "activations")
    )
    assert values["steps"] == 20
    assert values["total_s"] > 0
    assert list(tmp_path.iterdir()) == []
    shown = called(*arguments, "--dry-run").stdout
    for words in ("activations", "trained parameters", "time in all"):
        assert words in shown


def test_it_goes_on_or_refuses_to(data, tmp_path):
    arguments = [data / "commands.jsonl", "--task", "tag", "--epochs", 1, "--vocab-size", 80, *SMALL]
    assert called(*arguments, "-o", tmp_path / "out").exit_code == 0
    result = called(*arguments, "-o", tmp_path / "out", "--no-resume")
    assert (result.exit_code, "checkpoint_exists" in result.stderr) == (1, True)
    assert called(*arguments, "-o", tmp_path / "out").exit_code == 0
    result = called(*arguments, "-o", tmp_path / "out", "--dropout", 0.3)
    assert "starting model was" in result.stderr
    assert "checkpoint_mismatch" in result.stderr


def test_it_stops_early_and_says_so(data, tmp_path):
    arguments = [data / "commands.jsonl", "--task", "classify", "--vocab-size", 80, "--layers", 1, "--width", 8]
    result = called(*arguments, "--learning-rate", 0.5, "--patience", 1, "--json", "-o", tmp_path / "out")
    steps = json.loads(result.stdout)["steps"]
    assert f"stopped after step {steps} of " in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["commands.jsonl", "--task", "classify", "--label-smoothing", "0.1"], 2, "--label-smoothing"),
        (["commands.jsonl", "--task", "classify", "--rank", "3"], 2, "--rank"),
        (["commands.jsonl", "--task", "classify", "--mlp", "gated"], 2, "type encoder does not have --mlp"),
        (["commands.jsonl", "--task", "classify", "--lora", "3"], 2, "--from"),
        (["commands.jsonl", "--task", "classify", "--keep-updates"], 2, "--lora"),
        (["commands.jsonl", "--task", "classify", "--epochs", "1", "--tokens", "9"], 2, "not both"),
        (["commands.jsonl", "--task", "classify", "--epochs", "nan"], 2, "--epochs"),
        (["text.txt", "--tokens", "0"], 2, "--tokens"),
        (["text.txt", "--heads", "0"], 2, "--heads"),
        (["commands.jsonl", "--task", "classify", "--field", "txt=a"], 2, "no field 'txt'"),
        (["commands.jsonl", "--task", "classify", "--field", "label=intent"], 1, "line 1: there is no label"),
        (["commands.jsonl", "--task", "answer"], 1, "line 1: "),
        (["intents.csv", "--task", "classify"], 1, "[column_missing]"),
        (["text.txt", "--task", "classify"], 2, "plain text"),
        (["commands.jsonl", "--task", "classify", "--context", "4"], 1, "[too_long]"),
        (["commands.jsonl", "--task", "tag", "--freeze", "nothing.*"], 2, "[pattern_matches_nothing]"),
        (["none.jsonl", "--task", "tag"], 3, "[file_not_found]"),
        (["texts.source", "--task", "translate"], 2, "plain text"),
        (["--task", "classify"], 2, "no file is given"),
        (["commands.jsonl", "--task", "classify", "--epochs", "0"], 2, "--epochs must be more than 0"),
        (["commands.jsonl", "--task", "classify", "--epochs", "nan"], 2, "--epochs must be more than 0"),
        (["commands.jsonl", "--task", "classify", "--tokens", "0"], 2, "--tokens"),
        (["texts.source", "texts.target", "--task", "translate", "--label-smoothing", "1"], 2, "label_smoothing must"),
    ],
)
def test_mistakes_are_named_before_anything_is_trained(data, tmp_path, arguments, code, words):
    files = [data / a if "." in a and not a[0].isdigit() and "*" not in a else a for a in arguments]
    result = called(*files, "-o", tmp_path / "out", "--quiet")
    assert (result.exit_code, result.stdout) == (code, "")
    assert words in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_a_model_cannot_take_is_named_before_anything_is_trained(data, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for verb, arguments in (
        ("train", [data / "text.txt"]),
        ("compress", [tmp_path / "model", "--method", "quantize", "--set", "format=int8"]),
    ):
        result = CliRunner().invoke(cli.main, [verb, *map(str, arguments), "-o", str(tmp_path)])
        assert (result.exit_code, "[not_a_model_folder]" in result.stderr) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_mistakes_with_a_model_that_is_there(data, reader, writer, tmp_path):
    for source, arguments, words in (
        (reader, [data / "text.txt"], "say with --task"),
        (reader, [data / "text.txt", "--width", 8], "leave out --width"),
        (reader, [data / "text.txt", "--task", "next"], "[wrong_family]"),
        (writer, [data / "commands.jsonl", "--task", "tag"], "[wrong_family]"),
    ):
        result = called(*arguments, "--from", source, "-o", tmp_path / "out")
        assert words in result.stderr
        assert result.exit_code in (2, 4)


# Assignments


def test_labels_that_only_the_held_out_file_has_are_named(data, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text('{"text": "swim to Bonn", "label": "swim"}\n')
    assignment = read("classify", Files((data / "commands.jsonl",), (other,)))
    lm = create(assignment.texts(), family="encoder", vocab_size=80, heads=assignment.heads(), **TINY)
    with pytest.raises(DataError, match=r"other.jsonl, line 1: the label 'swim'") as caught:
        assignment.data(lm)
    assert caught.value.code == "unknown_label"


@pytest.mark.parametrize(
    ("own", "stays"),
    [
        (Head("label", "sequence", ("swim", "fly", "walk", "go")), True),
        (Head("label", "sequence", ("swim", "fly", "walk")), False),
        (Head("label", "token", ("fly", "go", "walk")), False),
        (Head("kind", "sequence", ("fly", "go", "walk")), False),
    ],
)
def test_a_head_stays_where_it_knows_all_labels(data, own, stays):
    assignment = read("classify", Files((data / "commands.jsonl",)))
    lm = create(assignment.texts(), family="encoder", vocab_size=80, heads=(own,), **TINY)
    prepared = assignment.prepared(lm, seed=1)
    expected = own if stays else Head("label", "sequence", ("fly", "go", "walk"))
    assert prepared.model.config.heads == (expected,)
    assert (prepared.model.heads[0] is lm.model.heads[0]) == stays
    batch = assignment.data(prepared).train.batch(0, 30, seed=0)
    assert set(batch.labels["label"].tolist()) == {expected.labels.index(label) for label in ("fly", "go", "walk")}


TINY = {"d_model": 8, "n_layers": 1, "n_heads": 2, "context": 32}


def test_a_held_out_file_of_text_is_taken_as_it_is(data, tmp_path):
    (tmp_path / "other.txt").write_text("Quite another text.\n")
    assignment = read("next", Files((data / "text.txt",), (tmp_path / "other.txt",)))
    assert assignment.corpus.held_out == ("Quite another text.\n",)
    assert assignment.corpus.train == ((data / "text.txt").read_text(),)


def test_equal_texts_are_held_out_together():
    examples = [(f"text {i % 37}", i) for i in range(200)]
    train, held_out = split(examples, lambda example: example[0])
    assert sorted([*train, *held_out]) == sorted(examples)
    assert not {text for text, _ in train} & {text for text, _ in held_out}
    assert len({text for text, _ in held_out}) == 4
    assert split(examples, lambda example: example[0]) == (train, held_out)
    more, _ = split([*examples, ("new", 0)], lambda example: example[0])
    assert len(set(train) - set(more)) < 15  # what is added hardly moves the others
    with pytest.raises(DataError):
        split(examples[:1], lambda example: example[0])


def test_an_unknown_task_is_named():
    with pytest.raises(UnsupportedError, match="Did you mean 'classify'"):
        read("clasify", Files())


# What it costs


@pytest.mark.parametrize("name", RUNS)
def test_the_cost_is_counted_and_measured_without_a_trace(name):
    model, data = RUNS[name]()
    before = {n: a.copy() for n, a in model.arrays().items()}
    settings = TrainSettings(steps=50, batch_size=4, accumulate=2, eval_every=20, patience=2, freeze="*.norm_1.*")
    cost = estimate(model, data, settings)
    assert same_bits(model.arrays(), before)
    flat = Run(model, data, settings, data.objective, None).flat
    assert cost.trained_parameters == sum(a.size for a in flat.views.values()) < cost.parameters
    assert cost.weights_bytes == model.nbytes + flat.values.nbytes
    assert (cost.gradients_bytes, cost.moments_bytes) == (flat.grads.nbytes, 3 * flat.values.nbytes)
    assert (cost.steps, cost.evaluations) == (50, 3)
    assert cost.total_s == pytest.approx(50 * cost.step_s + 3 * cost.evaluation_s)
    assert cost.step_s > 0 < cost.evaluation_s
    bigger = estimate(model, data, dataclasses.replace(settings, batch_size=12))
    assert 2 < bigger.activations_bytes / cost.activations_bytes < 4


def test_activations_are_what_forward_keeps():
    model = tiny_model(dropout=0.0)
    cost = estimate(model, tiny_data(), TrainSettings(steps=1, batch_size=2))
    n_rows, d, f = 2 * 6, 8, 12
    block = n_rows * (d * 10 + f * 2)  # more or less: norms, queries, keys, values, their mix, both sides of the mlp
    assert 0.5 < cost.activations_bytes / (4 * (2 * block + n_rows * d)) < 2


def test_a_cost_refuses_what_training_refuses():
    model, data = RUNS["labelled"]()
    with pytest.raises(UsageError):
        estimate(model, data, TrainSettings(steps=3, patience=1))


# Updates beside weights


def test_what_is_trained_beside_updates_is_named():
    model, data = RUNS["labelled"]()
    settings = TrainSettings(steps=2, batch_size=4)
    small = Lora(settings, rank=2, merge=True, also="heads.*").run(model, data, where="blocks.*")
    changed = {n for n, a in small.arrays().items() if not np.array_equal(a, model.arrays()[n])}
    assert {name for name in changed if not name.startswith("blocks.")} == {
        n for n in changed if n.startswith("heads.")
    }
    assert {"heads.label.output.bias", "heads.tags.output.weight", "blocks.0.mlp.up.weight"} <= changed
    assert "blocks.0.mlp.up.bias" not in changed
    with pytest.raises(UsageError, match="also: no array matches"):
        Lora(settings, also="tops.*").run(model, data, where="blocks.*")


def test_train_takes_examples_of_any_task():
    model, data = RUNS["sequence"]()
    from task_runs import tokenizer

    lm = minislm.LanguageModel(model, tokenizer(False))
    smooth = dataclasses.replace(data, objective=NextToken(0.1))
    trained_lm, result = minislm.train(lm, smooth, TrainSettings(steps=2, batch_size=4))
    assert len(result.history) == 2
    assert trained_lm.tokenizer is lm.tokenizer
