"""What every kernel keeps: it equals its op, however its arguments lie in memory and however many threads it gets."""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from minislm.ops import OPS, load_op
from minislm.testing.cases import sample_cases
from minislm.testing.large import LARGE
from minislm.testing.laws import arrays_in, cast, copied
from minislm.testing.tolerances import assert_close, tolerance

Case = tuple[tuple[Any, ...], dict[str, Any]]

# An op multiplies hidden entries by 0, and 0 times not-a-number is not a number; a kernel may pass over them.
_HIDING = {"causal", "key_mask_BS", "window", "starts_B"}
# The same holds for the entries that a sparse matrix does not store: its values are made not finite, not its input.
_SPARSE = {"bitmap_product", "nm_product", "csr_product", "decoded_masked_panel_product"}
# An op that rounds what it has computed to steps: what the other side of one rounding comes to, of the largest result.
_STEPS = {"attention_packed_int8": 1 / 255}
_FEW = 0.02  # of a result may lie on the other side of one


def check_kernel(
    function: Callable[..., Any],
    op: str,
    *,
    threads: Sequence[int] = (1, 2, 3),
    factor: float = 8.0,
    seed: int = 0,
) -> float:
    """Check that a kernel may stand for an op.

    On the op's sampled cases, in float32, it must return what the op returns and save what the op saves; leave its
    arguments alone; take arguments that are read-only, strided, in Fortran order or misaligned; give the same bits with
    and without `out`, even where `out` is an argument, and for every number of threads; carry NaN and infinities as the
    op does; and refuse float64 with a TypeError that names the argument. A kernel made with Numba is checked compiled
    and interpreted.

    Parameters
    ----------
    function : callable
        The kernel: its op's arguments, and keyword-only `out` and `threads`.
    op : str
        A row of the op table, or such a name followed by ``_backward``.
    threads : sequence of int
        Numbers of threads whose results must not differ by a bit.
    factor : float
        Room in the tolerance, which grows with the square root of the longest axis of the arguments.
    seed : int
        Of the sampled cases.

    Returns
    -------
    float
        The largest error in units of the tolerance, from 0 to 1.

    Raises
    ------
    AssertionError
        The first thing found wrong.

    Examples
    --------
    >>> def slow_rms_norm(x_ND, w_D, *, eps, out=None, threads=1):
    ...     return load_op("rms_norm")(x_ND, w_D, eps=2 * eps)
    >>> check_kernel(slow_rms_norm, "rms_norm")
    Traceback (most recent call last):
    AssertionError: ...
    """
    reference = load_op(op)
    if function is reference:
        raise AssertionError(f"{op} was compared with itself")
    cases = kernel_cases(op, seed)
    worst = 0.0
    for version in (contextlib.nullcontext(), interpreted(function)):
        with version:
            for args, options in cases:
                worst = max(worst, _check_values(function, op, args, options, factor))
    for args, options in cases:
        if not _in_place(op):
            _check_layouts(function, args, options, factor)
            _check_out(function, args, options)
        _check_refusal(function, op, args, options)
    large = kernel_cases(op, seed, large=True)
    for args, options in large:
        worst = max(worst, _check_values(function, op, args, options, factor, poisoned=False))
    for args, options in (*cases, *large):
        _check_threads(function, args, options, threads)
    return worst


def kernel_cases(op: str, seed: int = 0, *, large: bool = False) -> list[Case]:
    """Sample arguments for a kernel, in float32.

    Parameters
    ----------
    op : str
        A row of the op table; for ``<op>_backward`` the op's forward runs, and what it saved is the second argument.
    seed : int
        Different seeds draw different numbers.
    large : bool
        Whether to draw the few cases that are big enough to be shared among threads, in place of the small ones.

    Returns
    -------
    list of (tuple, dict)
        Positional and keyword arguments.
    """
    backward = op not in OPS
    forward = op.removesuffix("_backward")
    rng = np.random.default_rng(seed)
    drawn = [LARGE[forward](rng)] if large and forward in LARGE else [] if large else sample_cases(forward, seed)
    cases: list[Case] = [(cast(tuple(args), np.float32), cast(options, np.float32)) for args, options in drawn]
    for args, _ in cases:
        for array in arrays_in(args):
            if array.dtype == np.float32 and array.size > 1 and not array.min() < array.max():
                raise AssertionError(f"a sampled array of {op} is constant")
    if not backward:
        return cases
    pairs: list[Case] = []
    for args, options in cases:
        y, saved = load_op(forward)(*args, **options)
        dy = float(rng.normal()) if isinstance(y, float) else rng.normal(size=y.shape).astype(np.float32)
        pairs.append(((dy, saved), {}))
    return pairs


