"""Heads and neurons removed: what is judged, what goes, and that the rest computes what it did."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import FAMILIES, small_model

from minislm.compression.distil import Distil
from minislm.compression.finetune import Train
from minislm.compression.importance import unit_importance
from minislm.compression.narrow import Narrow, most_important
from minislm.compression.prune import Prune
from minislm.compression.quantize import Quantize
from minislm.compression.units import unit_groups, without_units
from minislm.errors import MinislmError, UnsupportedError, UsageError
from minislm.layers.base import Grads, Tape
from minislm.testing import methods as laws
from minislm.testing.examples import sample_data
from minislm.testing.programs import check_program_equals_forward
from minislm.training.settings import TrainSettings
from minislm.weights.dense import Dense

KINDS = ("heads", "ff")


def outputs(model, batch):
    said = model.forward(batch.ids_BT, batch.context())
    return said if isinstance(said, dict) else {"": said}


def loss(model, data, batch):
    return data.objective.loss(model, batch, batch.context(), Tape(), Grads())[0]


def scaled(model, coupling, unit, factor):
    """The model with the outputs of one unit multiplied before they are read."""
    parts = {}
    for linear in coupling.consumers:
        w_OI = model.weights()[f"{linear}.weight"].dense().copy()
        w_OI.reshape(len(w_OI), coupling.n_units, -1)[:, unit] *= factor
        parts[f"{linear}.weight"] = Dense(w_OI)
    return model.replaced(parts)


@pytest.mark.parametrize("family", FAMILIES)
def test_importance_is_the_size_of_the_gates_gradient(family):
    model = small_model(family, dtype=np.float64, n_layers=1)
    data = sample_data(model)
    couplings = list(model.couplings())
    importance = unit_importance(model, data, couplings, 3)
    batches = list(data.train.evaluation(1, 3))
    for coupling in couplings:
        for unit in (0, coupling.n_units - 1):
            ends = [scaled(model, coupling, unit, 1 + way * 1e-4) for way in (1, -1)]
            slopes = [(loss(ends[0], data, batch) - loss(ends[1], data, batch)) / 2e-4 for batch in batches]
            assert importance[coupling.path][unit] == pytest.approx(np.mean(np.abs(slopes)), rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_left_computes_what_the_whole_did_without_the_rest(family, kv_heads, rng):
    model = small_model(family, n_kv_heads=kv_heads)
    groups = unit_groups(model)
    kept, without = {}, model
    for group in groups:
        count = int(rng.integers(1, group.n_units + 1))
        for coupling in group.couplings:
            kept[coupling.path] = np.sort(rng.permutation(group.n_units)[:count])
            for unit in set(range(group.n_units)) - set(kept[coupling.path]):
                without = scaled(without, coupling, unit, 0.0)
    small = without_units(model, groups, kept)
    assert small.n_parameters < model.n_parameters
    batch = next(sample_data(model).train.evaluation(5))
    for name, expected in outputs(without, batch).items():
        assert np.abs(outputs(small, batch)[name] - expected).max() <= 1e-5 * np.abs(expected[expected > -1e9]).max()


@pytest.mark.parametrize("family", FAMILIES)
def test_shares_are_kept_in_every_block(family):
    model = small_model(family)
    small = Narrow(heads=0.5, ff=0.3, samples=2).run(model, sample_data(model))
    n_heads = 4 if family == "t5" else 2  # whose heads share biases and stay
    for stack in model.stacks:
        for sizes in getattr(small.config, stack.sizes):
            assert (sizes.n_heads, sizes.d_ff, sizes.d_head) == (n_heads, 6, 4)
            assert sizes.n_kv_heads == (1 if family == "llama" else n_heads)
    assert small.n_parameters == sum(array.size for array in small.arrays().values())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_global_share_makes_uneven_layers(family):
    model = small_model(family, n_layers=3)
    groups = unit_groups(model)
    rng = np.random.default_rng(0)
    importance = {c.path: rng.exponential(size=c.n_units) ** 3 for group in groups for c in group.couplings}
    counts = Narrow(heads=0.5, ff=0.5, scope="global").counts(groups, importance)
    for kind in KINDS:
        units = [(group.n_units, count) for group, count in zip(groups, counts, strict=True) if group.kind == kind]
        assert sum(count for _, count in units) == round(0.5 * sum(n for n, _ in units))
        assert all(1 <= count <= n for n, count in units)
        if kind == "ff":
            assert len({count for _, count in units}) > 1
    tiny = Narrow(heads=1e-6, ff=1e-6, scope="global").counts(groups, importance)
    assert tiny == [1] * len(groups)


def test_a_global_share_keeps_the_most_important():
    model = small_model("gpt2")
    groups = [group for group in unit_groups(model) if group.kind == "heads"]
    importance = {
        "blocks.0.attention": np.array([5.0, 4.9, 5.1, 5.0]),
        "blocks.1.attention": np.array([9.0, 0, 0.1, 0]),
    }
    assert Narrow(heads=0.5, scope="global").counts(groups, importance) == [3, 1]
    assert most_important(importance["blocks.0.attention"], 3).tolist() == [0, 2, 3]
    importance["blocks.0.attention"] *= 1e-6  # blocks are compared by shares, not by sizes
    assert Narrow(heads=0.5, scope="global").counts(groups, importance) == [3, 1]
    importance["blocks.1.attention"][:] = 0.0  # nothing matters: no division by it
    assert Narrow(heads=0.5, scope="global").counts(groups, importance) == [3, 1]


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_better_than_chance_at_its_own_objective(family):
    model = small_model(family, n_layers=1, d_ff=24)
    data = sample_data(model)
    model = Train(TrainSettings(steps=60, batch_size=8, learning_rate=1e-2)).run(model, data)
    small = Narrow(heads=0.5, ff=0.5).run(model, data)
    ours = data.objective.judge(small, data.train.evaluation(32))
    rng, theirs = np.random.default_rng(0), []
    groups = unit_groups(model)
    for _ in range(7):
        kept = {c.path: np.sort(rng.permutation(c.n_units)[: c.n_units // 2]) for c in model.couplings()}
        chance = without_units(model, groups, kept)
        assert chance.nbytes == small.nbytes
        theirs.append(data.objective.judge(chance, data.train.evaluation(32)))
    assert ours < np.mean(theirs), f"{ours} against {theirs}"


def test_nothing_removed_is_the_model_itself():
    model = small_model("gpt2")
    assert Narrow().run(model) is model
    assert not Narrow().needs_data


def test_an_uneven_decoder_runs_as_a_program_and_is_narrowed_again():
    model = small_model("llama", n_layers=3)
    data = sample_data(model)
    small = Narrow(heads=0.5, ff=0.4, scope="global", samples=4).run(model, data)
    check_program_equals_forward(small)
    again = Narrow(ff=0.5, samples=4).run(small, data)
    assert [sizes.d_ff for sizes in again.config.layers] == [max(1, round(s.d_ff / 2)) for s in small.config.layers]


def test_what_is_left_is_trained_and_learns_from_the_whole():
    model = small_model("encoder")
    data = sample_data(model)
    settings = TrainSettings(steps=8, batch_size=4, learning_rate=5e-3)
    plain = Narrow(heads=0.5, ff=0.5, samples=4).run(model, data)
    trained = Narrow(heads=0.5, ff=0.5, samples=4, training=settings).run(model, data)
    taught = Distil(settings, student="itself", hidden_weight=1.0).run(plain, data, original=model)
    before = data.objective.judge(plain, data.train.evaluation(32))
    assert trained.config == taught.config == plain.config
    for small in (trained, taught):
        assert data.objective.judge(small, data.train.evaluation(32)) < before


def test_stored_halves_stay_halves():
    model = small_model("gpt2")
    model = model.replaced({path: Dense(w.dense().astype(np.float16)) for path, w in model.weights().items()})
    small = Narrow(ff=0.5, samples=1).run(model, sample_data(model), where="blocks.0.*")
    assert {weight.array.dtype for weight in small.weights().values()} == {np.dtype(np.float16)}
    assert [sizes.d_ff for sizes in small.config.layers] == [10, 20]


def test_matrices_that_are_not_dense_are_refused_where_they_would_be_cut():
    model = small_model("gpt2")
    data = sample_data(model)
    for method in (Quantize("int8"), Prune(sparsity=0.5)):
        stored = method.run(model, where="blocks.1.mlp.up.weight")
        with pytest.raises(UnsupportedError, match=r"blocks\.1\.mlp\.up\.weight") as caught:
            Narrow(ff=0.5).run(stored, data)
        assert caught.value.code == "unsupported_storage"
        assert Narrow(heads=0.5, samples=1).run(stored, data).config.layers[1].n_heads == 2
        assert Narrow(ff=0.5, samples=1).run(stored, data, where="blocks.0.*").config.layers[0].d_ff == 10


def test_a_pattern_cuts_through_no_unit():
    model = small_model("transformer")
    data = sample_data(model)
    with pytest.raises(UsageError, match="cross_attention") as caught:
        Narrow(heads=0.5).run(model, data, where="decoder.blocks.*.attention.*")
    assert caught.value.code == "coupled_weights"
    small = Narrow(heads=0.5, samples=1).run(model, data, where="decoder.blocks.*attention.*")
    assert [sizes.n_heads for sizes in small.config.layers] == [2, 2]
    assert [sizes.n_heads for sizes in small.config.encoder_layers] == [4, 4]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"heads": 0.0}, "bad_option"),
        ({"ff": 1.1}, "bad_option"),
        ({"ff": float("nan")}, "bad_option"),
        ({"heads": "half"}, "bad_option"),
        ({"scope": "matrix"}, "bad_option"),
        ({"samples": 0}, "bad_option"),
    ],
)
def test_bad_options_are_refused(options, code):
    with pytest.raises(MinislmError) as caught:
        Narrow(**options)
    assert caught.value.code == code


def test_importance_without_data_or_of_a_diverged_model_is_refused():
    model = small_model("gpt2")
    with pytest.raises(UsageError) as caught:
        Narrow(ff=0.5).run(model)
    assert caught.value.code == "data_missing"
    table = np.full(model.embedding.weight.shape, np.nan, np.float32)
    broken = model.replaced({"embedding.weight": Dense(table)})
    with np.errstate(all="ignore"), pytest.raises(MinislmError) as caught:
        Narrow(ff=0.5).run(broken, sample_data(model))
    assert caught.value.code == "non_finite_importance"


def test_the_source_stays(tmp_path):
    model = small_model("transformer")
    method = Narrow(heads=0.5, ff=0.5, samples=2)
    small = laws.check_source_unchanged(method, model, sample_data(model))
    laws.check_round_trip(small, tmp_path)


def test_heads_that_share_biases_stay():
    model = small_model("t5")
    data = sample_data(model)
    small = Narrow(heads=0.5, ff=0.5).run(model, data)
    assert [sizes.n_heads for sizes in small.config.layers] == [4, 4]
    assert [sizes.d_ff for sizes in small.config.encoder_layers] == [10, 10]
    with pytest.raises(UnsupportedError) as caught:
        Narrow(heads=0.5).run(model, data)
    assert caught.value.code == "heads_shared"
