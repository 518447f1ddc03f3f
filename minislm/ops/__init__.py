"""The mathematics of a language model: pure functions on arrays, NumPy only, forward and backward side by side.

An *op pair* is ``f(x, ...) -> y, saved`` and ``f_backward(dy, saved) -> dx, ...``. ``dx`` is the gradient of the loss
with respect to ``x`` and has its shape; whatever the rest of the model may be, it reaches an op as ``dy`` alone. A
backward undoes the lines of its forward in reverse order, and its comments name the line undone. ``saved`` is what it
needs for that; what it computes again instead is said, with the reason.

Results keep the dtype of the arguments, share memory with none of them, and no argument is changed (but for
`optimizer.adamw`). `OPS` lists every op; cases for the laws that an op of ``<family>.py`` must keep are sampled by the
function of its name in `minislm.testing.cases.<family>`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minislm.errors import unknown


@dataclass(frozen=True)
class Op:
    """A row of the table.

    Parameters
    ----------
    function : str
        ``"module:function"`` inside `minislm.ops`.
    gradients : tuple of str
        Names of the arguments that the backward returns gradients of, in its order; empty: no backward.
    """

    function: str
    gradients: tuple[str, ...] = ()


OPS: dict[str, Op] = {
    "linear": Op("linear:linear", ("x", "w", "b")),
    "linear_dx": Op("linear:linear_dx"),
    "linear_dw": Op("linear:linear_dw"),
    "add": Op("linear:add"),
    "add_bias": Op("linear:add_bias"),
    "scale": Op("linear:scale"),
    "embedding": Op("embedding:embedding", ("w",)),
    "layer_norm": Op("norm:layer_norm", ("x", "w", "b")),
    "rms_norm": Op("norm:rms_norm", ("x", "w")),
    "gelu": Op("activation:gelu", ("x",)),
    "gelu_tanh": Op("activation:gelu_tanh", ("x",)),
    "relu": Op("activation:relu", ("x",)),
    "silu": Op("activation:silu", ("x",)),
    "tanh": Op("activation:tanh", ("x",)),
    "silu_gate": Op("gate:silu_gate", ("gate", "up")),
    "gelu_gate": Op("gate:gelu_gate", ("gate", "up")),
    "gelu_tanh_gate": Op("gate:gelu_tanh_gate", ("gate", "up")),
    "softmax": Op("softmax:softmax", ("x",)),
    "token_probabilities": Op("sampling:token_probabilities"),
    "attention": Op("attention:attention", ("q", "k", "v", "bias")),
    "attention_map": Op("attention:attention_map", ("q", "k", "bias")),
    "attention_packed": Op("packed:attention_packed"),
    "attention_packed_int8": Op("packed:attention_packed_int8"),
    "store_rows": Op("packed:store_rows"),
    "rotary": Op("rotary:rotary", ("x",)),
    "sinusoidal_positions": Op("positions:sinusoidal_positions"),
    "dropout": Op("dropout:dropout", ("x",)),
    "cross_entropy": Op("loss:cross_entropy", ("logits",)),
    "kl_divergence": Op("loss:kl_divergence", ("logits",)),
    "relative_entropy": Op("divergence:relative_entropy", ("p",)),
    "mean_square": Op("loss:mean_square", ("x",)),
    "cosine_distance": Op("loss:cosine_distance", ("x",)),
    "adamw": Op("optimizer:adamw"),
    "half_product": Op("half:half_product"),
    "half_product_t": Op("half:half_product_t"),
    "float_panel_product": Op("float_panels:float_panel_product"),
    "quantize_activations": Op("quantized:quantize_activations"),
    "quantized_product": Op("quantized:quantized_product"),
    "quantized_product_int8": Op("quantized:quantized_product_int8"),
    "quantized_product_t": Op("quantized:quantized_product_t"),
    "quantized_rows": Op("quantized:quantized_rows"),
    "round_activations": Op("panels:round_activations"),
    "pack_panels": Op("panels:pack_panels"),
    "panel_product": Op("panels:panel_product"),
    "decoded_panel_product": Op("panels:decoded_panel_product"),
    "masked_panel_product": Op("masked_panels:masked_panel_product"),
    "decoded_masked_panel_product": Op("masked_panels:decoded_masked_panel_product"),
    "block_sparse_product": Op("block_sparse:block_sparse_product"),
    "block_sparse_product_t": Op("block_sparse:block_sparse_product_t"),
    "block_sparse_rows": Op("block_sparse:block_sparse_rows"),
    "block_sparse_panel_product": Op("block_sparse:block_sparse_panel_product"),
    "block_product": Op("blocks:block_product"),
    "block_product_t": Op("blocks:block_product_t"),
    "block_rows": Op("blocks:block_rows"),
    "block_panel_product": Op("block_panels:block_panel_product"),
    "decoded_block_panel_product": Op("block_panels:decoded_block_panel_product"),
    "low_rank_product": Op("low_rank:low_rank_product"),
    "fake_quantize": Op("fake_quantize:fake_quantize"),
    "fake_quantize_backward": Op("fake_quantize:fake_quantize_backward"),  # an estimate: the gradient law is not for it
    "bitmap_product": Op("bitmap:bitmap_product"),
    "bitmap_product_t": Op("bitmap:bitmap_product_t"),
    "bitmap_rows": Op("bitmap:bitmap_rows"),
    "nm_product": Op("nm:nm_product"),
    "nm_product_t": Op("nm:nm_product_t"),
    "nm_rows": Op("nm:nm_rows"),
    "csr_product": Op("csr:csr_product"),
    "csr_product_t": Op("csr:csr_product_t"),
    "csr_rows": Op("csr:csr_rows"),
}

# Public functions of this folder that are no ops: kernels never stand in for them.
HELPERS: tuple[str, ...] = (
    "attention:attention_probabilities",
    "attention:scores_of_products",
    "erf:erf",
    "packed:rounded_up",
    "softmax:log_softmax",
    "softmax:row_max",
    "softmax:nonzero",
    "sampling:keep_top_k",
    "sampling:keep_top_p",
    "sampling:keep_min_p",
    "dropout:site",
    "dropout:stream_start",
    "dropout:threshold",
    "formats:format_named",
    "blocks:block_format_named",
    "block_panels:pack_block_panels",
    "block_sparse:pack_block_sparse",
    "block_sparse:block_sparse_entries",
    "block_sparse:pack_block_sparse_panels",
    "masked_panels:pack_masked_panels",
    "masked_panels:unpack_masked_panels",
    "quantized:activation_group",
    "quantized:product_of_codes",
    "panels:n_blocks",
    "float_panels:pack_float_panels",
    "float_panels:unpack_float_panels",
    "panels:unpack_panels",
    "panels:pack_groups",
    "panels:unpack_groups",
    "bits:pack_bits",
    "bits:unpack_bits",
    "bits:pack_mask",
    "bits:unpack_mask",
    "bitmap:pack_bitmap",
    "bitmap:mask_starts",
    "bitmap:stream_reader",
    "nm:pack_nm",
    "nm:place_bits",
    "nm:nm_entries",
    "csr:pack_csr",
    "tiles:row_tiles",
    "tiles:product_by_tiles",
    "tiles:product_t_by_tiles",
    "tiles:rows_by_tiles",
)


def load_op(name: str) -> Callable[..., Any]:
    """Return the NumPy function of an op, or of an op's backward (``<op>_backward``).

    Parameters
    ----------
    name : str
        A key of `OPS`, or such a key followed by ``_backward`` where the op has gradients.

    Returns
    -------
    callable
        The reference that every kernel must equal.

    Raises
    ------
    UnsupportedError
        Code ``unknown_op``.
    """
    forward = name.removesuffix("_backward")
    if name in OPS:
        module, _, function = OPS[name].function.partition(":")
    elif forward in OPS and OPS[forward].gradients:
        module, _, function = OPS[forward].function.partition(":")
        function += "_backward"
    else:
        raise unknown("op", name, OPS)
    found: Callable[..., Any] = getattr(importlib.import_module(f"minislm.ops.{module}"), function)
    return found
