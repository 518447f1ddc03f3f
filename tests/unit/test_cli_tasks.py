"""The verbs of encoders and encoder-decoders on the command line, and what `eval` and `info` say of such models."""

import dataclasses
import json

import numpy as np
import pytest
from click.testing import CliRunner
from planted import planted

from minislm import cli, language_model
from minislm.cli.terminal import score
from minislm.config import Head
from minislm.language_model import LanguageModel
from minislm.models.decoder import Decoder, DecoderConfig
from minislm.models.transformer import Transformer, TransformerConfig
from minislm.text.tokenizer import Tokenizer

HEADS = (
    Head("label", "sequence", ("play", "weather")),
    Head("tags", "token", ("O", "B-city", "I-city", "B-name", "I-name")),
    Head("answer", "span"),
    Head("words", "masked"),
)
SAID = {
    "label": {"play": 0, "rain": 1},
    "tags": {"": 0, "new": 1, "york": 2, "berlin": 1, "nina": 3, "simone": 4},
    "answer": {"nina": 0, "simone": 1},
}


def called(*arguments, **options):
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments], **options)


def values_of(*arguments, **options):
    result = called(*arguments, "--json", **options)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "encoder"
    language_model.save(planted(HEADS, SAID), path)
    return path


@pytest.fixture(scope="module")
def transformer(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "transformer"
    config = TransformerConfig.uniform(vocab_size=257, d_model=8, context=20, n_layers=1, n_heads=1)
    model = Transformer.create(config, seed=1)
    language_model.save(LanguageModel(model, Tokenizer.train([], kind="bytes")), path)
    return path


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "decoder"
    model = Decoder.create(DecoderConfig.uniform(vocab_size=257, d_model=8, context=9, n_layers=1, n_heads=1))
    language_model.save(LanguageModel(model, Tokenizer.train([], kind="bytes")), path)
    return path


@pytest.fixture
def lines(tmp_path):
    file = tmp_path / "texts.txt"
    file.write_text("play jazz in Berlin\r\nwill it rain in New York?\n", encoding="utf-8", newline="")
    return file


def test_classify(encoder, lines):
    found = values_of("classify", encoder, "-f", lines)
    assert [(one["text"], one["label"]) for one in found] == [
        ("play jazz in Berlin", "play"),
        ("will it rain in New York?", "weather"),
    ]
    assert set(found[0]["scores"]) == {"play", "weather"}
    table = called("classify", encoder, "-t", "play", "-t", "rain").stdout.splitlines()
    assert [line.split()[0] for line in table] == ["label", "play", "weather"]
    assert values_of("classify", encoder, "-", input="play jazz in Berlin\nwill it rain in New York?") == found


def test_classify_pairs(encoder):
    found = values_of("classify", encoder, "-t", "play", "--pair", "rain", "--pair", "jazz")
    assert [(one["text"], one["pair"]) for one in found] == [("play", "rain"), ("play", "jazz")]
    alone = language_model.load(encoder).classify(["play"], ["rain"])[0].scores
    assert found[0]["scores"] == pytest.approx(alone, abs=1e-6)  # BLAS may add two texts up in another order
    same = values_of("classify", encoder, "-t", "play", "-t", "it", "--pair", "rain")
    assert [(one["text"], one["pair"]) for one in same] == [("play", "rain"), ("it", "rain")]
    assert called("classify", encoder, "-t", "a", "-t", "b", "-t", "c", "--pair", "x", "--pair", "y").exit_code == 2


def test_tag(encoder, lines):
    found = values_of("tag", encoder, "-f", lines)
    assert [[(span["text"], span["label"]) for span in one["spans"]] for one in found] == [
        [("Berlin", "city")],
        [("New York", "city")],
    ]
    table = called("tag", encoder, "-f", lines).stdout.splitlines()
    assert table[2].split()[:4] == ["2", "16", "24", "city"]


def test_answer(encoder, tmp_path):
    file = tmp_path / "context.txt"
    file.write_text("it was Nina Simone in Paris\n")
    result = called("answer", encoder, "-q", "who?", "-f", file)
    assert result.stdout == "Nina Simone\n"
    assert "characters 7 to 18" in result.stderr
    found = values_of("answer", encoder, "-q", "who?", "-c", "it was Nina Simone")
    assert (found["text"], found["start"], found["end"]) == ("Nina Simone", 7, 18)
    assert (
        called("answer", encoder, "-q", "who?", "-", input="it was Nina Simone", catch_exceptions=False).exit_code == 0
    )


def test_fill_mask_and_embed(encoder):
    found = values_of("fill-mask", encoder, "-t", "play [MASK] in [MASK]", "--top-k", "3")
    assert [len(fillings) for fillings in found] == [3, 3]
    assert len(called("fill-mask", encoder, "-t", "play [MASK]", "--top-k", "3").stdout.splitlines()) == 4
    lm = language_model.load(encoder)
    rows = values_of("embed", encoder, "-t", "play jazz", "--pooling", "first", "--raw")
    np.testing.assert_allclose(
        rows[0]["vector"], lm.embed(["play jazz"], pooling="first", normalized=False)[0], rtol=1e-6
    )
    printed = called("embed", encoder, "-t", "play jazz", "-t", "rain").stdout.splitlines()
    np.testing.assert_allclose([[*map(float, line.split())] for line in printed], lm.embed(["play jazz", "rain"]), 1e-3)


def test_embed_does_what_the_model_says_unless_told_otherwise(tmp_path):
    lm = planted(HEADS, SAID)
    model = type(lm.model).create(dataclasses.replace(lm.model.config, normalized=False), seed=1)
    language_model.save(dataclasses.replace(lm, model=model), tmp_path / "raw")
    said = values_of("embed", tmp_path / "raw", "-t", "play jazz")[0]["vector"]
    np.testing.assert_allclose(said, language_model.load(tmp_path / "raw").embed(["play jazz"])[0], rtol=1e-6)
    asked = values_of("embed", tmp_path / "raw", "-t", "play jazz", "--normalized")[0]["vector"]
    np.testing.assert_allclose(np.linalg.norm(asked), 1, rtol=1e-6)
    assert not np.isclose(np.linalg.norm(said), 1)


def test_translate(transformer):
    lm = language_model.load(transformer)
    result = called("translate", transformer, "-t", "noon", "-t", "lunch", "-n", "4")
    expected = lm.translate(["noon", "lunch"], max_new_tokens=4)
    assert result.stdout == "".join(one.text.replace("\n", " ") + "\n" for one in expected)
    assert "2 texts of 11 tokens" in result.stderr
    assert "1 text of 5 tokens" in called("translate", transformer, "-t", "noon", "-n", "4").stderr
    rows = values_of("translate", transformer, "-t", "noon", "-n", "4", "--beams", "2", "--length-penalty", "0")
    best = lm.translate(["noon"], max_new_tokens=4, n_beams=2, length_penalty=0.0)[0]
    assert (rows[0]["source"], rows[0]["ids"], rows[0]["score"]) == ("noon", best.ids, best.score)
    assert values_of("summarize", transformer, "-t", "noon", "-n", "4")[0]["ids"] == (
        lm.summarize(["noon"], max_new_tokens=4)[0].ids
    )
    searched = values_of("generate", transformer, "-p", "noon", "-n", "4", "--beams", "4", "--temperature", "0")
    assert searched["ids"] == expected[0].ids


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["classify"], 2, "[bad_option]"),
        (["classify", "-t", "a", "-"], 2, "[bad_option]"),
        (["classify", "-f", "/no/such/file"], 3, "[file_not_found]"),
        (["classify", "-t", ""], 1, "[empty_text]"),
        (["classify", "-t", "a", "--head", "tags"], 4, "[head_missing]"),
        (["tag", "-t", "play " * 40], 1, "[context_length_exceeded]"),
        (["answer", "-q", "who?"], 2, "[bad_option]"),
        (["answer", "-q", " ", "-c", "a"], 1, "the question (-q) is empty; give it words [empty_text]"),
        (["answer", "-q", "who?", "-c", ""], 1, "the text (-c) is empty; give it words [empty_text]"),
        (["answer", "-q", "who?", "-c", "a", "-f", "b"], 2, "[bad_option]"),
        (["fill-mask", "-t", "no mask"], 1, "[mask_missing]"),
        (["translate", "-t", "a"], 4, "[not_an_encoder_decoder]"),
        (["summarize", "-t", "a"], 4, "[not_an_encoder_decoder]"),
        (["generate", "-p", "a"], 4, "[cannot_write]"),
    ],
)
def test_mistakes_have_their_exit_codes(encoder, arguments, code, words):
    result = called(arguments[0], encoder, *arguments[1:])
    assert (result.exit_code, result.stdout) == (code, "")
    assert words in result.stderr


