"""The KV cache against a model made of Python lists."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from minislm.config import LayerSizes
from minislm.errors import GenerationError, UnsupportedError, UsageError
from minislm.inference.cache import KVCache
from minislm.testing.shapes import checked_shapes

SIZES = (LayerSizes(4, 2, 3, 8), LayerSizes(2, 1, 4, 8))
SLOTS, CAPACITY, SOURCE_CAPACITY = 4, 6, 3


class CacheMachine(RuleBasedStateMachine):
    """Each claimed slot is a list of the numbers that were appended; every layer holds them, told apart by a factor.

    So is its source, which slots share after a reordering until one of them is given another.
    """

    def __init__(self):
        super().__init__()
        self.cache = KVCache.create(SIZES, SLOTS, CAPACITY, source_capacity=SOURCE_CAPACITY)
        self.lists = {}
        self.sources = {}
        self.next = 1

    def new(self, counts, n_new):
        """Fresh numbers (B, T), those after a row's count being padding."""
        numbers = np.full((len(counts), n_new), -1.0)
        for row, count in enumerate(counts):
            numbers[row, :count] = np.arange(self.next, self.next + count)
            self.next += count
        return numbers

    def spread(self, layer, numbers, sign):
        heads = np.ones((SIZES[layer].n_kv_heads, SIZES[layer].d_head))
        return (sign * (layer + 1) * numbers[..., None, None] * heads).astype(np.float32)

    @rule()
    def claim(self):
        if len(self.lists) == SLOTS:
            with pytest.raises(GenerationError) as caught:
                self.cache.claim()
            assert caught.value.code == "kv_cache_full"
        else:
            slot = self.cache.claim()
            assert slot == min(set(range(SLOTS)) - set(self.lists))
            self.lists[slot], self.sources[slot] = [], []

    @precondition(lambda self: self.lists)
    @rule(data=st.data())
    def release(self, data):
        slot = data.draw(st.sampled_from(sorted(self.lists)))
        self.cache.release(slot)
        del self.lists[slot], self.sources[slot]

    @precondition(lambda self: self.lists)
    @rule(data=st.data(), n_new=st.integers(0, SOURCE_CAPACITY + 1))
    def fill_source(self, data, n_new):
        slots = data.draw(st.lists(st.sampled_from(sorted(self.lists)), min_size=1, unique=True))
        counts = data.draw(st.lists(st.integers(0, n_new), min_size=len(slots), max_size=len(slots)))
        numbers = self.new(counts, n_new)
        with checked_shapes():
            for layer in range(len(SIZES)):
                new = [self.spread(layer, numbers, sign) for sign in (1, -1)]
                if max(counts) > SOURCE_CAPACITY:
                    with pytest.raises(GenerationError) as caught:
                        self.cache.fill_source(layer, np.array(slots), *new, np.array(counts))
                    assert caught.value.code == "kv_cache_full"
                    return
                self.cache.fill_source(layer, np.array(slots), *new, np.array(counts))
        for row, slot in enumerate(slots):
            self.sources[slot] = numbers[row, : counts[row]].tolist()

    @precondition(lambda self: self.lists)
    @rule(data=st.data(), n_new=st.integers(0, 4), finished=st.booleans())
    def append(self, data, n_new, finished):
        slots = data.draw(st.lists(st.sampled_from(sorted(self.lists)), min_size=1, unique=True))
        counts = data.draw(st.lists(st.integers(0, n_new), min_size=len(slots), max_size=len(slots)))
        numbers = self.new(counts, n_new)
        fits = all(len(self.lists[slot]) + count <= CAPACITY for slot, count in zip(slots, counts, strict=True))
        with checked_shapes():
            for layer in range(len(SIZES)):
                new = [self.spread(layer, numbers, sign) for sign in (1, -1)]
                if not fits:
                    with pytest.raises(GenerationError) as caught:
                        self.cache.append(layer, np.array(slots), *new, np.array(counts))
                    assert caught.value.code == "kv_cache_full"
                    return
                k, v, starts = self.cache.append(layer, np.array(slots), *new, np.array(counts))
                self.check_read(layer, k, v, starts, slots, counts, numbers)
        if finished:
            self.cache.advance(np.array(slots), np.array(counts))
            for row, slot in enumerate(slots):
                self.lists[slot] += numbers[row, : counts[row]].tolist()

    def check_read(self, layer, k, v, starts, slots, counts, numbers):
        assert starts.tolist() == [len(self.lists[slot]) for slot in slots]
        assert k.shape[1] == max(len(self.lists[slot]) + count for slot, count in zip(slots, counts, strict=True))
        for row, slot in enumerate(slots):
            expected = np.array(self.lists[slot] + numbers[row, : counts[row]].tolist())
            np.testing.assert_array_equal(k[row, : len(expected)], self.spread(layer, expected, 1))
            np.testing.assert_array_equal(v[row, : len(expected)], self.spread(layer, expected, -1))

    @precondition(lambda self: self.lists)
    @rule(data=st.data(), length=st.integers(0, CAPACITY + 1))
    def truncate(self, data, length):
        slot = data.draw(st.sampled_from(sorted(self.lists)))
        if length > len(self.lists[slot]):
            with pytest.raises(UsageError, match="cannot keep"):
                self.cache.truncate(slot, length)
        else:
            self.cache.truncate(slot, length)
            del self.lists[slot][length:]

    @precondition(lambda self: self.lists)
    @rule(data=st.data())
    def reorder(self, data):
        claimed = sorted(self.lists)
        slots = data.draw(st.lists(st.sampled_from(claimed), unique=True))
        sources = data.draw(st.lists(st.sampled_from(claimed), min_size=len(slots), max_size=len(slots)))
        self.cache.reorder(np.array(slots, int), np.array(sources, int))
        self.lists.update({slot: list(self.lists[source]) for slot, source in zip(slots, sources, strict=True)})
        self.sources.update({slot: self.sources[source] for slot, source in zip(slots, sources, strict=True)})

    @precondition(lambda self: len(self.lists) < SLOTS)
    @rule(data=st.data())
    def use_of_a_free_slot(self, data):
        slot = data.draw(st.sampled_from(sorted(set(range(-1, SLOTS + 1)) - set(self.lists))))
        for use in (
            lambda: self.cache.release(slot),
            lambda: self.cache.truncate(slot, 0),
            lambda: self.cache.place(np.array([slot]), np.array([1])),
            lambda: self.cache.reorder(np.array([slot]), np.array([slot])),
            lambda: self.cache.place_source(np.array([slot]), np.array([1])),
            lambda: self.cache.source(0, np.array([slot])),
        ):
            with pytest.raises(UsageError) as caught:
                use()
            assert caught.value.code == "bad_slot"

    @invariant()
    def holds_what_the_lists_hold(self):
        for slot in range(SLOTS):
            numbers = np.array(self.lists.get(slot, []), float)
            assert self.cache.lengths_C[slot] == len(numbers)
            for layer in range(len(SIZES)):
                k, v = self.cache.k_layers[layer].array[slot], self.cache.v_layers[layer].array[slot]
                np.testing.assert_array_equal(k[: len(numbers)], self.spread(layer, numbers, 1))
                np.testing.assert_array_equal(v[: len(numbers)], self.spread(layer, numbers, -1))

    @invariant()
    def sources_are_what_their_lists_are(self):
        assert self.cache.source_lengths_C.tolist() == [len(self.sources.get(slot, [])) for slot in range(SLOTS)]
        slots = [slot for slot in self.sources if self.sources[slot]]
        for layer in range(len(SIZES) if slots else 0):
            k, v, lengths = self.cache.source(layer, np.array(slots))
            assert lengths.tolist() == [len(self.sources[slot]) for slot in slots]
            assert k.shape[1] == max(lengths)
            for row, slot in enumerate(slots):
                padded = np.pad(self.sources[slot], (0, max(lengths) - lengths[row]))
                np.testing.assert_array_equal(k[row], self.spread(layer, padded, 1))
                np.testing.assert_array_equal(v[row], self.spread(layer, padded, -1))


CacheMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=25, derandomize=True, deadline=None)
TestCache = CacheMachine.TestCase


def claimed(slots=3, capacity=4):
    cache = KVCache.create(SIZES, slots, capacity)
    for _ in range(slots):
        cache.claim()
    return cache


def test_sizes():
    cache = KVCache.create(SIZES, 3, 5)
    assert [stored.array.shape for stored in cache.k_layers] == [(3, 5, 2, 3), (3, 5, 1, 4)]
    assert cache.nbytes == 2 * 4 * 3 * 5 * (6 + 4)
    assert KVCache.create(SIZES, 3, 5, source_capacity=2).nbytes == 2 * 4 * 3 * (5 + 2) * (6 + 4)
    for slots, capacity, source_capacity in ((0, 1, 0), (1, 0, 0), (1, 1, -1)):
        with pytest.raises(UsageError) as caught:
            KVCache.create(SIZES, slots, capacity, source_capacity=source_capacity)
        assert caught.value.code == "bad_cache_size"


@pytest.mark.parametrize(("dtype", "size_bytes"), [("float32", 4 * 10), ("float16", 2 * 10), ("int8", 10 + 4 * 3)])
def test_every_dtype_keeps_what_is_written(dtype, size_bytes):
    """Numbers come back within half a step of their dtype, from whatever slot they went to and were copied to."""
    cache = KVCache.create(SIZES, 3, 4, source_capacity=2, dtype=dtype)
    assert cache.nbytes == 2 * 3 * (4 + 2) * size_bytes
    for _ in range(3):
        cache.claim()
    rng = np.random.default_rng(0)
    k, v = (1000.0 ** rng.normal(size=(2, 2, 3, 2, 1)) * rng.normal(size=(2, 2, 3, 2, 3))).astype(np.float32)
    slots = np.array([2, 0])
    cache.append(0, slots, k, v)
    cache.advance(slots, [3, 3])
    cache.reorder([1, 2, 0], [2, 0, 2])
    read_k, read_v = cache._read(cache, 0, np.array([1, 2]), 3)
    for read, given in ((read_k, k), (read_v, v)):
        assert read.dtype == np.float32
        largest = np.abs(given).max(axis=-1, keepdims=True)
        steps = {"float32": 0.0, "float16": 2.0**-11 * np.abs(given) + 2.0**-25, "int8": largest / 254 * (1 + 1e-6)}
        assert (np.abs(read - given) <= steps[dtype]).all()
        assert dtype == "float32" or not np.array_equal(read, given)
    cache.truncate(1, 1)
    assert not cache._read(cache, 0, np.array([1]), 3)[0][:, 1:].any()
    source = rng.normal(size=(1, 2, 2, 3)).astype(np.float32)
    cache.fill_source(0, np.array([1]), source, source)
    assert np.abs(cache.source(0, np.array([1]))[0] - source).max() <= {"float32": 0.0}.get(dtype, 0.02)


