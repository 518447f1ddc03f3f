"""Assignments: what a model is to learn, read from a user's files. `TASKS` lists them; `read` makes one."""

from __future__ import annotations

import importlib

from minislm.errors import unknown
from minislm.training.assignments.base import Assignment, Files

TASKS = {
    "next": "texts:NextTokens",
    "masked": "texts:MaskedWords",
    "masked+next-sentence": "texts:MaskedWords",
    "classify": "labels:Labels",
    "tag": "labels:Labels",
    "classify+tag": "labels:Labels",
    "answer": "labels:Labels",
    "translate": "pairs:Pairs",
}


def read(task: str, files: Files) -> Assignment:
    """Read what a model is to learn.

    Parameters
    ----------
    task : str
        A key of `TASKS`.
    files : Files
        Where it stands.

    Returns
    -------
    Assignment
        Everything in the files is checked.

    Raises
    ------
    UnsupportedError
        Code ``unknown_task``, with the known ones and the nearest match.
    NotFoundError, DataError, UsageError
        As `text.examples.read_labelled`, `text.examples.read_pairs` and `text.corpus.from_files`.
    """
    if task not in TASKS:
        raise unknown("task", task, TASKS)
    module, _, name = TASKS[task].partition(":")
    kind: type[Assignment] = getattr(importlib.import_module(f"minislm.training.assignments.{module}"), name)
    return kind.read(tuple(task.split("+")), files)
