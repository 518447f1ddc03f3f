"""Decoding with a scripted engine, which emits prepared tokens, and with a real model."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minislm.config import LayerSizes
from minislm.errors import DataError, GenerationError, UsageError
from minislm.inference import decoding
from minislm.inference.cache import KVCache
from minislm.inference.decoding import Stream, generate
from minislm.inference.program import Program
from minislm.inference.settings import GenerationSettings
from minislm.inference.stopping import StopFilter
from minislm.models.decoder import Decoder, DecoderConfig
from minislm.text.tokenizer import Tokenizer

BYTES = Tokenizer.train([], kind="bytes")
EOS = BYTES.eos_id
GREEDY = GenerationSettings(temperature=0.0, max_new_tokens=10)


class Scripted:
    """Stands for a Program: after a prompt of `n_prompt` tokens it emits the ids of its script, whatever it is fed."""

    def __init__(self, script, *, context=200, n_prompt=1, damage=None):
        self.script, self.n_prompt, self.damage = list(script), n_prompt, damage
        self.config = SimpleNamespace(
            context=context, longest_context=context, vocab_size=257, layers=(LayerSizes(1, 1, 1, 1),)
        )
        self.passes = []

    def cache(self, slots, capacity, **options):
        return KVCache.create(self.config.layers, slots, capacity, **options)

    def run(self, ids, slots, counts, cache):
        assert len(ids) == sum(counts)
        cache.advance(slots, counts)
        assert (cache.lengths_C[slots] <= self.config.context).all()
        self.passes.append(sum(counts))
        logits = np.zeros((len(slots), 257), np.float32)
        for row, slot in enumerate(slots):
            number = max(0, cache.lengths_C[slot] - self.n_prompt)
            logits[row, self.script[number % len(self.script)]] = 5.0
            if self.damage is not None:
                self.damage(logits[row], number)
        return logits


def one(program, settings, prompt=(65,), **options):
    return generate(program, BYTES, [list(prompt)], settings, **options)[0]


@pytest.mark.parametrize("n", [0, 1, 2, 7, 10])
def test_exactly_n_new_tokens(n):
    program = Scripted(b"abcdefghij")
    result = one(program, GREEDY.replaced(max_new_tokens=n))
    assert (result.text, result.ids, result.stopped) == ("abcdefghij"[:n], list(b"abcdefghij"[:n]), "length")
    assert result.timings.new_tokens == n
    assert result.timings.generation_passes_tokens == max(0, n - 1)
    assert result.timings.prompt_tokens == (1 if n else 0)
    assert len(program.passes) == n


def test_eos_ends_the_text_and_is_an_id():
    result = one(Scripted([*b"ab", EOS, *b"c"]), GREEDY)
    assert (result.text, result.ids, result.stopped) == ("ab", [97, 98, EOS], "eos")


def test_eos_as_the_last_token_asked_for_is_still_eos():
    assert one(Scripted([*b"ab", EOS]), GREEDY.replaced(max_new_tokens=3)).stopped == "eos"


def test_ignore_eos_goes_on():
    result = one(Scripted([*b"ab", EOS, *b"cd"]), GREEDY.replaced(max_new_tokens=5, ignore_eos=True))
    assert (result.text, result.ids[2], result.stopped) == ("abcd", EOS, "length")


def test_the_context_ends_what_asks_for_more():
    result = one(Scripted(b"abcdefghij", context=4), GREEDY)
    assert (result.text, result.stopped) == ("abcd", "context")
    result = one(Scripted(b"abc", context=4, n_prompt=4), GREEDY, prompt=[65] * 4)
    assert (result.text, result.stopped) == ("a", "context")
    assert one(Scripted(b"abcd", context=4), GREEDY.replaced(max_new_tokens=4)).stopped == "length"


def test_a_prompt_longer_than_the_context_is_refused_with_both_counts():
    with pytest.raises(GenerationError, match=r"7 tokens.*sees 4.*at least 3") as caught:
        one(Scripted(b"a", context=4), GREEDY.replaced(max_new_tokens=0), prompt=[65] * 7)
    assert caught.value.code == "context_length_exceeded"


def test_an_empty_prompt_is_the_beginning_of_a_text():
    for empty in ("", []):
        result = generate(Scripted(b"ab"), BYTES, [empty], GREEDY.replaced(max_new_tokens=2))[0]
        assert (result.text, result.prompt_tokens) == ("ab", 1)
    without_end = Tokenizer.train(["abc"], kind="characters")
    with pytest.raises(GenerationError, match="prompt 2 is empty") as caught:
        generate(Scripted([0]), without_end, ["a", ""], GREEDY)
    assert caught.value.code == "empty_prompt"


@pytest.mark.parametrize("prompt", [[300], [-1], [65, 257]])
def test_ids_outside_the_vocabulary_are_refused(prompt):
    with pytest.raises(DataError) as caught:
        one(Scripted(b"a"), GREEDY, prompt=prompt)
    assert caught.value.code == "bad_token_ids"


def test_no_prompts_no_results():
    assert generate(Scripted(b"a"), BYTES, [], GREEDY) == []


def test_a_prompt_chunk_below_one_is_refused():
    with pytest.raises(UsageError) as caught:
        one(Scripted(b"a"), GREEDY, prompt_chunk=0)
    assert caught.value.code == "bad_prompt_chunk"


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 8, 100])
def test_prompts_are_processed_in_chunks(chunk):
    program = Scripted(b"ab", n_prompt=5)
    results = generate(program, BYTES, [[65] * 5] * 3, GREEDY.replaced(max_new_tokens=2), prompt_chunk=chunk)
    assert [result.text for result in results] == ["ab"] * 3
    *prompts, last = program.passes
    assert (sum(prompts), last) == (15, 3)
    assert set(prompts[:-1]) <= {chunk}
    assert len(prompts) == -(-15 // chunk)


def test_tokens_that_the_tokenizer_lacks_are_never_chosen():
    def prefer_the_last(row, number):
        row[:] = np.arange(257)

    letters = Tokenizer.train(["abc"], kind="characters")
    result = generate(Scripted([0], damage=prefer_the_last), letters, ["a"], GREEDY.replaced(max_new_tokens=2))[0]
    assert result.text == "cc"


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("at", [0, 3])
def test_logits_that_are_not_finite_end_in_an_error_never_in_a_token(value, at):
    def damage(row, number):
        row[7] = value if number == at else 0.0

    stream = Stream(Scripted(b"abcdefgh", damage=damage), BYTES, [65], GREEDY)
    with pytest.raises(GenerationError) as caught:
        stream.result  # noqa: B018
    assert caught.value.code == "logits_not_finite"


# Stop strings


def pieces_of(text, cuts):
    return [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]


def filtered(pieces, stop):
    stop_filter, given_out = StopFilter(stop), []
    for piece in pieces:
        given_out.append(stop_filter.push(piece))
        if stop_filter.found:
            return given_out, True
    return [*given_out, stop_filter.finish()], False


def slow_reference(text, stop):
    """Grow the text letter by letter until it ends in a stop string."""
    for end in range(1, len(text) + 1):
        ending = [s for s in stop if text[:end].endswith(s)]
        if ending:
            return text[: end - max(map(len, ending))], True
    return text, False


@pytest.mark.parametrize(
    ("text", "stop"),
    [
        ("abcSTOPdef", ["STOP"]),
        ("abSTSTOPd", ["STOP"]),
        ("aabaabaac", ["aabaac"]),
        ("abcdef", ["abcd", "c"]),
        ("xabcd", ["bc", "abc"]),
        ("ends in ST", ["STOP"]),
        ("STOP", ["STOP"]),
        ("no such", ["STOP", "\n\n"]),
        ("漢字。終", ["。終", "字"]),
    ],
)
def test_stop_strings_over_every_split(text, stop):
    expected = slow_reference(text, stop)
    for n_cuts in range(len(text)):
        for cuts in itertools.combinations(range(1, len(text)), n_cuts):
            given_out, found = filtered(pieces_of(text, cuts), stop)
            assert ("".join(given_out), found) == expected, cuts
            assert all(expected[0].startswith("".join(given_out[:i])) for i in range(len(given_out)))


@given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.data())
def test_stop_strings_anywhere(text, stop, data):
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))))
    given_out, found = filtered(pieces_of(text, cuts), stop)
    assert ("".join(given_out), found) == slow_reference(text, stop)


@given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_no_more_is_withheld_than_could_become_a_stop_string(text, stop):
    stop_filter = StopFilter(stop)
    out = ""
    for letter in text:
        out += stop_filter.push(letter)
        if stop_filter.found:
            return
        withheld = text[len(out) : len(out) + len(stop_filter._withheld)]
        assert not withheld or any(s.startswith(withheld) for s in stop)


def test_a_stop_string_ends_generation_and_the_text_before_it():
    result = one(Scripted(b"ab--cd"), GREEDY.replaced(stop=["--"]))
    assert (result.text, result.ids, result.stopped) == ("ab", list(b"ab--"), "stop")
    result = one(Scripted([*b"ab-", EOS]), GREEDY.replaced(stop=["--"]))
    assert (result.text, result.stopped) == ("ab-", "eos")
    result = one(Scripted(b"ab-"), GREEDY.replaced(stop=["--"], max_new_tokens=3))
    assert (result.text, result.stopped) == ("ab-", "length")


# Characters


@given(st.text(min_size=1, max_size=12).filter(lambda text: "\ufffd" not in text))
def test_streams_never_split_a_character(text):
    data = text.encode()
    stream = Stream(Scripted(data), BYTES, [65], GREEDY.replaced(max_new_tokens=len(data)))
    pieces = list(stream)
    assert all(pieces)
    assert "".join(pieces) == text == stream.result.text
    assert [piece for piece in pieces if "\ufffd" in piece] == []


@given(st.binary(min_size=1, max_size=16), st.integers(0, 3))
def test_any_bytes_stream_to_their_decoding(data, n_ends):
    program = Scripted([*data, *[EOS] * n_ends])
    settings = GREEDY.replaced(max_new_tokens=len(data) + n_ends, ignore_eos=True)
    stream = Stream(program, BYTES, [65], settings)
    assert "".join(stream) == stream.result.text == BYTES.decode(data)


def test_an_unfinished_character_is_flushed_at_the_end():
    result = one(Scripted("aé".encode()[:2]), GREEDY.replaced(max_new_tokens=2))
    assert (result.text, result.stopped) == ("a\ufffd", "length")


# A real model

CONFIG = DecoderConfig.uniform(
    vocab_size=257, d_model=16, context=40, n_layers=2, n_heads=2, positions="rotary", norm="rms", tied=False
)
PROMPTS = ["The for statement", "é", "", "x" * 30, [1, 2, 3], "The for statement", "ab"]


@pytest.fixture(scope="module")
def program():
    model = Decoder.create(CONFIG, seed=4)
    rng = np.random.default_rng(5)
    arrays = {
        name: array + 0.4 * rng.standard_normal(array.shape).astype(np.float32)
        for name, array in model.arrays().items()
    }
    return Program.of(model.with_arrays(arrays))


def texts_and_ids(results):
    return [(result.text, result.ids, result.stopped) for result in results]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("n_slots", [1, 3, 16])
def test_a_ragged_batch_equals_its_prompts_alone(program, temperature, n_slots, monkeypatch):
    monkeypatch.setattr(decoding, "SLOTS", n_slots)
    settings = GenerationSettings(max_new_tokens=15, temperature=temperature, seed=7)
    together = texts_and_ids(generate(program, BYTES, PROMPTS, settings))
    alone = [texts_and_ids(generate(program, BYTES, [prompt], settings))[0] for prompt in PROMPTS]
    assert together == alone
    assert together[0] == together[5]
    assert {reason for _, _, reason in together} >= {"length", "context"}
    assert len({tuple(ids) for _, ids, _ in together}) == len(PROMPTS) - 1


def test_seeds_repeat_and_differ(program):
    def run(seed):
        return generate(program, BYTES, ["The"], GenerationSettings(max_new_tokens=12, temperature=1.0, seed=seed))[
            0
        ].ids

    assert run(1) == run(1)
    assert len({tuple(run(seed)) for seed in range(5)}) == 5


@pytest.mark.parametrize("chunk", [1, 7, 256])
def test_chunks_change_nothing(program, chunk):
    settings = GenerationSettings(max_new_tokens=9, seed=3)
    whole = generate(program, BYTES, PROMPTS, settings)
    assert texts_and_ids(generate(program, BYTES, PROMPTS, settings, prompt_chunk=chunk)) == texts_and_ids(whole)


def test_a_stream_equals_generate(program):
    settings = GenerationSettings(max_new_tokens=20, temperature=1.0, seed=9, stop=["q"])
    expected = generate(program, BYTES, ["The"], settings)[0]
    stream = Stream(program, BYTES, "The", settings)
    first = next(stream)
    assert expected.text.startswith(first)
    assert (stream.result.text, stream.result.ids) == (expected.text, expected.ids)
    assert list(stream) == []


def test_greedy_takes_the_most_likely_token_of_the_full_forward(program):
    model = Decoder.create(CONFIG, seed=6)
    result = generate(Program.of(model), BYTES, [[5, 6]], GREEDY.replaced(max_new_tokens=6, ignore_eos=True))[0]
    ids = [5, 6]
    for _ in range(6):
        ids.append(int(model.forward(np.array([ids]))[0, -1].argmax()))
    assert result.ids == ids[2:]


def test_timings_count_every_prompt_and_token(program):
    results = generate(program, BYTES, PROMPTS, GenerationSettings(max_new_tokens=4, ignore_eos=True))
    timings = results[0].timings
    assert timings.prompt_tokens == sum(result.prompt_tokens for result in results)
    assert timings.new_tokens == sum(len(result.ids) for result in results)
    assert timings.generation_passes_tokens == timings.new_tokens - len(results)
    assert timings.prompt_tokens_per_s > 0
    assert timings.generation_tokens_per_s > 0
