"""Decoding: sources and prompts in chunks, then token after token for all at once, until each has a reason to stop."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from minislm.errors import UsageError
from minislm.inference.beam import BeamSearch
from minislm.inference.cache import KVCache
from minislm.inference.generation import Generation, Prompt, Timings, requests_of
from minislm.inference.held import Held
from minislm.inference.passes import cut, gathered
from minislm.inference.program import Program
from minislm.inference.settings import GenerationSettings
from minislm.inference.writing import Sampler, Writer
from minislm.text.tokenizer import Tokenizer

PROMPT_CHUNK = 256  # tokens of prompts in one pass: enough for the products to be efficient
SLOTS = 64  # sequences in progress at once
REFILL = 0.25  # part of the slots that must be free before others enter: few long passes cost less than many short ones


def generate(
    program: Program,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    settings: GenerationSettings,
    *,
    source: Program | None = None,
    prompt_chunk: int = PROMPT_CHUNK,
) -> list[Generation]:
    """Continue each prompt, or write what an encoder-decoder makes of it.

    Parameters
    ----------
    program : Program
        The lowered model.
    tokenizer : Tokenizer
        The model's.
    prompts : sequence of str or of sequences of int
        Texts or token ids, of any lengths. For a decoder an empty one stands for the beginning of a text: generation
        starts after the end-of-text token.
    settings : GenerationSettings
        The same for all prompts, with the same seed: equal prompts get equal results, whatever else is in the list.
    source : Program, optional
        The lowered encoder of an encoder-decoder, which reads the prompts; None: a decoder continues them.
    prompt_chunk : int
        Most prompt tokens in one pass, at least 1; a source is never divided.

    Returns
    -------
    list of Generation
        One for each prompt, in order.

    Raises
    ------
    GenerationError
        Code ``context_length_exceeded``: a prompt is longer than the model's context. Code ``empty_prompt``: a prompt
        is empty and the tokenizer has no end-of-text token. Code ``empty_source``: the encoder has nothing to read.
        Code ``logits_not_finite``: the model is damaged; code ``no_token_allowed``: the settings allow none.
    DataError
        Code ``bad_token_ids``: an id outside the vocabulary.
    UsageError
        Code ``bad_prompt_chunk``: less than 1.
    """
    batch = _Batch(program, source, tokenizer, prompts, settings, prompt_chunk)
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
        How to choose and when to stop; with beams the text is one piece.
    source : Program, optional
        The lowered encoder of an encoder-decoder.
    prompt_chunk : int
        Most prompt tokens in one pass, at least 1.
    held : Held, optional
        For a decoder without beams: a sequence of an earlier call, of which is read again only what is new, and which
        holds this one afterwards.
    finished : callable, optional
        Called once, when all pieces have come and the programs are no longer needed.
    """

    def __init__(
        self,
        program: Program,
        tokenizer: Tokenizer,
        prompt: Prompt,
        settings: GenerationSettings,
        *,
        source: Program | None = None,
        prompt_chunk: int = PROMPT_CHUNK,
        held: Held | None = None,
        finished: Callable[[], None] | None = None,
    ) -> None:
        if held is not None and (source is not None or settings.n_beams > 1):
            raise UsageError("bad_option", "only a decoder without beams goes on from a sequence that is held")
        self._batch = _Batch(program, source, tokenizer, [prompt], settings, prompt_chunk, held)
        self._pieces, self._finished = self._batch.pieces(), finished

    def __iter__(self) -> Iterator[str]:
        """Return the iterator over the pieces that are still to come."""
        return self

    def __next__(self) -> str:
        """Return the next piece, never empty."""
        try:
            return next(self._pieces)
        except StopIteration:
            if self._finished is not None:
                self._finished()
                self._finished = None
            raise

    @property
    def result(self) -> Generation:
        """The whole result; what has not been iterated over is generated first."""
        for _ in self:
            pass
        return self._batch.results()[0]


