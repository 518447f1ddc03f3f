"""The tour's report: one aligned table, the targets, Markdown, and the pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np

from minislm.language_model import LanguageModel
from minislm.look import plots
from minislm.look.trace import trace
from minislm.tour.measure import Figures
from minislm.tour.plan import PROMPT

COLUMNS = (  # of single words below each other they fit a terminal of 80 columns
    "model",
    "params",
    "disk kB",
    "memory kB",
    "bits per weight",
    "bits per byte",
    "KL nats",
    "top 1 %",
    "prompt tok/s",
    "gen tok/s",
)
SHOWN = "blocks.0.mlp.up.weight"  # the matrix that the pictures show


class Target(NamedTuple):
    """A figure that the tour of full size should reach.

    Parameters
    ----------
    what : str
        The figure.
    value : float
        As measured.
    bound : float
        What it is held against.
    at_most : bool
        Whether smaller is better.
    """

    what: str
    value: float
    bound: float
    at_most: bool = True

    @property
    def met(self) -> bool:
        """Whether the figure is on the right side of its bound; not a number is not."""
        return self.value <= self.bound if self.at_most else self.value >= self.bound


def table(figures: Sequence[Figures]) -> list[tuple[str, ...]]:
    """Format the rows of the table.

    Parameters
    ----------
    figures : sequence of Figures
        One for each model.

    Returns
    -------
    list of tuple of str
        Cells in the order of `COLUMNS`.
    """
    return [
        (
            f.name,
            f"{f.parameters:,}",
            f"{f.disk_bytes / 1e3:,.0f}",
            f"{f.memory_bytes / 1e3:,.0f}",
            f"{f.bits_per_weight:.2f}",
            f"{f.bits_per_byte:.3f}",
            f"{f.kl_nats:.4f}",
            f"{100 * f.top_1:.1f}",
            f"{f.prompt_tokens_per_s:,.0f}",
            f"{f.generation_tokens_per_s:,.0f}",
        )
        for f in figures
    ]


def targets(figures: Sequence[Figures]) -> list[Target]:
    """Hold the rows against what the tour of full size should reach.

    Parameters
    ----------
    figures : sequence of Figures
        One for each model of the tour.

    Returns
    -------
    list of Target
        Perplexity ratios, the share of the rounding loss that training recovers, and distillation's gain where the
        same student was trained alone.
    """
    nll = {f.name: f.nll_nats for f in figures}

    def ratio(name: str, reference: str, bound: float) -> Target:
        return Target(f"perplexity of {name} / {reference}", math.exp(nll[name] - nll[reference]), bound)

    lost = nll["int3"] - nll["control"]
    found = [
        ratio("int8", "teacher", 1.005),
        ratio("int4", "teacher", 1.02),
        Target(
            "share of int3's loss that int3-qat recovers", (nll["int3"] - nll["int3-qat"]) / lost, 0.60, at_most=False
        ),
        ratio("pruned-50", "control", 1.03),
        ratio("pruned-2:4", "control", 1.06),
    ]
    alone = [value for name, value in nll.items() if name.startswith("alone")]
    if alone:
        distilled = [value for name, value in nll.items() if name.startswith("distilled")]
        gain = mean(alone) - mean(distilled)
        found.append(Target(f"nats won by distillation, mean of {len(alone)} seeds", gain, 0.0, at_most=False))
    return found


def markdown(report: Mapping[str, Any], figures: Sequence[Figures], pictures: Sequence[str]) -> str:
    """Write the report as Markdown.

    Parameters
    ----------
    report : mapping
        The JSON report: ``plan``, ``corpus``, ``machine`` and ``targets`` are read.
    figures : sequence of Figures
        The rows.
    pictures : sequence of str
        File names beside the report.

    Returns
    -------
    str
        The text.
    """
    corpus, machine = report["corpus"], report["machine"]
    lines = [
        "# One small language model, compressed by every family",
        "",
        f"Tour of size `{report['plan']['name']}`, minislm {machine['minislm']}, Python {machine['python']}, "
        f"fastest tier: {machine['tier']}, threads: {machine['threads']}. "
        f"Text: {corpus['train_bytes']:,} bytes to train on, {corpus['held_out_bytes']:,} held out.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" + "---:|" * (len(COLUMNS) - 1),
        *("| " + " | ".join(cells) + " |" for cells in table(figures)),
        "",
        "Memory is what loading and running the model adds to a fresh process. KL and top 1 are against the teacher.",
        "",
        *(f"- **{f.name}**: {f.what}" for f in figures),
        "",
        "## Targets of the tour of full size",
        "",
        "| figure | measured | target | |",
        "|---|---:|---:|---|",
        *(
            f"| {t['what']} | {t['value']:.4f} | {'<=' if t['at_most'] else '>='} {t['bound']:g} | "
            f"{'met' if t['met'] else 'missed'} |"
            for t in report["targets"]
        ),
        "",
        f"## What each writes after {PROMPT!r}",
        "",
        *(f"- **{f.name}**: {f.continuation!r}" for f in figures),
        "",
        *(f"![{name}]({name})\n" for name in pictures),
    ]
    return "\n".join(lines)


def draw(figures: Sequence[Figures], models: Mapping[str, LanguageModel], directory: Path) -> list[str]:
    """Draw the pictures.

    Parameters
    ----------
    figures : sequence of Figures
        The rows.
    models : mapping of str to LanguageModel
        Loaded models by row name.
    directory : Path
        Where to put the PNG files.

    Returns
    -------
    list of str
        Names of the files.
    """
    of = {name: lm.model.weights()[SHOWN] for name, lm in models.items() if SHOWN in lm.model.weights()}
    before = of["teacher"].dense()
    control = of["control"].dense()
    plots.plot_size_against_quality(
        {f.name: (f.disk_bytes, f.bits_per_byte) for f in figures}, directory / "size_quality.png"
    )
    plots.plot_weight_histograms(
        {
            "int4 (from teacher)": (before, of["int4"].dense()),
            "int3 (from teacher)": (before, of["int3"].dense()),
            "int3-qat (beside control)": (control, of["int3-qat"].dense()),
            "pruned-50 (beside control)": (control, of["pruned-50"].dense()),
        },
        directory / "weights.png",
        of=SHOWN,
    )
    plots.plot_singular_values(
        {name: np.linalg.svd(of[name].dense(), compute_uv=False) for name in ("teacher", "low-rank", "factorised")},
        directory / "singular_values.png",
        of=SHOWN,
    )
    plots.plot_masks(
        {name: of[name].dense() != 0 for name in ("pruned-50", "pruned-2:4")}, directory / "masks.png", of=SHOWN
    )
    seen = trace(models["teacher"], PROMPT)
    plots.plot_attention(
        seen.attention(0), seen.tokens, directory / "attention.png", title="Attention of the teacher's first block"
    )
    return ["size_quality.png", "weights.png", "singular_values.png", "masks.png", "attention.png"]
