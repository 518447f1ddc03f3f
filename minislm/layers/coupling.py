"""Coupling: inner units of a layer that can only go, or be scaled, together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Coupling(NamedTuple):
    """Units that some Linears of a layer make and others read: heads, or neurons of a feed-forward part.

    A Linear's outputs (or inputs) are the units side by side, each of the same width: unit u of n has the u-th n-th of
    them.

    Parameters
    ----------
    path : str
        Of the layer.
    n_units : int
        How many it has.
    sizes : mapping of str to int
        What each unit adds to the block's `LayerSizes`, such as ``{"d_ff": 1}``.
    producers : tuple of str
        Paths of the Linears whose outputs the units are: rows of the weight, and entries of the bias.
    consumers : tuple of str
        Paths of the Linears whose inputs they are: columns of the weight.
    vectors : tuple of str
        Paths of vectors with entries for the outputs of a producer, such as the gains of a norm of all heads together.
    """

    path: str
    n_units: int
    sizes: Mapping[str, int]
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    vectors: tuple[str, ...] = ()
