"""What the settings and tensor names of GGUF files are called in the published folders that they were made from.

Each architecture has a table of names and a function from its settings to the values of config.json. Three things are
stored in another way than in the folder, and put back as they were: the rows of LLaMA's query and key projections,
which llama.cpp orders for a rotation of neighbours, GPT-2's matrices, which the folder has transposed, and the factors
of Llama 3's slow frequencies, of which the folder has the formula. Whatever a file says about the model and no function
asks for is refused, because it could change what the model computes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from minislm.errors import ModelFileError, UnsupportedError, clipped
from minislm.weights.blocks import Blocks

Tensors = Mapping[str, np.ndarray | Blocks]
T = TypeVar("T")

LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
NEEDED: Any = object()  # in place of a default: the setting must be there
KEYS = {
    **dict.fromkeys(("hidden_size", "n_embd"), "embedding_length"),
    **dict.fromkeys(("intermediate_size", "n_inner"), "feed_forward_length"),
    **dict.fromkeys(("num_hidden_layers", "n_layer"), "block_count"),
    **dict.fromkeys(("num_attention_heads", "n_head"), "attention.head_count"),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), "context_length"),
    **dict.fromkeys(("layer_norm_eps", "layer_norm_epsilon"), "attention.layer_norm_epsilon"),
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "partial_rotary_factor": "rope.dimension_count",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
}
"""What the fields of config.json are called here, behind the architecture's name."""
HARMLESS = ("rope.scaling.finetuned", "tensor_data_layout")
"""Settings that say nothing that the tensors and the architecture do not say."""


class Settings:
    """Reads the settings of an architecture, each checked as it is read, and knows which ones nobody asked for.

    Parameters
    ----------
    settings : mapping
        All settings of the file.
    architecture : str
        What the names of those that are read begin with.
    origin : str
        The file in errors.
    """

    def __init__(self, settings: Mapping[str, Any], architecture: str, origin: str) -> None:
        prefix = f"{architecture}."
        self.values = {name[len(prefix) :]: value for name, value in settings.items() if name.startswith(prefix)}
        self.prefix, self.origin = prefix, origin
        self.read = set(HARMLESS)

    def whole(self, name: str, default: T = NEEDED) -> int | T:
        """Read a whole number from 1.

        Parameters
        ----------
        name : str
            Without the architecture.
        default : object
            What a missing one means; left out: it must be there.

        Returns
        -------
        int, or the default
            The number.

        Raises
        ------
        ModelFileError
            Code ``config_invalid``.
        """
        found: int | T = self._value(name, default, _is_size, "a whole number")
        return found

    def number(self, name: str, default: T = NEEDED) -> float | T:
        """Read a positive number; as `whole`.

        Parameters
        ----------
        name : str
            Without the architecture.
        default : object
            What a missing one means.

        Returns
        -------
        float, or the default
            The number, with the digits that it has in 32 bits.

        Raises
        ------
        ModelFileError
            Code ``config_invalid``.
        """
        value = self._value(
            name, default, lambda value: type(value) in (int, float) and 0 < value < math.inf, "a positive number"
        )
        return _digits(value) if type(value) is float else value

    def text(self, name: str, default: T = NEEDED) -> str | T:
        """Read a text; as `whole`.

        Parameters
        ----------
        name : str
            Without the architecture.
        default : object
            What a missing one means.

        Returns
        -------
        str, or the default
            The text.

        Raises
        ------
        ModelFileError
            Code ``config_invalid``.
        """
        found: str | T = self._value(name, default, lambda value: type(value) is str, "a text")
        return found

    def expect(self, name: str, value: int) -> None:
        """Check a setting that minislm knows one value of.

        Parameters
        ----------
        name : str
            Without the architecture; it may be missing.
        value : int
            What it must be.

        Raises
        ------
        UnsupportedError
            Code ``unsupported_config``.
        """
        if (found := self.values.get(name, value)) != value:
            raise UnsupportedError(
                "unsupported_config", f"{self.origin}: {self.prefix}{name} is {clipped(found)}; minislm runs {value}"
            )
        self.read.add(name)

    def check_all_read(self) -> None:
        """Refuse settings that nobody asked for.

        Raises
        ------
        UnsupportedError
            Code ``unsupported_config``.
        """
        if left := sorted(set(self.values) - self.read):
            name = left[0]
            raise UnsupportedError(
                "unsupported_config",
                f"{self.origin}: the setting {clipped(self.prefix + name)} = {clipped(self.values[name])} asks for "
                "something that minislm does not run",
            )

    def _value(self, name: str, default: Any, fits: Callable[[Any], bool], kind: str) -> Any:
        self.read.add(name)
        if name not in self.values and default is not NEEDED:
            return default
        if not fits(value := self.values.get(name)):
            raise ModelFileError(
                "config_invalid", f"{self.origin}: {self.prefix}{name} must be {kind}, not {clipped(value)}"
            )
        return value


