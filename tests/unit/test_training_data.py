"""TokenWindows: an order that is a function of (seed, epoch, index)."""

from __future__ import annotations

import numpy as np
import pytest

from minislm.errors import DataError, UsageError
from minislm.training.data import TokenWindows


def starts(*batches):
    """Where each window starts, for a stream that counts 0, 1, 2..."""
    return [start for batch in batches for start in batch.ids_BT[:, 0].tolist()]


@pytest.mark.parametrize("order", ["permuted", "random"])
def test_targets_are_the_tokens_after_the_inputs(order):
    windows = TokenWindows(np.arange(50, dtype=np.uint16), 7, order)
    batch = windows.batch(3, 5, seed=1)
    assert batch.ids_BT.shape == batch.targets_BT.shape == (5, 7)
    assert batch.ids_BT.dtype == np.int64
    assert batch.ids_BT.flags.c_contiguous
    assert batch.targets_BT.flags.c_contiguous
    assert (np.diff(batch.ids_BT, axis=1) == 1).all()
    assert (batch.targets_BT == batch.ids_BT + 1).all()
    assert batch.targets_BT.max() < 50


@pytest.mark.parametrize("n_tokens", [8, 14, 15, 21, 50, 141])
def test_every_epoch_visits_every_window_once(n_tokens):
    windows = TokenWindows(np.arange(n_tokens), 7)
    offsets = set()
    orders = set()
    for epoch in range(20):
        found = starts(windows.batch(epoch, windows.n_windows, seed=4))
        offset = min(found)
        assert sorted(found) == [offset + 7 * i for i in range(windows.n_windows)]
        assert max(found) + 7 <= n_tokens - 1
        offsets.add(offset)
        orders.add(tuple(np.argsort(found)))
    assert len(offsets) == 1 if n_tokens == 8 else len(offsets) > 3  # the offset moves wherever there is room
    assert windows.n_windows < 4 or len(orders) > 10


def test_batches_cut_the_same_stream_whatever_their_size():
    windows = TokenWindows(np.arange(100), 7)
    one_by_one = starts(*(windows.batch(i, 1, seed=9) for i in range(60)))
    for size in (4, 5, 60):  # across the ends of epochs, and over several at once
        again = starts(*(windows.batch(i, size, seed=9) for i in range(60 // size)))
        assert again == one_by_one


@pytest.mark.parametrize("order", ["permuted", "random"])
def test_a_batch_depends_on_seed_and_index_alone(order):
    windows = TokenWindows(np.arange(1000), 7, order)
    forwards = [windows.batch(i, 4, seed=2).ids_BT for i in range(80)]
    fresh = TokenWindows(np.arange(1000), 7, order)
    for i in reversed(range(80)):
        assert (fresh.batch(i, 4, seed=2).ids_BT == forwards[i]).all()
    assert (fresh.batch(0, 4, seed=3).ids_BT != forwards[0]).any()
    assert (forwards[0] != forwards[1]).any()


def test_random_windows_reach_both_ends():
    windows = TokenWindows(np.arange(12), 7, "random")
    found = {start for i in range(50) for start in starts(windows.batch(i, 4, seed=0))}
    assert found == {0, 1, 2, 3, 4}


def test_the_order_does_not_change_with_versions():
    windows = TokenWindows(np.arange(60), 7)
    assert starts(windows.batch(0, 7, seed=0)) == [6, 20, 13, 41, 34, 27, 48]
    assert starts(TokenWindows(np.arange(60), 7, "random").batch(0, 7, seed=0)) == [52, 40, 13, 29, 51, 42, 12]


def test_evaluation_covers_the_stream_once_side_by_side():
    windows = TokenWindows(np.arange(50), 7)
    batches = list(windows.evaluation(3))
    assert [len(b.ids_BT) for b in batches] == [3, 3, 1]
    assert starts(*batches) == [0, 7, 14, 21, 28, 35, 42]
    few = list(windows.evaluation(2, batches=2))
    assert starts(*few) == [0, 7, 21, 35]
    assert len(list(windows.evaluation(3, batches=100))) == 3


@pytest.mark.parametrize(
    ("ids", "context", "order", "error", "code"),
    [
        (np.arange(7), 7, "permuted", DataError, "text_too_short"),
        (np.array([], np.int64), 7, "permuted", DataError, "text_too_short"),
        (np.arange(20.0), 7, "permuted", DataError, "bad_token_ids"),
        (np.zeros((4, 4), int), 7, "permuted", DataError, "bad_token_ids"),
        (np.arange(20), 0, "permuted", UsageError, "bad_option"),
        (np.arange(20), 7, "shuffled", UsageError, "bad_option"),
    ],
)
def test_what_makes_no_windows_is_refused(ids, context, order, error, code):
    with pytest.raises(error) as raised:
        TokenWindows(ids, context, order)
    assert raised.value.code == code
