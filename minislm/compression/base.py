"""Method: a compression technique as a value, and what all of them share."""

from __future__ import annotations

import dataclasses
import fnmatch
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from minislm.errors import DataError, UnsupportedError, UsageError, unknown
from minislm.training.settings import TrainSettings
from minislm.weights.base import Weight
from minislm.weights.dense import Dense
from minislm.weights.product import Product
from minislm.weights.sum import Sum

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
            Tokens to train on; needed by Methods that train.
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

    @property
    def trains(self) -> bool:
        """Whether it needs data."""
        return getattr(self, "training", None) is not None

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


def chosen(model: Any, where: str) -> dict[str, Weight]:
    """Return the Weights whose paths match.

    Parameters
    ----------
    model : Model
        Whose Weights.
    where : str
        `fnmatch` patterns separated by commas; case matters.

    Returns
    -------
    dict of str to Weight
        In the model's order.

    Raises
    ------
    UsageError
        Code ``pattern_matches_nothing``: one of the patterns names no Weight of this model.
    """
    weights: dict[str, Weight] = model.weights()
    found: set[str] = set()
    for pattern in (part.strip() for part in where.split(",")):
        matches = {path for path in weights if fnmatch.fnmatchcase(path, pattern)}
        if not matches:
            raise UsageError(
                "pattern_matches_nothing", f"no weight matches {pattern!r}; the model has {', '.join(weights)}"
            )
        found |= matches
    return {path: weight for path, weight in weights.items() if path in found}


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


def leaves(weight: Weight) -> list[Weight]:
    """Return what a Weight's products and sums are made of.

    Parameters
    ----------
    weight : Weight
        Any expression.

    Returns
    -------
    list of Weight
        Left to right; a Weight that is neither product nor sum is its own only leaf.
    """
    if isinstance(weight, Product):
        return leaves(weight.left) + leaves(weight.right)
    if isinstance(weight, Sum):
        return leaves(weight.a) + leaves(weight.b)
    return [weight]


def with_leaves(weight: Weight, new: Iterator[Weight]) -> Weight:
    """Put new leaves into a Weight's expression.

    Parameters
    ----------
    weight : Weight
        Lends its products and sums.
    new : iterator of Weight
        One for each of its `leaves`, in their order.

    Returns
    -------
    Weight
        The same expression over the new leaves.
    """
    if isinstance(weight, Product):
        return Product(with_leaves(weight.left, new), with_leaves(weight.right, new))
    if isinstance(weight, Sum):
        return Sum(with_leaves(weight.a, new), with_leaves(weight.b, new))
    return next(new)


def dense_matrix(method: Method, path: str, leaf: Weight) -> np.ndarray:
    """Return the matrix of a Dense, after a check.

    Parameters
    ----------
    method : Method
        Named in the message.
    path : str
        Of the Weight, for the message.
    leaf : Weight
        Which must be a Dense.

    Returns
    -------
    ndarray, (O, I), float32 or float64
        Its numbers.

    Raises
    ------
    UnsupportedError
        Code ``unsupported_storage``: it is no Dense.
    DataError
        Code ``non_finite_weight``.
    """
    if not isinstance(leaf, Dense):
        raise UnsupportedError(
            "unsupported_storage",
            f"{method.name} works on dense weights; {path} is stored as {leaf.spec()['type']}. "
            f"Do this step earlier in the recipe, or leave {path} out of `where`",
        )
    w_OI = leaf.dense()
    if not np.isfinite(w_OI).all():
        raise DataError(
            "non_finite_weight",
            f"{method.name}: {path} holds numbers that are not finite. "
            "Go back to a checkpoint from before training diverged",
        )
    return w_OI


def trained(
    method: Method,
    model: Any,
    data: TrainingData | None,
    settings: TrainSettings,
    *,
    report: Report | None,
    directory: Path | None,
    **options: Any,
) -> Any:
    """Train a model further: `fit`, for Methods.

    Parameters
    ----------
    method : Method
        Named when data is missing.
    model : Model
        Where training starts.
    data : TrainingData or None
        To train on.
    settings : TrainSettings
        How.
    report : callable or None
        Called with each record of training.
    directory : Path or None
        Of checkpoints.
    **options
        Of `fit`: objective, rewrite.

    Returns
    -------
    Model
        The trained one.

    Raises
    ------
    UsageError
        Code ``data_missing``.
    """
    from minislm.training.loop import fit

    if data is None:
        raise UsageError("data_missing", f"{method.name}: training needs data, and none was given")
    return fit(model, data, settings, report=report, directory=directory, **options).model
