"""Pictures of models and of what compression does to them; each function writes one PNG. Needs the `plot` extra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minislm.errors import UnsupportedError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GRAY = "#2060a0", "#d07010", "#808080"


def new_figure(n_axes: int = 1, *, width: float = 7.0, height: float = 4.2) -> tuple[Figure, list[Axes]]:
    """Make a figure with axes side by side, outside of any graphical session.

    Parameters
    ----------
    n_axes : int
        How many axes.
    width, height : float
        Of each, in inches.

    Returns
    -------
    tuple
        The figure and its axes.

    Raises
    ------
    UnsupportedError
        Code ``plot_extra_missing``: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise UnsupportedError(
            "plot_extra_missing",
            "pictures need matplotlib: pip install -e '.[plot]' where minislm stands",
        ) from error
    figure = Figure(figsize=(width * n_axes, height), layout="constrained", dpi=110)
    return figure, list(figure.subplots(1, n_axes, squeeze=False)[0])


def plot_size_against_quality(points: Mapping[str, tuple[int, float]], path: str | Path) -> None:
    """Plot models by what they weigh and how well they predict; down and left is better.

    Parameters
    ----------
    points : mapping of str to (int, float)
        Name to (bytes on disk, bits per byte of held-out text).
    path : str or Path
        The PNG to write.
    """
    figure, (axes,) = new_figure(width=8.0, height=5.2)
    size_kb = np.array([size / 1e3 for size, _ in points.values()])
    quality = np.array([bits for _, bits in points.values()])
    axes.scatter(size_kb, quality, color=BLUE, zorder=3)
    axes.set_xscale("log")
    axes.set_xlim(size_kb.min() / 1.4, size_kb.max() * 1.9)
    span = max(float(np.ptp(quality)), 1e-3)
    axes.set_ylim(quality.min() - 0.08 * span, quality.max() + 0.12 * span)
    for name, x, y in _spread_labels(list(points), np.log(size_kb), quality / span):
        at = (np.exp(x), y * span)
        i = list(points).index(name)
        axes.annotate(
            name,
            (size_kb[i], quality[i]),
            xytext=at,
            fontsize=9,
            va="center",
            arrowprops={"arrowstyle": "-", "color": GRAY, "lw": 0.6},
        )
    axes.set_xlabel("model on disk, kB (log scale)")
    axes.set_ylabel("bits per byte of held-out text")
    axes.set_title("Size against quality: down and left is better")
    axes.grid(alpha=0.3, which="both")
    figure.savefig(path)


def _spread_labels(names: Sequence[str], x: np.ndarray, y: np.ndarray) -> list[tuple[str, float, float]]:
    """Place each label to the right of its point, moved up where it would cover one that is placed already."""
    placed: list[tuple[str, float, float]] = []
    for i in np.lexsort((y, x)):
        at = float(y[i])
        while any(abs(x[i] - other_x) < 0.45 and abs(at - other_y) < 0.045 for _, other_x, other_y in placed):
            at += 0.046
        placed.append((names[i], float(x[i]), at))
    return [(name, at_x + 0.06, at_y) for name, at_x, at_y in placed]


def plot_weight_histograms(pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], path: str | Path, *, of: str) -> None:
    """Plot the distribution of a matrix's entries before and after compression, one pair of histograms for each name.

    Parameters
    ----------
    pairs : mapping of str to (ndarray, ndarray)
        Name of what was done to the matrix before and after it.
    path : str or Path
        The PNG to write.
    of : str
        Which matrix, for the title.
    """
    figure, all_axes = new_figure(len(pairs), width=3.6, height=3.4)
    for axes, (name, (before, after)) in zip(all_axes, pairs.items(), strict=True):
        reach = float(np.abs(before).max()) or 1.0
        bins = np.linspace(-reach, reach, 121).tolist()
        axes.hist(before.ravel(), bins=bins, color=GRAY, alpha=0.6, label="before")
        axes.hist(after.ravel(), bins=bins, histtype="step", color=ORANGE, lw=1.2, label="after")
        axes.set_yscale("log")
        axes.set_title(name)
        axes.set_xlabel("weight")
    all_axes[0].set_ylabel("number of weights (log scale)")
    all_axes[0].legend(loc="upper right", fontsize=8)
    figure.suptitle(f"{of}: weights before and after")
    figure.savefig(path)


def plot_singular_values(spectra: Mapping[str, np.ndarray], path: str | Path, *, of: str) -> None:
    """Plot singular values in falling order.

    Parameters
    ----------
    spectra : mapping of str to ndarray, (R,)
        Name to singular values.
    path : str or Path
        The PNG to write.
    of : str
        Which matrix, for the title.
    """
    figure, (axes,) = new_figure()
    for name, values in spectra.items():
        kept = values[values > values[0] * 1e-6]
        axes.plot(np.arange(1, len(kept) + 1), kept, marker=".", ms=3, lw=1.0, label=f"{name} (rank {len(kept)})")
    axes.set_xlabel("number of the singular value")
    axes.set_ylabel("singular value")
    axes.set_ylim(bottom=0)
    axes.set_title(f"{of}: singular values")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path)


def plot_masks(masks: Mapping[str, np.ndarray], path: str | Path, *, of: str, corner: int = 64) -> None:
    """Plot which weights pruning kept, in a corner of the matrix.

    Parameters
    ----------
    masks : mapping of str to ndarray of bool, (O, I)
        Name to mask; True is kept.
    path : str or Path
        The PNG to write.
    of : str
        Which matrix, for the title.
    corner : int
        Rows and columns to show.
    """
    figure, all_axes = new_figure(len(masks), width=4.4, height=4.6)
    for axes, (name, mask_OI) in zip(all_axes, masks.items(), strict=True):
        axes.imshow(mask_OI[:corner, :corner], cmap="Blues", vmin=0, vmax=1.3, interpolation="nearest")
        axes.set_title(f"{name}: {mask_OI.mean():.1%} kept")
        axes.set_xlabel("input")
    all_axes[0].set_ylabel("output")
    figure.suptitle(f"{of}: mask, first {corner} rows and columns")
    figure.savefig(path)


def plot_attention(p_HTS: np.ndarray, tokens: Sequence[str], path: str | Path, *, title: str) -> None:
    """Plot the attention probabilities of every head of a block.

    Parameters
    ----------
    p_HTS : ndarray of float, (H, T, S)
        Probabilities.
    tokens : sequence of str
        Texts of the T = S positions.
    path : str or Path
        The PNG to write.
    title : str
        What is shown.
    """
    figure, all_axes = new_figure(len(p_HTS), width=3.7, height=4.3)
    labels = [token.replace("\n", "\\n") or "?" for token in tokens]
    for head, axes in enumerate(all_axes):
        shown: Any = axes.imshow(p_HTS[head], cmap="viridis", vmin=0.0, vmax=1.0)
        axes.set_title(f"head {head}")
        axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=7)
        axes.set_yticks(range(len(labels)), labels if head == 0 else [""] * len(labels), fontsize=7)
    all_axes[0].set_ylabel("query")
    figure.colorbar(shown, ax=all_axes, shrink=0.7, label="probability")
    figure.suptitle(title)
    figure.savefig(path)
