"""Arguments that are big enough for kernels to share among threads, with sizes that no block divides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minislm.ops.bitmap import pack_bitmap
from minislm.ops.block_panels import pack_block_panels
from minislm.ops.block_sparse import pack_block_sparse, pack_block_sparse_panels
from minislm.ops.blocks import BLOCK_FORMATS
from minislm.ops.csr import pack_csr
from minislm.ops.float_panels import pack_float_panels
from minislm.ops.formats import format_named
from minislm.ops.masked_panels import pack_masked_panels
from minislm.ops.nm import pack_nm
from minislm.ops.panels import pack_groups, pack_panels, round_activations
from minislm.testing.cases.bitmap import random_mask
from minislm.testing.cases.block_sparse import random_blocks_mask
from minislm.testing.cases.blocks import random_blocks
from minislm.testing.cases.nm import random_nm_mask
from minislm.weights.quantized import Quantized

Case = tuple[tuple[Any, ...], dict[str, Any]]


def _norm(rng: np.random.Generator) -> Case:
    return (1.5 + rng.normal(size=(2101, 129)), rng.normal(size=129)), {"eps": 1e-5}


def _layer_norm(rng: np.random.Generator) -> Case:
    (x_ND, w_D), options = _norm(rng)
    return (x_ND, w_D, rng.normal(size=129)), options


def _one_array(rng: np.random.Generator) -> Case:
    return (2.5 * rng.normal(size=(1013, 131)),), {}


def _dropout(rng: np.random.Generator) -> Case:
    return (rng.normal(size=(1013, 131)),), {"rate": 0.3, "key": (1, 2, 3, 4)}


def _two_arrays(rng: np.random.Generator) -> Case:
    return (2.5 * rng.normal(size=(1013, 131)), rng.normal(size=(1013, 131))), {}


def _linear(rng: np.random.Generator) -> Case:
    return (rng.normal(size=(301, 259)), rng.normal(size=(131, 259)), rng.normal(size=131)), {}


def _linear_dx(rng: np.random.Generator) -> Case:
    return (rng.normal(size=(301, 131)), rng.normal(size=(131, 259))), {}


def _linear_dw(rng: np.random.Generator) -> Case:
    return (rng.normal(size=(301, 131)), rng.normal(size=(301, 259))), {}


def _float_panel_product(rng: np.random.Generator) -> Case:
    panels = pack_float_panels(rng.normal(size=(131, 259)))
    return (rng.normal(size=(301, 259)), panels, rng.normal(size=131)), {"n_outputs": 131}


def _add_bias(rng: np.random.Generator) -> Case:
    return (rng.normal(size=(3001, 301)), rng.normal(size=301)), {}


def _embedding(rng: np.random.Generator) -> Case:
    return (rng.integers(0, 301, 3001), rng.normal(size=(301, 259))), {}


def _attention(rng: np.random.Generator) -> Case:
    q_BTHK = rng.normal(size=(3, 131, 8, 17))
    k_BSGK, v_BSGK = rng.normal(size=(2, 3, 150, 4, 17))
    return (q_BTHK, k_BSGK, v_BSGK), {"causal": True, "window": 100, "starts_B": np.array([19, 0, 7])}


def _attention_packed(rng: np.random.Generator) -> Case:
    k_SGK, v_SGK = rng.normal(size=(2, 3001, 1, 33))
    counts_B, firsts_B, lengths_B = np.array([1, 1, 3, 1]), np.array([0, 1790, 5, 3000]), np.array([1201, 1100, 700, 1])
    return (rng.normal(size=(6, 8, 33)), k_SGK, v_SGK, counts_B, firsts_B, lengths_B), {"causal": True}


def _attention_packed_int8(rng: np.random.Generator) -> Case:
    (q_NHK, k_SGK, _, *table), options = _attention_packed(rng)
    codes = rng.integers(-127, 128, (2, *k_SGK.shape)).astype(np.int8)
    return (q_NHK, *codes, *(rng.random((2, *k_SGK.shape[:2])) / 64), *table), options


def _store_rows(rng: np.random.Generator) -> Case:
    x_NGK = rng.normal(size=(2003, 3, 65))
    return (x_NGK, rng.permutation(3001)[:2003], np.zeros((3001, 3, 65), np.int8), rng.random((3001, 3))), {}


def _rotary(rng: np.random.Generator) -> Case:
    return (rng.normal(size=(1501, 5, 33)), rng.integers(0, 900, 1501), tuple(rng.uniform(0, 1, 15).tolist())), {}


def _cross_entropy(rng: np.random.Generator) -> Case:
    targets_N = rng.integers(0, 130, 1003)
    targets_N[::7] = -100
    return (3.0 * rng.normal(size=(1003, 130)), targets_N), {"label_smoothing": 0.1}


def _token_probabilities(rng: np.random.Generator) -> Case:
    return (3.0 * rng.normal(size=(37, 4001)),), {"temperature": 0.9, "top_k": 300, "top_p": 0.8}


def _adamw(rng: np.random.Generator) -> Case:
    w, dw, m = rng.normal(size=(3, 300_001))
    options = {"step": 3, "learning_rate": 1e-2, "beta1": 0.9, "beta2": 0.98, "eps": 1e-8, "decay": 0.1}
    return (w, dw, m, np.square(rng.normal(size=300_001))), options


def _packed(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Draw the arrays of a 4-bit matrix of 1501 outputs and 301 inputs."""
    return Quantized.nearest(rng.normal(size=(1501, 301)), "int4-32").stored


