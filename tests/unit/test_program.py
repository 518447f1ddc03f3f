"""What is particular to programs: reuse of memory, costs, refusals; and planted faults that the law must catch."""

import numpy as np
import pytest

from minislm.config import Head
from minislm.dispatch import backend, runs_compiled
from minislm.errors import DataError, GenerationError, UnsupportedError, UsageError
from minislm.inference import steps
from minislm.inference.cache import KVCache
from minislm.inference.lowering import INPUTS
from minislm.inference.passes import Pass
from minislm.inference.program import Program
from minislm.models import model_class
from minislm.models.decoder import Decoder, DecoderConfig
from minislm.models.encoder import EncoderConfig
from minislm.models.transformer import TransformerConfig
from minislm.testing.programs import check_program_equals_forward

SIZES = {"vocab_size": 23, "d_model": 12, "context": 9, "n_layers": 2, "n_heads": 2, "d_ff": 21}
LEARNED = DecoderConfig.uniform(**SIZES)
ROTARY = DecoderConfig.uniform(
    **SIZES, positions="rotary", norm="rms", mlp="gated", activation="silu", biases=(), tied=False, n_kv_heads=1
)
HEADS = (Head("words", "masked"), Head("intent", "sequence", ("a", "b")), Head("tags", "token", ("O", "B-x", "I-x")))
ENCODER = EncoderConfig.uniform(**SIZES, heads=HEADS)
MEAN = EncoderConfig.uniform(**SIZES, heads=HEADS[1:2], pooling="mean")
TRANSFORMER = TransformerConfig.uniform(**SIZES)


def created(config):
    model = model_class(config.type)[0].create(config, seed=1)
    rng = np.random.default_rng(2)
    noise = {name: 0.3 * rng.standard_normal(array.shape).astype(np.float32) for name, array in model.arrays().items()}
    return model.with_arrays({name: array + noise[name] for name, array in model.arrays().items()})


def ready(config, slots=1):
    cache = KVCache.create(config.layers, slots, config.context)
    for _ in range(slots):
        cache.claim()
    return Program.of(created(config)), cache


def run(program, cache, ids, counts=None, slots=None, **options):
    counts = np.array([len(ids)] if counts is None else counts)
    return program.run(np.array(ids), np.arange(len(counts)) if slots is None else slots, counts, cache, **options)


@pytest.mark.parametrize("config", [LEARNED, ROTARY], ids=["learned", "rotary"])
@pytest.mark.parametrize("tier", ["numpy", "cython"])
def test_program_equals_forward(config, tier):
    from minislm.dispatch import backend

    with backend(tier):
        check_program_equals_forward(created(config))


def test_wrong_rotation_is_caught(monkeypatch):
    right = steps.SPECIAL["rotate"]
    monkeypatch.setitem(steps.SPECIAL, "rotate", lambda now, out, x, at, **o: right(now, out, x, at + 1, **o))
    check_program_equals_forward(created(ROTARY))  # relative positions: a common shift is no fault
    monkeypatch.setitem(
        steps.SPECIAL, "rotate", lambda now, out, x, at, **o: right(now, out, x, np.maximum(at, 1), **o)
    )
    with pytest.raises(AssertionError):
        check_program_equals_forward(created(ROTARY))


def test_memory_given_away_too_early_is_caught(monkeypatch):
    plan = Program._plan
    monkeypatch.setattr(Program, "_plan", lambda self: ([i % 3 for i in range(len(self.steps))], [99] * 3))
    with pytest.raises(AssertionError):
        check_program_equals_forward(created(LEARNED))
    monkeypatch.setattr(Program, "_plan", plan)
    check_program_equals_forward(created(LEARNED))


def test_memory_is_shared_and_does_not_grow_with_layers():
    few, many = (
        Program.of(Decoder.create(DecoderConfig.uniform(**{**SIZES, "n_layers": n}))).row_bytes() for n in (1, 6)
    )
    assert few == many
    program = Program.of(created(LEARNED))
    assert program.row_bytes() < 4 * sum(step.width for step in program.steps) / 3


@pytest.mark.parametrize("config", [LEARNED, ROTARY, ENCODER], ids=["learned", "rotary", "encoder"])
def test_no_two_living_buffers_share_memory(config):
    program = Program.of(created(config))
    places, widths = program._plan()
    for step, place in zip(program.steps, places, strict=True):
        assert widths[place] >= step.width
        readers = [later.result for later in program.steps if step.result in later.inputs]
        last = program.steps[-1].result if step.result in program.results.values() else max(readers, default=0)
        for later in program.steps:
            if step.result < later.result <= last:
                assert places[later.result - INPUTS] != place


def test_results_of_a_run_outlive_the_next():
    program, cache = ready(LEARNED)
    first = run(program, cache, [1, 2, 3])
    kept = first.copy()
    run(program, cache, [4])
    np.testing.assert_array_equal(first, kept)