@pytest.mark.parametrize("verb", ["translate", "summarize"])
def test_texts_that_cannot_be_read_are_told_by_their_lines_and_long_ones_may_be_cut(transformer, tmp_path, verb):
    context = language_model.load(transformer).model.config.context
    (file := tmp_path / "texts").write_text("noon\n" + "n" * 2 * context + "\n")
    told = f"texts, line 2 has {2 * context + 1} tokens, and the model sees {context}: shorten it by at least"
    assert told in called(verb, transformer, "-f", file, "-n", "2").stderr
    cut = values_of(verb, transformer, "-f", file, "-n", "2", "--cut")
    assert [row["prompt_tokens"] for row in cut] == [5, context]
    assert "text 1 is empty" in called(verb, transformer, "-t", "").stderr
    assert "config.json names no tasks" in called(verb, transformer, "-t", "noon", "--task", "x").stderr


def test_no_option_is_advised_that_a_verb_does_not_have(encoder, transformer):
    for verb, path, given in (("fill-mask", encoder, "-t"), ("generate", transformer, "-p")):
        result = called(verb, path, given, "[MASK]" + "play it " * 50)
        assert "shorten it" in result.stderr
        assert "--cut" not in result.stderr
    assert "or let it be cut (--cut)" in called("translate", transformer, "-t", "play it " * 50).stderr


