"""The laws of compression methods, for every row of the table."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from minislm import models
from minislm.compression import METHODS, load_method
from minislm.compression.low_rank import LowRank
from minislm.compression.narrow import Narrow
from minislm.compression.prune import Prune
from minislm.compression.quantize import Quantize
from minislm.compression.scales import SHARES, least_squares
from minislm.models.decoder import Decoder, DecoderConfig
from minislm.models.fields import Fields
from minislm.ops.formats import FORMATS
from minislm.testing import methods as laws
from minislm.testing.examples import sample_data
from minislm.weights.dense import Dense
from minislm.weights.product import Product
from minislm.weights.sparse import Sparse
from tests.unit.published_files import MARKS, PUBLISHED, small
from tests.unit.small_models import FAMILIES, small_model

SIZES = {"d_model": 12, "context": 9, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "d_ff": 21}
CASES = [(name, number) for name in METHODS for number in range(len(laws.SAMPLES[name]))]
EVERY = pytest.mark.parametrize(("name", "number"), CASES, ids=[f"{name}-{number}" for name, number in CASES])
WHOLE = ("distil", "train")  # act on the model as a whole
OF_EACH_FAMILY = {  # one of distillation, of pruning (unstructured and structured), of quantization, of low rank
    "distil": 0,
    "prune": 2,
    "narrow": 0,
    "quantize": 1,
    "low_rank": 2,
}
ARCHITECTURES = {values["model_type"]: name for name, values in reversed(PUBLISHED.items())}


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


def test_every_architecture_has_a_published_file():
    assert set(models.PUBLISHED) == set(ARCHITECTURES)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def published(request):
    """A tiny model of what a published config.json says, of its last two blocks: Gemma's differ."""
    how = models.published(request.param)
    config = how.read(Fields(small(PUBLISHED[ARCHITECTURES[request.param]])), MARKS.get(request.param, ()))
    model_class = models.model_class(how.family)[0]
    stacks = {stack.sizes: getattr(config, stack.sizes)[-2:] for stack in model_class.stacks}
    return model_class.create(dataclasses.replace(config, **stacks), seed=1)


@pytest.mark.parametrize("name", OF_EACH_FAMILY)
def test_every_architecture_is_compressed_by_each_family(name, published, tmp_path):
    method, where = sample(name, OF_EACH_FAMILY[name])
    small = laws.check_source_unchanged(method, published, sample_data(published), where)
    assert laws.digest(small) != laws.digest(published), "nothing was done"
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


@pytest.mark.parametrize("storage", FORMATS.values(), ids=str)
def test_scales_of_least_squares_are_no_worse_in_any_group(storage, rng):
    w_OI = random_matrix(rng)
    errors = {}
    for name, (scales, zeros) in {"max": storage.fit(w_OI), "mse": least_squares(storage, w_OI)}.items():
        squares = np.square(storage.decode(storage.round(w_OI, scales, zeros), scales, zeros) - w_OI)
        errors[name] = np.add.reduceat(squares, np.arange(0, 40, storage.group or 40), axis=1)
    assert (errors["mse"] <= errors["max"]).all()
    assert storage.bits > 5 or errors["mse"].sum() < errors["max"].sum()


def test_scales_of_least_squares_are_the_best_of_those_that_are_tried(rng):
    w_OI, storage = random_matrix(rng), FORMATS["int3-32"]
    widest = storage.fit(w_OI)[0].astype(np.float32)
    tried = [storage.stored(share * widest) for share in (1.0, *SHARES)]
    starts = np.arange(0, 40, 32)
    errors = [
        np.add.reduceat(np.square(storage.decode(storage.round(w_OI, s, None), s, None) - w_OI), starts, axis=1)
        for s in tried
    ]
    expected = np.take_along_axis(np.array(tried), np.argmin(errors, axis=0)[None], 0)[0]
    np.testing.assert_array_equal(least_squares(storage, w_OI)[0], expected)


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