class _Batch:
    """The requests of one call, on their way through the engine."""

    def __init__(
        self,
        program: Program,
        source: Program | None,
        tokenizer: Tokenizer,
        prompts: Sequence[Prompt],
        settings: GenerationSettings,
        prompt_chunk: int,
        held: Held | None = None,
    ) -> None:
        self.held = held
        if prompt_chunk < 1:
            raise UsageError("bad_prompt_chunk", f"prompt_chunk must be at least 1 token, not {prompt_chunk}")
        self.program, self.source, self.prompt_chunk = program, source, prompt_chunk
        self.timings = Timings()
        self.n_known = tokenizer.vocab_size  # a model's table may be longer: no text for the rest
        self.width = settings.n_beams
        self.most_new, self.cache_dtype = settings.max_new_tokens, settings.cache
        writer = BeamSearch if settings.n_beams > 1 else Sampler
        reader = None if source is None else source.config
        requests = requests_of(prompts, tokenizer, program.config, source=reader, start_id=settings.start_id)
        speaker = tokenizer.target or tokenizer
        self.writers: list[Writer] = [writer(request, speaker, settings) for request in requests]

    def results(self) -> list[Generation]:
        """Return what became of each prompt, once all pieces have come."""
        return [writer.result(self.timings) for writer in self.writers]

    def pieces(self) -> Iterator[str]:
        """Generate for all prompts, yielding pieces of text as they become certain."""
        if self.most_new == 0 or not self.writers:
            for writer in self.writers:
                writer.stopped = "length"
            return
        most = max(1, SLOTS // self.width)
        cache = self._new_cache(most) if self.held is None else self.held.cache
        self.timings.cache_bytes = cache.nbytes
        waiting, active = deque(self.writers), list[Writer]()
        while waiting or active:
            free = most - len(active)
            if waiting and free >= most * REFILL:
                entered = [waiting.popleft() for _ in range(min(len(waiting), free))]
                for writer in entered:
                    writer.slots = [cache.claim() for _ in range(self.width)] if self.held is None else [self.held.slot]
                yield from self._read(entered, cache)
                active += entered
            else:
                yield from self._write(active, cache)
            for writer in active:
                if writer.stopped and self.held is None:
                    for slot in writer.slots:
                        cache.release(slot)
            active = [writer for writer in active if not writer.stopped]

    def _new_cache(self, most: int) -> KVCache:
        """Make a cache with room for the longest of so many requests at once."""
        requests = [writer.request for writer in self.writers]
        return self.program.cache(
            self.width * min(most, len(requests)),
            max(len(r.ids) + min(r.room, self.most_new) - 1 for r in requests),
            source_capacity=max(len(r.source) for r in requests),
            dtype=self.cache_dtype,
        )

    def _read(self, writers: list[Writer], cache: KVCache) -> list[str]:
        """Read sources and prompts, and let each writer choose what comes first."""
        start = time.perf_counter()
        slots = np.array([writer.slots[0] for writer in writers])
        requests = [writer.request for writer in writers]
        self.timings.prompt_tokens += sum(request.prompt_tokens for request in requests)
        if self.source is not None:
            for group in gathered([len(request.source) for request in requests], self.prompt_chunk):
                sources = [requests[number].source for number in group]
                counts = np.array([len(source) for source in sources])
                self.source.run_all(np.concatenate(sources), counts, cache=cache, slots_B=slots[group])
        logits = np.empty((len(writers), self.program.config.vocab_size), np.float32)
        texts_ids = [
            request.ids if self.held is None else request.ids[self.held.keep(request.ids) :] for request in requests
        ]
        for pieces in cut([len(ids) for ids in texts_ids], self.prompt_chunk):
            ids = [texts_ids[number][first:last] for number, first, last in pieces]
            rows = [number for number, _, _ in pieces]
            counts = np.array([last - first for _, first, last in pieces])
            logits[rows] = self.program.run(np.concatenate(ids), slots[rows], counts, cache)  # its last piece stays
            if self.held is not None:
                self.held.ids += ids[0]
        texts = self._choose(writers, logits, cache)
        self.timings.prompt_s += time.perf_counter() - start
        return texts

    def _write(self, writers: list[Writer], cache: KVCache) -> list[str]:
        """Run the token that each sequence in progress takes next, and let each writer choose what follows."""
        start = time.perf_counter()
        ids = np.array([token for writer in writers for token in writer.tokens])
        slots = np.array([slot for writer in writers for slot, _ in zip(writer.slots, writer.tokens, strict=False)])
        logits = self.program.run(ids, slots, np.ones(ids.size, np.int64), cache)
        if self.held is not None:
            self.held.ids += ids.tolist()
        texts = self._choose(writers, logits, cache)
        self.timings.generation_s += time.perf_counter() - start
        self.timings.generation_passes_tokens += len(writers)
        return texts

    def _choose(self, writers: list[Writer], logits: np.ndarray, cache: KVCache) -> list[str]:
        """Give each writer its rows of the logits; let cache slots follow the sequences that go on; return new text."""
        texts, slots, sources, first = list[str](), list[int](), list[int](), 0
        for writer in writers:
            n_rows = max(1, len(writer.tokens))
            text, continued = writer.take(logits[first : first + n_rows, : self.n_known])
            texts.append(text)
            slots += writer.slots[: len(continued)]
            sources += [writer.slots[row] for row in continued]
            first += n_rows
        self.timings.new_tokens += len(writers)
        if slots != sources:
            cache.reorder(np.array(slots, np.int64), np.array(sources, np.int64))
        return [text for text in texts if text]
