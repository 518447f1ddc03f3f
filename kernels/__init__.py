"""Faster versions of `minislm.ops`: arrays in, arrays out.

Each row says which function may run in place of an op, in which technology, for which dtypes, and for which sizes it is
preferred. A kernel takes its op's arguments plus keyword-only `out` and `threads`, and must equal the op within the
tolerance that `minislm.testing` derives. `minislm.dispatch` reads this table; nothing here is imported until it runs.

``<op>_numba.py`` holds the Numba version of one op and its backward. ``<family>_cython.pyx`` is the border of a family
of compiled kernels: it checks its arguments with `border` (and `compressed`) and hands addresses to ``c/<family>.c``,
which is compiled once for each instruction set (``c/kernel.h`` says how) and runs on the one thread pool
(``c/threads.h``). A new family needs these three files and its rows below; `setup.py` finds it by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Kernel(NamedTuple):
    """A row of the table.

    Parameters
    ----------
    op : str
        The op, or the op's backward, that it stands for.
    technology : str
        ``"cython"`` or ``"numba"``.
    function : str
        ``"module:function"`` inside `minislm.kernels`.
    dtypes : tuple of str
        Dtypes of the op's first array for which it may run.
    preferred : callable, optional
        Given the op's arguments, whether it is the faster choice for these sizes; None: always.
    """

    op: str
    technology: str
    function: str
    dtypes: tuple[str, ...] = ("float32",)
    preferred: Callable[..., bool] | None = None


MOST_HEAD_WIDTH = 256  # of compiled attention, which keeps tiles of a head on its stack
INTEGERS = ("int32", "int64")  # ids


def _head_fits(q: Any, *others: Any, **options: Any) -> bool:
    """Compiled attention keeps tiles of a head on its stack."""
    return bool(q.shape[-1] <= MOST_HEAD_WIDTH)


def _one_query_each(q_NHK: Any, k_SGK: Any, v_SGK: Any, counts_B: Any, *args: Any, **options: Any) -> bool:
    """Whether sequences have about one query each: of several BLAS makes better use."""
    return len(q_NHK) < 2 * len(counts_B)


def _low_rank_pays(x_NI: Any, right_RI: Any, left_OR: Any) -> bool:
    """BLAS does many rows better, and NumPy's two calls cost less than ours for small factors."""
    return len(x_NI) <= 16 and right_RI.size + left_OR.size >= 65536


def _of_one_dtype(x: Any, y: Any) -> bool:
    """A sum of weights may have terms of float32 and of float64."""
    return bool(x.dtype == y.dtype)


def _of_float32(ids: Any, w: Any) -> bool:
    """Tables come in every dtype of a Dense."""
    return bool(w.dtype == "float32")


def _rows_pay(rows: Any, *others: Any, **options: Any) -> bool:
    """Every panel of the matrix is filled anew, which only some rows make up for."""
    return len(rows) >= 24