def test_a_nan_in_one_sequence_stays_there():
    program, cache = ready(LEARNED, slots=2)
    run(program, cache, [1, 2, 3], counts=[2, 1])
    alone, other = ready(LEARNED)
    run(alone, other, [3])
    for layer in cache.k_layers:
        layer.array[0] = np.nan
    got = run(program, cache, [4, 5], counts=[1, 1])
    assert np.isnan(got[0]).all()
    np.testing.assert_allclose(got[1], run(alone, other, [5])[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("dtype", "bound"), [("float16", 2e-3), ("int8", 3e-2)])
@pytest.mark.parametrize("config", [LEARNED, ROTARY])
def test_a_smaller_cache_costs_little(config, dtype, bound):
    """Errors of half a step in each key and value stay as small in the logits; and the cache is really used."""
    program, cache = ready(config)
    small = KVCache.create(config.layers, 1, config.context, dtype=dtype)
    small.claim()
    for ids in ([1, 2, 3], [4], [5, 6]):
        expected, got = run(program, cache, ids), run(program, small, ids)
        error = np.abs(got - expected).max() / np.abs(expected).max()
        assert 0 < error < bound


def test_costs_are_those_of_the_arrays():
    model = created(LEARNED)
    with backend("numpy"):  # whose programs have no panels
        rows = Program.of(model).describe(n_rows=5, length=8)
    linears = [row for row in rows if row.op == "linear"]
    assert sum(row.size_bytes for row in linears) == sum(
        weight.nbytes for path, weight in model.weights().items() if path != "positions.weight"
    )
    assert linears[0].operations == 2 * 5 * 12 * 12
    assert linears[-1].shape == (1, 23)  # logits of the last row alone
    assert linears[-1].operations == 2 * 12 * 23
    attend = next(row for row in rows if row.op == "attend")
    assert (attend.operations, attend.size_bytes) == (5 * 4 * 8 * 12, 4 * 8 * 24)
    looked_up = next(row for row in rows if row.op == "embedding")
    assert looked_up.size_bytes == 5 * 12 * 4
    assert [row.result for row in rows] == list(range(INPUTS, len(rows) + INPUTS))


@pytest.mark.skipif(not runs_compiled("float_panel_product"), reason="the compiled kernels are not built")
def test_compiled_programs_have_panels():
    model = created(LEARNED)
    with backend("numpy"):
        plain = Program.of(model).describe(n_rows=5, length=8)
    rows = [row for row in Program.of(model).describe(n_rows=5, length=8) if row.op == "float_panel_product"]
    linears = [row for row in plain if row.op == "linear"]
    assert [row.operations for row in rows] == [row.operations for row in linears]
    assert rows[-1].constants[0] == (1, 12, 32)  # the panel of 23 outputs
    again = Program.of(model)
    assert again.steps[-1].constants[0] is Program.of(model).steps[-1].constants[0]  # laid out once


@pytest.mark.parametrize(
    ("options", "error", "code"),
    [
        ({"ids": [1, 23]}, DataError, "bad_token_ids"),
        ({"ids": [-1]}, DataError, "bad_token_ids"),
        ({"ids": [0.5]}, DataError, "bad_token_ids"),
        ({"ids": [1, 2], "counts": [1]}, UsageError, "bad_counts"),
        ({"ids": [], "counts": [0]}, UsageError, "bad_counts"),
        ({"ids": [], "counts": []}, UsageError, "bad_counts"),
        ({"ids": [1], "slots": [3]}, UsageError, "bad_slot"),
        ({"ids": [1] * 10}, GenerationError, "kv_cache_full"),
    ],
)
def test_refusals_change_nothing(options, error, code):
    program, cache = ready(LEARNED)
    with pytest.raises(error) as caught:
        run(program, cache, **options)
    assert caught.value.code == code
    assert not cache.lengths_C.any()
    assert not any(stored.array.any() for stored in cache.k_layers)


def test_a_cache_longer_than_the_context_does_not_help():
    program = Program.of(created(ROTARY))
    cache = KVCache.create(ROTARY.layers, 1, 50)
    cache.claim()
    with pytest.raises(GenerationError) as caught:
        run(program, cache, [1] * 10)
    assert caught.value.code == "context_length_exceeded"


# Encoders, and the sources of encoder-decoders


def faulty(name, change):
    """A step that does something else to what the right one makes."""
    right = steps.SPECIAL[name]

    def step(current, out, *inputs, **options):
        right(current, out, *inputs, **options)
        change(current, out)

    return step


def spoil(current, out):
    out[-1] += 0.1


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("attend_all", ENCODER),
        ("attend_all", TRANSFORMER),
        ("pool_first", ENCODER),
        ("pool_mean", MEAN),
        ("attend_source", TRANSFORMER),
    ],
)
def test_a_wrong_step_is_caught(name, config, monkeypatch):
    check_program_equals_forward(created(config))
    monkeypatch.setitem(steps.SPECIAL, name, faulty(name, spoil))
    with pytest.raises(AssertionError):
        check_program_equals_forward(created(config))


