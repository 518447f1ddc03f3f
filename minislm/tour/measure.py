"""The figures of one row: size, memory, quality and speed of a saved model."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minislm.evaluation.memory import peak_memory
from minislm.evaluation.quality import agreement, likelihood
from minislm.evaluation.speed import measure_speed
from minislm.language_model import LanguageModel
from minislm.tour.plan import PROMPT


@dataclass(frozen=True)
class Figures:
    """What the tour measures of a model.

    Parameters
    ----------
    name, what, judged_against : str
        As `Row`.
    parameters : int
        Stored numbers: zeros left out by sparse storage do not count.
    disk_bytes : int
        Of model.safetensors.
    memory_bytes : int
        What loading the model and generating with it added to a fresh process.
    bits_per_weight : float
        Stored bits for each entry of the logical matrices.
    nll_nats, bits_per_byte : float
        On the held-out text: for each token, and for each byte.
    kl_nats, top_1 : float
        Divergence from the teacher, and share of positions with the same first choice.
    prompt_tokens_per_s, generation_tokens_per_s : float
        Of the fastest of repeated runs.
    continuation : str
        What the model writes after the tour's prompt, greedily.
    """

    name: str
    what: str
    judged_against: str
    parameters: int
    disk_bytes: int
    memory_bytes: int
    bits_per_weight: float
    nll_nats: float
    bits_per_byte: float
    kl_nats: float
    top_1: float
    prompt_tokens_per_s: float
    generation_tokens_per_s: float
    continuation: str

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values.

        Returns
        -------
        dict
            Field names to values.
        """
        return dataclasses.asdict(self)


def measure(
    name: str,
    what: str,
    judged_against: str,
    folder: Path,
    lm: LanguageModel,
    teacher: LanguageModel,
    held_out: np.ndarray,
    held_out_bytes: int,
) -> Figures:
    """Measure one model.

    Parameters
    ----------
    name, what, judged_against : str
        As `Row`.
    folder : Path
        Where it is saved.
    lm, teacher : LanguageModel
        The model, loaded from there, and its teacher.
    held_out : ndarray of int, (N,)
        Tokens of held-out text.
    held_out_bytes : int
        UTF-8 bytes of that text without its first token.

    Returns
    -------
    Figures
        Its row.
    """
    model = lm.model
    text = likelihood(model, held_out, n_bytes=held_out_bytes)
    close = agreement(model, teacher.model, held_out)
    half = model.config.context // 2
    speed = measure_speed(lm, prompt_tokens=half, new_tokens=half)
    weights = model.weights().values()
    continuation = lm.generate(PROMPT, max_new_tokens=min(40, half), temperature=0.0).text
    return Figures(
        name=name,
        what=what,
        judged_against=judged_against,
        parameters=model.n_parameters,
        disk_bytes=(folder / "model.safetensors").stat().st_size,
        memory_bytes=peak_memory(folder, n_tokens=half, prompt_tokens=half).growth_bytes,
        bits_per_weight=8.0 * sum(w.nbytes for w in weights) / sum(math.prod(w.shape) for w in weights),
        nll_nats=text.nll_nats,
        bits_per_byte=text.bits_per_byte,
        kl_nats=close.kl_nats,
        top_1=close.top_1,
        prompt_tokens_per_s=speed.prompt,
        generation_tokens_per_s=speed.generation,
        continuation=continuation,
    )
