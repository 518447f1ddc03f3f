"""`minislm compress` on models of every family, with the data that `minislm train` reads."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from task_runs import labelled_texts, tokenizer

from minislm import cli, language_model
from minislm.config import Head
from minislm.language_model import LanguageModel
from minislm.models.encoder import Encoder, EncoderConfig
from minislm.models.transformer import Transformer, TransformerConfig

SIZES = {"d_model": 8, "n_layers": 2, "n_heads": 2, "d_ff": 12, "context": 24}
RECIPE = """
steps:
  - {method: distil, training: {steps: 2, batch_size: 4}, hidden_weight: 1.0, attention_weight: 1.0}
  - {method: narrow, heads: 0.5, ff: 0.5, samples: 3}
  - {method: quantize, where: "*blocks.*", format: int8, activations: static, calibration: mse, samples: 3}
"""


def called(*arguments):
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def lines(path, records):
    path.write_text("\n".join(json.dumps(record) for record in records))
    return path


def test_an_encoder_is_compressed_on_labelled_texts(recipe, tmp_path):
    heads = (Head("label", "sequence", ("fly", "go", "walk")), Head("tags", "token", ("O", "B-city", "I-city")))
    config = EncoderConfig.uniform(vocab_size=tokenizer().vocab_size, heads=heads, **SIZES)
    language_model.save(LanguageModel(Encoder.create(config), tokenizer()), tmp_path / "encoder")
    spans = [[{"start": s.start, "end": s.end, "label": s.label} for s in text.spans] for text in labelled_texts()]
    records = [
        {"text": text.text, "label": text.label, "spans": own}
        for text, own in zip(labelled_texts(), spans, strict=True)
    ]
    data = lines(tmp_path / "texts.jsonl", records)
    arguments = ("compress", tmp_path / "encoder", recipe, "-o", tmp_path / "small", "--data", data)
    assert "--task" in called(*arguments).stderr
    result = called(*arguments, "--task", "classify+tag")
    assert result.exit_code == 0, result.stderr
    small = language_model.load(tmp_path / "small")
    assert [(sizes.n_heads, sizes.d_ff) for sizes in small.model.config.layers] == [(1, 6)]
    assert small.model.specs()["blocks.0.mlp.up.weight"]["activations"] == "static"
    assert small.classify(["walk to Bonn"])[0].label in ("fly", "go", "walk")
    table = called("info", tmp_path / "small").stdout
    assert "static" in table


def test_an_encoder_decoder_is_compressed_on_pairs(recipe, tmp_path):
    own = tokenizer(encoder=False)
    config = TransformerConfig.uniform(vocab_size=own.vocab_size, **SIZES)
    language_model.save(LanguageModel(Transformer.create(config), own), tmp_path / "model")
    data = lines(tmp_path / "pairs.jsonl", [{"source": t.text, "target": t.text[:4]} for t in labelled_texts()])
    result = called("compress", tmp_path / "model", recipe, "-o", tmp_path / "small", "--data", data)
    assert result.exit_code == 0, result.stderr
    config = language_model.load(tmp_path / "small").model.config
    assert [(sizes.n_heads, sizes.d_ff) for sizes in (*config.layers, *config.encoder_layers)] == [(1, 6)] * 2


def test_a_model_is_not_replaced_by_what_is_made_of_it(recipe, tmp_path):
    own = tokenizer(encoder=False)
    config = TransformerConfig.uniform(vocab_size=own.vocab_size, **SIZES)
    language_model.save(LanguageModel(Transformer.create(config), own), tmp_path / "model")
    data = lines(tmp_path / "pairs.jsonl", [{"source": t.text, "target": t.text[:4]} for t in labelled_texts()])
    (tmp_path / "link").symlink_to(tmp_path / "model")
    for arguments in (["compress", tmp_path / "model", recipe], ["train", data, "--from", tmp_path / "model"]):
        result = called(*arguments, "-o", tmp_path / "link")
        assert (result.exit_code, result.stdout) == (2, "")
        assert "would delete it" in result.stderr


def test_a_model_of_others_is_not_replaced(tmp_path):
    own = tokenizer(encoder=False)
    lm = LanguageModel(Transformer.create(TransformerConfig.uniform(vocab_size=own.vocab_size, **SIZES)), own)
    for name in ("model", "own", "theirs"):
        language_model.save(lm, tmp_path / name)
    values = json.loads((tmp_path / "theirs" / "config.json").read_text())
    theirs = {k: v for k, v in values.items() if k != "minislm"}
    (tmp_path / "theirs" / "config.json").write_text(json.dumps(theirs))
    command = ("compress", tmp_path / "model", "--method", "quantize", "-o")
    refused = called(*command, tmp_path / "theirs")
    assert refused.exit_code == 2
    assert "holds a model that minislm did not write, and would delete it; name another, or move it" in refused.stderr
    assert json.loads((tmp_path / "theirs" / "config.json").read_text()) == theirs
    assert called(*command, tmp_path / "own").exit_code == 0


def test_the_seed_counts_to_those_of_the_recipe(tmp_path):
    own = tokenizer(encoder=False)
    config = TransformerConfig.uniform(vocab_size=own.vocab_size, **SIZES)
    language_model.save(LanguageModel(Transformer.create(config), own), tmp_path / "model")
    data = lines(tmp_path / "pairs.jsonl", [{"source": t.text, "target": t.text[:4]} for t in labelled_texts()])
    (tmp_path / "lora.yaml").write_text("steps: [{method: lora, rank: 2, seed: 3, training: {steps: 1, seed: 7}}]")
    for seed in (0, 5):
        small = tmp_path / f"small-{seed}"
        result = called(
            "compress", tmp_path / "model", tmp_path / "lora.yaml", "-o", small, "--data", data, "--seed", seed
        )
        assert result.exit_code == 0, result.stderr
        (step,) = language_model.load(small).history[-1]["steps"]
        assert (step["seed"], step["training"]["seed"]) == (3 + seed, 7 + seed)


def test_what_is_wrong_in_a_late_step_stops_the_first(recipe, tmp_path):
    own = tokenizer(encoder=False)
    config = TransformerConfig.uniform(vocab_size=own.vocab_size, **SIZES)
    language_model.save(LanguageModel(Transformer.create(config), own), tmp_path / "model")
    recipe.write_text(RECIPE.replace('"*blocks.*"', '"blocks.*"'))
    data = lines(tmp_path / "pairs.jsonl", [{"source": t.text, "target": t.text[:4]} for t in labelled_texts()])
    result = called("compress", tmp_path / "model", recipe, "-o", tmp_path / "small", "--data", data)
    assert result.exit_code == 2
    assert "step 3" in result.stderr
    assert not (tmp_path / "small.run").exists()
