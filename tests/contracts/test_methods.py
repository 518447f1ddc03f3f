"""The laws of compression methods, for every row of the table."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from minislm.compression import METHODS, load_method
from minislm.compression.low_rank import LowRank
from minislm.compression.narrow import Narrow
from minislm.compression.prune import Prune
from minislm.compression.quantize import Quantize
from minislm.models.decoder import Decoder, DecoderConfig
from minislm.testing import methods as laws
from minislm.testing.examples import sample_data
from minislm.weights.dense import Dense
from minislm.weights.product import Product
from minislm.weights.sparse import Sparse
from tests.unit.small_models import FAMILIES, small_model

SIZES = {"d_model": 12, "context": 9, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "d_ff": 21}
CASES = [(name, number) for name in METHODS for number in range(len(laws.SAMPLES[name]))]
EVERY = pytest.mark.parametrize(("name", "number"), CASES, ids=[f"{name}-{number}" for name, number in CASES])
WHOLE = ("distil", "train")  # act on the model as a whole


@pytest.fixture(scope="module")
def model():
    return small_model("gpt2", **SIZES)


def sample(name, number):
    return load_method(name).from_json(laws.SAMPLES[name][number]), "*" if name in WHOLE else "*blocks.*.weight"


def test_every_method_has_samples():
    assert set(laws.SAMPLES) == set(METHODS)
    assert all(load_method(name).name == name for name in METHODS)


@EVERY
@pytest.mark.parametrize("family", FAMILIES)
def test_the_source_stays_and_the_result_round_trips(name, number, family, tmp_path):
    model = small_model(family, **SIZES)
    method, where = sample(name, number)
    small = laws.check_source_unchanged(method, model, sample_data(model), where)
    assert laws.digest(small) != laws.digest(model), "nothing was done"
    laws.check_round_trip(small, tmp_path)


@EVERY
def test_run_twice_it_gives_the_same_bits(name, number, model):
    method, where = sample(name, number)
    laws.check_repeatable(method, model, sample_data(model), where)


@EVERY
def test_options_survive_json(name, number):
    method, _ = sample(name, number)
    options = method.to_json()
    assert load_method(options.pop("method")).from_json(options) == method


@pytest.mark.parametrize(
    "method", [Prune(sparsity=0.0), LowRank(rank=12), LowRank(energy=1.0), LowRank(size=1.0), Narrow()], ids=repr
)
def test_no_compression_is_the_identity(method, model):
    assert laws.digest(method.run(model)) == laws.digest(model)


def test_eight_bits_are_close(model):
    ids = np.arange(9)[None]
    exact, rounded = model.forward(ids), Quantize("int8").run(model).forward(ids)
    assert np.linalg.norm(rounded - exact) < 0.02 * np.linalg.norm(exact)


def test_only_the_chosen_weights_change(model):
    small = Quantize("int4").run(model, where="blocks.1.*.up.weight, blocks.0.attention.*")
    changed = [path for path, weight in small.weights().items() if weight is not model.weights()[path]]
    assert changed == [
        *(f"blocks.0.attention.{name}.weight" for name in ("query", "key", "value", "output")),
        "blocks.1.mlp.up.weight",
    ]


def random_matrix(rng):
    """A matrix with a few large entries, so that the choice matters."""
    return (rng.standard_normal((24, 40)) * rng.lognormal(size=(24, 40))).astype(np.float32)


def in_a_model(w_OI, method):
    """What a method makes of one matrix."""
    sizes = DecoderConfig.uniform(vocab_size=24, d_model=40, context=4, n_layers=1, n_heads=2)
    model = Decoder.create(sizes).replaced({"embedding.weight": Dense(w_OI)})
    return method.run(model, where="embedding.weight").weights()["embedding.weight"]


@pytest.mark.parametrize("format_name", ["int8", "int4-32", "uint3-64", "int2"])
def test_nearest_is_no_worse_than_rounding_down(format_name, rng):
    w_OI = random_matrix(rng)
    chosen = in_a_model(w_OI, Quantize(format_name))
    storage = chosen.format
    scales, zeros = storage.fit(w_OI)
    codes = storage.round(w_OI - 0.5 * storage.spread(scales.astype(np.float32), 40), scales, zeros)
    laws.check_no_worse(chosen, dataclasses.replace(chosen, codes=storage.pack(codes)), w_OI)


@pytest.mark.parametrize(
    "method", [Prune(sparsity=0.5), Prune(pattern="2:4"), Prune(sparsity=0.9, storage="csr")], ids=repr
)
def test_magnitude_is_no_worse_than_chance(method, rng):
    w_OI = random_matrix(rng)
    chosen = in_a_model(w_OI, method)
    mask_OI = chosen.dense() != 0
    if method.pattern:
        groups = mask_OI.reshape(24, 10, 4)
        shuffled = rng.permuted(groups, axis=-1).reshape(24, 40)
    else:
        shuffled = rng.permutation(mask_OI.ravel()).reshape(24, 40)
    assert (shuffled != mask_OI).any()
    trivial = Sparse.from_dense(w_OI, shuffled, method.pattern or method.storage or "bitmap")
    laws.check_no_worse(chosen, trivial, w_OI)


def test_svd_is_no_worse_than_random_factors(rng):
    w_OI = random_matrix(rng)
    chosen = in_a_model(w_OI, LowRank(rank=5))
    directions = np.linalg.qr(rng.standard_normal((40, 5)))[0].T.astype(np.float32)  # project on 5 random directions
    laws.check_no_worse(chosen, Product(Dense(w_OI @ directions.T), Dense(directions)), w_OI)


def test_a_worse_choice_is_caught(rng):
    w_OI = random_matrix(rng)
    good, bad = Dense(w_OI), Dense(w_OI + np.float32(1))
    with pytest.raises(AssertionError, match="trivial choice is better"):
        laws.check_no_worse(bad, good, w_OI)
    with pytest.raises(AssertionError, match="trivial choice is better"):
        laws.check_no_worse(Dense(w_OI * np.float32(np.nan)), good, w_OI)
