"""Tasks as a user asks for them, from text to result, against transformers: random models in published folders."""

from __future__ import annotations

import json

import numpy as np
import pytest

import minislm

torch = pytest.importorskip("torch", reason="needs the oracle extra: pip install -e '.[oracle]'")
transformers = pytest.importorskip("transformers", reason="needs the oracle extra: pip install -e '.[oracle]'")
pytestmark = pytest.mark.oracle

from published import Case, made  # noqa: E402
from published_encoders import FAMILIES as ENCODERS  # noqa: E402

from tests.unit.published_tokenizers import family  # noqa: E402

TEXTS = [
    "The for statement is used to iterate over the elements of a sequence.",
    "it",
    "QUICK dogs: naïve  größer\t水 한국어 👩‍👩‍👧!",
    "they'll see 7,000,000 lazy\nfoxes" * 2,
]
LONG = "the elements of a sequence are lazy dogs. " * 30
LABELS = {0: "no", 1: "per haps", 2: "yés"}
PROBLEMS = {
    "one of three": {"id2label": LABELS, "label2id": {name: i for i, name in LABELS.items()}},
    "any of three": {"num_labels": 3, "problem_type": "multi_label_classification"},
    "two": {"num_labels": 2},
    "one label": {"num_labels": 1},
    "a number": {"num_labels": 1, "problem_type": "regression"},
    "three numbers": {"num_labels": 3, "problem_type": "regression"},
}
WORDS = ["NOUN", "O", "VERB"]


def encoder(name, ending, path, *, json_tokenizer=True, **values):
    """Save a model of a family with its tokenizer; return theirs, their tokenizer, and ours out of the folder."""
    path.mkdir(exist_ok=True)
    tokens = json.loads(family("BERT uncased"))["model"]["vocab"]
    (path / "vocab.txt").write_text("".join(f"{token}\n" for token in sorted(tokens, key=tokens.__getitem__)))
    own, config, _ = ENCODERS[name]
    config = {**config, "vocab_size": len(tokens), "max_position_embeddings": 120, "pad_token_id": tokens["[PAD]"]}
    model = made(Case(f"{own}{ending}", f"{own}Config", {**config, **values}))
    tokenizer = transformers.BertTokenizer.from_pretrained(path, do_lower_case=True, model_max_length=120)
    model.save_pretrained(path)
    if json_tokenizer:
        (path / "vocab.txt").unlink()
        tokenizer.save_pretrained(path)
    else:
        (path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, "model_max_length": 120}))
    return model, tokenizer, minislm.load(path)


@pytest.mark.parametrize("json_tokenizer", [True, False])
@pytest.mark.parametrize("name", ENCODERS)
def test_fill_mask(name, json_tokenizer, tmp_path):
    model, tokenizer, lm = encoder(name, "ForMaskedLM", tmp_path, json_tokenizer=json_tokenizer)
    theirs = transformers.pipeline("fill-mask", model=model, tokenizer=tokenizer)
    for text in ("The [MASK] statement.", "[MASK]", "a [MASK][MASK] dog, [MASK]", "  the  [MASK]  of 水 [MASK]. "):
        expected = theirs(text, top_k=4)
        expected = expected if isinstance(expected[0], list) else [expected]
        found = lm.fill_mask(text, top_k=4)
        assert [[f.score for f in one] for one in found] == [
            pytest.approx([e["score"] for e in one], abs=1e-5) for one in expected
        ]
        for one, other in zip(found, expected, strict=True):
            clear = np.diff([e["score"] for e in other]).max() < -1e-6
            if clear:  # equal scores may come in any order
                assert [(f.id, f.text) for f in one] == [(e["token"], e["token_str"]) for e in other]


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", ENCODERS)
def test_classify(name, problem, tmp_path):
    model, tokenizer, lm = encoder(name, "ForSequenceClassification", tmp_path, **PROBLEMS[problem])
    theirs = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)
    pairs = [{"text": text, "text_pair": pair} for text, pair in zip(TEXTS, TEXTS[::-1], strict=True)]
    cut = {"truncation": True, "max_length": 120, "top_k": None}
    for expected, found in (
        ([theirs([text], top_k=None)[0] for text in TEXTS], lm.classify(TEXTS)),  # one by one: MobileBERT reads padding
        ([theirs([pair], top_k=None)[0] for pair in pairs], lm.classify(TEXTS, TEXTS[::-1])),
        (theirs([LONG], **cut), lm.classify([LONG], cut=True)),
    ):
        for ours, other in zip(found, expected, strict=True):
            assert ours.scores == pytest.approx({one["label"]: one["score"] for one in other}, abs=1e-5)
            assert (ours.label, ours.score) == (other[0]["label"], pytest.approx(other[0]["score"], abs=1e-5))
    minislm.save(lm, tmp_path / "again")
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "again")
    assert (again.config.problem_type, again.config.num_labels) == (model.config.problem_type, model.config.num_labels)


