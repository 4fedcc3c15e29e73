"""Which recordings train, validate and test: by the connected components of the speaker graph, never by clip."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from diffdyad.data.importers.recording import Item
from diffdyad.errors import UserError

VALIDATION, TEST = 0.05, 0.08
"""Shares of the recordings that validate and test, where the source fixes none."""


@dataclass
class Splits:
    """of: split of each item_id; notes: what is to be said about how they came about."""

    of: dict[str, str]
    notes: list[str] = field(default_factory=list)


def components(items: Sequence[Item]) -> list[list[Item]]:
    """Items in groups that share no person, in an order that depends on the names alone."""
    parent: dict[str, str] = {}

    def find(name: str) -> str:
        root = name
        while parent.setdefault(root, root) != root:
            root = parent[root]
        while parent[name] != root:
            parent[name], name = root, parent[name]
        return root

    for item in items:
        for person in item.people:
            parent[find(person)] = find(item.people[0])
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[find(item.people[0])].append(item)
    keyed = {min(person for item in group for person in item.people): group for group in groups.values()}
    return [keyed[name] for name in sorted(keyed, key=lambda name: hashlib.sha256(name.encode()).hexdigest())]


def assign(items: Sequence[Item], own: bool = True, strict: bool = False) -> Splits:
    """Splits of all items. own: the source's splits where it has them; then validation is carved out of its training
    part where the source has none, by components, too (by what the recordings were cut from, where there are too few).

    strict: people stay in one split: those of a recording whose split is fixed take all their recordings there, and
    nothing is carved out of recordings of the same people. Raises UserError where two splits are fixed for one group.
    """
    if own and strict:
        items = _with_their_people(items)
    fixed = [item for item in items if own and item.split is not None]
    if not fixed:
        return _by_people(items)
    splits = Splits({item.item_id: item.split for item in fixed})
    free = [item for item in items if item.item_id not in splits.of]
    splits.of |= dict.fromkeys((item.item_id for item in free), "train")
    if "validation" not in splits.of.values():
        _carve_validation([item for item in items if splits.of[item.item_id] == "train"], splits, strict)
    people = defaultdict(set)
    for item in items:
        people["train" if splits.of[item.item_id] == "train" else "held out"] |= set(item.people)
    shared = people["train"] & people["held out"]
    if shared:
        splits.notes.append(
            f"{len(shared)} of {len(people['held out'])} people of validation and test are in training, too: the "
            "source's own split; --split people makes one without"
        )
    return splits


def _with_their_people(items: Sequence[Item]) -> list[Item]:
    found = []
    for group in components(items):
        fixed = {item.split: item.item_id for item in group if item.split is not None}
        if len(fixed) > 1:
            named = " and ".join(f"{split} ({item_id})" for split, item_id in sorted(fixed.items()))
            raise UserError(f"expected one split for people who talk with each other, found {named}; give their "
                            "sessions the same `split`, or none")  # fmt: skip
        found += [replace(item, split=next(iter(fixed), None)) for item in group]
    return found


def _by_people(items: Sequence[Item]) -> Splits:
    groups = components(items)
    if len(groups) < 3:
        return Splits(
            dict.fromkeys((item.item_id for item in items), "train"),
            [f"found {len(groups)} connected component{'s' if len(groups) > 1 else ''} of people: all of it is the "
             "training split, since splits share nobody; validation has to come from another dataset"],
        )  # fmt: skip
    splits = Splits(dict.fromkeys((item.item_id for item in items), "train"))
    rest = groups
    for split, share in (("test", TEST), ("validation", VALIDATION)):
        taken, rest = _take(rest, share * len(items))
        splits.of |= dict.fromkeys((item.item_id for group in taken for item in group), split)
    return splits


def _take(groups: list[list[Item]], wanted: float) -> tuple[list[list[Item]], list[list[Item]]]:
    """Groups of about `wanted` items together, at least one; and the others."""
    taken: list[list[Item]] = []
    for group in groups:
        if sum(map(len, taken)) + len(group) <= 1.2 * wanted:
            taken.append(group)
    if not taken:
        taken = [min(groups, key=len)]
    return taken, [group for group in groups if not any(group is other for other in taken)]


def _carve_validation(train: list[Item], splits: Splits, strict: bool) -> None:
    groups, how = components(train), "people"
    if len(groups) < 3 and not strict:
        cut_from: dict[str, list[Item]] = defaultdict(list)
        for item in train:
            cut_from[item.group or item.item_id].append(item)
        ordered = sorted(cut_from, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
        groups, how = [cut_from[name] for name in ordered], "recordings of the same people"
    if len(groups) < 2:
        splits.notes.append("the source has no validation part, and its training part is too small to give one")
        return
    taken, _ = _take(groups, VALIDATION * len(train))
    splits.of |= dict.fromkeys((item.item_id for group in taken for item in group), "validation")
    count = sum(map(len, taken))
    splits.notes.append(f"the source has no validation part: {count} of its training recordings are it, by {how}")
