"""A small language model's whole life in code that a person can read: build it, train it, compress it, run it.

Array names end in their axes, throughout the package::

    B batch          T query positions   S key positions (cache + new)   N rows, usually B*T
    D model width    F feed-forward      H query heads                   G key/value heads
    K head width     V vocabulary        L layers                        R rank
    O, I outputs and inputs of a weight  J groups along I                Z positions inside a group
    E experts        C cache slots       P packed bytes of a row         U stored values of a row
"""

__version__ = "0.1.0"