def _quantized_product(rng: np.random.Generator) -> Case:
    return (rng.normal(size=(3, 301)), *_packed(rng)), {"format": format_named("int4-32")}


def _quantized_product_int8(rng: np.random.Generator) -> Case:
    args, options = _quantized_product(rng)
    return args, {**options, "activations": "int8-32"}


def _quantized_rows(rng: np.random.Generator) -> Case:
    return (rng.integers(0, 1501, 2003), *_packed(rng)), {"format": format_named("int4-32"), "n_inputs": 301}


def _quantize_activations(rng: np.random.Generator) -> Case:
    return (rng.normal(size=(2003, 301)),), {"group": 32}


def _round_activations(rng: np.random.Generator) -> Case:
    return (rng.normal(size=(2003, 301)),), {"group": 32, "scale": None}


def _panel_product(rng: np.random.Generator) -> Case:
    codes, scales = _packed(rng)
    int4 = format_named("int4-32")
    rounded_NP = round_activations(rng.normal(size=(35, 301)).astype(np.float32), group=32)
    lines = pack_panels(codes, n_inputs=301, format=int4)
    options = {"format": int4, "group": 32, "n_inputs": 301, "n_outputs": 1501}
    return (rounded_NP, lines, pack_groups(scales)), options


def _decoded_panel_product(rng: np.random.Generator) -> Case:
    (_, *panels), options = _panel_product(rng)
    return (rng.normal(size=(35, 301)), *panels), {"format": options["format"], "n_outputs": 1501}


def _masked_panel_product(rng: np.random.Generator) -> Case:
    int4, (codes, scales) = format_named("int4-32"), _packed(rng)
    codes_OI, kept_OI = int4.unpack(codes, 301), rng.random((1501, 301)) < 0.5
    entries = lambda rows: (kept_OI[rows], codes_OI[rows])  # noqa: E731
    layout = pack_masked_panels(entries, 1501, 301, codes.dtype, bits=4)
    rounded_NP = round_activations(rng.normal(size=(35, 301)).astype(np.float32), group=32)
    return (rounded_NP, *layout, pack_groups(scales)), {"format": int4, "group": 32, "n_inputs": 301, "n_outputs": 1501}


def _decoded_masked_panel_product(rng: np.random.Generator) -> Case:
    w_OI, kept_OI = rng.normal(size=(1501, 301)), rng.random((1501, 301)) < 0.5
    layout = pack_masked_panels(lambda rows: (kept_OI[rows], w_OI[rows]), 1501, 301, w_OI.dtype)
    return (rng.normal(size=(35, 301)), *layout), {"n_outputs": 1501}


