"""What is particular to each method: oracles, schedules, storage, and options that contradict each other."""

from __future__ import annotations

import numpy as np
import pytest

from minislm.compression import load_method
from minislm.compression.distil import Distil
from minislm.compression.factorise import Factorise
from minislm.compression.finetune import Train
from minislm.compression.lora import Lora
from minislm.compression.low_rank import LowRank, energy_rank, factorised
from minislm.compression.parts import chosen
from minislm.compression.prune import Prune
from minislm.compression.qat import QuantizationAware
from minislm.compression.quantize import Quantize
from minislm.compression.sparsity import cubic, keep_largest, keep_share
from minislm.errors import DataError, MinislmError, UnsupportedError, UsageError
from minislm.models.decoder import Decoder, DecoderConfig
from minislm.testing import methods as laws
from minislm.testing.examples import sample_data
from minislm.training.settings import TrainSettings
from minislm.weights.dense import Dense

SIZES = {"vocab_size": 23, "d_model": 16, "context": 8, "n_layers": 4, "n_heads": 2, "d_ff": 20}
SHORT = TrainSettings(steps=3, batch_size=2)
UP = "blocks.0.mlp.up.weight"


@pytest.fixture(scope="module")
def model():
    return Decoder.create(DecoderConfig.uniform(**SIZES), seed=1)


@pytest.fixture(scope="module")
def data(model):
    return sample_data(model)


# ---- names and options


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: load_method("quantise"), "unknown_method"),
        (lambda: Quantize("int9"), "unknown_format"),
        (lambda: Quantize("int8", activations="int4"), "unknown_activations"),
        (lambda: Quantize.from_json({"bits": 4}), "unknown_option"),
        (lambda: QuantizationAware("uint4"), "asymmetric_training"),
        (lambda: QuantizationAware(lsq=1), "bad_option"),
        (lambda: Prune(), "contradicting_options"),
        (lambda: Prune(sparsity=0.5, pattern="2:4"), "contradicting_options"),
        (lambda: Prune(pattern="2:4", scope="global"), "contradicting_options"),
        (lambda: Prune(pattern="2:4", storage="csr"), "contradicting_options"),
        (lambda: Prune(pattern="2:4", schedule="cubic", training=SHORT), "contradicting_options"),
        (lambda: Prune(sparsity=0.5, schedule="cubic"), "contradicting_options"),
        (lambda: Prune(sparsity=1.0), "bad_option"),
        (lambda: Prune(sparsity=float("nan")), "bad_option"),
        (lambda: Prune(pattern="4:2"), "bad_option"),
        (lambda: Prune(pattern="0:4"), "bad_option"),
        (lambda: Prune(pattern="two of four"), "bad_option"),
        (lambda: Prune(sparsity=0.5, scope="layer"), "bad_option"),
        (lambda: Prune(sparsity=0.5, schedule="linear"), "bad_option"),
        (lambda: Prune(sparsity=0.5, storage="coo"), "bad_option"),
        (lambda: Prune(sparsity=0.5, every=0), "bad_option"),
        (lambda: Prune(sparsity=0.5, ramp=0.0), "bad_option"),
        (lambda: LowRank(), "contradicting_options"),
        (lambda: LowRank(rank=2, energy=0.5), "contradicting_options"),
        (lambda: LowRank(rank=0), "bad_option"),
        (lambda: LowRank(energy=0.0), "bad_option"),
        (lambda: LowRank(size=1.5), "bad_option"),
        (lambda: Factorise(SHORT), "contradicting_options"),
        (lambda: Factorise("quick", rank=2), "bad_option"),
        (lambda: Lora(SHORT, rank=0), "bad_option"),
        (lambda: Lora(SHORT, alpha=-1.0), "bad_option"),
        (lambda: Distil(SHORT, student="half"), "bad_option"),
        (lambda: Distil(SHORT, student="scratch"), "contradicting_options"),
        (lambda: Distil(SHORT, sizes={"n_layers": 1}), "contradicting_options"),
        (lambda: Distil(SHORT, student="scratch", sizes={"layers": 1}), "bad_option"),
        (lambda: Distil(SHORT, student="scratch", sizes={"n_layers": 1.5}), "bad_option"),
        (lambda: Distil(SHORT, temperature=0.0), "bad_option"),
        (lambda: Distil(SHORT, hard_weight=1.5), "bad_option"),
        (lambda: Train.from_json({"training": {"steps": 0}}), "config_invalid"),
    ],
)
def test_bad_options_are_refused_when_the_method_is_made(make, code):
    with pytest.raises(MinislmError) as caught:
        make()
    assert caught.value.code == code


