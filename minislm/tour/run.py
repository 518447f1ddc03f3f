"""The tour itself: models made, measured and shown, row after row; what is done stays done when it is run again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import minislm
from minislm import dispatch
from minislm.compression import compress
from minislm.errors import UnsupportedError, UsageError
from minislm.files.durable import new_file
from minislm.inference.settings import GenerationSettings
from minislm.language_model import LanguageModel, load, save
from minislm.models.decoder import Decoder
from minislm.text.corpus import python_corpus
from minislm.text.tokenizer import Tokenizer
from minislm.tour.measure import Figures, measure
from minislm.tour.plan import Plan, Row, rows
from minislm.tour.report import draw, markdown, targets
from minislm.training.data import TokenWindows, TrainingData
from minislm.training.loop import fit


class StageStarted(NamedTuple):
    """What `report` receives when a stage begins.

    Parameters
    ----------
    number, n_stages : int
        Which, from 1, and how many there are.
    name : str
        What is done.
    """

    number: int
    n_stages: int
    name: str


class StageDone(NamedTuple):
    """What `report` receives when a stage ends.

    Parameters
    ----------
    name : str
        What was done.
    elapsed_s : float
        How long it took.
    resumed : bool
        Whether it had been done before.
    """

    name: str
    elapsed_s: float
    resumed: bool


class Material(NamedTuple):
    """The text, as tokens.

    Parameters
    ----------
    tokenizer : Tokenizer
        Trained on the training text.
    data : TrainingData
        To train on.
    held_out : ndarray of int32, (N,)
        To be judged on.
    facts : dict
        Bytes and tokens of both, and a hash of the whole.
    """

    tokenizer: Tokenizer
    data: TrainingData
    held_out: np.ndarray
    facts: dict[str, Any]


def run_tour(
    directory: str | Path, plan: Plan, *, report: Callable[[Any], None] | None = None
) -> tuple[dict[str, Any], list[Figures]]:
    """Take the tour.

    Parameters
    ----------
    directory : str or Path
        Where everything goes: ``models/``, ``rows/``, ``report.json``, ``report.md`` and the pictures. A tour of the
        same plan that was interrupted there goes on.
    plan : Plan
        Sizes and budgets.
    report : callable, optional
        Called with `StageStarted`, `StageDone`, and the records of training.

    Returns
    -------
    dict
        What report.json holds.
    list of Figures
        The rows.

    Raises
    ------
    UsageError
        Code ``tour_differs``: the directory holds a tour of another plan, text or version; ``bad_directory``: it
        cannot be made.
    """
    tour = _Tour(Path(directory), plan, report or _silent)
    return tour.run()


class _Tour:
    def __init__(self, directory: Path, plan: Plan, report: Callable[[Any], None]) -> None:
        self.directory = directory
        self.plan = plan
        self.report = report
        self.rows = rows(plan)
        self.stage_number = 0
        self.n_stages = 2 + 2 * len(self.rows)

    def run(self) -> tuple[dict[str, Any], list[Figures]]:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                "bad_directory", f"{self.directory} cannot be a folder: {error.strerror}; choose another with -o"
            ) from error
        material = self.stage("read the text, train the tokenizer", self.material)
        self.check_same(material.facts)
        models = {row.name: self.stage(f"make {row.name}", partial(self.make, row, material)) for row in self.rows}
        figures = [
            self.stage(f"measure {row.name}", partial(self.measured, row, models, material)) for row in self.rows
        ]
        document = {
            "plan": dataclasses.asdict(self.plan),
            "machine": machine(),
            "corpus": material.facts,
            "rows": [f.to_json() for f in figures],
            "targets": [{**target._asdict(), "met": target.met} for target in targets(figures)],
        }
        pictures = self.stage("draw the pictures", partial(self.pictures, figures, models))
        _write(self.directory / "report.json", json.dumps(document, indent=2) + "\n")
        _write(self.directory / "report.md", markdown(document, figures, pictures))
        return document, figures

    def stage(self, name: str, work: Callable[[], Any]) -> Any:
        """Run one stage and report on it."""
        self.stage_number += 1
        self.resumed = False
        self.report(StageStarted(self.stage_number, self.n_stages, name))
        start = time.perf_counter()
        result = work()
        self.report(StageDone(name, time.perf_counter() - start, self.resumed))
        return result

    def material(self) -> Material:
        corpus = python_corpus()
        documents = _first(corpus.train, self.plan.corpus_bytes)
        tokenizer = Tokenizer.train(documents, vocab_size=self.plan.vocab_size)
        train = tokenizer.encode_documents(documents)
        held_out = tokenizer.encode_documents(corpus.held_out)
        if self.plan.held_out_tokens:
            held_out = held_out[: self.plan.held_out_tokens]
        digest = hashlib.sha256("\0".join((*documents, *corpus.held_out)).encode()).hexdigest()
        facts = {
            "train_bytes": sum(len(document.encode()) for document in documents),
            "train_tokens": len(train),
            "held_out_bytes": len(tokenizer.decode(held_out[1:].tolist()).encode()),
            "held_out_tokens": len(held_out),
            "sha256": digest,
        }
        return Material(tokenizer, TrainingData(TokenWindows(train, self.plan.context)), held_out, facts)

    def check_same(self, facts: dict[str, Any]) -> None:
        """Refuse to go on with another tour's models; remember what this tour is otherwise."""
        identity = {
            "minislm": minislm.__version__,
            "plan": json.loads(json.dumps(dataclasses.asdict(self.plan))),
            "sha256": facts["sha256"],
        }
        path = self.directory / "tour.json"
        if path.exists():
            if json.loads(path.read_text(encoding="utf-8")) != identity:
                raise UsageError(
                    "tour_differs",
                    f"{self.directory} holds a tour of another plan, text or version; "
                    "choose another directory with -o, or delete this one",
                )
        else:
            _write(path, json.dumps(identity, indent=2) + "\n")

    def make(self, row: Row, material: Material) -> LanguageModel:
        """Load the model of a row, making and saving it first where that was not done."""
        folder = self.directory / "models" / row.name.replace(":", "-")
        if folder.exists():
            self.resumed = True
            return load(folder)
        checkpoints = self.directory / "checkpoints" / folder.name
        if row.recipe is None:
            settings = self.plan.training(self.plan.teacher_tokens, self.plan.learning_rate, seed=self.plan.seed)
            fresh = Decoder.create(self.plan.config(), self.plan.seed)
            model = fit(fresh, material.data, settings, directory=checkpoints, report=self.report).model
            lm = LanguageModel(model, material.tokenizer, GenerationSettings())
        else:
            teacher = load(self.directory / "models" / "teacher")
            recipe = row.recipe.seeded(self.plan.seed)
            lm, _ = compress(teacher, recipe, material.data, report=self.report, directory=checkpoints)
        folder.parent.mkdir(exist_ok=True)
        save(lm, folder)
        shutil.rmtree(checkpoints, ignore_errors=True)
        return load(folder)

    def measured(self, row: Row, models: dict[str, LanguageModel], material: Material) -> Figures:
        """Read the figures of a row, measuring them first where that was not done."""
        name = row.name.replace(":", "-")
        path = self.directory / "rows" / f"{name}.json"
        if path.exists():
            self.resumed = True
            return Figures(**json.loads(path.read_text(encoding="utf-8")))
        figures = measure(
            row.name,
            row.what,
            row.judged_against,
            self.directory / "models" / name,
            models[row.name],
            models["teacher"],
            material.held_out,
            material.facts["held_out_bytes"],
        )
        path.parent.mkdir(exist_ok=True)
        _write(path, json.dumps(figures.to_json(), indent=2) + "\n")
        return figures

    def pictures(self, figures: list[Figures], models: dict[str, LanguageModel]) -> list[str]:
        """Draw the pictures, or none where matplotlib is not installed."""
        try:
            return draw(figures, models, self.directory)
        except UnsupportedError as error:
            if error.code != "plot_extra_missing":
                raise
            self.report(error)
            return []


def machine() -> dict[str, Any]:
    """Describe what the figures were measured with.

    Returns
    -------
    dict
        Versions, processor, the fastest tier in use, and threads.
    """
    tiers = {choice.tier for choice in dispatch.backend().values()}
    return {
        "minislm": minislm.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "tier": next(tier for tier in reversed(dispatch.TIERS) if tier in tiers),
        "threads": dispatch.threads(),
    }


def _silent(event: Any) -> None:
    """Report nothing."""


def _first(documents: Sequence[str], n_bytes: int) -> list[str]:
    """Return the first documents, as many as fit into a number of bytes; 0: all."""
    ends = np.cumsum([len(document.encode()) for document in documents])
    return list(documents[: int((ends <= n_bytes).sum())] if n_bytes else documents)


def _write(path: Path, text: str) -> None:
    with new_file(path) as new:
        new.write_text(text, encoding="utf-8")
