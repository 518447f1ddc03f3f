"""fit, in memory: what it computes, when it stops, what it refuses."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from training_runs import SETTINGS, same_bits, timeless, tiny_data, tiny_model

from minislm.errors import ConfigError, DataError, TrainingError, UsageError
from minislm.layers.base import Context, Grads, Tape
from minislm.training.data import TokenWindows, TrainingData
from minislm.training.loop import fit
from minislm.training.objective import NextToken
from minislm.training.parameters import decays
from minislm.training.schedule import learning_rate


def changed(**values):
    return dataclasses.replace(SETTINGS, **values)


def test_a_run_equals_the_formulas_written_plainly():
    """Forward, backward, clipping, decoupled decay and AdamW, in float64 and with dictionaries."""
    # The exact gradient of a key's bias is zero: what float32 leaves of it is noise, and AdamW would magnify it.
    settings = changed(steps=4, accumulate=2, clip=0.3, weight_decay=0.3, freeze="*.key.bias")
    start, data = tiny_model(dropout=0.0), tiny_data()
    trained = [name for name in start.parameters() if not name.endswith("key.bias")]
    w = {name: start.parameters()[name].astype(np.float64) for name in trained}
    m, v = ({name: np.zeros_like(array) for name, array in w.items()} for _ in range(2))
    norms = []
    for step in range(1, 5):
        g = {name: np.zeros_like(array) for name, array in w.items()}
        model = start.with_arrays(w)
        for i in range(2):
            tape, grads = Tape(), Grads()
            batch = data.train.batch((step - 1) * 2 + i, settings.batch_size, seed=settings.seed)
            _, dlogits = NextToken().loss(model, batch, Context(), tape, grads)
            model.backward(dlogits, tape, grads)
            for name in w:
                g[name] += grads[name] / 2
        norms.append(np.sqrt(sum(float((gradient**2).sum()) for gradient in g.values())))
        rate = learning_rate(step, settings)
        for name in w:
            clipped = g[name] * min(1.0, 0.3 / norms[-1])
            m[name] = 0.9 * m[name] + 0.1 * clipped
            v[name] = 0.99 * v[name] + 0.01 * clipped**2
            if decays(name, w[name]):
                w[name] = w[name] * (1 - rate * 0.3)
            w[name] = w[name] - rate * (m[name] / (1 - 0.9**step)) / (np.sqrt(v[name] / (1 - 0.99**step)) + 1e-8)
    result = fit(start, data, settings)
    assert [r.grad_norm for r in result.history] == pytest.approx(norms, rel=1e-4)
    assert min(norms) > 0.3  # clipping was at work
    for name in w:
        moved = np.abs(w[name] - start.parameters()[name]).max()
        np.testing.assert_allclose(result.model.parameters()[name], w[name], atol=2e-3 * moved, rtol=0, err_msg=name)


def test_the_source_stays_as_it_is_and_shares_nothing_with_the_result():
    model = tiny_model()
    before = {name: array.copy() for name, array in model.arrays().items()}
    result = fit(model, tiny_data(), SETTINGS)
    assert same_bits(model.arrays(), before)
    for name, array in result.model.arrays().items():
        assert array.dtype == np.float32
        assert not np.shares_memory(array, model.arrays()[name])
    assert not same_bits(result.model.arrays(), before)


def test_the_same_run_twice_gives_the_same_bits():
    first, second = (fit(tiny_model(), tiny_data(), SETTINGS) for _ in range(2))
    assert same_bits(first.model.arrays(), second.model.arrays())
    assert timeless(first.history) == timeless(second.history)
    other = fit(tiny_model(), tiny_data(), changed(seed=6))
    assert not same_bits(first.model.arrays(), other.model.arrays())


def test_every_forward_pass_drops_by_a_key_of_its_own():
    keys = []

    class Spy(NextToken):
        def step(self, model, batch, context, tape, grads):
            keys.append(context.dropout)
            return super().step(model, batch, context, tape, grads)

    fit(tiny_model(), tiny_data(), changed(steps=3), objective=Spy())
    assert keys == [(SETTINGS.seed, step, i) for step in (1, 2, 3) for i in (0, 1)]


def test_dropout_is_at_work():
    with_dropout, without = (
        fit(tiny_model(), tiny_data(), SETTINGS),
        fit(tiny_model(dropout=0.0), tiny_data(), SETTINGS),
    )
    assert not same_bits(with_dropout.model.arrays(), without.model.arrays())


def test_accumulated_gradients_equal_one_big_batch():
    small = fit(tiny_model(dropout=0.0), tiny_data(), changed(batch_size=2, accumulate=4))
    big = fit(tiny_model(dropout=0.0), tiny_data(), changed(batch_size=8, accumulate=1))
    assert [r.loss for r in small.history] == pytest.approx([r.loss for r in big.history], rel=1e-4)
    assert [r.grad_norm for r in small.history] == pytest.approx([r.grad_norm for r in big.history], rel=1e-3)
    assert [r.tokens for r in small.history] == [r.tokens for r in big.history]


def test_a_tiny_batch_is_learned_by_heart():
    data = TrainingData(TokenWindows(np.array([1, 7, 3, 9, 2, 2, 8]), 6))
    settings = changed(steps=150, batch_size=1, accumulate=1, eval_every=0, weight_decay=0.0, learning_rate=2e-2)
    result = fit(tiny_model(dropout=0.0), data, settings)
    assert result.history[0].loss > 2.0
    assert result.history[-1].loss < 0.02
    assert result.best_loss is None


def test_the_record_tells_every_step():
    seen = []
    result = fit(tiny_model(), tiny_data(), SETTINGS, report=seen.append)
    assert tuple(seen) == result.history
    assert [r.step for r in seen] == list(range(1, 13))
    assert [r.tokens for r in seen] == [48 * step for step in range(1, 13)]
    assert [r.step for r in seen if r.validation_loss is not None] == [3, 6, 9, 12]
    assert [r.learning_rate for r in seen] == [learning_rate(step, SETTINGS) for step in range(1, 13)]
    assert all(r.tokens_per_s > 0 and r.steps == 12 for r in seen)
    assert all(a.elapsed_s < b.elapsed_s for a, b in itertools.pairwise(seen))
    assert seen[5].remaining_s == pytest.approx(seen[5].elapsed_s)
    assert result.stopped == "steps"
    assert result.best_loss == min(r.validation_loss for r in seen if r.validation_loss is not None)
    assert result.best_step in (3, 6, 9, 12)


def test_the_validation_loss_is_the_mean_over_all_tokens_without_dropout():
    data = tiny_data()
    result = fit(tiny_model(), data, changed(eval_batches=0))
    one_by_one = [NextToken().judge(result.model, [batch]) for batch in data.validation.evaluation(1)]
    assert len(one_by_one) == 9
    assert result.history[-1].validation_loss == pytest.approx(np.mean(one_by_one), rel=1e-6)


def test_without_improvement_it_stops_and_returns_the_best():
    learned = fit(tiny_model(), tiny_data(), SETTINGS).model
    runaway = changed(steps=50, learning_rate=0.5, warmup_steps=0, eval_every=2, eval_batches=0, patience=3)
    result = fit(learned, tiny_data(), runaway)
    losses = [r.validation_loss for r in result.history if r.validation_loss is not None]
    best = losses.index(min(losses))
    assert result.stopped == "patience"
    assert len(losses) == best + 4
    assert result.best_step == 2 * (best + 1)
    assert result.best_loss == min(losses)
    again = NextToken().judge(result.model, tiny_data().validation.evaluation(runaway.batch_size))
    assert again == result.best_loss


def test_frozen_arrays_stay():
    model = tiny_model()
    result = fit(model, tiny_data(), changed(freeze="embedding.*,*.mlp.*"))
    before, after = model.arrays(), result.model.arrays()
    stayed = {name for name in before if (before[name] == after[name]).all()}
    assert stayed == {name for name in before if name.startswith("embedding") or ".mlp." in name}


def test_rewrites_go_on_from_the_weights_they_return():
    from minislm.weights.dense import Dense

    path, calls = "blocks.0.mlp.up.weight", []

    def halve_at_3(step, model):
        calls.append((step, model.arrays()[path].copy()))
        return {path: Dense(model.arrays()[path] * 0.5)} if step == 3 else None

    settings = changed(steps=4, learning_rate=1e-12, accumulate=1)  # so small that only the rewrite moves anything
    result = fit(tiny_model(), tiny_data(), settings, rewrite=halve_at_3)
    assert [step for step, _ in calls] == [1, 2, 3, 4]
    np.testing.assert_allclose(calls[3][1], calls[2][1] * 0.5, rtol=1e-5)
    np.testing.assert_allclose(result.model.arrays()[path], tiny_model().arrays()[path] * 0.5, rtol=1e-5)


@dataclass(frozen=True)
class Poisoned(NextToken):
    """The next token's loss, until one of its results is not a number."""

    loss_at: int = 0
    gradient_at: int = 0
    calls: list = dataclasses.field(default_factory=list)

    def step(self, model, batch, context, tape, grads):
        self.calls.append(1)
        loss = super().step(model, batch, context, tape, grads)
        if len(self.calls) == self.gradient_at:
            grads["final_norm.bias"][3] = np.inf
        return np.nan if len(self.calls) == self.loss_at else loss


