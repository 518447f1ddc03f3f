"""`compress`: a recipe applied to a language model, with a record of what was done and a report of what it did."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minislm.compression.base import Method, Report
from minislm.compression.recipe import Recipe, Step
from minislm.compression.report import CompressionReport
from minislm.errors import UsageError
from minislm.models.base import Model
from minislm.text.corpus import Corpus
from minislm.training.train import windows

if TYPE_CHECKING:
    from minislm.language_model import LanguageModel
    from minislm.training.data import TrainingData

AnyRecipe = Recipe | Method | str | Path | Mapping[str, Any]


def compress(
    lm: LanguageModel | Model,
    recipe: AnyRecipe,
    data: Corpus | TrainingData | None = None,
    *,
    report: Report | None = None,
    directory: str | Path | None = None,
) -> tuple[Any, CompressionReport]:
    """Apply a recipe.

    Parameters
    ----------
    lm : LanguageModel or Model
        What to compress; it stays as it is, byte for byte.
    recipe : Recipe, Method, path or mapping
        What to do: a value, the path of a YAML file, or what one holds.
    data : Corpus or TrainingData, optional
        Needed by steps that train or calibrate: a corpus, of which a LanguageModel's tokenizer makes windows; or
        examples of a task, encoded by it.
    report : callable, optional
        Called with a `StepStarted` before each step, and with each record of its training.
    directory : path, optional
        Where training keeps checkpoints: run again with the same one, an interrupted recipe goes on. None: nowhere.

    Returns
    -------
    small : LanguageModel or Model
        The compressed one, of the kind that came in. A LanguageModel remembers the recipe and saves it.
    report : CompressionReport
        Bytes and errors, tensor by tensor, against the model that came in.

    Raises
    ------
    UsageError
        Code ``data_missing``, ``pattern_matches_nothing``, ``teacher_without_tokens`` or ``corpus_without_tokens``.
    UnsupportedError
        Code ``vocabulary_differs``: teacher and student have different token tables; or an unknown name.
    ConfigError
        Code ``recipe_invalid``.

    Examples
    --------
    >>> from minislm.compression.quantize import Quantize
    >>> from minislm.models.decoder import Decoder, DecoderConfig
    >>> sizes = DecoderConfig.uniform(vocab_size=64, d_model=32, context=16, n_layers=1, n_heads=2)
    >>> small, report = compress(Decoder.create(sizes), Quantize("int4-32"))
    >>> report.bytes_before // report.bytes_after
    5
    """
    recipe = as_recipe(recipe)
    model = lm if isinstance(lm, Model) else lm.model
    if isinstance(data, Corpus):
        if isinstance(lm, Model):
            raise UsageError(
                "corpus_without_tokens", "a Model alone has no tokenizer; compress a LanguageModel instead"
            )
        data = windows(lm, data)
    small = recipe.run(
        model,
        data,
        original=_teacher(lm, recipe),
        report=report,
        directory=None if directory is None else Path(directory),
    )
    comparison = CompressionReport.of(model, small)
    if isinstance(lm, Model):
        return small, comparison
    return dataclasses.replace(lm, model=small, history=(*lm.history, recipe.to_json())), comparison


def as_recipe(recipe: AnyRecipe) -> Recipe:
    """Make a Recipe of whatever stands for one.

    Parameters
    ----------
    recipe : Recipe, Method, path or mapping
        A value, the path of a YAML file, or what one holds.

    Returns
    -------
    Recipe
        A Method becomes one step, applied to every Weight.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, Method):
        return Recipe((Step(recipe),))
    if isinstance(recipe, str | Path):
        return Recipe.load(recipe)
    return Recipe.from_json(recipe)


def _teacher(lm: LanguageModel | Model, recipe: Recipe) -> Model:
    """Return the model that teaches where a step distils, after a comparison of the token tables."""
    if recipe.teacher == "original":
        return lm if isinstance(lm, Model) else lm.model
    if isinstance(lm, Model):
        raise UsageError(
            "teacher_without_tokens",
            f"the teacher {recipe.teacher!r} must have its student's token table, and a Model alone has none; "
            "compress a LanguageModel instead",
        )
    from minislm.language_model import load

    teacher = load(recipe.teacher)
    lm.tokenizer.require_same_tokens(teacher.tokenizer)
    model: Model = teacher.model
    return model