def test_an_unknown_dtype_is_refused():
    with pytest.raises(UnsupportedError) as caught:
        KVCache.create(SIZES, 1, 1, dtype="float8")
    assert caught.value.code == "unknown_cache_dtype"


def test_exactly_full_is_not_too_full():
    cache = claimed(slots=1)
    cache.advance([0], [4])
    with pytest.raises(GenerationError, match="holds 4 of 4 positions and 1 more"):
        cache.place([0], [1])
    cache.truncate(0, 3)
    cache.place([0], [1])


def test_neighbouring_slots_are_read_without_a_copy():
    cache = claimed()
    k = np.ones((2, 1, 2, 3), np.float32)
    for slots, shares in (([1, 2], True), ([0, 2], False), ([2, 1], False)):
        read = cache.append(0, np.array(slots), k, k)[0]
        assert np.shares_memory(read, cache.k_layers[0].array) is shares


@pytest.mark.parametrize(("slots", "counts"), [([0, 0], [1, 1]), ([0, 1], [1]), ([0], [-1]), ([3], [1]), ([-1], [1])])
def test_tables_that_contradict_themselves_are_refused(slots, counts):
    with pytest.raises(UsageError):
        claimed().place(np.array(slots), np.array(counts))


def test_one_source_for_each_slot():
    with pytest.raises(UsageError) as caught:
        claimed().reorder([0, 1], [2])
    assert caught.value.code == "bad_counts"


