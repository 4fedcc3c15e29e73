"""Who is independent of whom: clips that share a person, over any number of steps, are one unit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def independent_units(people: Sequence[Sequence[str]]) -> np.ndarray:
    """The people of each clip -> the clip's unit: (C,) whole numbers from 0, in order of appearance.

    Units are the connected components of people: A talks with B and B with C, and all three are one unit.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for names in people:
        for name in names[1:]:
            parent[root(name)] = root(names[0])
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(root(names[0]), len(numbers)) for names in people], np.int64)
