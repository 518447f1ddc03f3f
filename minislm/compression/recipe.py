"""Recipe: Methods in order, each with the weights that it applies to; a value, and a YAML file."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import yaml

from minislm.compression.base import Method, Report, needed
from minislm.errors import ConfigError, MinislmError, NotFoundError, UnsupportedError, UsageError, unknown

if TYPE_CHECKING:
    from minislm.training.data import TrainingData


class Step(NamedTuple):
    """One step of a recipe.

    Parameters
    ----------
    method : Method
        What is done.
    where : str
        To which Weights: `fnmatch` patterns over their paths, separated by commas.
    """

    method: Method
    where: str = "*"


class StepStarted(NamedTuple):
    """What `report` receives before each step; the records of its training follow.

    Parameters
    ----------
    number : int
        From 1.
    n_steps : int
        How many steps the recipe has.
    method : str
        Name of the method.
    where : str
        To which Weights it applies.
    """

    number: int
    n_steps: int
    method: str
    where: str


@dataclass(frozen=True)
class Recipe:
    """Methods in order, each with a name pattern.

    Parameters
    ----------
    steps : tuple of Step
        At least one.
    teacher : str
        ``"original"``: the model that the recipe is applied to teaches where a step distils; otherwise the path of a
        model folder.

    Raises
    ------
    ConfigError
        Code ``recipe_invalid``: no step.

    Examples
    --------
    >>> from minislm.compression.quantize import Quantize
    >>> print(Recipe((Step(Quantize("int8"), "blocks.*"),)).to_yaml())
    teacher: original
    steps:
    - method: quantize
      where: blocks.*
      format: int8
      scales: max
      activations: int8
    <BLANKLINE>
    """

    steps: tuple[Step, ...]
    teacher: str = "original"

    def __post_init__(self) -> None:
        if not self.steps:
            raise ConfigError("recipe_invalid", "a recipe needs at least one step")

    @property
    def needs_data(self) -> bool:
        """Whether some step has to be given data."""
        return any(method.needs_data for method, _ in self.steps)

    def seeded(self, seed: int) -> Self:
        """Make every random choice of the recipe another one.

        Parameters
        ----------
        seed : int
            Counted to each seed of a step and of its training; 0 changes nothing.

        Returns
        -------
        Recipe
            With other seeds.
        """
        return dataclasses.replace(self, steps=tuple(Step(method.seeded(seed), where) for method, where in self.steps))

    def run(
        self,
        model: Any,
        data: TrainingData | None = None,
        *,
        original: Any = None,
        report: Report | None = None,
        directory: Path | None = None,
    ) -> Any:
        """Apply the steps in order.

        Parameters
        ----------
        model : Model
            To be compressed; it stays as it is.
        data : TrainingData, optional
            For steps that train or calibrate.
        original : Model, optional
            The teacher; None: `model`.
        report : callable, optional
            Called with a `StepStarted` before each step and with the records of its training.
        directory : Path, optional
            Where each step that trains keeps its checkpoints, in ``step-1`` and so on; run again with the same one, an
            interrupted recipe goes on where it stopped.

        Returns
        -------
        Model
            The compressed one.
        """
        original = model if original is None else original
        self.foresee(model, data, original)
        for number, (method, where) in enumerate(self.steps, start=1):
            if report is not None:
                report(StepStarted(number, len(self.steps), method.name, where))
            model = method.run(
                model,
                data,
                where=where,
                original=original,
                report=report,
                directory=None if directory is None else directory / f"step-{number}",
            )
        return model

    def foresee(self, model: Any, data: TrainingData | None = None, original: Any = None) -> None:
        """Check every step before the first one runs, as far as it can be known: name patterns, students, data.

        Parameters
        ----------
        model : Model
            To be compressed.
        data : TrainingData, optional
            For steps that need it.
        original : Model, optional
            The teacher; None: `model`.

        Raises
        ------
        UsageError, UnsupportedError
            What the step would raise, its message naming the step.
        """
        original = model if original is None else original
        for number, (method, where) in enumerate(self.steps, start=1):
            try:
                if method.needs_data:
                    needed(method, data)
                model = method.foresee(model, where=where, original=original)
            except (UsageError, UnsupportedError) as error:
                raise type(error)(error.code, f"step {number}: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as JSON values.

        Returns
        -------
        dict
            From which `from_json` makes an equal one.
        """
        steps = []
        for method, where in self.steps:
            options = method.to_json()
            steps.append({"method": options.pop("method"), "where": where, **_given(options)})
        return {"teacher": self.teacher, "steps": steps}

    @classmethod
    def from_json(cls, values: Any, source: str = "recipe") -> Self:
        """Make a Recipe from a dictionary.

        Parameters
        ----------
        values : mapping
            ``steps``, a list of mappings with ``method``, ``where`` (default ``"*"``) and the method's options; and
            ``teacher`` (default ``"original"``).
        source : str
            Where it comes from, for messages.

        Returns
        -------
        Recipe
            The value.

        Raises
        ------
        ConfigError
            Code ``recipe_invalid``, its message naming source, step and key: something is missing, unknown, of the
            wrong type, out of range or contradictory.
        """
        allowed = {"teacher", "steps"}
        if not isinstance(values, Mapping) or not isinstance(values.get("steps"), list):
            raise ConfigError("recipe_invalid", f"{source}: expected a mapping with a list named steps")
        for key in values:
            if key not in allowed:
                raise ConfigError("recipe_invalid", f"{source}: {unknown('key', str(key), allowed)}")
        teacher = values.get("teacher", "original")
        if not isinstance(teacher, str):
            raise ConfigError("recipe_invalid", f"{source}: teacher must be 'original' or a path, not {teacher!r}")
        if not values["steps"]:
            raise ConfigError("recipe_invalid", f"{source}: steps is empty; a recipe needs at least one")
        return cls(tuple(_step(step, f"{source}, step {i}") for i, step in enumerate(values["steps"], 1)), teacher)

    def to_yaml(self) -> str:
        """Return the text of a recipe file.

        Returns
        -------
        str
            From which `from_yaml` makes an equal Recipe.
        """
        text: str = yaml.dump(self.to_json(), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
        return text

    @classmethod
    def from_yaml(cls, text: str, source: str = "recipe") -> Self:
        """Make a Recipe from YAML text.

        Parameters
        ----------
        text : str
            A recipe, as `from_json` takes it. Read by YAML 1.2's rules: ``1e-3`` is a number and ``2:4`` is text.
        source : str
            Where it comes from, for messages.

        Returns
        -------
        Recipe
            The value.

        Raises
        ------
        ConfigError
            Code ``recipe_invalid``: no YAML, or no recipe.
        """
        try:
            values = yaml.load(text, Loader=_Loader)  # a SafeLoader: makes plain values only
        except yaml.YAMLError as error:
            raise ConfigError("recipe_invalid", f"{source} is no readable YAML: {error}") from error
        return cls.from_json(values, source)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a recipe file.

        Parameters
        ----------
        path : str or Path
            A YAML file.

        Returns
        -------
        Recipe
            The value.

        Raises
        ------
        NotFoundError
            Code ``recipe_not_found``.
        ConfigError
            Code ``recipe_invalid``, its message naming the file.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise NotFoundError("recipe_not_found", f"there is no recipe file {path}") from error
        except UnicodeDecodeError as error:
            raise ConfigError("recipe_invalid", f"{path} is not UTF-8 text: {error}") from error
        return cls.from_yaml(text, str(path))

    def save(self, path: str | Path) -> None:
        """Write the recipe to a YAML file.

        Parameters
        ----------
        path : str or Path
            Written anew if it is there.
        """
        Path(path).write_text(self.to_yaml(), encoding="utf-8")


def _step(values: Any, place: str) -> Step:
    """Make one Step; errors name the place."""
    if not isinstance(values, Mapping) or not isinstance(values.get("method"), str):
        raise ConfigError("recipe_invalid", f"{place}: expected a mapping with the name of a method, not {values!r}")
    options = {str(key): value for key, value in values.items() if key not in ("method", "where")}
    where = values.get("where", "*")
    if not isinstance(where, str):
        raise ConfigError("recipe_invalid", f"{place}: where must be a name pattern, not {where!r}")
    from minislm.compression import load_method  # the package imports this module

    try:
        return Step(load_method(values["method"]).from_json(options), where)
    except MinislmError as error:
        raise ConfigError("recipe_invalid", f"{place}: {error}") from error


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Leave out options that are None, which stands for "not given"."""
    return {name: value for name, value in options.items() if value is not None}


class _Dumper(yaml.SafeDumper):
    """Quotes whatever YAML 1.1 or 1.2 would read as something else than text."""


class _Loader(yaml.SafeLoader):
    """Reads scalars by YAML 1.2's rules, and refuses a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Make a dictionary; the same key twice is an error."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for i, key in enumerate(keys):
            if key in keys[:i]:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


_RULES = (
    ("null", r"null|~|", ["n", "~", ""]),
    ("bool", r"true|false", list("tf")),
    ("int", r"[-+]?(0|[1-9]\d*)", list("-+0123456789")),
    ("float", r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?", list("-+.0123456789")),
)
_Loader.yaml_implicit_resolvers = {}  # without those of YAML 1.1
for _tag, _pattern, _first in _RULES:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)