@dataclass(frozen=True)
class Architecture:
    """How files of one architecture are read.

    Parameters
    ----------
    config : callable
        From the settings and the tensors to the values of config.json.
    names : mapping of str to str
        From their names of tensors to those of the folder, both without ``.weight`` or ``.bias``; ``{}`` stands for
        the number of a layer.
    rotated : mapping of str to str
        Their names whose rows are ordered for a rotation of neighbours, with the count of heads in config.json.
    transposed : tuple of str
        Endings of the folder's names whose matrices are stored inputs x outputs there.
    fused : mapping of str to tuple of str
        Their names of tensors whose rows are those of several of the folder's, all of one size.
    """

    config: Callable[[Settings, Tensors], dict[str, Any]]
    names: Mapping[str, str]
    rotated: Mapping[str, str] = field(default_factory=dict)
    transposed: tuple[str, ...] = ()
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def _llama(settings: Settings, tensors: Tensors) -> dict[str, Any]:
    settings.expect("expert_count", 0)
    settings.expect("expert_used_count", 0)
    has_bias = {part: f"blk.0.{part}.bias" in tensors for part in ("attn_q", "ffn_up")}
    return _gated("llama", settings, tensors) | {
        "attention_bias": has_bias["attn_q"],
        "mlp_bias": has_bias["ffn_up"],
    }


def _qwen2(settings: Settings, tensors: Tensors) -> dict[str, Any]:
    return _gated("qwen2", settings, tensors) | {"use_sliding_window": False}


def _qwen3(settings: Settings, tensors: Tensors) -> dict[str, Any]:
    return _gated("qwen3", settings, tensors) | {"use_sliding_window": False, "attention_bias": False}


