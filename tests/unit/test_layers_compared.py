"""The table of differences, block by block."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from minislm.cli import main
from minislm.errors import UnsupportedError
from minislm.evaluation.layers import layer_differences, states_of
from minislm.language_model import LanguageModel, save
from minislm.models.decoder import Decoder, DecoderConfig
from minislm.models.transformer import Transformer, TransformerConfig
from minislm.text.tokenizer import Tokenizer

CONFIG = DecoderConfig.uniform(vocab_size=257, d_model=12, context=16, n_layers=3, n_heads=3)


def test_a_change_shows_from_its_block_on(rng):
    model = Decoder.create(CONFIG, seed=1)
    name = "blocks.1.mlp.up.bias"
    other = model.with_arrays({name: model.arrays()[name] + np.float32(1.0)})
    ids = rng.integers(0, 257, (2, 9))
    rows = layer_differences(states_of(other, ids), states_of(model, ids))
    assert [row.layer for row in rows] == ["blocks.0", "blocks.1", "blocks.2", "hidden", "logits"]
    assert rows[0].relative == 0
    assert rows[0].cosine == pytest.approx(1)
    assert all(row.relative > 0.001 for row in rows[1:])


def test_both_stacks_of_an_encoder_decoder_are_compared(rng):
    sizes = {"vocab_size": 23, "d_model": 12, "context": 16, "n_layers": 2, "n_heads": 3}
    for choices in ({}, {"norm_place": "before", "norm": "rms"}):
        model = Transformer.create(TransformerConfig.uniform(**sizes, **choices), seed=1)
        name = "encoder.blocks.1.mlp.up.bias"
        other = model.with_arrays({name: model.arrays()[name] + np.float32(1.0)})
        ids = rng.integers(0, 23, (2, 9))
        rows = layer_differences(states_of(other, ids), states_of(model, ids))
        layers = [f"{side}.blocks.{i}" for side in ("encoder", "decoder") for i in (0, 1)]
        assert [row.layer for row in rows] == [*layers[:2], "memory", *layers[2:], "hidden", "logits"]
        assert [row.relative > 0.001 for row in rows] == [False] + [True] * 6


def test_widths_must_agree(rng):
    wide = Decoder.create(DecoderConfig.uniform(vocab_size=257, d_model=6, context=16, n_layers=3, n_heads=3))
    ids = rng.integers(0, 257, (1, 4))
    with pytest.raises(UnsupportedError) as caught:
        layer_differences(states_of(wide, ids), states_of(Decoder.create(CONFIG), ids))
    assert caught.value.code == "layers_differ"


def test_the_verb(tmp_path):
    for seed in (0, 1):
        lm = LanguageModel(Decoder.create(CONFIG, seed), Tokenizer.train([], kind="bytes"))
        save(lm, tmp_path / str(seed))
    lines = (f"{n} bottles, and then {n * n} more of them" for n in range(60))
    (tmp_path / "text.txt").write_text("\n\n".join(lines))
    given = ["eval", str(tmp_path / "0"), "--against", str(tmp_path / "1"), "--text", str(tmp_path / "text.txt")]
    found = CliRunner().invoke(main, [*given, "--layers", "minislm", "--json"])
    values = json.loads(found.stdout)
    assert values["tokens"] == 16
    assert [row["layer"] for row in values["layers"]] == ["blocks.0", "blocks.1", "blocks.2", "hidden", "logits"]
    beside = json.loads(CliRunner().invoke(main, [*given, "--json"]).stdout)
    assert beside["layers"] == values["layers"]
    assert beside["perplexity_ratio"] > 0
    assert "blocks.2" in CliRunner().invoke(main, given).stdout
    refused = CliRunner().invoke(main, ["eval", str(tmp_path / "0"), "--layers", "minislm"])
    assert refused.exit_code == 2
