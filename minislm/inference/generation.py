"""What generation is asked for and what it gives: requests, results, and how long it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minislm.config import Config
from minislm.errors import DataError, GenerationError
from minislm.text.tokenizer import Tokenizer

Prompt = str | Sequence[int]


@dataclass
class Timings:
    """What one call counted and measured, over all its prompts.

    Parameters
    ----------
    prompt_tokens : int
        Tokens of the prompts; of an encoder-decoder's sources.
    prompt_s : float
        Seconds in the passes over them.
    new_tokens : int
        Tokens that were generated; with beams, steps of the search.
    generation_passes_tokens : int
        Those of them that came from passes of their own; the first of each sequence comes with its prompt.
    generation_s : float
        Seconds in these passes, the choice of tokens included.
    cache_bytes : int
        Size of the KV cache.
    """

    prompt_tokens: int = 0
    prompt_s: float = 0.0
    new_tokens: int = 0
    generation_passes_tokens: int = 0
    generation_s: float = 0.0
    cache_bytes: int = 0

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
        Tokens of this prompt; of an encoder-decoder's source.
    timings : Timings
        Of the whole call.
    score : float, optional
        By which beam search preferred it: log-probability in nats over a power of the length. None without beams.
    """

    text: str
    ids: list[int]
    stopped: str
    prompt_tokens: int
    timings: Timings
    score: float | None = None


@dataclass(frozen=True)
class Request:
    """One prompt, encoded and checked.

    Parameters
    ----------
    ids : list of int
        What the decoder begins with, at least one token.
    source : list of int
        What the encoder of an encoder-decoder reads; empty for a decoder.
    room : int
        How many new tokens the model's context leaves; the last of them need not be read.
    """

    ids: list[int]
    source: list[int]
    room: int

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt as it came."""
        return len(self.source or self.ids)


def requests_of(
    prompts: Sequence[Prompt],
    tokenizer: Tokenizer,
    config: Config,
    *,
    source: Config | None = None,
    start_id: int | None = None,
) -> list[Request]:
    """Encode and check prompts.

    Parameters
    ----------
    prompts : sequence of str or of sequences of int
        Texts or token ids. A decoder continues them; an empty one stands for the beginning of a text. The encoder of an
        encoder-decoder reads them: a text is ended by the end-of-text token, and ids are taken as they are.
    tokenizer : Tokenizer
        The model's.
    config : Config
        Of what writes.
    source : Config, optional
        Of what reads the prompts, if the model is an encoder-decoder.
    start_id : int, optional
        What the decoder of an encoder-decoder begins with; None: the end-of-text token.

    Returns
    -------
    list of Request
        One for each prompt.

    Raises
    ------
    GenerationError
        Code ``context_length_exceeded``: a prompt is longer than the model's context. Code ``empty_source``: an
        encoder-decoder has nothing to read. Code ``empty_prompt``: the tokenizer has no end-of-text token where one is
        needed to begin with.
    DataError
        Code ``bad_token_ids``: an id that the model has no row for.
    """
    numbered = list(enumerate(prompts, start=1))
    if source is not None:
        return [_to_be_read(f"text {number}", prompt, tokenizer, source, start_id) for number, prompt in numbered]
    return [_to_be_continued(f"prompt {number}", prompt, tokenizer, config) for number, prompt in numbered]


def source_ids(text: str, tokenizer: Tokenizer, longest: int | None = None) -> list[int]:
    """Encode a text for the encoder of an encoder-decoder.

    Parameters
    ----------
    text : str
        Of any length.
    tokenizer : Tokenizer
        The model's.
    longest : int, optional
        Most tokens of the result; tokens before the last are left out above it. None: any number.

    Returns
    -------
    list of int
        Ended by the end-of-text token, if there is one; empty for a blank text.
    """
    ids = tokenizer.encode_prompts([text])[0] if text.strip() else []
    if ids and tokenizer.eos_id not in (None, ids[-1]):
        ids.append(tokenizer.eos_id)
    return ids if longest is None or len(ids) <= longest else [*ids[: longest - 1], ids[-1]]


def _to_be_continued(name: str, prompt: Prompt, tokenizer: Tokenizer, config: Config) -> Request:
    """Make the request of a decoder."""
    ids = _ids(prompt, tokenizer) or [_begin(name, tokenizer)]
    longest = config.longest_context or 0
    more = f", or let the model see up to {longest} (--context)" if longest > config.context else ""
    _check(name, ids, tokenizer, config, f" (a decoder needs room for the new tokens too){more}")
    return Request(ids, [], config.context + 1 - len(ids))


def _to_be_read(name: str, prompt: Prompt, tokenizer: Tokenizer, config: Config, start_id: int | None) -> Request:
    """Make the request of an encoder-decoder, whose decoder begins as fairseq's do unless told otherwise."""
    source = source_ids(prompt, tokenizer) if isinstance(prompt, str) else list(map(int, prompt))
    if not source:
        raise GenerationError("empty_source", f"{name} is empty; give it words, or leave it out")
    begin = _begin(name, tokenizer) if start_id is None else start_id
    more = ", or let the model see more (--context)" if config.longest_context is None else ""
    _check(name, source, tokenizer, config, f" or divide it{more}")
    return Request([begin], source, config.context)


def _ids(prompt: Prompt, tokenizer: Tokenizer) -> list[int]:
    return tokenizer.encode_prompts([prompt])[0] if isinstance(prompt, str) else list(map(int, prompt))


def _begin(name: str, tokenizer: Tokenizer) -> int:
    """Return the token that a text begins with when nothing comes before it."""
    if tokenizer.eos_id is None:
        raise GenerationError(
            "empty_prompt",
            f"{name} is empty or read by an encoder, and the tokenizer has no end-of-text token with which a new text "
            "could begin; give at least one token, or use the tokenizer that the model was trained with",
        )
    return tokenizer.eos_id


def check_rows(name: str, ids: Sequence[int], tokenizer: Tokenizer, n_rows: int) -> None:
    """Refuse tokens that a model has no row for.

    Parameters
    ----------
    name : str
        What they are of, for the error.
    ids : sequence of int
        At least one.
    tokenizer : Tokenizer
        The model's.
    n_rows : int
        Tokens that the model knows.

    Raises
    ------
    DataError
        Code ``bad_token_ids``.
    """
    if 0 <= min(ids) <= max(ids) < n_rows:
        return
    strange = next(number for number in ids if not 0 <= number < n_rows)
    if strange in tokenizer.tokens:
        told = f"the model has no row for the token {tokenizer.tokens[strange]!a}, id {strange}; leave it out"
    else:
        told = f"these run from {min(ids)} to {max(ids)}"
    raise DataError("bad_token_ids", f"{name}: token ids must lie in 0..{n_rows - 1}; {told}")


def _check(name: str, ids: list[int], tokenizer: Tokenizer, config: Config, advice: str) -> None:
    """Refuse what the model cannot read; `advice` follows that of shortening it."""
    if len(ids) > config.context:
        raise GenerationError(
            "context_length_exceeded",
            f"{name} has {len(ids)} tokens, and the model sees {config.context}: shorten it by at least "
            f"{len(ids) - config.context}{advice}",
        )
    check_rows(name, ids, tokenizer, config.vocab_size)
