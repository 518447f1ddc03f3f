"""Units of a model, heads and neurons, as its blocks couple them; and the model without some of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from minislm.layers.coupling import Coupling
from minislm.models.parts import StoredParts
from minislm.weights.base import Arrays, under
from minislm.weights.dense import Dense


class UnitGroup(NamedTuple):
    """Couplings that have one number of units, since one entry of the Config holds it.

    Parameters
    ----------
    field : str
        Of the Config: its tuple of `LayerSizes`.
    block : int
        The block's place in it.
    couplings : tuple of Coupling
        One, or those of a block's attention and cross-attention.
    """

    field: str
    block: int
    couplings: tuple[Coupling, ...]

    @property
    def kind(self) -> str:
        """Either ``"heads"`` or ``"ff"``."""
        return "ff" if "d_ff" in self.couplings[0].sizes else "heads"

    @property
    def n_units(self) -> int:
        """Units of each coupling."""
        return self.couplings[0].n_units

    @property
    def matrices(self) -> set[str]:
        """Paths of the Weights that lose rows or columns with a unit."""
        return {f"{linear}.weight" for c in self.couplings for linear in (*c.producers, *c.consumers)}


def unit_groups(model: Any) -> list[UnitGroup]:
    """List the units of a model's blocks.

    Parameters
    ----------
    model : Model
        Whose blocks declare `couplings`.

    Returns
    -------
    list of UnitGroup
        In the model's order.
    """
    found: dict[tuple[str, int, frozenset[str]], list[Coupling]] = {}
    for coupling in model.couplings():
        for stack in model.stacks:
            if coupling.path.startswith(f"{stack.path}."):
                index = int(coupling.path.removeprefix(f"{stack.path}.").partition(".")[0])
                found.setdefault((stack.sizes, index, frozenset(coupling.sizes)), []).append(coupling)
    return [UnitGroup(field, index, tuple(couplings)) for (field, index, _), couplings in found.items()]


def without_units(model: Any, groups: Iterable[UnitGroup], kept: Mapping[str, np.ndarray]) -> Any:
    """Build a smaller model.

    Parameters
    ----------
    model : Model
        Stays as it is; the matrices of the groups are Dense.
    groups : iterable of UnitGroup
        Which lose units.
    kept : mapping of str to ndarray of int
        For each coupling by its path, the units that stay, in rising order; equally many in a group.

    Returns
    -------
    Model
        With a Config that says so. What was not changed is shared.
    """
    parts: dict[str, Any] = dict(model.parts())
    layers = {stack.sizes: list(getattr(model.config, stack.sizes)) for stack in model.stacks}
    for group in groups:
        for coupling in group.couplings:
            units = kept[coupling.path]
            for path in (f"{linear}.weight" for linear in coupling.producers):
                parts[path] = Dense(parts[path].array[_places(units, coupling, parts[path].shape[0])])
                bias = f"{path.removesuffix('weight')}bias"
                if bias in parts:
                    parts[bias] = parts[bias][_places(units, coupling, parts[bias].size)]
            for path in coupling.vectors:
                parts[path] = parts[path][_places(units, coupling, parts[path].size)]
            for path in (f"{linear}.weight" for linear in coupling.consumers):
                places = _places(units, coupling, parts[path].shape[1])
                parts[path] = Dense(np.ascontiguousarray(parts[path].array[:, places]))
        sizes = {name: each * len(units) for name, each in group.couplings[0].sizes.items()}
        layers[group.field][group.block] = dataclasses.replace(layers[group.field][group.block], **sizes)
    config = dataclasses.replace(model.config, **{field: tuple(sizes) for field, sizes in layers.items()})
    specs = {path: part.spec() for path, part in parts.items() if not isinstance(part, np.ndarray)}
    arrays: Arrays = {}
    for path, part in parts.items():
        arrays.update({path: part} if isinstance(part, np.ndarray) else under(path, part.arrays()))
    return type(model).wired(config, StoredParts(specs, arrays))


def _places(units: np.ndarray, coupling: Coupling, size: int) -> np.ndarray:
    """Return where the given units stand among the inputs or outputs of a Linear."""
    places: np.ndarray = np.arange(size).reshape(coupling.n_units, -1)[units].ravel()
    return places