def test_a_pattern_that_matches_nothing_is_refused(model):
    with pytest.raises(UsageError) as caught:
        Quantize().run(model, where="blocks.*, heads.*")
    assert caught.value.code == "pattern_matches_nothing"
    assert "'heads.*'" in str(caught.value)
    assert "embedding.weight" in str(caught.value)


def test_patterns_choose_in_the_models_order(model):
    assert list(chosen(model, "blocks.0.mlp.*,embedding.weight")) == [
        "embedding.weight",
        "blocks.0.mlp.up.weight",
        "blocks.0.mlp.down.weight",
    ]


@pytest.mark.parametrize("method", [Distil(SHORT), Train(SHORT)], ids=repr)
def test_a_method_of_the_whole_model_takes_no_pattern(method, model, data):
    with pytest.raises(UsageError, match="whole model"):
        method.run(model, data, where="blocks.*")


@pytest.mark.parametrize("name", ["distil", "factorise", "lora", "quantization_aware", "train"])
def test_training_without_data_is_refused(name, model):
    method = load_method(name).from_json(laws.SAMPLES[name][0])
    with pytest.raises(UsageError) as caught:
        method.run(model)
    assert caught.value.code == "data_missing"
    assert name in str(caught.value)


@pytest.mark.parametrize(
    "method", [Quantize("int4"), Prune(sparsity=0.5), LowRank(rank=2), QuantizationAware()], ids=repr
)
def test_storage_that_a_method_cannot_work_on_is_named(method, model, data):
    rounded = Quantize("int8").run(model, where=UP)
    with pytest.raises(UnsupportedError) as caught:
        method.run(rounded, data, where=UP)
    assert caught.value.code == "unsupported_storage"
    assert UP in str(caught.value)
    assert "quantized" in str(caught.value)


@pytest.mark.parametrize(
    "method", [Quantize("int4"), Prune(sparsity=0.5), LowRank(rank=2), QuantizationAware()], ids=repr
)
def test_numbers_that_are_not_finite_are_named(method, model, data):
    broken = model.weights()[UP].dense().copy()
    broken[3, 1] = np.nan
    with pytest.raises(DataError) as caught:
        method.run(model.replaced({UP: Dense(broken)}), data, where="blocks.*.weight")
    assert caught.value.code == "non_finite_weight"
    assert UP in str(caught.value)


# ---- pruning


def test_cubic_schedule_values():
    assert [round(cubic(step, 4, 0.8), 6) for step in range(6)] == [0.0, 0.4625, 0.7, 0.7875, 0.8, 0.8]


def test_a_share_is_exact_even_among_equals():
    matrix = np.array([[1.0, 1.0, 1.0], [1.0, 2.0, 0.5]])
    (mask,) = keep_share([matrix], 0.5)
    assert mask.tolist() == [[False, False, True], [True, True, False]]
    (nothing,) = keep_share([matrix], 0.0)
    assert nothing.all()


def test_a_global_share_is_ranked_over_all_matrices():
    small, large = np.full((2, 2), 0.1), np.full((3, 2), 5.0)
    masks = keep_share([small, large], 0.4)
    assert not masks[0].any()
    assert masks[1].all()


