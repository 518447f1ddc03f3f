"""Sentences into calendar events, from scratch, judged on days never seen; then a student, and int8.

    python tests/benchmarks/bench_calendar.py -o out/calendar

The sentences are those of `tutorials/calendar_grammar.py`: a tenth of the days of eight years is held out, and no
sentence or event of the examination names a day that occurs in training. An answer counts if title, start and end are
right, to the letter. A student of half the parameters learns from the model; both get int8 on top. What is done stays
done when it is run again with the same ``-o``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tutorials"))

from calendar_grammar import Example, examples  # noqa: E402 (from the folder of the tutorials)

from minislm.cli.common import print_table  # noqa: E402
from minislm.cli.live import Live  # noqa: E402
from minislm.compression import compress  # noqa: E402
from minislm.compression.distil import Distil  # noqa: E402
from minislm.compression.quantize import Quantize  # noqa: E402
from minislm.language_model import LanguageModel, load, save  # noqa: E402
from minislm.text.examples import TextPair  # noqa: E402
from minislm.text.records import Record  # noqa: E402
from minislm.training.data import TrainingData  # noqa: E402
from minislm.training.settings import TrainSettings  # noqa: E402
from minislm.training.tasks.sequences import SequencePairs  # noqa: E402
from minislm.training.train import create, train  # noqa: E402

CONTEXT = 64
SIZES = {"d_model": 128, "n_layers": 2, "n_encoder_layers": 3, "n_heads": 4, "d_ff": 512, "context": CONTEXT}
STUDENT = {"d_model": 88, "n_heads": 4, "d_ff": 352}
TARGETS = {"model": 0.98, "model int8": 0.96, "student": 0.96, "student int8": 0.96}


def settings(steps: int) -> TrainSettings:
    """Say how both models are trained."""
    return TrainSettings(
        steps=steps,
        batch_size=64,
        learning_rate=2e-3,
        min_learning_rate_ratio=0.05,
        warmup_steps=min(200, steps // 10),
        beta2=0.98,
        weight_decay=0.01,
        checkpoint_every=max(1, steps // 10),
    )


def encoded(known: list[Example], lm: LanguageModel) -> TrainingData:
    """Encode sentences and events for a model."""
    place = Record({}, ROOT / "tutorials" / "calendar_grammar.py", 1)
    return TrainingData(SequencePairs.of([TextPair(place, *example) for example in known], lm.tokenizer, CONTEXT))


def exact(lm: LanguageModel, asked: list[Example]) -> float:
    """Return the part of the sentences whose event is right to the letter."""
    written = lm.generate_batch([example.sentence for example in asked], temperature=0.0, max_new_tokens=50)
    return sum(found.text == example.event for found, example in zip(written, asked, strict=True)) / len(asked)


def models(output: Path, known: list[Example], steps: int) -> dict[str, LanguageModel]:
    """Make the models, or load those that were made before."""
    if not (output / "model").exists():
        texts = [text for example in known[:5000] for text in example]
        fresh = create(texts, family="transformer", vocab_size=640, **SIZES)
        with Live(quiet=False, what="train the model") as live:
            lm, result = train(
                fresh, encoded(known, fresh), settings(steps), directory=output / "model.run", report=live
            )
        print(f"trained in {result.history[-1].elapsed_s / 60:.1f} minutes")
        save(lm, output / "model")
    model = load(output / "model")
    if not (output / "student").exists():
        method = Distil(settings(steps), student="scratch", sizes=STUDENT)
        with Live(quiet=False, what="distil the student") as live:
            lm, _ = compress(model, method, encoded(known, model), directory=output / "student.run", report=live)
        save(lm, output / "student")
    found = {"model": model, "student": load(output / "student")}
    for name in ("model", "student"):
        found[f"{name} int8"] = compress(found[name], Quantize("int8", activations="int8-row"))[0]
    return found


def main() -> int:
    """Train, compress, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("calendar"), help="Folder of the models.")
    parser.add_argument("--examples", type=int, default=80_000, help="Sentences to learn from.")
    parser.add_argument("--steps", type=int, default=3000, help="Of 64 sentences each.")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    made = models(given.output, examples(given.examples, held_out=False), given.steps)
    asked = examples(500, held_out=True)
    scores = {name: exact(lm, asked) for name, lm in made.items()}
    print_table(
        ("model", "parameters", "bytes", "exact", "at least", "met"),
        [
            (
                name,
                made[name].model.n_parameters,
                made[name].model.nbytes,
                f"{scores[name]:.3f}",
                f"{least:g}",
                "yes" if scores[name] >= least else "NO",
            )
            for name, least in TARGETS.items()
        ],
        right=(3, 4),
    )
    return 0 if all(scores[name] >= least for name, least in TARGETS.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
