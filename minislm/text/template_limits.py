"""A Jinja environment in which a template out of a file can neither hang nor take memory without end.

Jinja's sandbox keeps a template from running code, not from running forever. Here every turn of a loop and every call
takes a step, and every value that is made takes room, of a budget; also a clock is looked at. For this the template's
syntax tree is changed before it is compiled: what loops go over, lists and dictionaries, what is compared, what is
joined by ``~``, and slices pass through filters of ours. Operators, calls and what is written pass through the
sandbox's own doors. Of filters, functions and methods those are there that templates of chat models use, and cannot
make much out of little unseen. No signal and no thread is needed, because nothing that runs between two looks at the
budget is longer than one operation on a value of bounded size, and those that take longer than it is long are counted
as what they may take.
"""

from __future__ import annotations

import functools
import json
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import ext, nodes, parser, runtime, utils, visitor
from jinja2.exceptions import SecurityError, TemplateRuntimeError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from minislm.text.template_budget import BUDGET, PIECE, limit, measure

LARGEST_NUMBER = 2**256
MOST_DIGITS = 30

STEPS, MEASURED, JOINED, SLICED = "steps of a loop", "measured value", "joined text", "part of a value"
COMPARED = "compared value"


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


METHODS = {
    str: _names(
        "strip lstrip rstrip split rsplit splitlines partition rpartition startswith endswith upper lower title "
        "capitalize casefold swapcase replace join find rfind index rindex count removeprefix removesuffix isdigit "
        "isalpha isalnum isspace isupper islower isnumeric isdecimal istitle isascii isidentifier"
    ),
    dict: _names("get items keys values copy"),
    list: _names("index count copy"),
    tuple: _names("index count"),
}
OF_LISTS = _names("groupby join list map max min reject rejectattr reverse select selectattr sort sum unique")
FILTERS = OF_LISTS | _names(
    "abs capitalize count d default dictsort e escape first float forceescape indent int items last length lower "
    "replace round safe string title trim truncate upper wordcount"
)
COMPARISONS = _names("in eq == equalto ne != lt < lessthan le <= gt > greaterthan ge >=")  # among tests
QUADRATIC = _names("rfind rindex rsplit rpartition strip lstrip rstrip")  # look at all of their argument at each place
LOOP_METHODS = frozenset(("cycle", "changed"))
PLAIN_FORMAT = re.compile(r"(?:[^%]++|%[sd%])*+")
PLAIN_TIME = re.compile(r"(?:[^%]|%-?[A-Za-z%])*")


class _Steps:
    """What a loop goes over; every turn takes a step."""

    def __init__(self, values: Any) -> None:
        self.values = values if hasattr(values, "__len__") else list(_counted(values))

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Any]:
        return _counted(self.values)


def _counted(values: Iterable[Any]) -> Iterator[Any]:
    budget = BUDGET.get()
    for value in values:
        budget.step()
        yield value


def _measured(value: Any) -> Any:
    budget = BUDGET.get()
    budget.step()
    if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
        raise limit("a number without end")
    budget.make(measure(value, budget.largest))
    return value


def _compared(value: Any) -> Any:
    budget = BUDGET.get()
    budget.step(measure(value, budget.largest))
    return value


def _joined(parts: list[Any]) -> Any:
    budget = BUDGET.get()
    budget.make(measure(parts, budget.largest))
    return _measured("".join(map(str, parts)))


def _concat(parts: Iterable[str]) -> str:
    parts = list(parts)
    BUDGET.get().make(sum(map(len, parts)))
    return "".join(parts)


def _sliced(value: Any, start: Any, stop: Any, step: Any) -> Any:
    return _measured(value[start:stop:step])


def _written(value: Any) -> Any:
    """Spell what is no text, within the budget."""
    if isinstance(value, str):
        return value
    return _measured(str(value))


def _check_replace(text: str, old: str, new: str, *_: Any) -> None:
    """Take room for what replacing makes, before it is made."""
    BUDGET.get().make(len(text) + max(0, text.count(old) * (len(new) - len(old))))