@pytest.mark.parametrize("n_inputs", [1, 3, 4, 5, 8, 13])
@pytest.mark.parametrize("pattern", ["2:4", "1:4", "3:8", "1:2"])
def test_n_of_m_keeps_the_n_largest_of_each_group(pattern, n_inputs, rng):
    n, m = map(int, pattern.split(":"))
    matrix = rng.standard_normal((5, n_inputs))
    mask = keep_largest(matrix, pattern)
    for row, kept in zip(matrix, mask, strict=True):
        for start in range(0, n_inputs, m):
            group, chosen_here = np.abs(row[start : start + m]), kept[start : start + m]
            assert chosen_here.sum() == min(n, len(group))
            if not chosen_here.all():
                assert group[chosen_here].min() >= group[~chosen_here].max()


def test_2_4_after_training_has_2_of_4(model, data):
    small = Prune(pattern="2:4", training=SHORT).run(model, data, where="blocks.*")
    for path, weight in small.weights().items():
        if path.startswith("blocks."):
            assert (np.count_nonzero(weight.dense().reshape(-1, 4), axis=1) == 2).all()
            assert weight.spec()["pattern"] == "2:4"
            assert 17 <= weight.bits_per_weight < 17.3  # half of 32, and 2 bits for each place


@pytest.mark.parametrize("options", [{}, {"training": SHORT}, {"scope": "global"}, {"storage": "csr"}])
def test_half_of_the_weights_are_zero(options, model, data):
    small = Prune(sparsity=0.5, **options).run(model, data, where="blocks.*")
    matrices = [weight.dense() for path, weight in small.weights().items() if path.startswith("blocks.")]
    shares = [np.mean(matrix == 0) for matrix in matrices]
    if options.get("scope") == "global":
        assert sum(np.count_nonzero(matrix) for matrix in matrices) == sum(matrix.size for matrix in matrices) // 2
        assert len(set(shares)) > 1
    else:
        assert shares == [0.5] * len(shares)


def test_without_training_what_is_kept_is_untouched(model):
    before = model.weights()[UP].dense()
    after = Prune(sparsity=0.25).run(model, where=UP).weights()[UP].dense()
    assert np.array_equal(after[after != 0], before[after != 0])


def test_the_gradual_schedule_prunes_more_and_more(model, data):
    settings = TrainSettings(steps=12, batch_size=2)
    method = Prune(sparsity=0.5, schedule="cubic", ramp=0.5, every=2, training=settings)
    further = method.rewrite((UP,))
    zeros, masked = [], method.pruned(model, (UP,), 0.0)
    for step in range(1, 13):
        new = further(step, masked)
        if new is not None:
            before = masked.weights()[UP].kept
            masked = masked.replaced(new)
            after = masked.weights()[UP].kept
            assert not (after & ~before).any(), "a weight came back"
            zeros.append((step - 1, round(1 - after.mean(), 3)))
    assert zeros == [(0, 0.0), (2, 0.353), (4, 0.481), (6, 0.5)]
    small = method.run(model, data, where=UP)
    assert np.mean(small.weights()[UP].dense() == 0) == 0.5


@pytest.mark.parametrize(("ramp", "every"), [(1.0, 5), (0.9, 100)])
def test_a_schedule_cut_short_still_ends_at_its_sparsity(ramp, every, model, data):
    settings = TrainSettings(steps=6, batch_size=2)
    method = Prune(sparsity=0.5, schedule="cubic", ramp=ramp, every=every, training=settings)
    assert np.mean(method.run(model, data, where=UP).weights()[UP].dense() == 0) == 0.5


def test_training_a_sparse_model_further_keeps_zeros_and_storage(model, data):
    sparse = Prune(pattern="2:4").run(model, where="blocks.*.mlp.*")
    for method in (Train(SHORT), Distil(SHORT, student="itself")):
        further = method.run(sparse, data, original=model)
        assert further.specs() == sparse.specs()
        before, after = sparse.weights()[UP].dense(), further.weights()[UP].dense()
        assert np.array_equal(before == 0, after == 0)
        assert (before != after).any()