def test_a_translator_that_goes_by_distances_sees_as_many_positions_as_are_asked_for(tmp_path):
    sizes = {"vocab_size": 257, "d_model": 8, "context": 20, "n_layers": 1, "n_heads": 1}
    for positions in ("relative", "halves"):
        model = Transformer.create(TransformerConfig.uniform(**sizes, positions=positions), seed=1)
        language_model.save(LanguageModel(model, Tokenizer.train([], kind="bytes")), tmp_path / positions)
    for verb in ("translate", "summarize"):
        command = (verb, tmp_path / "relative", "-t", "n" * 40, "-n", "2")
        assert "or let the model see more (--context)" in called(*command).stderr
        assert values_of(*command, "--context", "64")[0]["prompt_tokens"] == 41
        refused = called(verb, tmp_path / "halves", "-t", "n" * 40, "--context", "64")
        assert (refused.exit_code, "learned 20 positions" in refused.stderr) == (2, True)


def test_texts_are_told_by_their_lines(encoder, tmp_path):
    (file := tmp_path / "texts").write_text("play\n\n")
    for verb in ("classify", "tag", "embed"):
        assert f"{file}, line 2 is empty" in called(verb, encoder, "-f", file).stderr


def test_small_scores_have_digits():
    assert [score(x) for x in (0.25, 6e-5, 1e-3, 0.0, -2.5, 1.0)] == [
        "0.250",
        "6.0e-05",
        "0.001",
        "0.000",
        "-2.500",
        "1.000",
    ]


def test_an_empty_file_is_refused(encoder, tmp_path):
    (tmp_path / "empty").write_text("")
    result = called("tag", encoder, "-f", tmp_path / "empty")
    assert result.exit_code == 1
    assert "[empty_text]" in result.stderr


