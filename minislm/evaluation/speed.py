"""How fast a model reads a prompt and generates, on this machine, now."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from minislm.inference.settings import GenerationSettings

if TYPE_CHECKING:
    from minislm.language_model import LanguageModel


@dataclass(frozen=True)
class Speed:
    """Tokens a second, of the fastest round each.

    Parameters
    ----------
    prompt : float
        While reading the prompt, all its tokens at once.
    generation : float
        While generating one token after the other.
    """

    prompt: float
    generation: float


def plain_settings(lm: LanguageModel, n_tokens: int) -> GenerationSettings:
    """Return settings of the least that generation takes, whatever a model's own ask for.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    n_tokens : int
        New tokens.

    Returns
    -------
    GenerationSettings
        The likeliest token each time, as many as asked for.
    """
    start_id = lm.settings.start_id
    return GenerationSettings(max_new_tokens=n_tokens, temperature=0.0, ignore_eos=True, start_id=start_id)


def measure_speed(lm: LanguageModel, *, prompt_tokens: int, new_tokens: int, rounds: int = 9) -> Speed:
    """Time a prompt and a greedy continuation; one round more, not counted, warms up.

    Parameters
    ----------
    lm : LanguageModel
        What to time.
    prompt_tokens, new_tokens : int
        Lengths, together at most the model's context.
    rounds : int
        Timed repetitions.

    Returns
    -------
    Speed
        Of the fastest repetition: what else runs on the machine only ever slows them down.
    """
    lm = dataclasses.replace(lm, settings=plain_settings(lm, new_tokens))
    prompt = [i % lm.model.config.vocab_size for i in range(prompt_tokens)]
    timings = [lm.generate(prompt).timings for _ in range(rounds + 1)][1:]
    return Speed(
        max(t.prompt_tokens_per_s for t in timings),
        max(t.generation_tokens_per_s for t in timings),
    )
