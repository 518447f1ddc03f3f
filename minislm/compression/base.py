"""Method: a compression technique as a value."""

from __future__ import annotations

import dataclasses
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from minislm.compression.parts import chosen
from minislm.errors import UsageError, unknown
from minislm.training.settings import TrainSettings

if TYPE_CHECKING:
    from minislm.training.data import TrainingData

Report = Callable[[Any], None]


@dataclass(frozen=True)
class Method(ABC):
    """A compression technique: frozen options, and one verb that turns a model into another.

    Options are checked when the Method is made. `run` changes nothing in the model that it is given.
    """

    name: ClassVar[str]

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not _is_a(value, hints[field.name]):
                raise UsageError(
                    "bad_option", f"{self.name}: {field.name} must be {_words(hints[field.name])}, not {value!r}"
                )
        self.check()

    def check(self) -> None:  # noqa: B027 (a Method without ranges has nothing to check)
        """Raise UsageError where options are out of range or contradict each other; types are already right."""

    @abstractmethod
    def run(
        self,
        model: Any,
        data: TrainingData | None = None,
        *,
        where: str = "*",
        original: Any = None,
        report: Report | None = None,
        directory: Path | None = None,
    ) -> Any:
        """Return the compressed model.

        Parameters
        ----------
        model : Model
            What to compress; it stays as it is, byte for byte.
        data : TrainingData, optional
            Examples; needed by Methods that train or calibrate (`needs_data`).
        where : str
            Which Weights: `fnmatch` patterns over their paths, separated by commas, such as ``"blocks.*.weight"``.
        original : Model, optional
            The model that a recipe started from; the teacher where there is one. None: `model`.
        report : callable, optional
            Called with each record of training.
        directory : Path, optional
            Where training keeps its checkpoints, from which an interrupted run goes on. None: nowhere.

        Returns
        -------
        Model
            A new one; what was not changed is shared with `model`.
        """

    def foresee(self, model: Any, *, where: str = "*", original: Any = None) -> Any:
        """Check what can be known before anything is run.

        Parameters
        ----------
        model : Model
            What `run` would be given, or one whose Weights have the same paths.
        where, original : optional
            As for `run`.

        Returns
        -------
        Model
            One whose Weights have the paths of those that `run` would return: here `model` itself.

        Raises
        ------
        UsageError, UnsupportedError
            As `run`: code ``pattern_matches_nothing`` and the like.
        """
        chosen(model, where)
        return model

    @property
    def needs_data(self) -> bool:
        """Whether `run` has to be given data: here, whether it trains."""
        return getattr(self, "training", None) is not None

    def seeded(self, seed: int) -> Self:
        """Make every random choice of the Method another one.

        Parameters
        ----------
        seed : int
            Counted to its seed, where it has one, and to that of its training.

        Returns
        -------
        Method
            With other seeds.
        """
        changed: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "seed":
                changed["seed"] = value + seed
            elif isinstance(value, TrainSettings):
                changed[field.name] = dataclasses.replace(value, seed=value.seed + seed)
        return dataclasses.replace(self, **changed)

    def to_json(self) -> dict[str, Any]:
        """Return name and options as JSON values.

        Returns
        -------
        dict
            ``{"method": name, ...options}``; from the options `from_json` makes an equal Method.
        """
        options = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"method": self.name, **{name: _json(value) for name, value in options.items()}}

    @classmethod
    def from_json(cls, options: Mapping[str, Any]) -> Self:
        """Make a Method from its options.

        Parameters
        ----------
        options : mapping
            Option names to JSON values; ``training`` is a mapping of training settings. Options not given have their
            defaults.

        Returns
        -------
        Method
            An instance of the class that it is called on.

        Raises
        ------
        UnsupportedError
            Code ``unknown_option``.
        UsageError
            Code ``bad_option`` or ``contradicting_options``.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in options:
            if name not in known:
                raise unknown("option", name, known)
        for field in dataclasses.fields(cls):
            if field.name not in options and field.default is field.default_factory is dataclasses.MISSING:
                raise UsageError("bad_option", f"{cls.name}: {field.name} is missing")
        values = dict(options)
        if isinstance(values.get("training"), Mapping):
            values["training"] = TrainSettings.from_json(values["training"])
        return cls(**values)


def _json(value: Any) -> Any:
    if isinstance(value, TrainSettings):
        return value.to_json()
    return dict(value) if isinstance(value, Mapping) else value


def _is_a(value: Any, hint: Any) -> bool:
    """Tell whether `value` is of the type `hint`; whole numbers pass for floats, and bool is no number."""
    if isinstance(hint, types.UnionType):
        return any(_is_a(value, part) for part in typing.get_args(hint))
    origin = typing.get_origin(hint)
    if origin is not None:  # Mapping[str, int]
        key, item = typing.get_args(hint)
        return isinstance(value, origin) and all(_is_a(k, key) and _is_a(v, item) for k, v in value.items())
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, int | float) if hint is float else isinstance(value, hint)


def _words(hint: Any) -> str:
    if isinstance(hint, types.UnionType):
        return " or ".join(_words(part) for part in typing.get_args(hint))
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "nothing"}
    if hint in names:
        return names[hint]
    return "a mapping" if typing.get_origin(hint) or hint is TrainSettings else str(hint)


def need(condition: bool, method: Method, message: str, code: str = "bad_option") -> None:
    """Raise unless a condition holds.

    Parameters
    ----------
    condition : bool
        What must hold.
    method : Method
        Named in the message.
    message : str
        What was expected, and what came.
    code : str
        Of the error.

    Raises
    ------
    UsageError
        It does not hold.
    """
    if not condition:
        raise UsageError(code, f"{method.name}: {message}")


def whole_model(method: Method, where: str) -> None:
    """Refuse a name pattern where a method acts on the model as a whole.

    Parameters
    ----------
    method : Method
        Named in the message.
    where : str
        The pattern.

    Raises
    ------
    UsageError
        Code ``bad_option``: it is not ``"*"``.
    """
    need(where == "*", method, f"acts on the whole model, where={where!r} has no meaning; leave it out")


def needed(method: Method, data: TrainingData | None) -> TrainingData:
    """Return the data that a Method needs.

    Parameters
    ----------
    method : Method
        Named in the message.
    data : TrainingData or None
        What came.

    Returns
    -------
    TrainingData
        `data`.

    Raises
    ------
    UsageError
        Code ``data_missing``.
    """
    if data is None:
        raise UsageError("data_missing", f"{method.name}: it needs data to learn from, and none was given")
    return data