# eval


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_eval_judges_classes_and_spans(encoder, tmp_path):
    data = written(
        tmp_path / "data.jsonl",
        [
            {"tokens": ["play", "Nina", "Simone"], "tags": ["O", "B-name", "I-name"], "intent": "play"},
            {"tokens": ["rain", "in", "New", "York"], "tags": ["O", "O", "B-city", "I-city"], "intent": "weather"},
            {"tokens": ["rain", "in", "Berlin"], "tags": ["O", "O", "B-name"], "intent": "weather"},
            {"tokens": ["play", "jazz"], "tags": ["O", "O"], "intent": "weather"},
        ],
    )
    found = values_of("eval", encoder, "--task", "classify+tag", "--data", data, "--field", "label=intent")
    assert found == {
        "texts": 4,
        "accuracy": 0.75,
        "span_precision": pytest.approx(2 / 3),
        "span_recall": pytest.approx(2 / 3),
        "span_f1": pytest.approx(2 / 3),
        "frame_accuracy": 0.5,
    }
    assert set(values_of("eval", encoder, "--task", "tag", "--data", data)) == {
        "texts",
        "span_precision",
        "span_recall",
        "span_f1",
    }
    table = called("eval", encoder, "--task", "classify+tag", "--data", data, "--field", "label=intent").stdout
    assert "0.7500" in table


@pytest.mark.parametrize(
    ("task", "row", "known"),
    [
        ("classify", {"text": "play", "label": "pla"}, "play, weather"),
        ("tag", {"tokens": ["rain"], "tags": ["B-town"]}, "city, name"),
    ],
)
def test_eval_refuses_labels_that_no_answer_could_be(encoder, tmp_path, task, row, known):
    good = {"text": "play", "label": "play", "tokens": ["play"], "tags": ["O"]}
    data = written(tmp_path / "data.jsonl", [good, row])
    result = called("eval", encoder, "--task", task, "--data", data)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{data}, line 2" in result.stderr
    assert known in result.stderr


def test_texts_may_be_cut(encoder, tmp_path):
    long = "play " + "it " * 50
    for verb in ("classify", "tag", "embed"):
        assert called(verb, encoder, "-t", long).exit_code == 1
        assert len(values_of(verb, encoder, "-t", long, "--cut")) == 1
    data = written(tmp_path / "data.jsonl", [{"text": long, "label": "play"}])
    refused = called("eval", encoder, "--task", "classify", "--data", data)
    assert refused.exit_code == 1
    assert f"{data}, line 1: 5" in refused.stderr
    assert values_of("eval", encoder, "--task", "classify", "--data", data, "--cut")["accuracy"] == 1.0


def test_eval_judges_answers(encoder, tmp_path):
    rows = [
        {
            "question": "who?",
            "context": "it was Nina Simone",
            "answers": {"text": ["Nina Simone"], "answer_start": [7]},
        },
        {"question": "who?", "context": "it was Nina Simone", "answers": {"text": ["it"], "answer_start": [0]}},
    ]
    found = values_of("eval", encoder, "--task", "answer", "--data", written(tmp_path / "squad.jsonl", rows))
    assert found == {"texts": 2, "exact_match": 0.5, "answer_f1": 0.5}
    rows[1]["question"] = "who? " * 100
    data = written(tmp_path / "long.jsonl", rows)
    assert f"{data}, line 2: 2" in called("eval", encoder, "--task", "answer", "--data", data).stderr


def test_eval_names_the_line_of_a_source_that_is_too_long(transformer, tmp_path):
    (tmp_path / "en").write_text("noon\n" + "a very long lunch" * 9 + "\n")
    (tmp_path / "de").write_text("Mittag\nlang\n")
    result = called("eval", transformer, "--task", "translate", "--data", tmp_path / "en", "--data", tmp_path / "de")
    assert result.exit_code == 1
    assert f"{tmp_path / 'en'}, line 2: 15" in result.stderr
    context = language_model.load(transformer).model.config.context
    (tmp_path / "en").write_text("noon\n" + "a" * context + "\n")  # too long by the token that ends a text
    result = called("eval", transformer, "--task", "translate", "--data", tmp_path / "en", "--data", tmp_path / "de")
    assert f"{tmp_path / 'en'}, line 2: {context + 1}" in result.stderr


