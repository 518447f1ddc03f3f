"""What is particular to replays: growth, conditions, threads, forks; and planted faults that the law must catch."""

import dataclasses
import gc
import os
import subprocess
import sys
import threading
import weakref
from functools import partial

import numpy as np
import pytest

from minislm.compression.prune import Prune
from minislm.compression.quantize import Quantize
from minislm.config import Head
from minislm.dispatch import backend, ops, threads
from minislm.inference import replays
from minislm.inference.cache import KVCache
from minislm.inference.passes import CachedPass, Pass
from minislm.inference.program import Program
from minislm.language_model import ATTENTION
from minislm.models import model_class
from minislm.models.decoder import DecoderConfig
from minislm.models.encoder import EncoderConfig
from minislm.models.transformer import TransformerConfig
from minislm.ops.packed import STORED
from minislm.testing.replays import check_replays
from minislm.weights.quantized import Quantized

runtime = pytest.importorskip("minislm.kernels.runtime_cython")

SIZES = {"vocab_size": 23, "d_model": 32, "context": 140, "n_layers": 2, "n_heads": 2, "d_ff": 64}
LLAMA = DecoderConfig.uniform(
    **SIZES, positions="rotary", norm="rms", mlp="gated", activation="silu", biases=(), tied=False, n_kv_heads=1
)
TRANSFORMER = TransformerConfig.uniform(**SIZES)
SHORT = SIZES | {"context": 9}
FAMILIES = {
    "decoder": DecoderConfig.uniform(**SHORT),
    "encoder": EncoderConfig.uniform(**SHORT, heads=(Head("intent", "sequence", ("a", "b")),)),
    "both": TransformerConfig.uniform(**SHORT),
}
INPUTS = ("ids", "positions", "types")
FAULTS = [
    (name, family)
    for family in FAMILIES
    for name in (*INPUTS, "counts_B", "firsts_B", "lengths_B", "rows_N", "chosen_O", "source_lengths_B")
    if family == "both" or name != "source_lengths_B"
    if family == "encoder" or name != "types"
    if family != "encoder" or name not in ("rows_N", "chosen_O")
]


def created(config):
    return model_class(config.type)[0].create(config, seed=1)


def ready(model, slots=1, capacity=140):
    cache = KVCache.create(model.config.layers, slots, capacity)
    for _ in range(slots):
        cache.claim()
    return Program.of(model), cache


def write(program, cache, n_tokens, token=3):
    """Generate greedily in all slots at once; return what was chosen."""
    ids, slots = np.full(cache.n_slots, token), np.arange(cache.n_slots)
    chosen = []
    for _ in range(n_tokens):
        ids = program.run(ids, slots, np.ones_like(ids), cache).argmax(axis=1)
        chosen.append(ids.tolist())
    return chosen


@pytest.mark.parametrize(("dtype", "number"), [*zip(STORED, (1, 2, 3), strict=True)])
@pytest.mark.parametrize("config", [LLAMA, TRANSFORMER], ids=["decoder", "both"])
def test_sequences_grow_in_every_cache(config, number, dtype):
    before = threads()
    try:
        threads(number)
        check_replays(created(config), dtype)
    finally:
        threads(before)


def test_what_is_not_a_number_stays_none():
    model = created(LLAMA)
    table = model.arrays()["embedding.weight"].copy()
    table[::3] = np.nan
    check_replays(model.with_arrays({"embedding.weight": table}))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family):
    check_replays(created(FAMILIES[family]))


@pytest.mark.parametrize(("name", "family"), FAULTS)
def test_a_stale_buffer_is_caught(name, family, monkeypatch):
    again = replays.Replay.run

    def stale(self, current, inputs):
        if name in INPUTS:
            inputs = [*inputs]
            inputs[INPUTS.index(name)] = self.buffers[INPUTS.index(name)].copy()
        elif name in self._table:
            current = dataclasses.replace(current, **{name: self._table[name].copy()})
        again(self, current, inputs)

    monkeypatch.setattr(replays.Replay, "run", stale)
    with pytest.raises(AssertionError):
        check_replays(created(FAMILIES[family]))


