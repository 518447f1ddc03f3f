"""A loss that is computed some rows at a time is the loss, and holds the logits of those rows only."""

import tracemalloc

import numpy as np
import pytest

from minislm.layers.base import Grads, Tape
from minislm.models.decoder import Decoder, DecoderConfig
from minislm.models.transformer import Transformer, TransformerConfig
from minislm.training import objective
from minislm.training.data import Batch
from minislm.training.objective import NextToken

SIZES = {"vocab_size": 37, "d_model": 12, "context": 16, "n_heads": 2, "n_layers": 2}


MODELS = [
    Decoder.create(DecoderConfig.uniform(**SIZES), dtype=np.float64),
    Decoder.create(
        DecoderConfig.uniform(**SIZES, tied=False, logit_cap=3.0, logit_scale=0.5, biases=("head",)), dtype=np.float64
    ),
    Transformer.create(TransformerConfig.uniform(**SIZES), dtype=np.float64),
]


def batch_of(model, rng):
    ids_BT, targets_BT = rng.integers(0, 37, (2, 3, 7))
    targets_BT[rng.random((3, 7)) < 0.3] = objective.NOT_JUDGED
    source_BS = rng.integers(0, 37, (3, 5)) if isinstance(model, Transformer) else None
    return Batch(ids_BT, targets_BT, source_BS=source_BS)


@pytest.mark.parametrize("model", MODELS, ids=["tied", "untied", "of a source"])
@pytest.mark.parametrize("n_rows", [1, 4, 20, 21, 512])
def test_pieces_give_the_loss_and_the_gradients_of_the_whole(model, n_rows, rng, monkeypatch):
    batch, judge = batch_of(model, rng), NextToken(label_smoothing=0.1)
    tape, grads = Tape(), Grads()
    whole, dy = judge.loss(model, batch, batch.context(), tape, grads)
    model.backward(dy, tape, grads)
    monkeypatch.setattr(objective, "LOGITS_BYTES", 0)
    monkeypatch.setattr(objective, "LEAST_ROWS", n_rows)
    tape, pieces = Tape(), Grads()
    assert judge.step(model, batch, batch.context(), tape, pieces) == pytest.approx(whole, rel=1e-12)
    assert not tape
    assert pieces.keys() == grads.keys()
    for name, gradient in grads.items():
        np.testing.assert_allclose(pieces[name], gradient, rtol=1e-9, atol=1e-12, err_msg=name)
    plain = NextToken()
    value, _ = plain.loss(model, batch, batch.context(), Tape(), Grads())
    assert plain.judge(model, [batch, batch]) == pytest.approx(value, rel=1e-12)


def test_the_logits_of_all_rows_are_never_there(rng):
    sizes = DecoderConfig.uniform(vocab_size=8192, d_model=8, context=512, n_heads=1, n_layers=1)
    model = Decoder.create(sizes)
    ids_BT, targets_BT = rng.integers(0, 8192, (2, 8, 512))
    batch = Batch(ids_BT, targets_BT)
    whole = targets_BT.size * 8192 * 4
    for run in (
        lambda: NextToken().step(model, batch, batch.context(), Tape(), Grads()),
        lambda: NextToken().judge(model, [batch]),
    ):
        tracemalloc.start()
        run()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 0.5 * whole
