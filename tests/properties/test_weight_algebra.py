"""The laws of Weights for drawn storages, shapes and numbers; sparse and fake-quantized ones for hostile matrices."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from minislm.testing import rounding
from minislm.testing import weights as laws
from minislm.testing.strategies import masks, matrices, weights
from minislm.weights.fake_quantized import FakeQuantized
from minislm.weights.sparse import Sparse


@given(weights(), st.integers(0, 99))
def test_verbs(weight, seed):
    laws.check_verbs(weight, seed)
    laws.check_lower(weight, seed)


@settings(max_examples=30)
@given(weights())
def test_round_trip(weight):
    laws.check_round_trip(weight)


@settings(max_examples=50)
@given(st.data(), st.sampled_from(["bitmap", "csr", "2:4", "4:8", "1:2", "3:5", "1:256"]))
def test_a_sparse_matrix_is_the_masked_one(data, pattern):
    w = data.draw(matrices())
    mask = data.draw(masks(w.shape, pattern))
    weight = Sparse.from_dense(w, mask, pattern)
    assert np.array_equal(weight.dense(), np.where(mask, w, 0))
    laws.check_verbs(weight)


@settings(max_examples=50)
@given(matrices(), st.sampled_from(["int2", "int3", "int4", "int8", "int4-32", "int5-64"]))
def test_fake_quantization_begins_at_nearest(w, format_name):
    weight = FakeQuantized.nearest(w, format_name)
    rounding.check_fake_quantized(weight)