def test_pruned_values_can_be_quantized(model):
    sparse = Prune(pattern="2:4").run(model, where="blocks.*")
    small = Quantize("int4").run(sparse, where="blocks.*")
    weight = small.weights()[UP]
    assert weight.spec()["values"]["format"] == "int4"
    assert weight.nbytes == 20 * (4 + 4 + 2)  # of each row: 8 codes, a scale, 8 places
    exact = sparse.weights()[UP].dense()
    assert not weight.dense()[exact == 0].any()
    assert np.linalg.norm(weight.dense() - exact) < 0.15 * np.linalg.norm(exact)
    with pytest.raises(UsageError, match="float activations"):
        Quantize("int4-32", activations="int8-32").run(sparse, where="blocks.*")


# ---- low rank


def test_svd_error_is_the_energy_left_out(rng):
    w_OI = rng.standard_normal((30, 20)) @ np.diag(0.8 ** np.arange(20))
    values = np.linalg.svd(w_OI, compute_uv=False)
    for energy in (0.5, 0.9, 0.99):
        rank = energy_rank(values, energy)
        kept = (values[:rank] ** 2).sum() / (values**2).sum()
        assert kept >= energy > (values[: rank - 1] ** 2).sum() / (values**2).sum()
        product = factorised(w_OI, energy=energy)
        assert product.left.shape == (30, rank)
        error = np.linalg.norm(product.dense() - w_OI) ** 2 / np.linalg.norm(w_OI) ** 2
        assert error == pytest.approx(1 - kept, rel=1e-9)


def test_both_factors_have_the_same_scale(rng):
    product = factorised(rng.standard_normal((30, 20)), rank=4)
    left, right = product.left.dense(), product.right.dense()
    assert np.linalg.norm(left, axis=0) == pytest.approx(np.linalg.norm(right, axis=1))


def test_a_size_is_kept_and_used_up(rng):
    w_OI = rng.standard_normal((64, 48))
    product = factorised(w_OI, size=0.5)
    n_parameters = product.left.dense().size + product.right.dense().size
    assert 0.5 * w_OI.size - (64 + 48) < n_parameters <= 0.5 * w_OI.size


def test_a_matrix_is_left_alone_where_factors_would_not_be_smaller(model):
    small = LowRank(rank=7).run(model, where="blocks.0.*")
    weights = small.weights()
    assert weights["blocks.0.mlp.up.weight"].spec()["type"] == "product"  # 7 (16 + 20) < 16 * 20
    rank_8 = LowRank(rank=8).run(model, where="blocks.0.*").weights()
    assert rank_8["blocks.0.attention.query.weight"] is model.weights()["blocks.0.attention.query.weight"]


def test_factorised_models_begin_with_the_largest_singular_values_of_a_full_one(model, data):
    barely = TrainSettings(steps=1, batch_size=1, learning_rate=1e-12)
    fresh = Decoder.create(model.config, seed=5).weights()[UP].dense()
    small = Factorise(barely, rank=3, seed=5).run(model, data, where=UP).weights()[UP]
    full = np.linalg.svd(fresh.astype(float), compute_uv=False)
    assert np.linalg.svd(small.dense().astype(float), compute_uv=False)[:3] == pytest.approx(full[:3], rel=1e-5)


@pytest.mark.parametrize("merge", [False, True])
def test_lora_trains_its_updates_alone(merge, model, data):
    small = Lora(SHORT, rank=2, merge=merge).run(model, data, where="blocks.*.query.weight")
    before, after = model.arrays(), small.arrays()
    paths = [f"blocks.{i}.attention.query.weight" for i in range(4)]
    assert all(
        after[name] is before[name] or np.array_equal(after[name], before[name])
        for name in before
        if name not in paths and name in after
    )
    for path in paths:
        weight, base = small.weights()[path], model.weights()[path].dense()
        assert isinstance(weight, Dense) is merge
        update = weight.dense() - base
        assert np.linalg.norm(update) > 0
        assert np.linalg.matrix_rank(update, tol=1e-5 * np.linalg.norm(update)) <= 2
        if not merge:
            assert np.array_equal(weight.a.dense(), base)


