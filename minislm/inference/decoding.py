"""Generation: prompts in chunks, then token after token for all sequences at once, until each has a reason to stop."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from minislm.errors import DataError, GenerationError, UsageError
from minislm.inference.cache import KVCache
from minislm.inference.program import Program
from minislm.inference.sampling import choose
from minislm.inference.settings import GenerationSettings
from minislm.inference.stopping import StopFilter
from minislm.text.tokenizer import TextStream, Tokenizer

PROMPT_CHUNK = 256  # tokens of prompts in one pass: enough for the products to be efficient
SLOTS = 16  # sequences in progress at once

Prompt = str | Sequence[int]


@dataclass
class Timings:
    """What one call counted and measured, over all its prompts.

    Parameters
    ----------
    prompt_tokens : int
        Tokens of the prompts.
    prompt_s : float
        Seconds in the passes over them.
    new_tokens : int
        Tokens that were generated.
    generation_passes_tokens : int
        Those of them that came from passes of their own; the first of each sequence comes with its prompt.
    generation_s : float
        Seconds in these passes, the choice of tokens included.
    """

    prompt_tokens: int = 0
    prompt_s: float = 0.0
    new_tokens: int = 0
    generation_passes_tokens: int = 0
    generation_s: float = 0.0

    @property
    def prompt_tokens_per_s(self) -> float:
        """Speed over the prompts; 0 where nothing was processed."""
        return self.prompt_tokens / self.prompt_s if self.prompt_s else 0.0

    @property
    def generation_tokens_per_s(self) -> float:
        """Speed of generation after each first token; 0 where there was none."""
        return self.generation_passes_tokens / self.generation_s if self.generation_s else 0.0


@dataclass(frozen=True)
class Generation:
    """What became of one prompt.

    Parameters
    ----------
    text : str
        The new text, without a stop string.
    ids : list of int
        All new tokens, with an end-of-text token or those that made up a stop string.
    stopped : str
        Why it ends: ``"length"`` (as many tokens as asked for), ``"eos"`` (the model ended the text), ``"stop"`` (a
        stop string) or ``"context"`` (the model has no more positions).
    prompt_tokens : int
        Tokens of this prompt.
    timings : Timings
        Of the whole call.
    """

    text: str
    ids: list[int]
    stopped: str
    prompt_tokens: int
    timings: Timings


def generate(
    program: Program,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    settings: GenerationSettings,
    *,
    prompt_chunk: int = PROMPT_CHUNK,
) -> list[Generation]:
    """Continue each prompt.

    Parameters
    ----------
    program : Program
        The lowered model.
    tokenizer : Tokenizer
        The model's.
    prompts : sequence of str or of sequences of int
        Texts or token ids, of any lengths. An empty one stands for the beginning of a text: generation starts after
        the end-of-text token.
    settings : GenerationSettings
        The same for all prompts, with the same seed: equal prompts get equal results, whatever else is in the list.
    prompt_chunk : int
        Most prompt tokens in one pass, at least 1.

    Returns
    -------
    list of Generation
        One for each prompt, in order.

    Raises
    ------
    GenerationError
        Code ``context_length_exceeded``: a prompt is longer than the model's context. Code ``empty_prompt``: a prompt
        is empty and the tokenizer has no end-of-text token. Code ``logits_not_finite``: the model is damaged.
    DataError
        Code ``bad_token_ids``: an id outside the vocabulary.
    UsageError
        Code ``bad_prompt_chunk``: less than 1.
    """
    batch = _Batch(program, tokenizer, prompts, settings, prompt_chunk)
    for _ in batch.pieces():
        pass
    return batch.results()


class Stream:
    """The text of one generation, piece by piece while it comes; iterate over it.

    No piece ends inside a character, none holds any of a stop string, and together they are the result's text.

    Parameters
    ----------
    program : Program
        The lowered model.
    tokenizer : Tokenizer
        The model's.
    prompt : str or sequence of int
        One prompt, as `generate` takes several.
    settings : GenerationSettings
        How to choose and when to stop.
    prompt_chunk : int
        Most prompt tokens in one pass, at least 1.
    """

    def __init__(
        self,
        program: Program,
        tokenizer: Tokenizer,
        prompt: Prompt,
        settings: GenerationSettings,
        *,
        prompt_chunk: int = PROMPT_CHUNK,
    ) -> None:
        self._batch = _Batch(program, tokenizer, [prompt], settings, prompt_chunk)
        self._pieces = self._batch.pieces()

    def __iter__(self) -> Iterator[str]:
        """Return the iterator over the pieces that are still to come."""
        return self

    def __next__(self) -> str:
        """Return the next piece, never empty."""
        return next(self._pieces)

    @property
    def result(self) -> Generation:
        """The whole result; what has not been iterated over is generated first."""
        for _ in self._pieces:
            pass
        return self._batch.results()[0]


@dataclass
class _Sequence:
    """One prompt on its way: tokens so far, those not yet in the cache, and its text."""

    ids: list[int]
    n_prompt: int
    decoder: TextStream
    filter: StopFilter
    pending: list[int] = field(default_factory=list)
    slot: int = -1
    pieces: list[str] = field(default_factory=list)
    stopped: str = ""

    @property
    def n_new(self) -> int:
        return len(self.ids) - self.n_prompt


class _Batch:
    """The sequences of one call."""

    def __init__(
        self,
        program: Program,
        tokenizer: Tokenizer,
        prompts: Sequence[Prompt],
        settings: GenerationSettings,
        prompt_chunk: int,
    ) -> None:
        self.program, self.tokenizer, self.settings, self.prompt_chunk = program, tokenizer, settings, prompt_chunk
        if prompt_chunk < 1:
            raise UsageError("bad_prompt_chunk", f"prompt_chunk must be at least 1 token, not {prompt_chunk}")
        self.timings = Timings()
        self.sequences = [self._sequence(prompt, number) for number, prompt in enumerate(prompts)]

    def _sequence(self, prompt: Prompt, number: int) -> _Sequence:
        """Encode and check a prompt."""
        ids = list(self.tokenizer.encode(prompt) if isinstance(prompt, str) else map(int, prompt))
        context, vocab_size = self.program.config.context, self.program.config.vocab_size
        if not ids:
            if self.tokenizer.eos_id is None:
                raise GenerationError(
                    "empty_prompt",
                    f"prompt {number} is empty and the tokenizer has no end-of-text token after which a text could "
                    "begin; give at least one token",
                )
            ids = [self.tokenizer.eos_id]
        if len(ids) > context:
            raise GenerationError(
                "context_length_exceeded",
                f"prompt {number} has {len(ids)} tokens and the model's context {context}; shorten the prompt by at "
                f"least {len(ids) - context} tokens, and by as many more as are to be generated",
            )
        if not 0 <= min(ids) <= max(ids) < vocab_size:
            raise DataError(
                "bad_token_ids",
                f"prompt {number}: token ids must lie in 0..{vocab_size - 1}; these run from {min(ids)} to {max(ids)}",
            )
        return _Sequence(ids, len(ids), self.tokenizer.text_stream(), StopFilter(self.settings.stop), list(ids))

    def results(self) -> list[Generation]:
        """Return what became of each prompt, once all pieces have come."""
        return [
            Generation("".join(s.pieces), s.ids[s.n_prompt :], s.stopped, s.n_prompt, self.timings)
            for s in self.sequences
        ]

    def pieces(self) -> Iterator[str]:
        """Generate for all prompts, yielding pieces of text as they become certain."""
        if self.settings.max_new_tokens == 0 or not self.sequences:
            for sequence in self.sequences:
                sequence.stopped = "length"
            return
        config, longest = self.program.config, max(s.n_prompt for s in self.sequences)
        capacity = min(config.context, longest + self.settings.max_new_tokens - 1)
        cache = KVCache.create(config.layers, min(SLOTS, len(self.sequences)), capacity)
        waiting, active = deque(self.sequences), list[_Sequence]()
        while waiting or active:
            entered = [waiting.popleft() for _ in range(min(len(waiting), cache.n_slots - len(active)))]
            for sequence in entered:
                sequence.slot = cache.claim()
            if entered:
                yield from self._read_prompts(entered, cache)
            else:
                yield from self._generate_one(active, cache)
            active += entered
            for sequence in active:
                if sequence.stopped:
                    cache.release(sequence.slot)
            active = [sequence for sequence in active if not sequence.stopped]

    def _read_prompts(self, sequences: list[_Sequence], cache: KVCache) -> Iterator[str]:
        """Pass over the pending tokens in chunks, and choose each sequence's first new token."""
        self.timings.prompt_tokens += sum(len(sequence.pending) for sequence in sequences)
        while left := [sequence for sequence in sequences if not sequence.n_new]:
            start, room, counts = time.perf_counter(), self.prompt_chunk, list[int]()
            for sequence in left:
                counts.append(min(room, len(sequence.pending)))
                room -= counts[-1]
                if not room:
                    break
            pieces = self._pass(left[: len(counts)], counts, cache)
            self.timings.prompt_s += time.perf_counter() - start
            yield from pieces

    def _generate_one(self, sequences: list[_Sequence], cache: KVCache) -> Iterator[str]:
        """Choose one more token for each sequence."""
        start = time.perf_counter()
        pieces = self._pass(sequences, [1] * len(sequences), cache)
        self.timings.generation_s += time.perf_counter() - start
        self.timings.generation_passes_tokens += len(sequences)
        yield from pieces

    def _pass(self, sequences: list[_Sequence], counts: list[int], cache: KVCache) -> list[str]:
        """Run so many pending tokens of each; where none is left, take the next token; return the new text."""
        ids = [token for s, count in zip(sequences, counts, strict=True) for token in s.pending[:count]]
        slots = np.array([sequence.slot for sequence in sequences])
        logits_BV = self.program.run(np.array(ids), slots, np.array(counts), cache)
        pieces = []
        for sequence, count, logits_V in zip(sequences, counts, logits_BV, strict=True):
            del sequence.pending[:count]
            if not sequence.pending:
                known = logits_V[: self.tokenizer.vocab_size]  # a model's table may be longer: no text for the rest
                pieces.append(self._take(sequence, choose(known, self.settings, sequence.ids, sequence.n_new)))
        return [piece for piece in pieces if piece]

    def _take(self, sequence: _Sequence, token: int) -> str:
        """Append a token; return the text that it makes certain, and note whether the sequence ends."""
        sequence.ids.append(token)
        self.timings.new_tokens += 1
        piece = ""
        if token == self.tokenizer.eos_id and not self.settings.ignore_eos:
            sequence.stopped = "eos"
        else:
            piece = sequence.filter.push(sequence.decoder.push(token))
            if sequence.filter.found:
                sequence.stopped = "stop"
            elif sequence.n_new == self.settings.max_new_tokens:
                sequence.stopped = "length"
            elif len(sequence.ids) > self.program.config.context:
                sequence.stopped = "context"
        if sequence.stopped and sequence.stopped != "stop":
            piece += sequence.filter.push(sequence.decoder.finish())
            piece += sequence.filter.finish()
        sequence.pending.append(token)
        sequence.pieces.append(piece)
        return piece