def _gated(model_type: str, settings: Settings, tensors: Tensors) -> dict[str, Any]:
    """Return what LLaMA and its relatives have in common."""
    sizes = _sizes(settings)
    d_head = settings.whole("attention.key_length", sizes["hidden_size"] // sizes["num_attention_heads"])
    settings.expect("attention.value_length", d_head)
    settings.expect("rope.dimension_count", d_head)
    return sizes | {
        "model_type": model_type,
        "head_dim": d_head,
        "hidden_act": "silu",
        "rms_norm_eps": settings.number("attention.layer_norm_rms_epsilon"),
        "rope_theta": settings.number("rope.freq_base", 10_000.0),
        "rope_scaling": _scaling(settings, tensors, d_head),
        "tie_word_embeddings": "output.weight" not in tensors,
    }


def _phi2(settings: Settings, tensors: Tensors) -> dict[str, Any]:
    sizes = _sizes(settings)
    d_head = sizes["hidden_size"] // sizes["num_attention_heads"]
    return sizes | {
        "model_type": "phi",
        "hidden_act": "gelu_new",
        "layer_norm_eps": settings.number("attention.layer_norm_epsilon"),
        "rope_theta": settings.number("rope.freq_base", 10_000.0),
        "rope_scaling": _scaling(settings, tensors, d_head),
        "partial_rotary_factor": settings.whole("rope.dimension_count", d_head) / d_head,
        "qk_layernorm": False,
        "tie_word_embeddings": "output.weight" not in tensors,
    }


def _gpt2(settings: Settings, tensors: Tensors) -> dict[str, Any]:
    heads = settings.whole("attention.head_count")
    settings.expect("attention.head_count_kv", heads)
    return {
        "model_type": "gpt2",
        "n_embd": settings.whole("embedding_length"),
        "n_inner": settings.whole("feed_forward_length"),
        "n_layer": settings.whole("block_count"),
        "n_head": heads,
        "n_positions": settings.whole("context_length"),
        "layer_norm_epsilon": settings.number("attention.layer_norm_epsilon"),
        "activation_function": "gelu_new",
        "tie_word_embeddings": "output.weight" not in tensors,
    }


def _sizes(settings: Settings) -> dict[str, Any]:
    heads = settings.whole("attention.head_count")
    return {
        "hidden_size": settings.whole("embedding_length"),
        "intermediate_size": settings.whole("feed_forward_length"),
        "num_hidden_layers": settings.whole("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": settings.whole("attention.head_count_kv", heads),
        "max_position_embeddings": settings.whole("context_length"),
    }


def _scaling(settings: Settings, tensors: Tensors, d_head: int) -> dict[str, Any] | None:
    """Say how rotary frequencies are stretched, as config.json does: by a formula, or by a factor for each."""
    kind = settings.text("rope.scaling.type", "linear")
    factor = settings.number("rope.scaling.factor", settings.number("rope.scale_linear", 1.0))
    original = settings.whole("rope.scaling.original_context_length", None)
    factors = tensors.get("rope_freqs.weight")
    if factors is not None:
        return _stretched(factors, settings, d_head)
    if kind == "none" or (kind == "linear" and factor == 1.0):
        return None
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        settings.expect("rope.scaling.attn_factor", 1)
        found = {"rope_type": "yarn", "factor": factor}
        return found if original is None else {**found, "original_max_position_embeddings": original}
    raise UnsupportedError(
        "unsupported_config", f"{settings.origin}: {settings.prefix}rope.scaling.type is {clipped(kind)}"
    )


def _stretched(factors: np.ndarray | Blocks, settings: Settings, d_head: int) -> dict[str, Any]:
    """Find Llama 3's formula for the factors of the frequencies, or say them one by one."""
    if not isinstance(factors, np.ndarray) or factors.shape != (d_head // 2,) or factors.dtype != np.float32:
        raise ModelFileError(
            "config_vs_weights", f"{settings.origin}: rope_freqs.weight must be {d_head // 2} numbers in 32 bits"
        )
    if not (np.isfinite(factors) & (factors > 0)).all():
        raise ModelFileError("non_finite_weight", f"{settings.origin}: rope_freqs.weight must be positive")
    formula = {"rope_type": "llama3", "factor": _digits(float(factors.max())), **LLAMA3}
    theta = settings.number("rope.freq_base", 10_000.0)
    if np.allclose(factors, llama3_factors(formula, theta, d_head), rtol=1e-5):
        return formula
    each = [float(factor) for factor in factors]
    length = settings.whole("context_length")
    return {
        "rope_type": "longrope",
        "short_factor": each,
        "long_factor": each,
        "attention_factor": 1.0,
        "factor": 1.0,
        "original_max_position_embeddings": length,
    }


def llama3_factors(formula: Mapping[str, Any], theta: float, d_head: int) -> np.ndarray:
    """Compute by how much Llama 3 slows each rotary frequency down.

    Parameters
    ----------
    formula : mapping
        ``rope_scaling`` of config.json.
    theta : float
        Base of the frequencies.
    d_head : int
        Width of a head.

    Returns
    -------
    ndarray, (d_head / 2,), float64
        1 for waves that turn often within the original context, ``factor`` for those that turn rarely, and between
        them what mixes the two frequencies evenly.
    """
    turns = formula["original_max_position_embeddings"] * theta ** (-np.arange(0, d_head, 2) / d_head) / (2 * math.pi)
    low, high = formula["low_freq_factor"], formula["high_freq_factor"]
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    factors: np.ndarray = 1 / ((1 - smooth) / formula["factor"] + smooth)
    return factors


def _is_size(value: object) -> bool:
    return type(value) is int and 0 < value < 2**31


def _digits(number: float) -> float:
    """Return the shortest decimal number that has the same 32 bits: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(number)))


_LAYER = "model.layers.{}."
_LLAMA_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "blk.{}.attn_norm": f"{_LAYER}input_layernorm",
    "blk.{}.attn_q": f"{_LAYER}self_attn.q_proj",
    "blk.{}.attn_k": f"{_LAYER}self_attn.k_proj",
    "blk.{}.attn_v": f"{_LAYER}self_attn.v_proj",
    "blk.{}.attn_output": f"{_LAYER}self_attn.o_proj",
    "blk.{}.ffn_norm": f"{_LAYER}post_attention_layernorm",
    "blk.{}.ffn_gate": f"{_LAYER}mlp.gate_proj",
    "blk.{}.ffn_up": f"{_LAYER}mlp.up_proj",
    "blk.{}.ffn_down": f"{_LAYER}mlp.down_proj",
}

ARCHITECTURES = {
    "llama": Architecture(
        _llama,
        _LLAMA_NAMES,
        rotated={"blk.{}.attn_q": "num_attention_heads", "blk.{}.attn_k": "num_key_value_heads"},
    ),
    "qwen2": Architecture(_qwen2, _LLAMA_NAMES),
    "qwen3": Architecture(
        _qwen3,
        {
            **_LLAMA_NAMES,
            "blk.{}.attn_q_norm": f"{_LAYER}self_attn.q_norm",
            "blk.{}.attn_k_norm": f"{_LAYER}self_attn.k_norm",
        },
    ),
    "gpt2": Architecture(
        _gpt2,
        {
            "token_embd": "transformer.wte",
            "position_embd": "transformer.wpe",
            "output_norm": "transformer.ln_f",
            "output": "lm_head",
            "blk.{}.attn_norm": "transformer.h.{}.ln_1",
            "blk.{}.attn_qkv": "transformer.h.{}.attn.c_attn",
            "blk.{}.attn_output": "transformer.h.{}.attn.c_proj",
            "blk.{}.ffn_norm": "transformer.h.{}.ln_2",
            "blk.{}.ffn_up": "transformer.h.{}.mlp.c_fc",
            "blk.{}.ffn_down": "transformer.h.{}.mlp.c_proj",
        },
        transposed=("c_attn.weight", "c_proj.weight", "c_fc.weight"),
    ),
    "phi2": Architecture(
        _phi2,
        {
            "token_embd": "model.embed_tokens",
            "output_norm": "model.final_layernorm",
            "output": "lm_head",
            "blk.{}.attn_norm": f"{_LAYER}input_layernorm",
            "blk.{}.attn_q": f"{_LAYER}self_attn.q_proj",
            "blk.{}.attn_k": f"{_LAYER}self_attn.k_proj",
            "blk.{}.attn_v": f"{_LAYER}self_attn.v_proj",
            "blk.{}.attn_output": f"{_LAYER}self_attn.dense",
            "blk.{}.ffn_up": f"{_LAYER}mlp.fc1",
            "blk.{}.ffn_down": f"{_LAYER}mlp.fc2",
        },
        fused={"blk.{}.attn_qkv": tuple(f"{_LAYER}self_attn.{part}_proj" for part in "qkv")},
    ),
}
PASSED_OVER = ("rope_freqs", "blk.{}.attn_rot_embd")
"""Tensors that hold nothing that was learned."""
