"""Config files as publishers wrote them, in the words of their day: ours reads what transformers reads."""

from __future__ import annotations

import json

import numpy as np
import pytest

import minislm

torch = pytest.importorskip("torch", reason="needs the oracle extra: pip install -e '.[oracle]'")
transformers = pytest.importorskip("transformers", reason="needs the oracle extra: pip install -e '.[oracle]'")
pytestmark = pytest.mark.oracle

from published import folder  # noqa: E402

from minislm.evaluation.layers import layer_differences, reference_states, states_of  # noqa: E402
from minislm.models.encoder import Encoder  # noqa: E402
from minislm.models.transformer import Transformer  # noqa: E402
from tests.unit.published_files import PUBLISHED, small  # noqa: E402

UNNAMED = {"bert": "BertForPreTraining", "mobilebert": "MobileBertForPreTraining"}  # whose files do not say it
LENGTH = 44  # beyond every window and the first context of those that have two tables


def published(name, path):
    """Make what transformers makes of the file, save its tensors, and put the file back as it was."""
    values = small(PUBLISHED[name])
    path.mkdir()
    text = json.dumps(values)
    (path / "config.json").write_text(text)
    config = transformers.AutoConfig.from_pretrained(path)
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    (kind,) = values.get("architectures") or [UNNAMED[values["model_type"]]]
    model = getattr(transformers, kind)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.ndim == 1 else 0.15))
    folder(model, path)
    (path / "config.json").write_text(text)
    (path / "generation_config.json").unlink(missing_ok=True)
    return model


def relative(ours, expected):
    assert ours.shape == expected.shape
    return np.abs(ours - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_file_means_what_it_means_to_transformers(name, tmp_path):
    theirs = published(name, tmp_path / "model")
    lm = minislm.load(tmp_path / "model")
    rng = np.random.default_rng(0)
    for length in (11, min(LENGTH, lm.model.config.context)):
        ids = rng.integers(3, 99, (1, length))
        with torch.no_grad():
            given = {"decoder_input_ids": torch.tensor(ids)} if isinstance(lm.model, Transformer) else {}
            said = theirs(torch.tensor(ids), **given, output_hidden_states=True)
        if isinstance(lm.model, Encoder):
            assert relative(lm.encode(ids), said.hidden_states[-1].numpy()) < 1e-4
        else:
            found = lm.logits(ids, decoder_ids=ids if given else None)
            assert relative(found, said.logits.numpy()) < 1e-4
    rows = layer_differences(states_of(lm.model, ids), reference_states(tmp_path / "model", lm.model, ids))
    assert len(rows) >= sum(len(getattr(lm.model.config, stack.sizes)) for stack in lm.model.stacks)
    for row in rows:
        assert max(row.relative, row.largest, 1 - row.cosine) < 1e-4, row
    if isinstance(lm.model, Encoder):
        return
    eos = PUBLISHED[name]["eos_token_id"]
    assert set(lm.settings.eos_ids or [lm.tokenizer.eos_id]) == {n % 101 for n in ([eos] if type(eos) is int else eos)}


@pytest.mark.parametrize("name", [name for name in PUBLISHED if "long_factor" in str(PUBLISHED[name])])
def test_the_long_table_is_theirs_beyond_the_first_context(name, tmp_path):
    theirs = published(name, tmp_path / "model")
    assert minislm.load(tmp_path / "model").model.config.context == 24
    lm = minislm.load(tmp_path / "model", context=48)
    ids = np.random.default_rng(1).integers(3, 99, (1, LENGTH))
    with torch.no_grad():
        expected = theirs(torch.tensor(ids)).logits.numpy()
    assert relative(lm.logits(ids), expected) < 1e-4
    assert relative(minislm.load(tmp_path / "model").logits(ids[:, :24]), expected[:, :24]) > 1e-3