def _check_method(owner: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """Take room and steps for what a method of text makes and looks at, before it does; return its arguments."""
    sizes = [measure(arg, BUDGET.get().largest) for arg in (*args, *kwargs.values())]
    BUDGET.get().step(len(owner) * max([1, *sizes]) if name in QUADRATIC else len(owner) + sum(sizes))
    if name == "replace":
        _check_replace(owner, *map(str, args), *map(str, kwargs.values()))
    elif name in ("split", "rsplit", "splitlines"):
        between = args[0] if args and isinstance(args[0], str) else None
        BUDGET.get().make(len(owner) + PIECE * (owner.count(between) if between else len(owner.split())))
    elif name == "join" and args:
        args = (list(_Steps(args[0])),)
        BUDGET.get().make(measure(args[0], BUDGET.get().largest) + len(owner) * len(args[0]))
    return args


def _join(value: Any, d: Any = "", attribute: Any = None) -> list[Any]:
    values = list(_Steps(value))
    BUDGET.get().make(measure(values, BUDGET.get().largest) + len(str(d)) * len(values))
    return values


def _check_filter(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """Look at what a filter is given, without environment or context; return it, looked at."""
    value, *rest = args
    if name in OF_LISTS and not isinstance(value, str | Mapping | list | tuple | runtime.Undefined):
        value = list(_Steps(value))
    if name == "join":
        value = _join(value, *rest, **kwargs)
    elif name == "replace":
        texts = [str(text) for text in (value, *rest, *kwargs.values())]
        _check_replace(*texts[:3])
    elif name == "indent":
        width = rest[0] if rest else kwargs.get("width", 4)
        BUDGET.get().make(
            len(str(value)) + (str(value).count("\n") + 1) * (len(width) if isinstance(width, str) else width)
        )
    elif name == "trim":
        BUDGET.get().step(len(str(value)) * max([1, *(len(str(chars)) for chars in (*rest, *kwargs.values()))]))
    elif name == "round" and abs(rest[0] if rest else kwargs.get("precision", 0)) > MOST_DIGITS:
        raise limit("more digits than a number has")
    elif name == "sum" and not all(isinstance(start, int | float) for start in (*rest[1:], *kwargs.values())[:1]):
        raise SecurityError("only numbers are summed")
    return (value, *rest)


def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a filter that keeps to the budget."""
    n_hidden = 1 if hasattr(function, "jinja_pass_arg") else 0

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        BUDGET.get().step()
        hidden, given = args[:n_hidden], args[n_hidden:]
        made = function(*hidden, *_check_filter(name, given, kwargs), **kwargs)
        return _counted(made) if isinstance(made, Iterator) else _measured(made)

    return call


def _test(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a test that takes steps."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        budget = BUDGET.get()
        budget.step(sum(measure(arg, budget.largest) for arg in args) if name in COMPARISONS else 0)
        return function(*args, **kwargs)

    return call


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Write JSON as transformers does, without escapes for HTML."""
    between = [len(indent) if isinstance(indent, str) else indent or 0, *map(len, separators or ())]
    BUDGET.get().make(measure(value, BUDGET.get().largest) * max([1, *between]))
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    made: str = _measured(text)
    return made


class RejectedError(TemplateRuntimeError):
    """What a template raises about a conversation."""


def _reject(message: Any) -> None:
    raise RejectedError(str(message)[:1000])


def _now(form: str) -> str:
    if len(form) > 200 or not PLAIN_TIME.fullmatch(form):
        raise SecurityError("strftime_now takes a short format without widths")
    return datetime.now().strftime(form)


class _Namespace(utils.Namespace):
    """A namespace without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        for name in dict(*rest, **kwargs):
            _Namespace._check(name)
        utils.Namespace.__init__(self, *rest, **kwargs)

    def __setitem__(self, name: str, value: Any) -> None:
        _Namespace._check(name)
        super().__setitem__(name, value)

    @staticmethod
    def _check(name: Any) -> None:
        if str(name).startswith("_"):
            raise SecurityError(f"no namespace has the name {name!r}")


class _Generation(ext.Extension):
    """Pass over the tag by which trainers find what the assistant says."""

    tags = {"generation"}  # noqa: RUF012  Jinja's own form

    def parse(self, parser: parser.Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)


class _Guarding(visitor.NodeTransformer):
    """Lead through filters of ours what would otherwise take time or room unseen."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802  Jinja's own form
        self.generic_visit(node)
        node.iter = _filtered(node.iter, STEPS)
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Compare:  # noqa: N802
        self.generic_visit(node)
        node.expr = _filtered(node.expr, COMPARED)
        for operand in node.ops:
            operand.expr = _filtered(operand.expr, COMPARED)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:  # noqa: N802
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), JOINED)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        parts = [part or nodes.Const(None) for part in (node.arg.start, node.arg.stop, node.arg.step)]
        return _filtered(node.node, SLICED, *parts)

    def visit_List(self, node: nodes.Expr) -> nodes.Filter:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, MEASURED)

    visit_Dict = visit_List

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, MEASURED) if node.ctx == "load" else node

    def visit_Include(self, node: nodes.Node) -> nodes.Node:  # noqa: N802
        raise SecurityError("a chat template is one file")

    visit_Import = visit_FromImport = visit_Extends = visit_Include


