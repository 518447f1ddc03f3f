"""What is wanted, and its details: intents and slots of SNIPS by one encoder, from scratch; then a student and int8.

    python tests/benchmarks/bench_snips.py --data path/to/snips -o out/snips

A joint encoder learns the 7 intents and 39 kinds of slots of 13,784 sentences, and is judged on the 700 validation
sentences: F1 of whole spans (as seqeval counts them), intents, and whole frames. A student of half its parameters
learns from it, and the same student learns alone, three seeds each; the first student gets int8 on top. Intents are
also learned from 10 sentences a class. What is done stays done when it is run again with the same ``-o``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from minislm.cli.live import Live
from minislm.cli.terminal import print_table
from minislm.compression import compress
from minislm.compression.distil import Distil
from minislm.compression.quantize import Quantize
from minislm.compression.student import resized
from minislm.evaluation.labelled import judge_labelled
from minislm.language_model import LanguageModel, load, save
from minislm.models.encoder import Encoder
from minislm.text.examples import LabelledText
from minislm.text.records import Record
from minislm.text.spans import Span
from minislm.training.data import TrainingData
from minislm.training.metrics import read_metrics
from minislm.training.settings import TrainSettings
from minislm.training.tasks.labelled import LabelledTexts, heads_for
from minislm.training.train import create, train

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "snips"
CONTEXT = 96
TEACHER = {"d_model": 192, "n_layers": 3, "n_heads": 6, "d_ff": 768, "context": CONTEXT, "dropout": 0.3}
STUDENT = {"d_model": 128, "n_layers": 2, "n_heads": 4, "d_ff": 384}
SEEDS = (0, 1, 2)
FEW = 10  # sentences of each intent


def sentences(data: Path, part: str) -> list[LabelledText]:
    """Read the files of one part; one of them is Latin-1, the others are UTF-8."""
    found = []
    for path in sorted(data.glob(f"{part}_*.json")):
        raw = path.read_bytes()
        try:
            content = json.loads(raw.decode("utf-8"))
        except UnicodeDecodeError:
            content = json.loads(raw.decode("latin-1"))
        for intent, examples in content.items():
            for number, example in enumerate(examples, start=1):
                text, spans = "", []
                for piece in example["data"]:
                    words = piece["text"].strip()
                    start = len(text) + piece["text"].find(words)
                    if "entity" in piece and words:
                        spans.append(Span(start, start + len(words), piece["entity"]))
                    text += piece["text"]
                found.append(LabelledText(Record({}, path, number), text, label=intent, spans=tuple(spans)))
    return found


def settings(n_examples: int, epochs: int, rate: float, seed: int = 0) -> TrainSettings:
    """Say how an encoder is trained for so many epochs."""
    batch_size = min(32, n_examples)
    steps = epochs * -(-n_examples // batch_size)
    return TrainSettings(
        steps=steps,
        batch_size=batch_size,
        learning_rate=rate,
        min_learning_rate_ratio=0.02,
        warmup_steps=steps // 20,
        weight_decay=0.05,
        checkpoint_every=max(1, steps // 10),
        seed=seed,
    )


class Bench:
    """The models of one run of this benchmark, made once each."""

    def __init__(self, output: Path, learned: list[LabelledText], held_out: list[LabelledText], epochs: int) -> None:
        self.output, self.learned, self.held_out, self.epochs = output, learned, held_out, epochs

    def examples(self, lm: LanguageModel, texts: Sequence[LabelledText]) -> LabelledTexts:
        """Encode texts for a model."""
        return LabelledTexts.of(texts, lm.tokenizer, lm.model.config.heads, lm.model.config.context)

    def teacher(self, name: str, texts: Sequence[LabelledText], epochs: int) -> LanguageModel:
        """Train an encoder of the teacher's size on some texts."""
        if (self.output / name).exists():
            return load(self.output / name)
        fresh = untrained(self.learned, texts)
        with Live(quiet=False, what=f"train {name}") as live:
            lm, result = train(
                fresh,
                TrainingData(self.examples(fresh, texts)),
                settings(len(texts), epochs, 1e-3),
                directory=self.output / f"{name}.run",
                report=live,
            )
        print(f"{name}: {result.history[-1].elapsed_s / 60:.1f} minutes of training", flush=True)
        save(lm, self.output / name)
        return lm

    def student(self, name: str, teacher: LanguageModel, hard_weight: float, seed: int) -> LanguageModel:
        """Train a student on its teacher's probabilities, or on the labels alone."""
        if (self.output / name).exists():
            return load(self.output / name)
        method = Distil(
            settings(len(self.learned), self.epochs, 1e-3, seed),
            student="scratch",
            sizes=STUDENT,
            hard_weight=hard_weight,
            seed=seed,
        )
        data = TrainingData(self.examples(teacher, self.learned))
        with Live(quiet=False, what=f"train {name}") as live:
            lm, _ = compress(teacher, method, data, directory=self.output / f"{name}.run", report=live)
        save(lm, self.output / name)
        return lm