def test_a_nan_does_not_outlive_its_sequence():
    cache = claimed(slots=1)
    bad = np.full((1, 2, 2, 3), np.nan, np.float32)
    cache.append(0, np.array([0]), bad, bad)
    cache.advance([0], [2])
    cache.release(0)
    assert not np.isnan(cache.k_layers[0].array).any()
    assert not np.isnan(cache.v_layers[0].array).any()


def test_reorder_exchanges_sequences_of_different_lengths():
    cache = claimed()
    for slot, length in ((0, 1), (1, 3), (2, 2)):
        k = np.full((1, length, 2, 3), slot + 1, np.float32)
        cache.append(0, np.array([slot]), k, -k)
        cache.advance([slot], [length])
    cache.reorder([0, 1, 2], [1, 0, 1])
    assert cache.lengths_C.tolist() == [3, 1, 3]
    assert cache.k_layers[0].array[:, :, 0, 0].tolist() == [[2, 2, 2, 0], [1, 0, 0, 0], [2, 2, 2, 0]]
    cache.reorder([1], [2])
    assert cache.k_layers[0].array[1, :, 0, 0].tolist() == [2, 2, 2, 0]
    assert np.array_equal(cache.v_layers[0].array, -cache.k_layers[0].array)


def with_sources(slots=3):
    """A cache whose slot s has a source of s + 1 positions that hold s + 1."""
    cache = KVCache.create(SIZES, slots, 2, source_capacity=slots)
    for slot in range(slots):
        cache.claim()
        k = np.full((1, slot + 1, 2, 3), slot + 1, np.float32)
        cache.fill_source(0, np.array([slot]), k, -k)
    return cache


def held(cache):
    return [cache.source(0, np.array([slot]))[0][0, :, 0, 0].tolist() for slot in range(cache.n_slots)]


def test_beams_share_one_source_without_copying_it():
    cache = with_sources()
    before = cache.sources.k_layers[0].array.copy()
    cache.reorder([0, 1, 2], [2, 2, 2])
    assert np.array_equal(cache.sources.k_layers[0].array, before)
    assert held(cache) == [[3, 3, 3]] * 3


def test_a_new_source_leaves_those_who_shared_the_old_one_alone():
    for slot in range(3):
        cache = with_sources()
        cache.reorder([0, 1, 2], [1, 1, 1])
        k = np.full((1, 1, 2, 3), 9, np.float32)
        cache.fill_source(0, np.array([slot]), k, -k)
        assert held(cache) == [[9] if other == slot else [2, 2] for other in range(3)]
    cache.release(0)
    assert cache.claim() == 0
    assert cache.source_lengths_C.tolist() == [0, 2, 1]


def test_slots_without_a_source_cannot_attend():
    cache = with_sources()
    cache.release(1)
    cache.claim()
    with pytest.raises(UsageError, match=r"\[1\] have no source") as caught:
        cache.source(0, np.array([0, 1]))
    assert caught.value.code == "no_source"
    with pytest.raises(GenerationError, match="source_capacity"):
        claimed().fill_source(0, np.array([0]), np.ones((1, 1, 2, 3)), np.ones((1, 1, 2, 3)))


def test_sources_side_by_side_are_read_without_a_copy():
    cache = with_sources()
    for slots, shares in (([1, 2], True), ([0, 2], False)):
        assert np.shares_memory(cache.source(0, np.array(slots))[0], cache.sources.k_layers[0].array) is shares


def test_a_nan_does_not_outlive_its_source():
    cache = with_sources(slots=1)
    bad = np.full((1, 1, 2, 3), np.nan, np.float32)
    cache.fill_source(0, np.array([0]), bad, bad)
    cache.fill_source(0, np.array([0]), np.ones((1, 1, 2, 3)), np.ones((1, 1, 2, 3)), np.array([0]))
    assert not np.isnan(cache.sources.v_layers[0].array).any()