@contextlib.contextmanager
def interpreted(function: Callable[..., Any]) -> Iterator[None]:
    """Let a kernel's Numba functions run as the Python that they are written in, for the length of a ``with`` block.

    Parameters
    ----------
    function : callable
        Whose module's own Numba functions are exchanged; nothing happens to one that has none.

    Yields
    ------
    None
        Nothing.
    """
    names = inspect.unwrap(function).__globals__
    python = {name: getattr(value, "py_func", None) for name, value in names.items()}
    own = {name: plain for name, plain in python.items() if plain is not None and plain.__module__ == names["__name__"]}
    before = {name: names[name] for name in own}
    names.update(own)
    try:
        yield
    finally:
        names.update(before)


def _in_place(op: str) -> bool:
    return op in ("adamw", "store_rows")


def _run(function: Callable[..., Any], args: Any, options: Any, **more: Any) -> Any:
    """Call on copies; return the result, or the arguments if there is none because they were updated."""
    args, options = copied(args), copied(options)
    with np.errstate(all="ignore"):
        result = function(*args, **options, **more)
    return args if result is None else result


def _check_values(
    function: Callable[..., Any], op: str, args: Any, options: Any, factor: float, *, poisoned: bool = True
) -> float:
    """Compare with the op on the case as it is, and with one entry of one array not finite."""
    versions = [(args, "")]
    if poisoned and not _HIDING & options.keys() and not any(_hidden(arg) for arg in args):
        place = 1 if op in _SPARSE else 0
        versions += [(_poisoned(args, value, place), f" with {value}") for value in (np.nan, np.inf, -np.inf)]
    worst = 0.0
    for own_args, name in versions:
        expected = _run(load_op(op), own_args, options)
        before = copied(own_args), copied(options)
        own_args, own_options = copied(own_args), copied(options)
        with np.errstate(all="ignore"):
            result = function(*own_args, **own_options, out=None, threads=1)
        if not _in_place(op):
            _check_same((own_args, own_options), before, f"{op} wrote into an argument")
        actual = own_args if result is None else result
        worst = max(worst, _compare(actual, expected, f"{op}{name}", _length(args), factor, _STEPS.get(op, 0.0)))
    return worst


def _length(args: Any) -> int:
    """Return the longest axis of the arguments: no sum has more terms."""
    return max([1, *(int(n) for array in arrays_in(args) for n in array.shape)])


def _hidden(saved: Any) -> bool:
    """Tell whether a saved tuple holds the options of an attention that hides keys."""
    if not isinstance(saved, tuple):
        return False
    fields: dict[str, Any] = getattr(saved[-1], "_asdict", dict)() if saved else {}
    return any(fields.get(name) is not None and fields[name] is not False for name in _HIDING)


