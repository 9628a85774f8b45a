"""Which tasks a picture of a process shows as one, so that it stays readable however many there are. Pure.

A picture of few tasks shows each. Of more, those that look the same share a node: the same name, waiting for nodes
that look the same, and waited for by such. If that is not enough, names no longer matter; and if that is not enough
either, each stage becomes a few layers of tasks that wait for the ones before. What failed is never among what did not.

    load ─┬─▶ parse 1 ──▶ check 1 ──┬─▶ report
          ⋮                         ⋮               ═══▶   load ──▶ parse, 99 of them ──▶ check, 99 of them ──▶ report
          └─▶ parse 99 ──▶ check 99 ┘
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import count
from typing import NamedTuple

from procession._model.strategy import Stage

SEVERAL = 24
"""So many tasks are still shown one by one."""

CROWD = 72
"""No picture has more nodes."""

LAYERS = 12
"""No stage is made of more layers when all else fails."""

APART = 12
"""Failed tasks, at most, that are shown one by one; further ones share nodes with one another."""

Needs = Mapping[int, tuple[int, ...]]


class Folded(NamedTuple):
    """Which tasks share a node."""

    groups: list[list[int]]
    """The tasks of each node, in the order added; nodes in the order of their first tasks."""
    in_layers: bool
    """Whether each node is a layer: it waits for the whole of the one before, or of that stage."""
    rows: dict[int, int]
    """Task → the first of the tasks that it stands in one row with, each waiting only for the one before."""


def fold(
    looks: Sequence[Hashable], stages: Sequence[Stage], needs: Needs, failed: AbstractSet[int] = frozenset()
) -> Folded:
    """Return which tasks share a node. `looks` says what each task looks like by itself.

    Tasks that `failed` share no node with others: the first few of them, as far as there is room, have one each.

    >>> stages = (Stage(0, 51, at_once=True),)
    >>> needs = {index: (0,) for index in range(1, 50)} | {50: tuple(range(1, 50))}
    >>> [len(group) for group in fold(["load"] + ["parse"] * 49 + ["sum"], stages, needs).groups]
    [1, 49, 1]
    >>> [len(group) for group in fold(["load"] + ["parse"] * 49 + ["sum"], stages, needs, {7}).groups]
    [1, 48, 1, 1]
    """
    if len(looks) <= SEVERAL:
        return Folded([[index] for index in range(len(looks))], in_layers=False, rows={})
    first = sorted(failed)[:APART]
    # What tells failed tasks apart, the preferred way first: each of the first few has a mark of its own, some, none.
    marks = [
        dict.fromkeys(failed, -1) | {place: place for place in first[:few]}
        for few in ((APART, APART // 3, 0) if failed else (0,))
    ]
    for plain in looks, [None] * len(looks):
        for mark in marks:
            looking = [(look, mark.get(place)) for place, look in enumerate(plain)] if mark else plain
            rows = _rows(looking, stages, needs)
            colours = _alike(looking, stages, needs, rows)
            if colours is not None:
                return Folded(_grouped(colours), in_layers=False, rows=rows)
    layers = list[Hashable](_layers(len(looks), stages, needs))
    for place, own in marks[0].items():
        layers[place] = ("failed", layers[place] if own < 0 else ("alone", own))
    return Folded(_grouped(layers), in_layers=True, rows={})


def _rows(looks: Sequence[Hashable], stages: Sequence[Stage], needs: Needs) -> dict[int, int]:
    """Return, for each task that stands in a row with the one it waits for, the first of that row."""
    dependents: dict[int, int] = {}
    for needed in needs.values():
        for need in needed:
            dependents[need] = dependents.get(need, 0) + 1
    rows: dict[int, int] = {}
    for stage in stages:
        if stage.at_once:
            for index in range(stage.start, stage.stop):
                needed = needs.get(index, ())
                if len(needed) == 1 and needed[0] >= stage.start:
                    (need,) = needed
                    if dependents[need] == 1 and looks[need] == looks[index]:
                        rows[index] = rows.setdefault(need, need)
    return rows


def _alike(
    looks: Sequence[Hashable], stages: Sequence[Stage], needs: Needs, rows: Mapping[int, int]
) -> list[int] | None:
    """Return a colour for each task, the same where nothing tells two apart, or `None` for too many colours.

    Colours are refined until neighbours tell no more apart: each pass makes at least one more of them, so there are
    at most `CROWD` passes, and each costs as much as there are tasks and edges. A row counts as one task. Nodes wait
    for each other in no circle: were all of A to wait for some of B, and all of B for some of A, there would be no
    first one.
    """
    in_order = {index for stage in stages if not stage.at_once for index in range(stage.start, stage.stop)}
    up, down = _wiring(needs, rows, in_order)
    lengths = Counter(rows.values())
    units = [index for index in range(len(looks)) if rows.get(index, index) == index]
    stage_of = [place for place, stage in enumerate(stages) for _ in range(stage.start, stage.stop)]
    keys: list[Hashable] = [(stage_of[unit], looks[unit], lengths.get(unit, 1)) for unit in units]
    known = 0
    while True:
        colours = _numbered(units, keys, in_order)
        found = len(set(colours.values()))
        if found > CROWD:
            return None
        if found == known:
            return [colours[rows.get(index, index)] for index in range(len(looks))]
        known = found
        keys = []
        for unit in units:
            own = colours[unit]
            above = {colours[other] for other in up.get(unit, ())}
            below = {colours[other] for other in down.get(unit, ())}
            if unit in in_order:  # what happens inside a range of tasks in order does not tell those apart
                above.discard(own)
                below.discard(own)
            keys.append((own, frozenset(above), frozenset(below)) if above or below else own)


def _wiring(
    needs: Needs, rows: Mapping[int, int], in_order: AbstractSet[int]
) -> tuple[dict[int, set[int]], dict[int, set[int]]]:
    """Return which tasks each waits for, and which wait for it; for a row its first task stands."""
    up: dict[int, set[int]] = {}
    down: dict[int, set[int]] = {}
    for index, needed in needs.items():
        unit = rows.get(index, index)
        for need in needed:
            other = rows.get(need, need)
            # In order, each task waits for the one before in any case, and taking its value makes it no different.
            if other != unit and not (need == index - 1 and index in in_order and need in in_order):
                up.setdefault(unit, set()).add(other)
                down.setdefault(other, set()).add(unit)
    return up, down


def _numbered(units: Sequence[int], keys: Sequence[Hashable], in_order: AbstractSet[int]) -> dict[int, int]:
    """Return a number for each key; in order, one for each range of equal keys."""
    fresh = count()
    numbers: dict[Hashable, int] = {}
    colours: dict[int, int] = {}
    before: Hashable = None
    for unit, key in zip(units, keys, strict=True):
        if unit not in in_order:
            if key not in numbers:
                numbers[key] = next(fresh)
            colours[unit] = numbers[key]
        else:
            colours[unit] = colours[unit - 1] if unit - 1 in in_order and key == before else next(fresh)
            before = key
    return colours


def _layers(total: int, stages: Sequence[Stage], needs: Needs) -> list[int]:
    """Return a colour for each task: one for a stage in order, else one for each of at most `LAYERS` layers."""
    colours = [0] * total
    first = 0
    for stage in stages:
        depths = [0] * (stage.stop - stage.start)
        if stage.at_once:
            for index in range(stage.start, stage.stop):
                inside = [depths[need - stage.start] + 1 for need in needs.get(index, ()) if need >= stage.start]
                depths[index - stage.start] = max(inside, default=0)
        deepest = max(depths, default=0) + 1
        layers = min(deepest, LAYERS)
        for index, depth in enumerate(depths, start=stage.start):
            colours[index] = first + depth * layers // deepest
        first += layers
    return colours


def _grouped(colours: Sequence[Hashable]) -> list[list[int]]:
    groups: dict[Hashable, list[int]] = {}
    for index, colour in enumerate(colours):
        groups.setdefault(colour, []).append(index)
    return list(groups.values())