def poisoned(factor, *names):
    """The tiny model with some arrays multiplied."""
    model = tiny_model()
    return model.with_arrays({name: model.arrays()[name] * np.float32(factor) for name in names})


UP, DOWN = "blocks.0.mlp.up.weight", "blocks.0.mlp.down.weight"


@pytest.mark.parametrize(
    ("model", "objective", "step", "named"),
    [
        (tiny_model(), Poisoned(loss_at=5), 3, "the logits"),
        (tiny_model(), Poisoned(gradient_at=6), 3, "the gradient of final_norm.bias"),
        (poisoned(np.nan, DOWN), NextToken(), 1, "parameter blocks.0.mlp.down.weight"),
        (poisoned(1e38, UP, DOWN), NextToken(), 1, "an activation of blocks.1.norm_1"),
    ],
)
def test_what_is_not_finite_stops_the_run_with_step_and_tensor(model, objective, step, named):
    with pytest.raises(TrainingError, match=f"step {step}: .* first tensor that is not: {named}") as error:
        fit(model, tiny_data(), SETTINGS, objective=objective)
    assert error.value.code == "loss_not_finite"


def test_a_step_that_throws_the_parameters_to_infinity_is_named():
    with pytest.raises(TrainingError, match=r"step 1: .* first tensor that is not: parameter [a-z]") as error:
        fit(tiny_model(), tiny_data(), changed(learning_rate=1e38, warmup_steps=0))
    assert error.value.code == "loss_not_finite"


@pytest.mark.parametrize(
    ("data", "settings", "error", "code"),
    [
        (TrainingData(TokenWindows(np.arange(20), 6)), {"eval_every": 0}, DataError, "bad_token_ids"),
        (TrainingData(TokenWindows(np.arange(20) - 12, 6)), {"eval_every": 0}, DataError, "bad_token_ids"),
        (TrainingData(TokenWindows(np.zeros(20, int), 7)), {"eval_every": 0}, ConfigError, "config_invalid"),
        (TrainingData(tiny_data().train), {}, UsageError, "data_missing"),
        (tiny_data(), {"patience": 2, "eval_every": 0}, UsageError, "contradicting_options"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_the_first_step(data, settings, error, code):
    with pytest.raises(error) as raised:
        fit(tiny_model(), data, changed(**settings))
    assert raised.value.code == code


def test_patience_and_rewrites_exclude_each_other():
    with pytest.raises(UsageError) as error:
        fit(tiny_model(), tiny_data(), changed(patience=2), rewrite=lambda step, model: None)
    assert error.value.code == "contradicting_options"
