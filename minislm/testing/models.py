"""Laws that every causal model keeps, whatever its architecture and the storage of its Weights.

Each function takes a model and raises AssertionError where the law is broken. The default bounds are relative to the
largest logit and leave room for float32 sums in another order, not for a mistake.
"""

from __future__ import annotations

import numpy as np

from minislm.inference.cache import KVCache
from minislm.layers.base import Context, Grads, Tape
from minislm.models.base import Model
from minislm.ops.loss import cross_entropy, cross_entropy_backward


def sample_ids(model: Model, n_rows: int, n_positions: int, seed: int = 0) -> np.ndarray:
    """Draw token ids for a model.

    Parameters
    ----------
    model : Model
        Whose vocabulary.
    n_rows, n_positions : int
        B and T.
    seed : int
        The ids are a function of it.

    Returns
    -------
    ndarray of int64, (B, T)
        Token ids.
    """
    return np.random.default_rng(seed).integers(0, model.config.vocab_size, (n_rows, n_positions))


def new_cache(model: Model, slots: int, capacity: int) -> KVCache:
    """Make a KV cache with all its slots claimed.

    Parameters
    ----------
    model : Model
        Whose layers.
    slots, capacity : int
        Sequences, and positions of each.

    Returns
    -------
    KVCache
        Empty.
    """
    cache = KVCache.create(model.config.layers, slots, capacity)
    for _ in range(slots):
        cache.claim()
    return cache


def check_cached_equals_full(model: Model, n_positions: int = 7, bound: float = 1e-5) -> None:
    """Check that decoding with the cache gives the full forward's logits, for every split of the prompt.

    Parameters
    ----------
    model : Model
        A causal model.
    n_positions : int
        Length of the token sequences.
    bound : float
        Largest difference allowed, relative to the largest logit.
    """
    ids_BT = sample_ids(model, 2, n_positions)
    full = model.forward(ids_BT)
    for split in range(1, n_positions):
        cache = new_cache(model, 2, n_positions)
        slots_B = np.arange(2)
        context = Context(cache=cache, slots_B=slots_B)
        got = [model.forward(ids_BT[:, :split], context)]
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
        A causal model.
    n_positions : int
        Length of the token sequences.
    """
    ids_BT = sample_ids(model, 1, n_positions)
    before = model.forward(ids_BT)
    for t in range(1, n_positions):
        changed = ids_BT.copy()
        changed[:, t:] = (changed[:, t:] + 1) % model.config.vocab_size
        assert np.array_equal(model.forward(changed)[:, :t], before[:, :t]), f"position {t} changes an earlier logit"


def check_batch_equals_rows(model: Model, n_positions: int = 7, bound: float = 1e-5) -> None:
    """Check that a batch gives what its rows give alone.

    Parameters
    ----------
    model : Model
        A causal model.
    n_positions : int
        Length of the token sequences.
    bound : float
        Largest difference allowed, relative to the largest logit.
    """
    ids_BT = sample_ids(model, 3, n_positions)
    rows = np.concatenate([model.forward(ids_BT[i : i + 1]) for i in range(3)])
    assert_same_logits(model.forward(ids_BT), rows, bound, "batch against rows")


def check_padding_changes_nothing(model: Model, n_positions: int = 7, bound: float = 1e-5) -> None:
    """Check that tokens after a row's length change nothing before it.

    Parameters
    ----------
    model : Model
        A causal model.
    n_positions : int
        Length of the token sequences.
    bound : float
        Largest difference allowed, relative to the largest logit.
    """
    ids_BT = sample_ids(model, 2, n_positions)
    lengths_B = np.array([n_positions - 3, n_positions])
    padded = model.forward(ids_BT, Context(lengths_B=lengths_B))
    for row, length in enumerate(lengths_B):
        alone = model.forward(ids_BT[row : row + 1, :length])
        assert_same_logits(padded[row : row + 1, :length], alone, bound, f"padded row {row}")


def check_model_gradient(model: Model, seed: int = 0, bound: float = 1e-6) -> None:
    """Check every parameter's gradient of the next-token loss along one random direction, in float64.

    Each array is tested on its own: the inner product of its gradient with a random direction against a central
    difference of the loss.

    Parameters
    ----------
    model : Model
        A causal model in float64.
    seed : int
        Of tokens and directions.
    bound : float
        Largest error allowed, relative to the norms of gradient and direction.
    """
    rng = np.random.default_rng(seed)
    ids_BT = sample_ids(model, 2, 5, seed)
    targets_N = sample_ids(model, 2, 5, seed + 1).reshape(-1)

    def loss(other: Model) -> float:
        logits = other.forward(ids_BT)
        return float(cross_entropy(logits.reshape(-1, logits.shape[-1]), targets_N)[0])

    tape, grads = Tape(), Grads()
    logits_BTV = model.forward(ids_BT, Context(), tape)
    _, saved = cross_entropy(logits_BTV.reshape(-1, logits_BTV.shape[-1]), targets_N)
    model.backward(cross_entropy_backward(1.0, saved).reshape(logits_BTV.shape), tape, grads)
    assert not tape, f"{len(tape)} entries are left on the tape after a full backward"
    parameters = model.parameters()
    assert set(grads) == set(parameters), f"gradients and parameters differ: {set(grads) ^ set(parameters)}"
    for name, array in parameters.items():
        assert array.dtype == np.float64, f"{name} is {array.dtype}; the gradient law needs a float64 model"
        direction = rng.standard_normal(array.shape)
        step = 1e-5
        ahead = loss(model.with_arrays({name: array + step * direction}))
        behind = loss(model.with_arrays({name: array - step * direction}))
        expected, got = (ahead - behind) / (2 * step), float((grads[name] * direction).sum())
        error = abs(got - expected) / (np.linalg.norm(grads[name]) * np.linalg.norm(direction) + 1e-3)  # 1e-3: rounding
        assert error <= bound, f"{name}: gradient {got:.9g} along a direction, central difference {expected:.9g}"


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