KERNELS: tuple[Kernel, ...] = (
    Kernel("linear", "cython", "matmul_cython:linear", preferred=_rows_pay),
    Kernel("linear_dx", "cython", "matmul_cython:linear_dx", preferred=_rows_pay),
    Kernel("linear_dw", "cython", "matmul_cython:linear_dw", preferred=_rows_pay),
    Kernel("float_panel_product", "cython", "matmul_cython:float_panel_product"),
    Kernel("add", "cython", "linear_cython:add", preferred=_of_one_dtype),
    Kernel("add_bias", "cython", "linear_cython:add_bias"),
    Kernel("scale", "cython", "linear_cython:scale", preferred=_of_one_dtype),
    Kernel("embedding", "cython", "embedding_cython:embedding", INTEGERS, preferred=_of_float32),
    Kernel("embedding_backward", "cython", "embedding_cython:embedding_backward"),
    Kernel("layer_norm", "cython", "norm_cython:layer_norm"),
    Kernel("layer_norm", "numba", "layer_norm_numba:layer_norm"),
    Kernel("layer_norm_backward", "cython", "norm_cython:layer_norm_backward"),
    Kernel("layer_norm_backward", "numba", "layer_norm_numba:layer_norm_backward"),
    Kernel("rms_norm", "cython", "norm_cython:rms_norm"),
    Kernel("rms_norm", "numba", "rms_norm_numba:rms_norm"),
    Kernel("rms_norm_backward", "cython", "norm_cython:rms_norm_backward"),
    Kernel("rms_norm_backward", "numba", "rms_norm_numba:rms_norm_backward"),
    Kernel("gelu", "cython", "activation_cython:gelu"),
    Kernel("gelu", "numba", "gelu_numba:gelu"),
    Kernel("gelu_backward", "cython", "activation_cython:gelu_backward"),
    Kernel("gelu_backward", "numba", "gelu_numba:gelu_backward"),
    Kernel("gelu_tanh", "cython", "activation_cython:gelu_tanh"),
    Kernel("gelu_tanh", "numba", "gelu_tanh_numba:gelu_tanh"),
    Kernel("gelu_tanh_backward", "cython", "activation_cython:gelu_tanh_backward"),
    Kernel("gelu_tanh_backward", "numba", "gelu_tanh_numba:gelu_tanh_backward"),
    Kernel("relu", "cython", "activation_cython:relu"),
    Kernel("relu_backward", "cython", "activation_cython:relu_backward"),
    Kernel("silu", "cython", "activation_cython:silu"),
    Kernel("tanh", "cython", "activation_cython:tanh"),
    Kernel("dropout", "cython", "dropout_cython:dropout"),
    Kernel("dropout_backward", "cython", "dropout_cython:dropout_backward"),
    Kernel("silu_gate", "cython", "activation_cython:silu_gate"),
    Kernel("silu_gate", "numba", "silu_gate_numba:silu_gate"),
    Kernel("gelu_gate", "cython", "activation_cython:gelu_gate"),
    Kernel("gelu_tanh_gate", "cython", "activation_cython:gelu_tanh_gate"),
    Kernel("silu_gate_backward", "cython", "activation_cython:silu_gate_backward"),
    Kernel("silu_gate_backward", "numba", "silu_gate_numba:silu_gate_backward"),
    Kernel("softmax", "cython", "softmax_cython:softmax"),
    Kernel("softmax", "numba", "softmax_numba:softmax"),
    Kernel("softmax_backward", "cython", "softmax_cython:softmax_backward"),
    Kernel("softmax_backward", "numba", "softmax_numba:softmax_backward"),
    Kernel("token_probabilities", "cython", "sampling_cython:token_probabilities"),
    Kernel("attention", "cython", "attention_cython:attention", preferred=_head_fits),
    Kernel("attention_backward", "cython", "attention_backward_cython:attention_backward", preferred=_head_fits),
    Kernel("attention_packed", "cython", "attention_cython:attention_packed", preferred=_head_fits),
    Kernel("attention_packed", "numba", "attention_packed_numba:attention_packed", preferred=_one_query_each),
    Kernel("attention_packed_int8", "cython", "attention_cython:attention_packed_int8", preferred=_head_fits),
    Kernel("store_rows", "cython", "store_cython:store_rows"),
    Kernel("rotary", "cython", "rotary_cython:rotary"),
    Kernel("rotary_backward", "cython", "rotary_cython:rotary_backward"),
    Kernel("cross_entropy", "cython", "loss_cython:cross_entropy"),
    Kernel("cross_entropy", "numba", "cross_entropy_numba:cross_entropy"),
    Kernel("cross_entropy_backward", "cython", "loss_cython:cross_entropy_backward"),
    Kernel("cross_entropy_backward", "numba", "cross_entropy_numba:cross_entropy_backward"),
    Kernel("adamw", "cython", "optimizer_cython:adamw"),
    Kernel("adamw", "numba", "adamw_numba:adamw"),
    # Quantized matrices lie in panels (`minislm.weights.panel_product`) wherever these are compiled.
    Kernel("round_activations", "cython", "panels_cython:round_activations"),
    Kernel("panel_product", "cython", "panels_cython:panel_product", ("int8",)),
    Kernel("masked_panel_product", "cython", "panels_cython:masked_panel_product", ("int8",)),
    Kernel("block_sparse_panel_product", "cython", "panels_cython:block_sparse_panel_product", ("int8",)),
    Kernel("block_panel_product", "cython", "panels_cython:block_panel_product", ("int8",)),
    Kernel("decoded_panel_product", "cython", "decoded_panels_cython:decoded_panel_product"),
    Kernel("decoded_masked_panel_product", "cython", "decoded_panels_cython:decoded_masked_panel_product"),
    Kernel("decoded_block_panel_product", "cython", "decoded_panels_cython:decoded_block_panel_product"),
    # Products with sparse matrices win for all sizes, measured from 128 x 128 to 2048 x 2048 with 1 to 512 rows of x.
    # Up to 16 rows multiply what is stored; more meet what the kernel decodes, a tile at a time.
    Kernel("quantize_activations", "numba", "quantize_activations_numba:quantize_activations"),
    Kernel("quantized_product", "numba", "quantized_product_numba:quantized_product"),
    Kernel("quantized_product_int8", "numba", "quantized_product_int8_numba:quantized_product_int8"),
    Kernel("quantized_rows", "cython", "quantized_cython:quantized_rows", INTEGERS),
    Kernel("quantized_rows", "numba", "quantized_rows_numba:quantized_rows", INTEGERS),
    Kernel("bitmap_product", "cython", "sparse_cython:bitmap_product"),
    Kernel("bitmap_product", "numba", "bitmap_product_numba:bitmap_product"),
    Kernel("nm_product", "numba", "nm_product_numba:nm_product"),
    Kernel("csr_product", "cython", "sparse_cython:csr_product"),
    Kernel("csr_product", "numba", "csr_product_numba:csr_product"),
    Kernel("low_rank_product", "cython", "low_rank_cython:low_rank_product", preferred=_low_rank_pays),
    Kernel("low_rank_product", "numba", "low_rank_product_numba:low_rank_product", preferred=_low_rank_pays),
)


class InstructionSets(NamedTuple):
    """What the compiled kernels can use on this machine.

    Parameters
    ----------
    chosen : str
        The one in use; empty when the compiled kernels are not built.
    available : tuple of str
        Those that were compiled and that the processor has, slowest first.
    """

    chosen: str
    available: tuple[str, ...]


def instruction_set(name: str | None = None) -> InstructionSets:
    """Set or tell the instruction set of the compiled kernels.

    Parameters
    ----------
    name : str, optional
        The one to use from now on. None: only tell. The default is the best one available, or what the environment
        variable MINISLM_INSTRUCTION_SET says at import.

    Returns
    -------
    InstructionSets
        What is in force.

    Raises
    ------
    ValueError
        It was not compiled, or this processor lacks it.
    """
    try:
        from minislm.kernels import runtime_cython
    except ImportError:
        if name is not None:
            raise ValueError(f"no instruction set {name!r}: the compiled kernels are not built") from None
        return InstructionSets("", ())
    if name is not None:
        runtime_cython.choose(name)
    return InstructionSets(runtime_cython.chosen(), runtime_cython.AVAILABLE)
