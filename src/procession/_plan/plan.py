"""The plan: what a strategy and the handles make of a list of tasks.

tasks ──▶ stages            ranges of tasks, each in order or all at once, one range after the other
needs ──▶ edges             task → the earlier tasks of its own stage that it waits for
"""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import groupby
from typing import NamedTuple

from procession._model.strategy import Stage, Strategy
from procession._model.task import Call, Options, is_coroutine_function


class Plan(NamedTuple):
    """One run's work. All but `calls` and `stages` say only what is special: most tasks stand in none of them."""

    calls: list[Call]
    """Every task, in the order added."""
    stages: tuple[Stage, ...]
    options: Mapping[int, Options]
    """Tasks with options, and every map."""
    needs: Mapping[int, tuple[int, ...]]
    """Task → the tasks whose values it takes."""
    edges: Mapping[int, tuple[int, ...]]
    """Those of the needs that lie inside a stage that runs at once: all others hold by the order of things."""
    handled: AbstractSet[int]
    """Tasks that have a handle."""
    coroutines: AbstractSet[int] = frozenset()
    """Tasks whose call is to be awaited."""


def plan_of(
    tasks: Sequence[Call],
    strategy: Strategy,
    *,
    options: Mapping[int, Options],
    needs: Mapping[int, tuple[int, ...]],
    handled: AbstractSet[int],
    awaits: bool = True,
) -> Plan:
    """Return the plan of the tasks. `awaits` says whether there may be coroutine functions among them.

    >>> from procession._model.strategy import Hybrid
    >>> tasks = [(len, ("a",), {})] * 4
    >>> plan = plan_of(tasks, Hybrid(), options={}, needs={2: (0,), 3: (0, 2)}, handled={0, 2})
    >>> plan.stages
    (Stage(start=0, stop=2, at_once=False), Stage(start=2, stop=4, at_once=True))
    >>> plan.edges
    {3: (2,)}
    """
    stages = strategy.stages(len(tasks))
    # At most one stage runs at once, and it is the last: see the strategies.
    first = next((stage.start for stage in stages if stage.at_once), len(tasks))
    needs = dict(needs)
    edges = needs
    if first:
        inside = {index: tuple(n for n in needed if n >= first) for index, needed in needs.items() if index >= first}
        edges = {index: needed for index, needed in inside.items() if needed}
    coroutines = frozenset(_coroutines(tasks) if awaits else ())
    return Plan(list(tasks), stages, dict(options), needs, edges, frozenset(handled), coroutines)


def segments(plan: Plan) -> Iterator[tuple[Stage, bool]]:
    """Yield the plan's stages, each with whether there is something to await in it.

    Tasks in order come in segments of one kind: coroutine functions, or functions that are only called.

    >>> from procession._model.strategy import Sequential
    >>> async def later(): ...
    >>> tasks = [(function, (), {}) for function in (len, later, later, len)]
    >>> plan = plan_of(tasks, Sequential(), options={}, needs={}, handled=set())
    >>> [(stage.start, stage.stop, awaited) for stage, awaited in segments(plan)]
    [(0, 1, False), (1, 3, True), (3, 4, False)]
    """
    for stage in plan.stages:
        indexes = range(stage.start, stage.stop)
        if stage.at_once:
            yield stage, not plan.coroutines.isdisjoint(indexes)
            continue
        start = stage.start
        for awaited, group in groupby(indexes, key=plan.coroutines.__contains__):
            stop = start + sum(1 for _ in group)
            yield Stage(start, stop, at_once=False), awaited
            start = stop


def _coroutines(tasks: Sequence[Call]) -> Iterator[int]:
    last: object = None
    awaited = False
    for index, (function, _, _) in enumerate(tasks):
        if function is not last:  # the same one over and over is looked at once
            last, awaited = function, is_coroutine_function(function)
        if awaited:
            yield index
