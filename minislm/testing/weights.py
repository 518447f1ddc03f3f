"""Laws that every Weight keeps, however it is stored; each function raises AssertionError where one is broken."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np

from minislm.dispatch import ops, runs_compiled
from minislm.errors import ModelFileError, UnsupportedError
from minislm.testing.samples import LAYOUTS, laid_out, parts
from minislm.testing.tolerances import assert_close
from minislm.weights import build
from minislm.weights.base import Arrays, Weight
from minislm.weights.blocks import Blocks
from minislm.weights.panels import Panels
from minislm.weights.product import Product
from minislm.weights.quantized import Quantized
from minislm.weights.sum import Sum


def is_linear(weight: Weight) -> bool:
    """Tell whether `apply` is linear: not where a part rounds its inputs.

    Parameters
    ----------
    weight : Weight
        Any.

    Returns
    -------
    bool
        False with quantized activations anywhere.
    """
    return not any(
        isinstance(part, Quantized | Panels | Blocks) and part.activations != "float" for part in parts(weight)
    )


def exact(weight: Weight) -> np.ndarray:
    """Return the matrix in float64, put together outside of the Weights: an oracle for their verbs.

    Parameters
    ----------
    weight : Weight
        Any.

    Returns
    -------
    ndarray, (O, I), float64
        Sums and products of what the leaves say they are.
    """
    matrix: np.ndarray
    match weight:
        case Sum(a=a, b=b):
            matrix = exact(a) + exact(b)
        case Product(left=left, right=right):
            matrix = exact(left) @ exact(right)
        case _:
            matrix = weight.dense().astype(np.float64)
    return matrix


def magnitude(weight: Weight) -> np.ndarray:
    """Return what rounding errors are relative to: the matrix without its signs, factor by factor.

    Parameters
    ----------
    weight : Weight
        Any.

    Returns
    -------
    ndarray, (O, I), float64
        At least the absolute values of `exact`.
    """
    matrix: np.ndarray
    match weight:
        case Sum(a=a, b=b):
            matrix = magnitude(a) + magnitude(b)
        case Product(left=left, right=right):
            matrix = magnitude(left) @ magnitude(right)
        case _:
            matrix = np.abs(weight.dense().astype(np.float64))
    return matrix


def check_verbs(weight: Weight, seed: int = 0) -> None:
    """Check that `apply`, `apply_t`, `rows` and `dense` agree with the matrix, for no, one and several rows.

    Parameters
    ----------
    weight : Weight
        To be checked. `apply` is left out where it is not linear.
    seed : int
        Of the rows.

    Raises
    ------
    AssertionError
        A verb disagrees with the matrix, changes the dtype, or breaks the adjoint identity ``<W x, y> = <x, W' y>``.
    """
    rng = np.random.default_rng(seed)
    n_outputs, n_inputs = weight.shape
    w_OI, stored = exact(weight), weight.dense().dtype
    size_OI = magnitude(weight) + np.finfo(np.float32).tiny  # below it numbers have fewer digits
    length = sum(sum(part.shape) for part in parts(weight))
    assert w_OI.shape == weight.shape, f"shape says {weight.shape}, the matrix has {w_OI.shape}"
    assert stored in (np.float32, np.float64), f"dense() returned {stored}"
    assert_close(weight.dense(), w_OI, length=length, scale=size_OI, name="dense()")
    for n_rows, dtype in ((0, stored), (1, stored), (5, stored), (3, np.dtype(np.float64))):
        x_NI = _fixed(rng.normal(size=(n_rows, n_inputs)).astype(dtype))
        dy_NO = _fixed(rng.normal(size=(n_rows, n_outputs)).astype(dtype))
        y_NO, dx_NI = weight.apply(x_NI), weight.apply_t(dy_NO)
        assert y_NO.dtype == dx_NI.dtype == dtype, f"apply made {y_NO.dtype}, apply_t {dx_NI.dtype} of {dtype}"
        assert_close(dx_NI, dy_NO @ w_OI, length=length, scale=np.abs(dy_NO) @ size_OI, name="apply_t")
        if is_linear(weight):
            y_scale = np.abs(x_NI) @ size_OI.T
            assert_close(y_NO, x_NI @ w_OI.T, length=length, scale=y_scale, name="apply")
            assert_close(
                np.sum(y_NO * dy_NO),
                np.sum(x_NI * dx_NI),
                length=length * max(1, n_rows),
                scale=np.sum(y_scale * np.abs(dy_NO)),
                name="<W x, y> against <x, W' y>",
            )
    for n_rows in (0, 1, 7):
        ids = rng.integers(0, n_outputs, n_rows)
        rows = weight.rows(_fixed(ids))
        assert rows.dtype == stored, f"rows made {rows.dtype}, dense() {stored}"
        assert_close(rows, w_OI[ids], length=length, scale=size_OI[ids], name="rows")


def check_gradients(weight: Weight, seed: int = 0, bound: float = 1e-9) -> None:
    """Check `grads` and `rows_grads` against differences of `apply` and `rows`.

    Parameters
    ----------
    weight : Weight
        To be checked, its trainable arrays in float64; it must be linear in each of them and in its input.
    seed : int
        Of rows, covectors and directions.
    bound : float
        Largest error allowed, relative to the typical size of the inner product.

    Raises
    ------
    AssertionError
        A gradient is wrong, missing, superfluous, of the wrong shape, or shares memory with an input.
    """
    rng = np.random.default_rng(seed)
    n_outputs, n_inputs = weight.shape
    x_NI, dy_NO, dw_NI = (_fixed(rng.normal(size=(6, size))) for size in (n_inputs, n_outputs, n_inputs))
    ids = rng.integers(0, n_outputs, 6)
    arrays = weight.arrays()
    for verb, gradients, inputs, covector in (
        ("apply", weight.grads(x_NI, dy_NO), x_NI, dy_NO),
        ("rows", weight.rows_grads(ids, dw_NI), ids, dw_NI),
    ):
        assert set(gradients) == set(weight.trainable()), f"{verb}: gradients {set(gradients)} of {weight.trainable()}"
        for name, gradient in gradients.items():
            assert gradient.shape == arrays[name].shape, f"{verb}: the gradient of {name!r} has shape {gradient.shape}"
            assert not any(np.shares_memory(gradient, array) for array in (inputs, covector)), "a gradient is no copy"
            direction = rng.normal(size=gradient.shape)
            ends = [
                getattr(build(weight.spec(), {**arrays, name: arrays[name] + way * direction}), verb)(inputs)
                for way in (1.0, -1.0)
            ]
            slope = np.sum((ends[0] - ends[1]) * covector) / 2.0
            terms = gradient * direction
            error = abs(slope - terms.sum()) / (np.linalg.norm(terms) + 1e-3 * np.linalg.norm(covector))
            if not error <= bound:
                raise AssertionError(
                    f"{verb}: the gradient of {name!r} is wrong: along a random direction the loss changes by "
                    f"{slope:.9g}, the gradient says {terms.sum():.9g}"
                )


def check_gradient_dtypes(weight: Weight) -> None:
    """Check that gradients are float32 where rows are, whatever the storage.

    Parameters
    ----------
    weight : Weight
        To be checked, its arrays in float32 or smaller.

    Raises
    ------
    AssertionError
        A gradient is wider or narrower.
    """
    n_outputs, n_inputs = weight.shape
    x_NI, dy_NO = np.ones((2, n_inputs), np.float32), np.ones((2, n_outputs), np.float32)
    for gradients in (weight.grads(x_NI, dy_NO), weight.rows_grads(np.array([0, 0]), x_NI)):
        for name, gradient in gradients.items():
            assert gradient.dtype == np.float32, f"the gradient of {name!r} is {gradient.dtype}"


def check_round_trip(weight: Weight) -> None:
    """Check that spec and arrays make the same Weight again, bit for bit, whatever the arrays' memory layout.

    Parameters
    ----------
    weight : Weight
        To be checked.

    Raises
    ------
    AssertionError
        Spec, arrays or values differ, the spec is not JSON, arrays were copied, or the size is not that of the arrays.
    """
    arrays = weight.arrays()
    assert weight.nbytes == sum(array.nbytes for array in arrays.values())
    for layout in LAYOUTS:
        stored = {name: laid_out(array, layout) for name, array in arrays.items()}
        again = build(json.loads(json.dumps(weight.spec())), stored)
        assert type(again) is type(weight)
        assert again.spec() == weight.spec(), f"another spec: {again.spec()}"
        assert list(again.arrays()) == list(arrays), "other names, or another order"
        for name, array in again.arrays().items():
            assert array is stored[name] or np.shares_memory(array, stored[name]) or not array.size, f"{name!r} copied"
            assert bits(array) == bits(arrays[name]), f"array {name!r} differs, stored as {layout}"
        if not any(isinstance(part, Product) for part in parts(weight)):  # BLAS may add in another order
            assert bits(again.dense()) == bits(weight.dense()), f"other values, stored as {layout}"
        check_verbs(again)


def check_untrusted(weight: Weight) -> None:
    """Check that spec and arrays that do not fit together are refused by a named error.

    Parameters
    ----------
    weight : Weight
        To be checked; one array after the other, and one field of its spec after the other, is spoilt.

    Raises
    ------
    AssertionError
        A Weight was made of them.
    """
    spec, arrays = weight.spec(), weight.arrays()
    spoilt: list[tuple[str, Any, Arrays]] = [("an array too many", spec, {**arrays, "strange": np.zeros(3)})]
    for name, array in arrays.items():
        spoilt.append((f"no {name!r}", spec, {key: value for key, value in arrays.items() if key != name}))
        spoilt.append((f"{name!r} of another dtype", spec, {**arrays, name: array.astype(np.complex64)}))
        if array.itemsize > 1:
            swapped = array.astype(array.dtype.newbyteorder())
            spoilt.append((f"{name!r} of swapped bytes", spec, {**arrays, name: swapped}))
        spoilt.append((f"{name!r} with an axis more", spec, {**arrays, name: array[None]}))
        for axis in range(array.ndim):
            wider = np.concatenate([array, np.take(array, [0] if array.shape[axis] else [], axis)], axis)
            if array.shape[axis]:
                spoilt.append((f"{name!r} longer", spec, {**arrays, name: wider}))
                spoilt.append(
                    (f"{name!r} shorter", spec, {**arrays, name: np.take(array, range(array.shape[axis] - 1), axis)})
                )
    for path, value in _fields(spec):
        wrongs: tuple[Any, ...] = (1.5, "strange", [1], [-1, 4], [4, -1], [2**40, 2**40], {"type": []}, True)
        for wrong in wrongs:
            if type(wrong) is not type(value) or wrong != value:
                spoilt.append((f"{path} = {wrong!r}", _with(spec, path, wrong), arrays))
        spoilt.append((f"no {path}", _with(spec, path, None), arrays))
    for what, bad_spec, bad_arrays in spoilt:
        try:
            build(bad_spec, bad_arrays)
        except (ModelFileError, UnsupportedError):
            continue
        raise AssertionError(f"a Weight was made of a file with {what}")


def check_lower(weight: Weight, seed: int = 0) -> None:
    """Check that the steps of `lower` compute what `apply` does, bit for bit but where floats are laid out in panels.

    Parameters
    ----------
    weight : Weight
        To be checked.
    seed : int
        Of the rows.

    Raises
    ------
    AssertionError
        The results differ, or a step promises another width.
    """
    x_NI = np.random.default_rng(seed).normal(size=(4, weight.shape[1])).astype(weight.dense().dtype)
    steps = _Steps(x_NI)
    result = weight.lower(0, steps)
    lowered, applied = steps.buffers[result], weight.apply(x_NI)
    if "float_panel_product" in steps.taken:  # which sums in an order of its own
        terms_NO = np.abs(x_NI) @ magnitude(weight).T
        assert_close(lowered, applied, length=sum(weight.shape), factor=8.0, scale=terms_NO, name="lower")
    else:
        assert bits(lowered) == bits(applied), "lower computes something else than apply"


def check_activations(weight: Weight) -> None:
    """Check that other activations change no number of a Weight, and that float ones make every product linear.

    Parameters
    ----------
    weight : Weight
        To be checked.

    Raises
    ------
    AssertionError
        An array differs, the way back is another, a product disagrees with the matrix, or nonsense is accepted.
    """
    arrays = {name: bits(array) for name, array in weight.arrays().items() if not name.endswith("activation_scale")}
    for activations in ("float", "int8", "int8-row", "int8-32"):
        other = weight.with_activations(activations)
        found = {name: bits(array) for name, array in other.arrays().items()}
        assert found == arrays, f"{activations} activations changed the matrix"
        assert other.with_activations("float").spec() == weight.with_activations("float").spec()
        assert is_linear(other) or activations != "float", "float activations are rounded"
        check_verbs(other)


def check_layouts(weight: Weight, seed: int = 0) -> None:
    """Check that every memory layout of a Weight holds the same numbers, says the same of itself, and can be undone.

    Parameters
    ----------
    weight : Weight
        To be checked.
    seed : int
        Of the rows.

    Raises
    ------
    AssertionError
        An array or the spec differs, or a product does beyond rounding.
    """
    x_NI = np.random.default_rng(seed).normal(size=(4, weight.shape[1])).astype(weight.dense().dtype)
    arrays = weight.arrays()
    for layout in ("canonical", "panels"):
        try:
            again = weight.repacked(layout)
        except UnsupportedError:
            assert layout != "canonical", "no canonical layout"
            continue
        for same in (again, again.repacked("canonical"), again.repacked(layout)):
            assert same.spec() == weight.spec(), f"{layout} says {same.spec()}"
            assert {name: bits(array) for name, array in same.arrays().items()} == {
                name: bits(array) for name, array in arrays.items()
            }, f"{layout} holds other numbers"
        check_verbs(again)
        assert_close(again.apply(x_NI), weight.apply(x_NI), length=sum(weight.shape), name=f"apply of {layout}")


class _Steps:
    """Stands for a Program: runs each step as it is appended."""

    def __init__(self, x_NI: np.ndarray) -> None:
        self.buffers = [x_NI]
        self.panels = x_NI.dtype == np.float32 and runs_compiled("panel_product")
        self.taken: set[str] = set()

    def step(
        self, op: str, inputs: tuple[int, ...], *, constants: tuple[np.ndarray, ...] = (), width: int, **options: Any
    ) -> int:
        dtype = options.pop("dtype", self.buffers[0].dtype)
        self.taken.add(op)
        result = getattr(ops, op)(*(self.buffers[slot] for slot in inputs), *constants, **options)
        self.buffers.append(result[0] if isinstance(result, tuple) else result)
        assert self.buffers[-1].shape == (len(self.buffers[0]), width), f"{op} promised the width {width}"
        assert self.buffers[-1].dtype == dtype, f"{op} promised {dtype}"
        return len(self.buffers) - 1


def _fields(spec: dict[str, Any], prefix: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """List the paths and values of a spec's fields, nested ones included."""
    found: list[tuple[tuple[str, ...], Any]] = []
    for name, value in spec.items():
        found.append(((*prefix, name), value))
        if isinstance(value, dict):
            found += _fields(value, (*prefix, name))
    return found


def _with(spec: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Return a spec with one field exchanged, or removed for None."""
    spec = copy.deepcopy(spec)
    place = spec
    for name in path[:-1]:
        place = place[name]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return spec


def _fixed(array: np.ndarray) -> np.ndarray:
    """Make an array impossible to write to."""
    array.flags.writeable = False
    return array


def bits(array: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    """Return all that two equal arrays share.

    Parameters
    ----------
    array : ndarray
        Any.

    Returns
    -------
    tuple
        Dtype, shape and bytes; to be compared with another.
    """
    return array.dtype.str, array.shape, array.tobytes()