def test_lora_begins_at_the_weight_itself(model, data):
    barely = TrainSettings(steps=1, batch_size=1, learning_rate=1e-9)
    small = Lora(barely, rank=2, alpha=1.0).run(model, data, where=UP).weights()[UP]
    assert np.abs(small.dense() - model.weights()[UP].dense()).max() < 1e-8
    a_RI = small.b.right.dense()
    assert np.std(a_RI) == pytest.approx(0.5 / 4, rel=0.5)  # alpha / (rank sqrt(I)), of 32 numbers


def test_lora_beside_quantized_weights_is_kept_and_not_merged(model, data):
    rounded = Quantize("int4").run(model, where=UP)
    small = Lora(SHORT, rank=2).run(rounded, data, where=UP)
    assert np.array_equal(small.weights()[UP].a.codes, rounded.weights()[UP].codes)
    with pytest.raises(UsageError, match="leave merge out"):
        Lora(SHORT, rank=2, merge=True).run(rounded, data, where=UP)


# ---- quantization


@pytest.mark.parametrize("format_name", ["int2", "int3", "int4-32", "int8", "nf4-32", "ternary"])
@pytest.mark.parametrize("lsq", [True, False])
def test_what_training_simulated_is_what_is_stored(format_name, lsq, model, data):
    method = QuantizationAware(format_name, training=SHORT, lsq=lsq)
    paths = tuple(chosen(model, "blocks.*"))
    simulated = method.simulated(model, paths)
    moved = Train(SHORT).run(simulated, data)
    laws.check_simulation_is_real(moved, method.stored(moved, paths))
    with pytest.raises(AssertionError, match="differ from what was simulated"):
        laws.check_simulation_is_real(moved, Quantize(format_name).run(model, where="blocks.*"))


def test_scales_are_learned_or_stay(model, data):
    paths = (UP,)
    for name, lsq, learned in (
        *(("int3", True, True), ("int3", False, False), ("nf4-32", True, True)),
        *(("ternary", None, True), ("nf4-32", None, False)),
    ):
        method = QuantizationAware(name, training=SHORT, lsq=lsq)
        start = method.simulated(model, paths).weights()[UP].scales
        end = method.run(model, data, where=UP).weights()[UP].scales
        assert np.array_equal(start, end) is not learned


def test_int8_activations_are_stored(model):
    small = Quantize("int8", activations="int8-row").run(model, where=UP)
    assert small.specs()[UP]["activations"] == "int8-row"


def test_both_factors_of_a_product_are_quantized(model):
    small = Quantize("int8").run(LowRank(rank=3).run(model, where=UP), where=UP)
    assert [small.specs()[UP][side]["type"] for side in ("left", "right")] == ["quantized", "quantized"]


# ---- interruption


def test_an_interrupted_method_goes_on_where_it_stopped(model, data, tmp_path):
    settings = TrainSettings(steps=6, batch_size=2, checkpoint_every=2)
    method = Prune(sparsity=0.5, schedule="cubic", every=1, training=settings)

    def stop(record):
        if record.step == 5:
            raise RuntimeError("power cut")

    whole = method.run(model, data, where="blocks.*")
    with pytest.raises(RuntimeError):
        method.run(model, data, where="blocks.*", directory=tmp_path, report=stop)
    resumed = []
    again = method.run(
        model, data, where="blocks.*", directory=tmp_path, report=lambda record: resumed.append(record.step)
    )
    assert resumed == [5, 6]
    assert laws.digest(again) == laws.digest(whole)


def test_lora_leaves_sparse_values_alone(model, data):
    sparse = Prune(pattern="2:4").run(model, where="blocks.*")
    small = Lora(SHORT, rank=2).run(sparse, data, where=UP)
    assert small.weights()[UP].b.left.dense().any()
    for name, array in sparse.arrays().items():
        after = small.arrays()
        assert np.array_equal(after.get(name, after.get(name.replace(UP, f"{UP}.a"))), array)