def _filtered(node: nodes.Node, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja as transformers sets it up, with a budget; `BUDGET` holds that of the rendering that runs."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))
    concat = staticmethod(_concat)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            finalize=_written,
            extensions=[_Generation, ext.loopcontrols],
        )
        tests: dict[str, Any] = self.tests
        self.tests = {name: _test(name, test) for name, test in tests.items()}
        self.filters = {name: _guarded(name, self.filters[name]) for name in sorted(FILTERS & self.filters.keys())}
        self.filters |= {"tojson": _to_json, STEPS: _Steps, MEASURED: _measured, JOINED: _joined, SLICED: _sliced}
        self.filters[COMPARED] = _compared
        self.functions = {
            "range": self.globals["range"],
            "dict": dict,
            "namespace": _Namespace,
            "raise_exception": _reject,
            "strftime_now": _now,
        }
        self.globals = dict(self.functions)

    def compiled(self, text: str) -> jinja2.Template:
        """Compile a template.

        Parameters
        ----------
        text : str
            Its text; not trusted.

        Returns
        -------
        jinja2.Template
            To be rendered while `BUDGET` is set.
        """
        tree = _Guarding().visit(self.parse(text))
        return jinja2.Template.from_code(self, self.compile(tree), self.make_globals(None))

    def call_binop(self, context: runtime.Context, operator: str, left: Any, right: Any) -> Any:
        """Compute within the budget.

        Parameters
        ----------
        context : Context
            Jinja's.
        operator : str
            What to compute.
        left, right : Any
            With what.

        Returns
        -------
        Any
            The result.
        """
        if operator == "*":
            for text, times in ((left, right), (right, left)):
                if isinstance(text, str | list | tuple) and isinstance(times, int):
                    BUDGET.get().make(measure(text, BUDGET.get().largest) * max(times, 0))
        elif operator == "%" and isinstance(left, str):
            if not PLAIN_FORMAT.fullmatch(left):
                raise SecurityError("only %s and %d are formatted")
            BUDGET.get().make(len(left) + measure(right, BUDGET.get().largest))
        elif operator == "**" and not (abs(left) <= LARGEST_NUMBER and abs(right) <= 256):
            raise limit("a number without end")
        return _measured(OPERATORS[operator](left, right))

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Take a part of a value, or find what a key stands for, in a step.

        Parameters
        ----------
        obj : Any
            The value.
        argument : Any
            The part's place, name or key.

        Returns
        -------
        Any
            The part.
        """
        BUDGET.get().step(measure(argument, BUDGET.get().largest))
        return super().getitem(obj, argument)

    def call(__self, __context: runtime.Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Call a function of `functions`, a macro, or a method that is known to be harmless.

        Parameters
        ----------
        __context : Context
            Jinja's.
        __obj : Any
            What to call.
        *args, **kwargs : Any
            With what.

        Returns
        -------
        Any
            What it returns.
        """
        BUDGET.get().step()
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(__obj, runtime.LoopContext):
            args = (_Steps(args[0]), *args[1:]) if args else args
        elif isinstance(owner, str | dict | list | tuple):
            kind = next(kind for kind in METHODS if isinstance(owner, kind))
            if name not in METHODS[kind]:
                raise SecurityError(f"the method {name!r} of {kind.__name__} is not for templates")
            if kind is str:
                args = _check_method(owner, name, args, kwargs)
        elif not (
            isinstance(__obj, runtime.Macro | runtime.Undefined)
            or any(__obj is function for function in __self.functions.values())
            or (isinstance(owner, runtime.LoopContext) and name in LOOP_METHODS)
        ):
            raise SecurityError(f"{name or type(__obj).__name__!r} is not for templates to call")
        return _measured(super().call(__context, __obj, *args, **kwargs))


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": operator.pow,
}