def test_a_shape_that_forgets_a_condition_is_caught(monkeypatch):
    check_replays(created(LLAMA))
    monkeypatch.setattr(CachedPass, "n_chosen", Pass.n_chosen)  # every row, or the last ones: the same shape
    with pytest.raises((AssertionError, ValueError)):
        check_replays(created(LLAMA))


def test_a_change_of_conditions_is_seen():
    program, cache = ready(created(LLAMA))
    expected = write(*ready(created(LLAMA)), 8)
    before, chosen = threads(), runtime.chosen()
    found = write(program, cache, 3)
    try:
        threads(1)
        found += write(program, cache, 3, found[-1][0])
        runtime.choose("baseline")
        found += write(program, cache, 1, found[-1][0])
        with backend("numpy"):
            found += write(program, cache, 1, found[-1][0])
    finally:
        threads(before)
        runtime.choose(chosen)
    assert found == expected


def test_more_rows_than_there_was_memory_for():
    wide = np.arange(20) % 23

    def passes():
        program, cache = ready(created(LLAMA), slots=2)
        for counts in ([1, 1], [1, 1], [1, 1], [12, 8], [1, 1], [1, 1], [1, 1]):
            yield program.run(wide[: sum(counts)], np.arange(2), np.array(counts), cache).copy()

    found = list(passes())
    with backend("numpy"):
        expected = list(passes())
    for ours, reference in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, reference, atol=1e-5)


def test_a_cache_goes_when_nobody_else_keeps_it():
    program, cache = ready(created(LLAMA))
    write(program, cache, 4)
    gone = weakref.ref(cache.k_layers[0].array)
    gc.disable()
    try:
        del cache
        assert gone() is None
    finally:
        gc.enable()


def test_only_the_last_shapes_are_kept(monkeypatch):
    monkeypatch.setattr(replays, "MOST_SHAPES", 3)
    program, cache = ready(created(LLAMA), slots=6)
    for n in (1, 2, 3, 4, 5, 6) * 3:
        program.run(np.zeros(n, np.int64), np.arange(n), np.ones(n, np.int64), cache)
    assert [len(shapes) for shapes in program._replays._of.values()] == [3]


