"""AdamW writes where it should, and only there."""

from __future__ import annotations

import numpy as np

from minislm.ops.optimizer import adamw

OPTIONS = {"learning_rate": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8}


def test_blocks_do_not_show(rng):
    n = 50_001  # several blocks and a rest
    w, dw, m = rng.normal(size=(3, n)).astype(np.float32)
    v = np.square(rng.normal(size=n)).astype(np.float32)
    decay = (rng.random(n) < 0.5).astype(np.float32)
    whole = [x.copy() for x in (w, m, v)]
    adamw(whole[0], dw, *whole[1:], step=3, decay=decay, **OPTIONS)
    for part in (slice(0, 7), slice(16380, 16390), slice(n - 5, n)):
        own = [x[part].copy() for x in (w, m, v)]
        adamw(own[0], dw[part], *own[1:], step=3, decay=decay[part], **OPTIONS)
        for piece, all_of_it in zip(own, whole, strict=True):
            np.testing.assert_array_equal(piece, all_of_it[part])


def test_gradient_is_only_read(rng):
    w, m, v = rng.normal(size=(3, 9)) ** 2
    dw = rng.normal(size=9)
    dw.flags.writeable = False
    before = w.copy()
    adamw(w, dw, m, v, step=1, decay=0.0, **OPTIONS)
    assert np.all(w != before)


def test_decay_is_decoupled():
    w, m, v = np.array([2.0]), np.zeros(1), np.zeros(1)
    adamw(w, np.zeros(1), m, v, step=1, decay=0.5, **OPTIONS)
    assert w[0] == 2.0 * (1 - 0.1 * 0.5)
    assert m[0] == v[0] == 0.0