def _block_sparse_panel_product(rng: np.random.Generator) -> Case:
    int4, w_OI, mask_OI = format_named("int4"), rng.normal(size=(1504, 301)), random_blocks_mask(rng, 1504, 301)
    blocks_CQ, values = pack_block_sparse(w_OI, mask_OI)
    codes, scales = Quantized.nearest(values, "int4").stored
    rounded_NP = round_activations(rng.normal(size=(35, 301)).astype(np.float32), group=32)
    layout = pack_block_sparse_panels(blocks_CQ, codes, scales, None, format=int4)
    return (rounded_NP, *layout), {"format": int4, "n_inputs": 301, "n_outputs": 1504}


def _block_panel_product(rng: np.random.Generator) -> Case:
    q4_k = BLOCK_FORMATS["q4_k"]
    arrays = pack_block_panels(random_blocks(rng, q4_k, 1501, 301), n_inputs=301, format=q4_k)
    rounded_NP = round_activations(rng.normal(size=(35, 301)).astype(np.float32), group=32)
    return (rounded_NP, *arrays), {"format": q4_k, "n_inputs": 301, "n_outputs": 1501}


def _decoded_block_panel_product(rng: np.random.Generator) -> Case:
    (_, *arrays), options = _block_panel_product(rng)
    return (rng.normal(size=(35, 301)), *arrays), {"format": options["format"], "n_outputs": 1501}


def _low_rank_product(rng: np.random.Generator) -> Case:
    return (rng.normal(size=(3, 1501)), rng.normal(size=(131, 1501)), rng.normal(size=(2003, 131))), {}


def _bitmap_product(rng: np.random.Generator) -> Case:
    mask_OP, values, starts = pack_bitmap(rng.normal(size=(1501, 301)), random_mask(rng, 1501, 301))
    return (rng.normal(size=(3, 301)), mask_OP, values, starts), {}


def _nm_product(rng: np.random.Generator) -> Case:
    values_OU, places_OP = pack_nm(rng.normal(size=(1501, 301)), random_nm_mask(rng, 1501, 301, 2, 4), n=2, m=4)
    return (rng.normal(size=(3, 301)), values_OU, places_OP), {"n": 2, "m": 4}


def _csr_product(rng: np.random.Generator) -> Case:
    values, columns, starts = pack_csr(rng.normal(size=(1501, 301)), random_mask(rng, 1501, 301))
    return (rng.normal(size=(3, 301)), values, columns, starts), {}


LARGE: dict[str, Callable[[np.random.Generator], Case]] = {
    "linear": _linear,
    "linear_dx": _linear_dx,
    "linear_dw": _linear_dw,
    "float_panel_product": _float_panel_product,
    "add": _two_arrays,
    "add_bias": _add_bias,
    "scale": _add_bias,
    "embedding": _embedding,
    "layer_norm": _layer_norm,
    "rms_norm": _norm,
    "gelu": _one_array,
    "gelu_tanh": _one_array,
    "relu": _one_array,
    "silu": _one_array,
    "tanh": _one_array,
    "dropout": _dropout,
    "silu_gate": _two_arrays,
    "gelu_gate": _two_arrays,
    "gelu_tanh_gate": _two_arrays,
    "softmax": _one_array,
    "attention": _attention,
    "attention_packed": _attention_packed,
    "attention_packed_int8": _attention_packed_int8,
    "store_rows": _store_rows,
    "rotary": _rotary,
    "cross_entropy": _cross_entropy,
    "token_probabilities": _token_probabilities,
    "adamw": _adamw,
    "quantize_activations": _quantize_activations,
    "round_activations": _round_activations,
    "panel_product": _panel_product,
    "decoded_panel_product": _decoded_panel_product,
    "masked_panel_product": _masked_panel_product,
    "decoded_masked_panel_product": _decoded_masked_panel_product,
    "block_sparse_panel_product": _block_sparse_panel_product,
    "block_panel_product": _block_panel_product,
    "decoded_block_panel_product": _decoded_block_panel_product,
    "quantized_product": _quantized_product,
    "quantized_product_int8": _quantized_product_int8,
    "quantized_rows": _quantized_rows,
    "low_rank_product": _low_rank_product,
    "bitmap_product": _bitmap_product,
    "nm_product": _nm_product,
    "csr_product": _csr_product,
}
