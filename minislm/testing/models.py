"""Laws that every model keeps, whatever its family and the storage of its Weights.

Each function takes a model, draws a batch that its family reads (`minislm.testing.batches`), and raises AssertionError
where the law is broken. The default bounds are relative to the largest logit and leave room for float32 sums in another
order, not for a mistake.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from minislm.dispatch import ops
from minislm.files import safetensors
from minislm.layers.base import Context, Grads, Tape
from minislm.models import build
from minislm.models.base import Model
from minislm.testing.batches import new_cache, row_alone, said, sample_context, sample_ids


def check_cached_equals_full(model: Model, n_positions: int = 7, bound: float = 1e-5) -> None:
    """Check that decoding with the cache gives the full forward's logits, for every split of the prompt.

    Parameters
    ----------
    model : Model
        One that writes from left to right; the source of an encoder-decoder is given to the first pass only.
    n_positions : int
        Length of the token sequences.
    bound : float
        Largest difference allowed, relative to the largest logit.
    """
    ids_BT = sample_ids(model, 2, n_positions)
    batch = sample_context(model, 2, n_positions, padding=2)
    source = Context(source_BS=batch.source_BS, source_lengths_B=batch.source_lengths_B)
    full = model.forward(ids_BT, source)
    slots_B = np.array([1, 0])
    for split in range(1, n_positions):
        cache = new_cache(model, 2, n_positions, 0 if source.source_BS is None else n_positions)
        context = Context(cache=cache, slots_B=slots_B)
        first = dataclasses.replace(source, cache=cache, slots_B=slots_B)
        got = [model.forward(ids_BT[:, :split], first)]
        cache.advance(slots_B, np.full(2, split))
        for t in range(split, n_positions):
            got.append(model.forward(ids_BT[:, t : t + 1], context))
            cache.advance(slots_B, np.ones(2, np.int64))
        assert_same_logits(np.concatenate(got, axis=1), full, bound, f"prompt split at {split}")


def check_future_changes_nothing(model: Model, n_positions: int = 7) -> None:
    """Check that logits do not depend on later tokens, bit for bit.

    Parameters
    ----------
    model : Model
        One that writes from left to right.
    n_positions : int
        Length of the token sequences.
    """
    ids_BT, context = sample_ids(model, 1, n_positions), sample_context(model, 1, n_positions)
    before = model.forward(ids_BT, context)
    for t in range(1, n_positions):
        changed = ids_BT.copy()
        changed[:, t:] = (changed[:, t:] + 1) % model.config.vocab_size
        after = model.forward(changed, context)
        assert np.array_equal(after[:, :t], before[:, :t]), f"position {t} changes an earlier logit"
        assert not np.array_equal(after[:, t:], before[:, t:]), f"position {t} changes nothing at all"


def check_everything_is_read(model: Model, n_positions: int = 7) -> None:
    """Check that every result depends on every token of a text that is read in both directions.

    Parameters
    ----------
    model : Model
        An encoder, or an encoder-decoder, whose source it is.
    n_positions : int
        Length of the ids.
    """
    ids_BT, context = sample_ids(model, 1, n_positions), sample_context(model, 1, n_positions)
    before = said(model, ids_BT, context)
    text = ids_BT if context.source_BS is None else context.source_BS
    for t in range(text.shape[1]):
        kept = text[0, t]
        text[0, t] = (kept + 1) % model.config.vocab_size
        for name, y in said(model, ids_BT, context).items():
            assert (y != before[name]).any(axis=-1).all(), f"{name} overlooks token {t}"
        text[0, t] = kept


def check_batch_equals_rows(model: Model, n_positions: int = 7, bound: float = 1e-5) -> None:
    """Check that a batch gives what its rows give alone.

    Parameters
    ----------
    model : Model
        Of any family.
    n_positions : int
        Length of the token sequences.
    bound : float
        Largest difference allowed, relative to the largest logit.
    """
    _check_rows(model, 3, n_positions, 0, bound)


def check_padding_changes_nothing(model: Model, n_positions: int = 7, bound: float = 1e-5) -> None:
    """Check that tokens after a row's length, and after its source's, change nothing before them.

    Parameters
    ----------
    model : Model
        Of any family.
    n_positions : int
        Length of the token sequences.
    bound : float
        Largest difference allowed, relative to the largest logit.
    """
    _check_rows(model, 2, n_positions, 3, bound)


def _check_rows(model: Model, n_rows: int, n_positions: int, padding: int, bound: float) -> None:
    """Check what a batch says against what each row says alone, where the row is no padding."""
    ids_BT = sample_ids(model, n_rows, n_positions)
    context = sample_context(model, n_rows, n_positions, padding=padding)
    together = said(model, ids_BT, context)
    for row in range(n_rows):
        for name, alone in said(model, *row_alone(ids_BT, context, row)).items():
            real = tuple(slice(size) for size in alone.shape[1:])
            assert_same_logits(together[name][row][real], alone[0], bound, f"{name} of row {row}")


def check_model_gradient(model: Model, seed: int = 0, bound: float = 1e-6) -> None:
    """Check every parameter's gradient along one random direction, in float64.

    Each array is tested on its own: the inner product of its gradient with a random direction against a central
    difference of the loss. The loss judges all that the model says, what each block returns, and each attention map, of
    a padded batch under dropout.

    Parameters
    ----------
    model : Model
        In float64, of any family.
    seed : int
        Of tokens and directions.
    bound : float
        Largest error allowed, relative to the norms of gradient and direction.
    """
    rng = np.random.default_rng(seed)
    grads = Grads()
    _watched_loss(model, seed, grads)
    parameters = model.parameters()
    assert not grads.side, f"gradients put aside are left over: {sorted(grads.side)}"
    assert set(grads) == set(parameters), f"gradients and parameters differ: {set(grads) ^ set(parameters)}"
    for name, array in parameters.items():
        assert array.dtype == np.float64, f"{name} is {array.dtype}; the gradient law needs a float64 model"
        direction = rng.standard_normal(array.shape)
        step = 1e-5
        ahead = _watched_loss(model.with_arrays({name: array + step * direction}), seed)
        behind = _watched_loss(model.with_arrays({name: array - step * direction}), seed)
        expected, got = (ahead - behind) / (2 * step), float((grads[name] * direction).sum())
        error = abs(got - expected) / (np.linalg.norm(grads[name]) * np.linalg.norm(direction) + 1e-3)  # 1e-3: rounding
        assert error <= bound, f"{name}: gradient {got:.9g} along a direction, central difference {expected:.9g}"


def check_overfitting(model: Model, steps: int = 80, learning_rate: float = 2e-2, bound: float = 0.1) -> None:
    """Check that a tiny batch with random classes can be learnt by heart.

    Parameters
    ----------
    model : Model
        Fresh, of any family.
    steps : int
        Of AdamW without decay.
    learning_rate : float
        Falls linearly to 0.
    bound : float
        Largest loss at the end, in nats, added up over the results.
    """
    ids_BT, context = sample_ids(model, 2, 5), sample_context(model, 2, 5)
    parameters = {name: array.copy() for name, array in model.parameters().items()}
    moments = {name: np.zeros((2, array.size), array.dtype) for name, array in parameters.items()}
    learner = model.with_arrays(parameters)
    loss = np.inf
    for step in range(1, steps + 1):
        tape, grads = Tape(), Grads()
        loss, dy = _cross_entropy(learner.forward(ids_BT, context, tape), np.random.default_rng(0))
        learner.backward(dy, tape, grads)
        rates = {"learning_rate": learning_rate * (1 - (step - 1) / steps), "beta1": 0.9, "beta2": 0.99}
        for name, dw in grads.items():
            flat = parameters[name].reshape(-1), dw.reshape(-1), *moments[name]
            ops.adamw(*flat, step=step, **rates, eps=1e-8, decay=0.0)
    assert loss <= bound, f"after {steps} steps the loss is {loss:.3g}, more than {bound}"


def check_round_trip(model: Model, folder: Path) -> None:
    """Check that a model made again from its Config's JSON, its specs and its saved arrays says the same, bit for bit.

    Parameters
    ----------
    model : Model
        Of any family.
    folder : Path
        An empty folder to write in.
    """
    config = type(model.config).from_json(json.loads(json.dumps(model.config.to_json())))
    assert config == model.config
    safetensors.write(folder / "model.safetensors", model.arrays())
    again = build(config, model.specs(), safetensors.read(folder / "model.safetensors"))
    ids_BT, context = sample_ids(model, 2, 5), sample_context(model, 2, 5, padding=1)
    after = said(again, ids_BT, context)
    for name, y in said(model, ids_BT, context).items():
        assert np.array_equal(after[name], y), f"{name} differs after a round trip"


def assert_same_logits(got: np.ndarray, expected: np.ndarray, bound: float, what: str) -> None:
    """Check the largest difference against the largest expected logit; NaN fails.

    Parameters
    ----------
    got, expected : ndarray
        Logits of the same shape.
    bound : float
        Largest difference allowed, relative to the largest expected logit.
    what : str
        Named where they differ.
    """
    assert got.shape == expected.shape, f"{what}: shape {got.shape}, expected {expected.shape}"
    error = np.abs(got - expected).max(initial=0.0)
    limit = bound * np.abs(expected).max(initial=1e-30)
    assert error <= limit, f"{what}: logits differ by {error:.3g}, more than {limit:.3g}"


def _watched_loss(model: Model, seed: int, grads: Grads | None = None) -> float:
    """Judge what a model says and what can be watched inside; collect the gradients too where there is a store."""
    rng = np.random.default_rng(seed)
    ids_BT, context = sample_ids(model, 2, 5, seed), sample_context(model, 2, 5, seed, padding=2)
    paths = [path for path, _ in model.parts()]
    blocks = dict.fromkeys(found[1] for path in paths if (found := re.match(r"(.*blocks\.\d+)\.", path)))
    maps = dict.fromkeys(found[1] for path in paths if (found := re.match(r"(.*attention)\.query\.", path)))
    tape, store = Tape([*blocks, *maps]), Grads() if grads is None else grads
    y = model.forward(ids_BT, dataclasses.replace(context, dropout=(seed, 0, 0)), tape)
    loss, dy = _cross_entropy(y, rng, n_classes=3)  # classes that are positions too, and none of them padding
    for path in blocks:
        covector = rng.standard_normal(tape.seen[path].shape) / 100
        loss += float((tape.seen[path] * covector).sum())
        store.aside(path, covector)
    for path in maps:
        q_BTHK, k_BSGK, *_, options = tape.seen[path]
        p_BHTS, saved = ops.attention_map(q_BTHK, k_BSGK, **options._asdict())
        covector = rng.standard_normal(p_BHTS.shape) / 10
        loss += float((p_BHTS * covector).sum())
        for side, gradient in zip(("query", "key", "bias"), ops.attention_map_backward(covector, saved), strict=True):
            if gradient is not None:
                store.aside(f"{path}.{side}", gradient)
    if grads is not None:
        model.backward(dy, tape, grads)
        assert not tape, f"{len(tape)} entries are left on the tape after a full backward"
    return loss


def _cross_entropy(y: Any, rng: np.random.Generator, n_classes: int | None = None) -> tuple[float, Any]:
    """Return the loss of random classes along the last axis, a mean for each result, and its gradient."""
    results = y if isinstance(y, dict) else {"logits": y}
    total, gradients = 0.0, {}
    for name, logits in results.items():
        targets_N = rng.integers(
            0, min(n_classes or logits.shape[-1], logits.shape[-1]), logits.size // logits.shape[-1]
        )
        loss, saved = ops.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets_N)
        total += loss
        gradients[name] = ops.cross_entropy_backward(1.0, saved).reshape(logits.shape)
    return total, gradients if isinstance(y, dict) else gradients["logits"]