def test_eval_judges_pairs(transformer, tmp_path):
    pytest.importorskip("sacrebleu", reason="needs the eval extra: pip install -e '.[eval]'")
    lm = language_model.load(transformer)
    (tmp_path / "en").write_text("noon\nlunch\n")
    written_texts = [one.text for one in lm.translate(["noon", "lunch"], n_beams=1)]
    targets = [text.replace("\n", "").replace("\r", "") or "x" for text in written_texts]
    (tmp_path / "de").write_text("\n".join(targets) + "\n", encoding="utf-8")
    found = values_of("eval", transformer, "--task", "translate", "--data", tmp_path / "en", "--data", tmp_path / "de")
    assert found["pairs"] == 2
    assert 0 <= found["exact_match"] <= 1
    assert "version" in found["bleu_signature"]


@pytest.mark.parametrize(
    ("which", "arguments", "code", "words"),
    [
        ("encoder", ["--task", "tag"], 2, "--data"),
        ("encoder", ["--data", "x.jsonl"], 2, "--task"),
        ("encoder", ["--task", "tag", "--data", "x.jsonl", "--speed"], 2, "--speed"),
        ("encoder", ["--task", "tag", "--data", "/no/such.jsonl"], 3, "[file_not_found]"),
        ("encoder", ["--task", "tag", "--data", "x.txt"], 2, "plain text"),
        ("encoder", ["--task", "tag", "--data", "x.jsonl", "--field", "labels=x"], 2, "no field 'labels'"),
        ("encoder", ["--max-tokens", "-1"], 2, "--max-tokens"),
        ("encoder", ["--max-tokens", "100"], 4, "[not_a_decoder]"),
        ("transformer", ["--max-tokens", "100"], 4, "[not_a_decoder]"),
    ],
)
def test_eval_refuses(request, which, arguments, code, words):
    result = called("eval", request.getfixturevalue(which), *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert words in result.stderr


def test_eval_judges_a_text_as_it_is_however_short(decoder, tmp_path):
    (tmp_path / "twice.txt").write_text("ab\n\nab")
    (tmp_path / "empty.txt").write_text("\n")
    assert values_of("eval", decoder, "--text", tmp_path / "twice.txt")["tokens"] == len("ab\n\nab")
    assert "[empty_text]" in called("eval", decoder, "--text", tmp_path / "empty.txt").stderr


def test_eval_of_a_model_that_cannot_do_the_task(decoder, tmp_path):
    data = written(tmp_path / "data.jsonl", [{"text": "play", "label": "play"}])
    result = called("eval", decoder, "--task", "classify", "--data", data)
    assert result.exit_code == 4
    assert "[not_an_encoder]" in result.stderr


# info


def test_info_says_what_the_blocks_and_heads_are(encoder, transformer):
    table = called("info", encoder).stdout
    for line in ("type encoder", "layers: 1 with 1 heads of ", "head tags (token, 5 labels)", "head answer (span, 0"):
        assert line in table
    assert "encoder_layers: 1 with 1 heads of 8, d_ff 32\nlayers: 1 with" in called("info", transformer).stdout


def test_info_shows_the_programs(encoder, transformer):
    text = values_of("info", encoder, "--program")["text"]
    assert set(text["results"]) == {"hidden", "label", "tags", "answer", "words"}
    assert {"attend_all", "pool_mean"} <= {step["op"] for step in text["steps"]}
    assert text["rows"] == 40
    programs = values_of("info", transformer, "--program")
    assert list(programs) == ["source", "token"]
    assert "keep_source" in {step["op"] for step in programs["source"]["steps"]}
    attend = next(step for step in programs["token"]["steps"] if step["op"] == "attend_source")
    assert attend["size_bytes"] == 2 * 4 * 20 * 8
    assert "a source of 20 tokens" in called("info", transformer, "--program").stdout