@pytest.mark.parametrize("name", ENCODERS)
def test_labels_of_words(name, tmp_path):
    numbers = {label: i for i, label in enumerate(WORDS)}
    options = {"id2label": dict(enumerate(WORDS)), "label2id": numbers}
    model, tokenizer, lm = encoder(name, "ForTokenClassification", tmp_path, **options)
    theirs = transformers.pipeline("token-classification", model=model, tokenizer=tokenizer, ignore_labels=[])
    texts = ["the dogs , the sequence . they", "of", "to ; the x"]
    compared = 0
    for text, found in zip(texts, lm.tag(texts), strict=True):
        tokens = theirs(text)
        whole = {text.find(word): word for word in text.split() if tokenizer.tokenize(word) == [word]}
        for token in tokens:
            if token["start"] not in whole or token["end"] - token["start"] != len(whole[token["start"]]):
                continue  # of a word of several tokens, whose label is that of all of them
            own = [one for one in found if one.start == token["start"]]
            compared += 1
            if token["entity"] == "O":
                assert not own
            else:
                assert [(one.label, one.end) for one in own] == [(token["entity"], token["end"])]
                assert own[0].score == pytest.approx(float(token["score"]), abs=1e-5)
    assert compared >= 6


@pytest.mark.parametrize("name", ENCODERS)
def test_answer(name, tmp_path):
    """The likeliest part by their probabilities of starts and ends, none of them in the question."""
    model, tokenizer, lm = encoder(name, "ForQuestionAnswering", tmp_path)
    for question, context in (("Who?", TEXTS[0]), ("What is 水?", TEXTS[2]), ("isn't it", TEXTS[3])):
        batch = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
        offsets = batch.pop("offset_mapping")[0].tolist()
        given = {key: value for key, value in batch.items() if key != "token_type_ids" or name != "distilbert"}
        with torch.no_grad():
            y = model(**given)
        first = batch["token_type_ids"][0].tolist().index(1)
        places = [0, *range(first, len(offsets) - 1)]
        starts, ends = (torch.softmax(x[0, places], 0).tolist() for x in (y.start_logits, y.end_logits))
        parts = {
            (offsets[places[i]][0], offsets[places[j]][1]): starts[i] * ends[j]
            for i in range(1, len(places))
            for j in range(i, min(i + 30, len(places)))
        }
        best = max(parts, key=parts.__getitem__)
        expected = (*best, parts[best]) if parts[best] > starts[0] * ends[0] else (0, 0, starts[0] * ends[0])
        found = lm.answer(question, context)
        assert (found.start, found.end) == expected[:2]
        assert found.text == context[found.start : found.end]
        assert found.score == pytest.approx(expected[2], rel=1e-3)


T5 = {"d_model": 24, "d_kv": 7, "d_ff": 40, "num_layers": 2, "num_heads": 3, "relative_attention_num_buckets": 8}
T5 |= {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1, "relative_attention_max_distance": 20}
KINDS = {
    "summarization": {"num_beams": 4, "max_length": 20, "min_length": 5, "length_penalty": 2.0, "early_stopping": True}
    | {"no_repeat_ngram_size": 3, "prefix": "summarize: "},
    "translation_en_to_de": {"num_beams": 3, "max_length": 16, "early_stopping": True, "prefix": "translate: "},
}


def test_summarize_and_translate(tmp_path):
    """The folder says what the model was trained for: prefixes, and how to search."""
    (tmp_path / "tokenizer.json").write_text(family("T5"))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json"), eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    tokenizer.save_pretrained(tmp_path)
    values = {**T5, "vocab_size": len(tokenizer), "task_specific_params": KINDS}
    model = made(Case("T5ForConditionalGeneration", "T5Config", values), seed=2)
    model.save_pretrained(tmp_path)
    lm, clear = minislm.load(tmp_path), 0
    for kind, verb in (("summarization", lm.summarize), ("translation_en_to_de", lm.translate)):
        search = {name: value for name, value in KINDS[kind].items() if name != "prefix"}
        batch = tokenizer([KINDS[kind]["prefix"] + text for text in TEXTS], return_tensors="pt", padding=True)
        batch = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            found = model.generate(
                **batch, **search, num_return_sequences=2, output_scores=True, return_dict_in_generate=True
            )
        expected = tokenizer.batch_decode(found.sequences[::2], skip_special_tokens=True)
        margins = (found.sequences_scores[::2] - found.sequences_scores[1::2]).tolist()
        for text, ours, other, margin in zip(TEXTS, verb(TEXTS), expected, margins, strict=True):
            assert ours.text == verb([text])[0].text
            if margin > 1e-3:
                clear += 1
                assert ours.text == other
    assert clear >= 4