@pytest.mark.parametrize("tier", ["numpy", "cython"])
def test_attention_of_bytes_is_nearly_the_same_and_that_of_a_text_its_own(tier):
    model, counts, ids = created(ENCODER), np.array([7, 1, 4]), np.random.default_rng(2).integers(0, 17, 12)
    with backend(tier):
        exact, program = Program.of(model).run_all(ids, counts), Program.of(model, attention="int8")
        found = program.run_all(ids, counts)
        ends = np.cumsum(counts)
        alone = [program.run_all(ids[end - n : end], np.array([n])) for n, end in zip(counts, ends, strict=True)]
    for name, y in found.items():
        distance = np.linalg.norm(y - exact[name]) / np.linalg.norm(exact[name])
        assert 0 < distance < 0.03
        np.testing.assert_allclose(y, np.concatenate([result[name] for result in alone]), rtol=1e-5, atol=1e-6)


def test_attention_across_the_border_of_two_texts_is_caught(monkeypatch):
    def as_one_text(current, *arrays, **options):
        attend_all(Pass.whole([current.n_rows], {}), *arrays, **options)

    attend_all = steps.SPECIAL["attend_all"]
    monkeypatch.setitem(steps.SPECIAL, "attend_all", as_one_text)
    with pytest.raises(AssertionError):
        check_program_equals_forward(created(ENCODER))


def test_a_source_in_another_slot_is_caught(monkeypatch):
    def shifted(current, out, *kv, layer, d_head):
        sources = current.cache.sources
        rows = (current.rows_N + sources.capacity) % (4 * sources.capacity)
        sources.write(layer, rows, *(x.reshape(len(x), -1, d_head) for x in kv))

    monkeypatch.setitem(steps.SPECIAL, "keep_source", shifted)
    with pytest.raises(AssertionError):
        check_program_equals_forward(created(TRANSFORMER))


def test_results_that_share_memory_are_caught(monkeypatch):
    plan = Program._plan

    def together(self):
        places, sizes = plan(self)
        for x in self.results.values():
            places[x - INPUTS] = 0
        return places, [max(sizes), *sizes[1:]]

    monkeypatch.setattr(Program, "_plan", together)
    with pytest.raises(AssertionError):
        check_program_equals_forward(created(ENCODER))


def test_steps_that_no_wanted_result_needs_are_left_out():
    model = created(ENCODER)
    whole = Program.of(model)
    assert set(whole.results) == {"hidden", "words", "intent", "tags"}
    with backend("numpy"):  # whose programs have no panels
        shapes = [step.constants[0].shape for step in Program.of(model, ["tags"]).steps if step.op == "linear"]
    assert (23, 12) not in shapes  # the vocabulary of the masked head
    assert (3, 12) in shapes
    assert len(Program.of(model, ["hidden"]).steps) < len(Program.of(model, ["tags"]).steps) < len(whole.steps)
    with pytest.raises(UnsupportedError) as caught:
        Program.of(model, ["tag"])
    assert caught.value.code == "unknown_result"


@pytest.mark.parametrize(
    ("options", "error", "code"),
    [
        ({"ids": [1, 23]}, DataError, "bad_token_ids"),
        ({"ids": [1, 2], "counts": [1]}, UsageError, "bad_counts"),
        ({"ids": [1], "counts": [1, 0]}, UsageError, "bad_counts"),
        ({"ids": [], "counts": []}, UsageError, "bad_counts"),
        ({"ids": [1] * 10}, GenerationError, "context_length_exceeded"),
        ({"ids": [1, 2], "types": [0, 2]}, DataError, "bad_token_types"),
        ({"ids": [1, 2], "types": [-1, 0]}, DataError, "bad_token_types"),
        ({"ids": [1, 2], "types": [0]}, UsageError, "bad_counts"),
    ],
)
def test_what_no_encoder_reads_is_refused(options, error, code):
    ids, counts, types = options["ids"], options.get("counts", [len(options["ids"])]), options.get("types")
    with pytest.raises(error) as caught:
        Program.of(created(ENCODER)).run_all(np.array(ids), np.array(counts), types)
    assert caught.value.code == code


def test_a_source_longer_than_the_cache_is_refused():
    cache = KVCache.create(TRANSFORMER.layers, 2, 4, source_capacity=3)
    slots = np.array([cache.claim(), cache.claim()])
    program, source = Program.of(created(TRANSFORMER)), Program.of_source(created(TRANSFORMER))
    with pytest.raises(GenerationError, match="source_capacity") as caught:
        source.run_all(np.ones(6, int), np.array([2, 4]), cache=cache, slots_B=slots)
    assert caught.value.code == "kv_cache_full"
    with pytest.raises(UsageError) as missing:
        program.run(np.array([1]), slots[:1], np.array([1]), cache)
    assert missing.value.code == "no_source"
    assert not cache.lengths_C.any()


def test_costs_of_attention_are_those_of_the_keys_that_are_met():
    rows = Program.of(created(TRANSFORMER)).describe(n_rows=1, length=5, source_length=7)
    assert [(row.operations, row.size_bytes) for row in rows if row.op == "attend_source"] == [
        (4 * 7 * 12, 2 * 4 * 7 * 12)
    ] * 2
    assert [row.operations for row in rows if row.op == "attend"] == [4 * 5 * 12] * 2