def _poisoned(args: tuple[Any, ...], value: float, place: int) -> tuple[Any, ...]:
    """Put `value` into the middle of the first float array, or at the start of a later one if `place` says so."""
    args = copied(args)
    for array in [a for a in arrays_in(args) if a.dtype == np.float32 and a.size][place : place + 1]:
        array.flat[0 if place else array.size // 2] = value
    return args


def _compare(actual: Any, expected: Any, name: str, length: int, factor: float, step: float = 0.0) -> float:
    """Compare results of any structure; return the largest error in units of the tolerance."""
    if isinstance(expected, tuple):
        if not isinstance(actual, tuple) or len(actual) != len(expected):
            raise AssertionError(f"{name} is {actual!r}, expected a tuple of {len(expected)}")
        pairs = enumerate(zip(actual, expected, strict=True))
        return max((_compare(a, e, f"{name}[{i}]", length, factor) for i, (a, e) in pairs), default=0.0)
    if isinstance(expected, np.ndarray):
        if not isinstance(actual, np.ndarray) or actual.dtype != expected.dtype:
            raise AssertionError(f"{name} is {getattr(actual, 'dtype', actual)!r}, expected {expected.dtype}")
        if step:
            return _check_steps(actual, expected, name, length, factor, step)
        return assert_close(actual, expected, length=length, factor=factor, name=name)
    if isinstance(expected, float):
        return assert_close(actual, expected, dtype=np.float32, length=length, factor=factor, name=name)
    if type(actual) is not type(expected) or actual != expected:
        raise AssertionError(f"{name} is {actual!r}, expected {expected!r}")
    return 0.0


def _check_steps(actual: np.ndarray, expected: np.ndarray, name: str, length: int, factor: float, step: float) -> float:
    """Require results that are close but for a few, of which one number was rounded the other way."""
    one = tolerance(actual.dtype, length=length, factor=1.0)
    worst = assert_close(actual, expected, length=length, factor=max(factor, step / one), name=name)
    largest = np.abs(expected, where=np.isfinite(expected), out=np.zeros_like(expected)).max(initial=0.0)
    n_off = int((np.abs(actual - expected) > factor * one * largest).sum())
    if n_off > max(_FEW * actual.size, actual.shape[-1]):
        raise AssertionError(f"{n_off} of {actual.size} entries of {name} are off by more than rounding errors")
    return worst


def _check_same(actual: Any, expected: Any, message: str) -> None:
    """Require the same bits."""
    pairs = zip(arrays_in(actual), arrays_in(expected), strict=True)
    equal = all(a.dtype == e.dtype and a.shape == e.shape and a.tobytes() == e.tobytes() for a, e in pairs)
    if not equal or _numbers(actual) != _numbers(expected):
        raise AssertionError(message)


def _numbers(value: Any) -> list[float]:
    if isinstance(value, tuple):
        return [number for item in value for number in _numbers(item)]
    return [value] if isinstance(value, float) else []


def _check_layouts(function: Callable[..., Any], args: Any, options: Any, factor: float) -> None:
    expected = _run(function, args, options)
    for layout in (_read_only, _strided, _fortran, _misaligned):
        with np.errstate(all="ignore"):
            actual = function(*_laid_out(copied(args), layout), **_laid_out(copied(options), layout))
        name = f"{function.__name__} with {layout.__name__[1:]} arguments"
        _compare(actual, expected, name, _length(args), factor)


def _laid_out(value: Any, layout: Callable[[np.ndarray], np.ndarray]) -> Any:
    if isinstance(value, np.ndarray):
        return layout(value)
    if isinstance(value, dict):
        return {name: _laid_out(item, layout) for name, item in value.items()}
    return type(value)(_laid_out(item, layout) for item in value) if type(value) is tuple else value


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _strided(array: np.ndarray) -> np.ndarray:
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


def _fortran(array: np.ndarray) -> np.ndarray:
    return np.asfortranarray(array)


def _misaligned(array: np.ndarray) -> np.ndarray:
    raw = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    raw[...] = array
    return raw


def _check_out(function: Callable[..., Any], args: Any, options: Any) -> None:
    """Check that an array given as `out` receives the first result, whatever it held and wherever it lies."""
    expected = _run(function, args, options)
    first = expected[0] if isinstance(expected, tuple) else expected
    if not isinstance(first, np.ndarray):
        return
    full = np.full_like(first, np.nan if first.dtype.kind == "f" else 7, order="C")
    for out in (full.copy(), _strided(full), _misaligned(full)):
        _check_received(_run(function, args, options, out=out), expected, out, f"{function.__name__} with out")
    for place, argument in enumerate(args):
        if isinstance(argument, np.ndarray) and (argument.shape, argument.dtype) == (first.shape, first.dtype):
            own = copied(args)
            with np.errstate(all="ignore"):
                result = function(*own, **copied(options), out=own[place])
            first_result = result[0] if isinstance(result, tuple) else result
            name = f"{function.__name__} with argument {place} as out"
            _check_received(first_result, first, own[place], name)


def _check_received(result: Any, expected: Any, out: np.ndarray, name: str) -> None:
    if (result[0] if isinstance(result, tuple) else result) is not out:
        raise AssertionError(f"{name} returned another array")
    _check_same(result, expected, f"{name} gave other bits")


def _check_threads(function: Callable[..., Any], args: Any, options: Any, threads: Sequence[int]) -> None:
    first, *others = [_run(function, args, options, threads=number) for number in threads]
    for number, result in zip(threads[1:], others, strict=True):
        _check_same(result, first, f"{function.__name__} gives other bits on {number} threads than on {threads[0]}")


def _check_refusal(function: Callable[..., Any], op: str, args: Any, options: Any) -> None:
    """Check that a float64 array in place of a float32 one is refused by its name."""
    names = [re.sub(r"_[A-Z0-9]+$", "", name) for name in inspect.signature(load_op(op)).parameters]
    for place, argument in enumerate(args):
        if isinstance(argument, np.ndarray) and argument.dtype == np.float32:
            wrong = (*args[:place], argument.astype(np.float64), *args[place + 1 :])
            try:
                _run(function, wrong, options)
            except TypeError as error:
                if not re.search(rf"\b{names[place]}\b", str(error)):
                    raise AssertionError(f"{op}: TypeError does not name {names[place]!r}: {error}") from error
            else:
                raise AssertionError(f"{op} took a float64 array as {names[place]!r}")