def untrained(learned: Sequence[LabelledText], texts: Sequence[LabelledText]) -> LanguageModel:
    """Make an encoder of the teacher's size, with a tokenizer of `learned` and heads for the labels of `texts`."""
    words = [text.text for text in learned]
    return create(
        words, family="encoder", lowercase=True, vocab_size=4000, n_types=0, heads=heads_for(texts), **TEACHER
    )


def times_faster(student: LanguageModel, teacher: LanguageModel, texts: list[str]) -> float:
    """Compare how long both need for the tags of all texts: medians of five rounds, in turns."""
    rounds = [(seconds(teacher, texts), seconds(student, texts)) for _ in range(5)]
    return statistics.median(slow for slow, _ in rounds) / statistics.median(fast for _, fast in rounds)


def seconds(lm: LanguageModel, texts: list[str]) -> float:
    """Time the tags of all texts."""
    began_s = time.perf_counter()
    lm.tag(texts)
    return time.perf_counter() - began_s


def few(texts: list[LabelledText]) -> list[LabelledText]:
    """Take the first sentences of each intent, without their slots."""
    counts: Counter[str | None] = Counter()
    taken = []
    for text in texts:
        counts[text.label] += 1
        if counts[text.label] <= FEW:
            taken.append(text._replace(spans=None))
    return taken


def main() -> int:
    """Train, compress, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="Folder with the JSON files.")
    parser.add_argument("-o", "--output", type=Path, default=Path("snips"), help="Folder of the models.")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--speed", action="store_true", help="Time both sizes with random weights, and stop.")
    given = parser.parse_args()
    if not given.data.is_dir():
        print(f"there is no folder {given.data}; give that of SNIPS (custom intents 2017) with --data")
        return 3
    learned, held_out = sentences(given.data, "train"), sentences(given.data, "validate")
    if given.speed:
        teacher = untrained(learned, learned)
        student = LanguageModel(Encoder.create(resized(teacher.model.config, STUDENT)), teacher.tokenizer)
        print(f"student's speed: {times_faster(student, teacher, [text.text for text in held_out]):.2f} times")
        return 0
    given.output.mkdir(parents=True, exist_ok=True)
    bench = Bench(given.output, learned, held_out, given.epochs)
    teacher = bench.teacher("teacher", learned, given.epochs)
    models = {"teacher": teacher}
    for seed in SEEDS:
        models[f"distilled-{seed}"] = bench.student(f"distilled-{seed}", teacher, 0.3, seed)
        models[f"alone-{seed}"] = bench.student(f"alone-{seed}", teacher, 1.0, seed)
    models["distilled-0-int8"], _ = compress(models["distilled-0"], Quantize("int8"))
    judged = {name: judge_labelled(lm, held_out) for name, lm in models.items()}
    columns = ("span_f1", "accuracy", "frame_accuracy")
    print_table(
        ("model", "parameters", "bytes", "span F1", "intents", "frames"),
        [
            (name, lm.model.n_parameters, lm.model.nbytes, *(f"{100 * judged[name][c]:.2f}" for c in columns))
            for name, lm in models.items()
        ],
        right=(3, 4, 5),
    )
    sparse = bench.teacher("few", few(learned), 60)
    figures = judge_labelled(sparse, [text._replace(spans=None) for text in held_out])
    print(f"intents from {FEW} sentences a class: {100 * figures['accuracy']:.1f} %")
    minutes = read_metrics(given.output / "teacher.run" / "metrics.jsonl")[-1].elapsed_s / 60
    return report(judged, minutes, teacher, models["distilled-0"], [text.text for text in held_out])


def report(
    judged: dict[str, dict[str, float]],
    minutes: float,
    teacher: LanguageModel,
    student: LanguageModel,
    texts: list[str],
) -> int:
    """Compare with the targets."""
    faster = times_faster(student, teacher, texts)
    best, int8 = judged["teacher"]["span_f1"], judged["distilled-0-int8"]["span_f1"]
    distilled, alone = (
        statistics.mean(judged[f"{name}-{seed}"]["span_f1"] for seed in SEEDS) for name in ("distilled", "alone")
    )
    targets = [
        ("teacher's minutes of training", minutes, "at most 8", minutes <= 8),
        ("teacher's span F1", 100 * best, "at least 85", best >= 0.85),
        ("students' part of it", distilled / best, "at least 0.97", distilled >= 0.97 * best),
        ("distilled minus alone", 100 * (distilled - alone), "more than 0", distilled > alone),
        ("student's speed", faster, "at least 1.6", faster >= 1.6),
        ("int8 student's part", int8 / best, "at least 0.96", int8 >= 0.96 * best),
    ]
    print_table(
        ("figure", "measured", "target", "met"),
        [(name, f"{value:.3f}", target, "yes" if met else "NO") for name, value, target, met in targets],
        right=(1,),
    )
    return 0 if all(met for *_, met in targets) else 1


if __name__ == "__main__":
    sys.exit(main())
