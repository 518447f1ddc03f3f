"""Tests of the models' laws: faults planted in a model are caught by the law that is there for them."""

from __future__ import annotations

import numpy as np
import pytest

from minislm.layers.affine import Affine
from minislm.layers.attention import MultiHead
from minislm.layers.base import PLAIN, Context, Grads
from minislm.layers.heads import MaskedHead
from minislm.layers.norm import LayerNorm
from minislm.layers.relative_bias import RelativeBias
from minislm.layers.trigrams import Trigrams
from minislm.models.transformer import Transformer
from minislm.testing import models as laws
from tests.contracts.test_models import ENCODERS, TRANSFORMERS, created


def seeing_the_future(original):
    return lambda self, q, k, v, tape, **options: original(self, q, k, v, tape, **{**options, "causal": False})


def halved_input_gradient(original):
    return lambda self, table, dx, tape, grads: original(self, table, dx / 2, tape, grads)


def halved(original):
    return lambda self, dy, tape, grads: original(self, dy / 2, tape, grads)


def without_the_bias(original):
    def backward(self, dy, tape, grads):
        dx = original(self, dy, tape, grads)
        grads[f"{self.path}.bias"] *= 0
        return dx

    return backward


def shifted_between_rows(original):
    return lambda self, x, context, tape=None: original(self, x - 1e-3 * x.mean(axis=0), context, tape)


def beyond_its_end(original):
    return lambda self, x, context, tape=None: original(self, x, PLAIN, tape)


def as_it_came(original):
    def backward(self, dy, tape, grads):
        original(self, dy, tape, grads)
        return dy

    return backward


# What is spoilt, how, in which model, and which law must notice.
FAULTS = {
    "padding of a source is read": (Context, "source_mask", lambda _: lambda self, n: None, "vaswani", "padding"),
    "padding of a text is read": (Context, "key_mask", lambda _: lambda self, n: None, "bert", "padding"),
    "the future is seen": (MultiHead, "mix", seeing_the_future, "vaswani", "future"),
    "rows see each other": (LayerNorm, "forward", shifted_between_rows, "distilbert", "rows"),
    "gradients put aside are lost": (Grads, "aside", lambda _: lambda self, name, g: None, "vaswani", "gradient"),
    "a judged block has no gradient": (Grads, "joined", lambda _: lambda self, name, dy: dy, "distilbert", "gradient"),
    "a scale is not undone": (Transformer, "_embedded_backward", halved_input_gradient, "vaswani", "gradient"),
    "biases of distances learn half": (RelativeBias, "backward", halved, "t5", "gradient"),
    "padding is a neighbour": (Trigrams, "forward", beyond_its_end, "mobilebert", "padding"),
    "a gain is not undone": (Affine, "backward", as_it_came, "mobilebert", "gradient"),
    "a bias is forgotten": (MaskedHead, "backward", without_the_bias, "uneven encoder", "gradient"),
}
LAWS = {
    "padding": laws.check_padding_changes_nothing,
    "future": laws.check_future_changes_nothing,
    "rows": laws.check_batch_equals_rows,
    "gradient": laws.check_model_gradient,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_law_catches(fault, monkeypatch):
    owner, name, change, config, law = FAULTS[fault]
    model = created({**ENCODERS, **TRANSFORMERS}[config], np.float64)
    monkeypatch.setattr(owner, name, change(getattr(owner, name)))
    with pytest.raises(AssertionError):
        LAWS[law](model)