def test_programs_in_two_threads_at_once():
    model = created(LLAMA)
    expected = write(*ready(model, slots=2), 60)
    found = {}

    def call(name):
        found[name] = write(*ready(model, slots=2), 60)

    callers = [threading.Thread(target=call, args=(name,)) for name in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert [found[name] for name in range(4)] == [expected] * 4


def test_a_forked_child_goes_on():
    code = """
import os, sys
sys.path.insert(0, sys.argv[1])
from test_replays import LLAMA, created, ready, write
program, cache = ready(created(LLAMA))
start = write(program, cache, 5)
child = os.fork()
found = write(program, cache, 5, start[-1][0])
if not child:
    os._exit(0 if start + found == write(*ready(created(LLAMA)), 10) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert start + found == write(*ready(created(LLAMA)), 10)
"""
    command = [sys.executable, "-W", "ignore", "-c", code, os.path.dirname(__file__)]
    subprocess.run(command, check=True, timeout=120)


X = np.ones((2, 64), np.float32)


def recorded(step, known=(X,), constants=()):
    y = np.zeros_like(X)
    recording = runtime.Recording([*known, y])
    return recording, y, recording.step(lambda: step(y), y, constants)


def test_a_step_of_tasks_alone_is_written_down():
    x = X.copy()
    recording, y, fine = recorded(lambda y: ops.add(x, x, out=y), (x,))
    assert fine
    assert len(recording) == 1
    assert (y == 0).all()
    for _ in range(2):
        x += 1
        recording.run(1)
    assert (y == 6).all()


@pytest.mark.parametrize(
    ("step", "known"),
    [
        (lambda y: ops.add(X, X, out=y), ()),  # reads what may not stay
        (lambda y: ops.add(X * 2, X, out=y), (X,)),  # reads what Python computed
        (lambda y: ops.add(X[:, ::-1], X, out=y), (X,)),  # and what the border copied
        (lambda y: np.copyto(y, ops.add(X, X)), (X,)),  # Python fills the result
        (lambda y: ops.add(X[:1], X[:1], out=y[:1]), (X,)),  # half of it
        (lambda y: np.copyto(y, X), (X,)),  # no task at all
    ],
)
def test_a_step_of_which_python_does_a_part_is_not(step, known):
    recording, _, fine = recorded(step, known)
    assert not fine
    assert len(recording) == 0


def test_a_step_that_fails_ends_the_recording():
    recording = runtime.Recording([X])
    with pytest.raises(ValueError, match="shape"):
        recording.step(lambda: ops.add(X, X[:1]), X, ())
    ops.add(X, X)  # is not written down
    assert len(recording) == 0


def test_constants_and_what_tasks_wrote_are_known():
    x, w = X.copy(), X[0].copy()
    recording, y, fine = recorded(lambda y: ops.scale(ops.add(x, x), w, out=y), (x,), (w,))
    assert fine
    assert len(recording) == 2
    x *= 3
    recording.run(2)
    assert (y == 6).all()


def test_a_program_tells_which_steps_python_takes_part_in():
    program = Program.of(created(LLAMA))
    assert program.interpreted() == []
    with backend("numpy"):
        assert "attend" in program.interpreted()
    mean = EncoderConfig.uniform(**SHORT, heads=(Head("intent", "sequence", ("a", "b")),), pooling="mean")
    assert Program.of(created(mean)).interpreted() == ["pool_mean"]


@pytest.mark.parametrize(
    "methods",
    [
        *((Prune(sparsity=0.5),), (Prune(pattern="2:4"),), (Prune(sparsity=0.5, storage="16x32"),)),
        *((Prune(pattern="2:4"), Quantize("int8")), (Prune(sparsity=0.5), Quantize("int4-32"))),
        *((Prune(sparsity=0.5, storage="16x32"), Quantize("int8")), (Prune(sparsity=0.9, storage="csr"),)),
    ],
    ids=repr,
)
def test_sparse_matrices_are_replayed_without_python(methods):
    model = created(DecoderConfig.uniform(**SIZES | {"d_model": 48}))
    for method in methods:
        model = method.run(model, where="blocks.*")
    program, cache = ready(model)
    write(program, cache, 4)
    assert program.interpreted() == []
    parts = [len(replay._parts) for shapes in program._replays._of.values() for replay in shapes.values() if replay]
    assert parts == [1]


LONG = {
    "encoder": EncoderConfig.uniform(**SIZES, heads=(Head("intent", "sequence", ("a", "b")),)),
    "decoder": LLAMA,
}


def read_long(model):
    """Results of three passes of one shape over many rows, and the sizes of what was done in the last of them."""
    rng, found, program = np.random.default_rng(3), [], Program.of(model)
    cache = KVCache.create(model.config.layers, 3, 140)
    for counts in ((130, 9, 121), (121, 9, 130), (9, 130, 121)):
        ids = rng.integers(0, 23, sum(counts))
        if isinstance(model.config, EncoderConfig):
            found += program.run_all(ids, np.array(counts)).values()
        else:
            slots = np.array([cache.claim() for _ in counts])
            found.append(program.run(ids, slots, np.array(counts), cache, every=True))
            for slot in slots:
                cache.release(slot)
    replayed = [replay for shapes in program._replays._of.values() for replay in shapes.values() if replay]
    return found, [recording.sizes() for replay in replayed for recording in replay.recordings]


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("storage", ["float32", "int8", "int4-32", "2:4"])
@pytest.mark.parametrize("family", LONG)
def test_many_rows_go_through_joined_stages_block_by_block(family, storage, number, monkeypatch):
    model, before = created(LONG[family]), threads()
    if storage == "2:4":
        model = Quantize("int8").run(Prune(pattern="2:4").run(model, where="*blocks.*"), where="*")
    elif storage != "float32":
        rounded = {path: Quantized.nearest(w.dense(), storage) for path, w in model.weights().items()}
        activations = "int8-row" if storage == "int8" else "int8-32"
        model = model.replaced({path: weight.with_activations(activations) for path, weight in rounded.items()})
    try:
        threads(number)
        found, sizes = read_long(model)
        monkeypatch.setattr(replays, "compiled", lambda: None)
        expected, _ = read_long(model)
    finally:
        threads(before)
    assert [y.tobytes() for y in found] == [y.tobytes() for y in expected]
    assert all(max(n for _, n in parts) > 5 for parts in sizes if len(parts) > 1)
    assert sizes


MANY = {
    "encoder": EncoderConfig.uniform(**SIZES, heads=(Head("intent", "sequence", ("a", "b")),)),
    "sources": TransformerConfig.uniform(**SIZES),
    "biased": TransformerConfig.uniform(**SIZES, positions="relative", n_buckets=8, max_distance=20),
}


def read_many(model, attention, n_threads):
    """Results of passes of one shape over many texts, and the tasks of each stage of the last pass."""
    rng, found = np.random.default_rng(5), []
    encodes = isinstance(model.config, EncoderConfig)
    program = (Program.of if encodes else Program.of_source)(model, attention=attention)
    lengths = np.array([1, 2, 64, 30, 7, 64, 33, 5, 50] * 2 * n_threads)
    cache = None if encodes else KVCache.create(model.config.layers, lengths.size, 9, source_capacity=64)
    slots = None if encodes else np.array([cache.claim() for _ in lengths])
    for _ in range(4):
        lengths = rng.permutation(lengths)
        ids = rng.integers(0, 23, lengths.sum())
        found += program.run_all(ids, lengths, cache=cache, slots_B=slots).values()
        found += [] if encodes else [array.copy() for array in cache.arrays()]
    replayed = [replay for shapes in program._replays._of.values() for replay in shapes.values() if replay]
    return found, [recording.sizes() for replay in replayed for recording in replay.recordings]


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("family", MANY)
def test_many_texts_go_through_all_layers_one_by_one(family, attention, number, monkeypatch):
    model, before = created(MANY[family]), threads()
    try:
        threads(number)
        found, (sizes,) = read_many(model, attention, number)
        monkeypatch.setattr(replays, "compiled", lambda: None)
        expected, _ = read_many(model, attention, number)
    finally:
        threads(before)
    assert [y.tobytes() for y in found] == [y.tobytes() for y in expected]
    assert max(tasks for _, tasks in sizes) > 25  # of both layers; without attention there are no more than 20


def test_few_long_texts_are_shared_out_by_their_rows():
    model = created(MANY["encoder"])
    program, before = Program.of(model), threads()
    try:
        threads(2)
        for _ in range(3):
            program.run_all(np.zeros(138 * 2, int), np.array([138, 138]))
    finally:
        threads(before)
    (replay,) = (replay for shapes in program._replays._of.values() for replay in shapes.values())
    assert max(tasks for _, tasks in replay.recordings[0].sizes()) < 25


@pytest.mark.parametrize("read", [read_long, partial(read_many, attention="int8", n_threads=2)])
def test_rows_of_different_widths_in_one_place_are_not_joined(read, monkeypatch):
    model = created(LONG["encoder"])
    apart, joined = read(model)
    plan = Program._plan

    def one_size(self):  # every piece of memory is as large as the largest row, and given to any of them
        rows, self.steps = self.steps, [step._replace(width=64, dtype=np.dtype(np.float32)) for step in self.steps]
        try:
            return plan(self)
        finally:
            self.steps = rows

    monkeypatch.setattr(Program, "_plan", one_size)
    found, parted = read(model)
    assert [y.tobytes() for y in found] == [y.tobytes() for y in apart]
    assert len(parted[0]) > len(joined[0])
