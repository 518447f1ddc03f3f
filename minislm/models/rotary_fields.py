"""How config.json says rotary positions: in the older keys (`rope_theta`, `rope_scaling`) and the newer one."""

from __future__ import annotations

import math
from typing import Any

from minislm.errors import ConfigError, unknown
from minislm.layers.rotary import SCALINGS, DynamicNTK, Linear, Llama3, LongRope, Rotary, Yarn
from minislm.models.fields import Fields

PLAIN = ("default", "none")


def read_rotary(
    fields: Fields,
    d_head: int,
    *,
    base: float = 10000.0,
    share: float = 1.0,
    kind: str | None = None,
    interleaved: bool = False,
) -> Rotary:
    """Read one kind of rotary positions.

    Parameters
    ----------
    fields : Fields
        Of config.json.
    d_head : int
        Width of a head.
    base : float
        What a missing `rope_theta` means.
    share : float
        What a missing `partial_rotary_factor` means: the part of a head that is rotated.
    kind : str, optional
        Of the layers, such as ``"full_attention"``, where `rope_parameters` tells several apart.
    interleaved : bool
        As of `Rotary`.

    Returns
    -------
    Rotary
        The record.

    Raises
    ------
    UnsupportedError
        Code ``unknown_rotary_scaling``.
    ConfigError
        Code ``config_invalid``.
    """
    own = fields.record("rope_parameters")
    if own is not None and kind is not None:
        own = own.record(kind)
    own = own or fields.record("rope_scaling") or Fields({}, fields.origin)
    base = own.positive("rope_theta", fields.positive("rope_theta", base))
    share = own.number("partial_rotary_factor", fields.number("partial_rotary_factor", share))
    if not 0 <= share <= 1:
        raise ConfigError("config_invalid", f"{own.origin}: partial_rotary_factor is {share}, not 0 to 1")
    width = int(d_head * share)
    if width % 2:
        told = f"partial_rotary_factor ({share}) of head_dim ({d_head}) makes {width} positions to turn, no even number"
        raise ConfigError("config_invalid", f"{own.origin}: {told}")
    return Rotary(base, width, interleaved, _scaling(own, fields))


def write_rotary(rotary: Rotary, d_head: int) -> dict[str, Any]:
    """Say rotary positions in the older keys, which every version reads.

    Parameters
    ----------
    rotary : Rotary
        The record.
    d_head : int
        Width of a head.

    Returns
    -------
    dict
        Values of config.json.
    """
    values: dict[str, Any] = {"rope_theta": rotary.base, "rope_scaling": _said(rotary)}
    if rotary.width != d_head:
        values["partial_rotary_factor"] = rotary.width / d_head
    return values


def first_context(rotaries: tuple[Rotary, ...], context: int) -> int:
    """Tell how many positions a model is opened with unless told otherwise.

    Parameters
    ----------
    rotaries : tuple of Rotary
        Of the model.
    context : int
        The most that it can have.

    Returns
    -------
    int
        Those that its first table was made for, where it has two; else all.
    """
    long = [rotary.scaling.original_context for rotary in rotaries if isinstance(rotary.scaling, LongRope)]
    return min([context, *long])


def longest_context(rotaries: tuple[Rotary, ...], context: int) -> int:
    """Tell how many positions a model can have; undoes `first_context`.

    Parameters
    ----------
    rotaries : tuple of Rotary
        Of the model.
    context : int
        What it is opened with.

    Returns
    -------
    int
        The most.
    """
    long = [rotary.scaling.longest_context for rotary in rotaries if isinstance(rotary.scaling, LongRope)]
    return max([context, *long])


def _scaling(own: Fields, fields: Fields) -> Any:
    """Make the scaling that the fields say."""
    kind = str(own.values.get("rope_type", own.values.get("type", "default")))
    if kind in PLAIN:
        return None
    if kind == "su":
        kind = "longrope"  # its first name
    if kind not in SCALINGS:
        raise unknown("rotary_scaling", kind[:40], SCALINGS)
    most = fields.size("max_position_embeddings")
    original = own.size("original_max_position_embeddings", fields.size("original_max_position_embeddings", most))
    if kind == "linear":
        return Linear(own.positive("factor"))
    if kind == "dynamic":
        return DynamicNTK(own.positive("factor"), original)
    if kind == "llama3":
        low, high = own.number("low_freq_factor"), own.number("high_freq_factor")
        return Llama3(own.positive("factor"), low, high, original)
    if kind == "yarn":
        factor = own.positive("factor", most / original)
        fast, slow = own.number("beta_fast", 32.0), own.number("beta_slow", 1.0)
        return Yarn(factor, original, fast, slow, _sharpening(own, factor), own.flag("truncate", True))
    factor = own.positive("factor", most / original)
    usual = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    return LongRope(
        tuple(own.list("short_factor")),
        tuple(own.list("long_factor")),
        original,
        most,
        own.number("attention_factor", usual),
    )


def _sharpening(own: Fields, factor: float) -> float | None:
    """Tell YaRN's factor of queries and keys; DeepSeek's two `mscale` are a quotient."""
    above, below = own.number("mscale", None), own.number("mscale_all_dim", None)
    if own.number("attention_factor", None) is not None or above is None or below is None:
        return own.number("attention_factor", None)  # type: ignore[no-any-return]

    def mscale(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1 if factor > 1 else 1.0

    return mscale(above) / mscale(below)


def _said(rotary: Rotary) -> dict[str, Any] | None:
    """Say the scaling."""
    scaling = rotary.scaling
    if scaling is None:
        return None
    if isinstance(scaling, Linear):
        return {"rope_type": "linear", "factor": scaling.factor}
    if isinstance(scaling, DynamicNTK):
        return {
            "rope_type": "dynamic",
            "factor": scaling.factor,
            "original_max_position_embeddings": scaling.original_context,
        }
    if isinstance(scaling, Llama3):
        return {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_frequency_factor,
            "high_freq_factor": scaling.high_frequency_factor,
            "original_max_position_embeddings": scaling.original_context,
        }
    if isinstance(scaling, Yarn):
        said = {
            "rope_type": "yarn",
            "factor": scaling.factor,
            "original_max_position_embeddings": scaling.original_context,
            "beta_fast": scaling.beta_fast,
            "beta_slow": scaling.beta_slow,
            "attention_factor": scaling.attention_factor,
            "truncate": scaling.whole,
        }
        return {name: value for name, value in said.items() if value is not None}
    assert isinstance(scaling, LongRope)
    return {
        "rope_type": "longrope",
        "short_factor": list(scaling.short_factors),
        "long_factor": list(scaling.long_factors),
        "original_max_position_embeddings": scaling.original_context,
        "attention_factor": scaling.attention_factor,
    }
