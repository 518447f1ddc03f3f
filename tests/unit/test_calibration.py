"""Scales of static activations: the three calibrations, hostile activations, and where a scale belongs."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import small_model

from minislm.compression.calibration import CALIBRATIONS, Magnitudes
from minislm.compression.lora import Lora
from minislm.compression.low_rank import LowRank
from minislm.compression.qat import QuantizationAware
from minislm.compression.quantize import Quantize
from minislm.errors import DataError, MinislmError, ModelFileError, UsageError
from minislm.inference.program import Program
from minislm.layers.base import Tape
from minislm.models.decoder import Decoder, DecoderConfig
from minislm.ops.quantized import quantize_activations, quantized_product_int8
from minislm.testing.examples import sample_data
from minislm.testing.models import new_cache
from minislm.testing.programs import check_program_equals_forward
from minislm.training.settings import TrainSettings
from minislm.weights import build
from minislm.weights.dense import Dense
from minislm.weights.quantized import Quantized

STATIC = {"activations": "static", "calibration": "minmax"}
UP = "blocks.0.mlp.up.weight"


@pytest.fixture(scope="module")
def model():
    sizes = {"vocab_size": 23, "d_model": 16, "context": 8, "n_layers": 2, "n_heads": 2, "d_ff": 20}
    return Decoder.create(DecoderConfig.uniform(**sizes), seed=1)


@pytest.fixture(scope="module")
def data(model):
    return sample_data(model)


def counted(*arrays):
    magnitudes = Magnitudes("x")
    for array in arrays:
        magnitudes.add(np.asarray(array, np.float32))
    return magnitudes


def error(x, scale):
    """What rounding with this scale costs these very numbers."""
    codes, _ = quantize_activations(np.float32(x)[None], group=0, scale=float(scale[0]))
    return np.square(codes[0].astype(np.float64) * scale[0] - np.float32(x)).sum()


SHAPES = {
    "normal": lambda rng: rng.normal(size=9000),
    "heavy tails": lambda rng: rng.standard_t(2.5, 9000),
    "outliers": lambda rng: np.r_[rng.normal(size=9000), 1000.0, -900.0],
    "one among many": lambda rng: np.r_[rng.normal(size=200_000), 8.0],
    "even": lambda rng: rng.uniform(-3, 3, 9000),
    "mostly zero": lambda rng: rng.normal(size=9000) * (rng.random(9000) < 1e-3),
    "one value": lambda rng: np.full(50, 1.0),
    "two values": lambda rng: np.r_[np.full(500, 0.7), np.full(20, -2.0)],
    "tiny": lambda rng: 1e-30 * rng.normal(size=9000),
    "huge": lambda rng: 1e37 * rng.normal(size=9000),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_least_squared_error_is_no_worse_than_the_other_calibrations(shape, rng):
    x = SHAPES[shape](rng)
    magnitudes = counted(x)
    errors = {name: error(x, magnitudes.scale(name)) for name in CALIBRATIONS}
    assert errors["mse"] <= 1.02 * min(errors.values()) + 1e-70
    assert magnitudes.error(127 * float(magnitudes.scale("mse")[0])) <= 1.001 * magnitudes.error(magnitudes.largest)
    if shape == "one among many":
        assert errors["mse"] < 0.6 * errors["minmax"]
    if shape not in ("one value", "two values", "mostly zero"):  # spread over many bins, as the estimate assumes
        for name in CALIBRATIONS:
            scale = magnitudes.scale(name)
            assert magnitudes.error(127.0 * float(scale[0])) == pytest.approx(errors[name], rel=0.1)


def test_the_least_squared_error_is_that_of_a_search_over_all_scales(rng):
    x = rng.standard_t(3, 4000)
    best = min(error(x, [np.float32(reach / 127)]) for reach in np.geomspace(0.05, 1.0, 300) * np.abs(x).max())
    assert error(x, counted(x).scale("mse")) < 1.02 * best


def test_nothing_that_occurred_is_clipped_by_minmax(rng):
    x = rng.normal(size=500).astype(np.float32)
    assert counted(x).scale("minmax") == np.float32(np.abs(x).max() / 127)
    codes, _ = quantize_activations(x[None], group=0, scale=float(counted(x).scale("minmax")[0]))
    assert np.abs(codes.astype(int)).max() == 127


@pytest.mark.parametrize("percentile", [50.0, 90.0, 99.0, 99.9, 100.0])
def test_a_percentile_clips_its_share_of_what_is_not_zero(percentile, rng):
    x = np.r_[rng.normal(size=20_000), np.zeros(50_000)]
    reach = 127 * float(counted(x).scale("percentile", percentile)[0])
    kept = np.mean(np.abs(x[x != 0]) <= reach * (1 + 1e-6))
    assert percentile / 100 <= kept <= percentile / 100 + 0.01
    assert reach <= np.abs(x).max() * (1 + 1e-6)


def test_neither_order_nor_batches_change_a_scale(rng):
    x = rng.standard_t(3, 3000)
    parts = np.split(rng.permutation(x), [1, 700, 701, 2000])
    for name in CALIBRATIONS:
        assert counted(x).scale(name) == counted(*parts).scale(name)


@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_nothing_but_zeros_has_scale_zero(calibration):
    assert counted(np.zeros(7), [-0.0]).scale(calibration) == 0.0


@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf])
def test_activations_that_are_not_finite_are_refused_by_name(strange, model, data):
    table = model.weights()["embedding.weight"].dense().copy()
    table[:, 3] = strange
    broken = model.replaced({"embedding.weight": Dense(table)})
    with np.errstate(all="ignore"), pytest.raises(DataError, match=r"blocks\.1\.mlp\.up\.weight") as caught:
        Quantize("int8", **STATIC).run(broken, data, where="blocks.1.mlp.up.weight")
    assert caught.value.code == "non_finite_activation"


# ---- products


@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf])
def test_a_strange_activation_spoils_its_row_and_is_not_clipped_away(strange, rng):
    x = rng.normal(size=(3, 70)).astype(np.float32)
    x[1, 40] = strange
    weight = Quantized.nearest(rng.normal(size=(4, 70)).astype(np.float32), "int8", "static", np.float32([0.02]))
    y = weight.apply(x)
    assert np.isnan(y[1]).all()
    assert np.isfinite(y[[0, 2]]).all()


def test_what_lies_beyond_the_scale_is_clipped():
    x = np.array([[1.0, -5.0, 3e38, 0.001]], np.float32)
    codes, scales = quantize_activations(x, group=0, scale=0.01)
    assert codes.tolist() == [[100, -127, 127, 0]]
    assert scales.tolist() == [[np.float32(0.01)]]
    ties = np.array([[0.5, 1.5, 2.5, -0.5, -1.5]], np.float32)
    assert quantize_activations(ties, group=0, scale=1.0)[0].tolist() == [[0, 2, 2, 0, -2]]


@pytest.mark.parametrize("scale", [0.0, 1e-44, 1e-38])
def test_a_scale_that_counts_as_zero_makes_zeros(scale):
    codes, scales = quantize_activations(np.float32([[1.0, -3e38]]), group=0, scale=scale)
    assert not codes.any()
    assert scales.tolist() == [[0.0]]


def test_a_scale_belongs_to_static_activations_alone(rng):
    w = rng.normal(size=(2, 3)).astype(np.float32)
    scale = np.array([0.1], np.float32)
    static = Quantized.nearest(w, "int8", "static", scale)
    for activations, given in (("static", None), ("int8-row", scale), ("float", scale)):
        with pytest.raises(UsageError) as caught:
            Quantized.nearest(w, "int8", activations, given)
        assert caught.value.code == "bad_activation_scale"
        if activations != "float":
            options = {"activations": activations, "activation_scale": None if given is None else 0.1}
            with pytest.raises(UsageError) as caught:
                quantized_product_int8(w, *static.stored, format=static.format, **options)
            assert caught.value.code == "bad_activation_scale"
    for wrong in (-0.1, np.nan, np.inf):
        with pytest.raises(ModelFileError) as caught:
            build(static.spec(), {**static.arrays(), "activation_scale": np.float32([wrong])})
        assert caught.value.code == "bad_activation_scale"


# ---- methods


@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_every_product_has_the_scale_of_what_enters_it(calibration, model, data):
    method = Quantize("int8", activations="static", calibration=calibration, samples=3)
    small = method.run(model, data)
    for path, weight in small.weights().items():
        if path == "positions.weight":  # only looked up
            assert (weight.activations, weight.activation_scale) == ("float", None)
            continue
        magnitudes = Magnitudes(path)
        name = "embedding.logits" if path == "embedding.weight" else path.removesuffix(".weight")
        for batch in data.train.evaluation(1, 3):
            tape = Tape([name])
            model.forward(batch.ids_BT, batch.context(), tape)
            magnitudes.add(tape.seen[name])
        assert weight.activation_scale.tobytes() == magnitudes.scale(calibration).tobytes(), path


@pytest.mark.parametrize("family", ["encoder", "transformer"])
def test_padding_is_not_among_the_activations(family):
    model = small_model(family, dtype=np.float64)
    data = sample_data(model)
    small = Quantize("int8", activations="static", calibration="percentile", percentile=80.0, samples=9).run(
        model, data
    )
    for path in (path for path in model.weights() if path.endswith("blocks.1.mlp.down.weight")):
        layer, magnitudes = path.removesuffix(".weight"), Magnitudes(path)
        tape, batch = Tape([layer]), next(data.train.evaluation(9))
        model.forward(batch.ids_BT, batch.context(), tape)
        lengths_B = batch.source_lengths_B if layer.startswith("encoder") else batch.lengths_B
        valid_BT = np.arange(lengths_B.max()) < lengths_B[:, None]
        assert not valid_BT.all()
        magnitudes.add(tape.seen[layer][valid_BT.ravel()])
        assert small.weights()[path].activation_scale == magnitudes.scale("percentile", 80.0)


def test_a_model_with_static_activations_runs_as_a_program(model, data):
    small = Quantize("int8", **STATIC).run(model, data)
    ids = next(data.train.evaluation(2)).ids_BT
    exact, rounded = model.forward(ids), small.forward(ids)
    assert 0 < np.linalg.norm(rounded - exact) < 0.05 * np.linalg.norm(exact)
    check_program_equals_forward(small, bound=1e-3)  # one rounding may flip a code
    program = Program.of(small)
    logits = program.run(ids[0], np.array([0]), np.array([8]), new_cache(small, 1, 8), every=True)
    assert np.abs(logits - rounded[0]).max() < 1e-3 * np.abs(rounded).max()
    assert sum(step.op in ("panel_product", "quantized_product_int8") for step in program.steps) == 13
    options = [step.options for step in program.steps if step.op in ("round_activations", "quantized_product_int8")]
    assert len(options) in (9, 13)  # products of one input share its rounding, where they are in panels
    assert all(some.get("scale", some.get("activation_scale")) > 0 for some in options)


def test_both_factors_have_scales_of_their_own(model, data):
    thin = LowRank(rank=3).run(model, where=UP)
    weight = Quantize("int8", **STATIC).run(thin, data, where=UP).weights()[UP]
    assert weight.left.activation_scale != weight.right.activation_scale
    tape = Tape(["blocks.0.mlp.up"])
    inner = Magnitudes("x")
    for batch in data.train.evaluation(64, 1):
        thin.forward(batch.ids_BT, batch.context(), tape)
        inner.add(thin.weights()[UP].right.apply(tape.seen["blocks.0.mlp.up"]))
    assert weight.left.activation_scale == pytest.approx(inner.scale("minmax"), rel=1e-5)


def test_scales_are_found_after_training_for_quantization(model, data):
    method = QuantizationAware("int4-32", training=TrainSettings(steps=3, batch_size=2), **STATIC)
    small = method.run(model, data, where="blocks.*")
    assert all(small.weights()[path].activation_scale > 0 for path in small.weights() if path.startswith("blocks."))
    plain = QuantizationAware("int4-32", training=method.training).run(model, data, where="blocks.*")
    for path, weight in plain.weights().items():
        assert np.array_equal(small.weights()[path].dense(), weight.dense()), "calibration changed a weight"


def test_lora_stands_on_static_activations(model, data):
    small = Quantize("int8", **STATIC).run(model, data, where="blocks.*")
    taught = Lora(TrainSettings(steps=2, batch_size=2), rank=1).run(small, data, where="blocks.*.query.weight")
    assert taught.weights()["blocks.0.attention.query.weight"].a.activations == "static"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"activations": "static"}, "contradicting_options"),
        ({"calibration": "mse"}, "contradicting_options"),
        ({"activations": "int8-row", "calibration": "mse"}, "contradicting_options"),
        ({"activations": "static", "calibration": "entropy"}, "bad_option"),
        ({**STATIC, "calibration": "percentile", "percentile": 49.0}, "bad_option"),
        ({**STATIC, "calibration": "percentile", "percentile": float("nan")}, "bad_option"),
        ({**STATIC, "percentile": 99.0}, "contradicting_options"),
        ({"samples": 9}, "contradicting_options"),
        ({**STATIC, "samples": 0}, "bad_option"),
    ],
)
@pytest.mark.parametrize("method", [Quantize, QuantizationAware])
def test_options_that_make_no_sense_are_refused(method, options, code):
    with pytest.raises(MinislmError) as caught:
        method(**{"format": "int8", **options})
    assert caught.value.code == code


def test_calibration_without_data_is_refused(model):
    method = Quantize("int8", **STATIC)
    assert method.needs_data
    assert not Quantize("int8").needs_data
    with pytest.raises(UsageError) as caught:
        method.run(model)
    assert caught.value.code == "data_missing"
