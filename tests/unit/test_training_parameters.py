"""FlatParameters: one buffer under a model's trainable arrays."""

from __future__ import annotations

import numpy as np
import pytest
from training_runs import tiny_model

from minislm.errors import ConfigError, UsageError
from minislm.training.parameters import FlatParameters, decays, first_not_finite, norm
from minislm.training.settings import TrainSettings


def test_the_model_is_copied_and_rebuilt_over_views():
    model = tiny_model()
    before = {name: array.copy() for name, array in model.arrays().items()}
    flat = FlatParameters(model)
    for name, array in flat.model().arrays().items():
        assert (array == before[name]).all()
        assert np.shares_memory(array, flat.values)
    flat.values += 1.0
    assert all((array == before[name]).all() for name, array in model.arrays().items())
    assert all((array == before[name] + 1).all() for name, array in flat.model().arrays().items())


def test_views_start_on_cache_lines_and_do_not_overlap():
    flat = FlatParameters(tiny_model())
    assert all(view.ctypes.data % 64 == 0 for view in flat.views.values())
    for i, view in enumerate(flat.views.values()):
        view[...] = i + 1
    assert all((view == i + 1).all() for i, view in enumerate(flat.views.values()))


def test_each_model_is_a_fresh_object():
    flat = FlatParameters(tiny_model())
    first, second = flat.model().weights(), flat.model().weights()
    assert all(first[path] is not second[path] for path in first)


def test_only_matrices_decay():
    matrix, vector = np.ones((2, 2)), np.ones(2)
    assert decays("blocks.0.mlp.up.weight", matrix)
    assert decays("embedding.weight", matrix)
    assert not decays("blocks.0.mlp.up.bias", vector)
    assert not decays("final_norm.weight", vector)
    assert not decays("blocks.0.mlp.up.weight.scales", matrix)
    assert not decays("scales", matrix)


def test_a_step_without_gradient_shrinks_what_decays_and_nothing_else():
    flat = FlatParameters(tiny_model())
    flat.values += 0.5
    before = {name: view.copy() for name, view in flat.views.items()}
    flat.update(1, 0.1, TrainSettings(weight_decay=0.5))
    for name, view in flat.views.items():
        factor = np.float32(0.95) if view.ndim == 2 else np.float32(1)
        np.testing.assert_allclose(view, before[name] * factor, rtol=1e-6)
    assert {view.ndim for view in flat.views.values()} == {1, 2}


def test_frozen_arrays_are_left_out_and_shared():
    model = tiny_model()
    flat = FlatParameters(model, "embedding.*, *.bias")
    assert not any(name.endswith(".bias") or name.startswith("embedding") for name in flat.views)
    assert "blocks.0.mlp.up.weight" in flat.views
    assert flat.model().arrays()["embedding.weight"] is model.arrays()["embedding.weight"]


def test_a_freeze_pattern_that_matches_nothing_is_refused():
    with pytest.raises(UsageError, match="embeding") as error:
        FlatParameters(tiny_model(), "embeding.*")
    assert error.value.code == "pattern_matches_nothing"


def test_a_model_with_nothing_to_train_is_refused():
    with pytest.raises(ConfigError) as error:
        FlatParameters(tiny_model(), "*")
    assert error.value.code == "nothing_to_train"


def test_gradients_are_averaged_and_clipped():
    flat = FlatParameters(tiny_model())
    rng = np.random.default_rng(0)
    raw = rng.standard_normal(flat.grads.size).astype(np.float32)
    length = float(np.linalg.norm(raw.astype(np.float64)))
    for clip, expected in ((0.0, raw / 4), (1e9, raw / 4), (0.5, raw * (0.5 / length))):
        flat.grads[...] = raw
        assert flat.scale_gradients(4, clip) == pytest.approx(length / 4, rel=1e-5)
        np.testing.assert_allclose(flat.grads, expected, rtol=1e-5)


def test_the_norm_of_large_finite_gradients_is_finite():
    assert norm(np.full(4, 1e30, np.float32)) == pytest.approx(2e30, rel=1e-6)
    assert norm(np.array([np.inf], np.float32)) == np.inf
    assert np.isnan(norm(np.array([1.0, np.nan], np.float32)))


def test_the_first_array_that_is_not_finite_is_named():
    arrays = {"a": np.ones(3), "b": np.array([1.0, np.inf]), "c": np.array([np.nan])}
    assert first_not_finite(arrays) == "b"
    assert first_not_finite({"a": np.ones(3)}) is None


def test_a_rewrite_must_keep_names_and_shapes():
    from minislm.weights.dense import Dense

    flat = FlatParameters(tiny_model())
    path = "blocks.0.mlp.up.weight"
    new = np.arange(96, dtype=np.float32).reshape(12, 8)
    flat.replace({path: Dense(new)})
    assert (flat.views[path] == new).all()
    assert np.shares_memory(flat.model().arrays()[path], flat.values)
    for parts in ({path: Dense(new.T)}, {"blocks.9": Dense(new)}, {path: Dense(new) @ Dense(np.eye(8, dtype="f4"))}):
        with pytest.raises(UsageError) as error:
            flat.replace(parts)
        assert error.value.code == "bad_rewrite"
