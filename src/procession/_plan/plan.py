"""The plan of a run: stages from the strategy of a process, and "waits for" edges from its handles.

tasks ──▶ stages            ranges of tasks, each in order or all at once, one range after the other
needs ──▶ edges             task → the earlier tasks of its own stage that it waits for
"""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import groupby
from types import MappingProxyType
from typing import NamedTuple

from procession._model.strategy import Stage, Strategy
from procession._model.task import Call, MapFunction, Options, is_coroutine_function


class Plan(NamedTuple):
    """The tasks of a run and their order. The fields after `stages` have entries only for tasks that need them."""

    calls: list[Call]
    """Every task, in the order added."""
    stages: tuple[Stage, ...]
    """Ranges of tasks, each in order or all at once, one range after the other."""
    options: Mapping[int, Options]
    """The options of each task that has any, and of each map."""
    needs: Mapping[int, tuple[int, ...]]
    """For each task that takes values: the tasks whose values it takes."""
    edges: Mapping[int, tuple[int, ...]]
    """The needs within a stage that runs at once; the order of the stages and tasks satisfies all others."""
    handled: AbstractSet[int]
    """The tasks that have a handle."""
    coroutines: AbstractSet[int] = frozenset()
    """The tasks whose callable is a coroutine function."""
    streams: Mapping[int, tuple[int, ...]] = MappingProxyType({})
    """For each task that takes elements of maps as they end: these maps."""

    outlets: AbstractSet[int] = frozenset()
    """The maps whose elements go to tasks that take them as they end, or are not kept and taken by no task."""
    followed: AbstractSet[int] = frozenset()
    """The maps whose elements the caller of the run asks for as they end."""

    @property
    def unkept(self) -> dict[int, set[int]]:
        """The tasks whose values do not stay for the results, each with the tasks that take its value as a whole."""
        unkept: dict[int, set[int]] = {index: set() for index, options in self.options.items() if not options.keep}
        for taker, needed in self.needs.items() if unkept else ():
            for source in unkept.keys() & needed:
                if source not in self.streams.get(taker, ()):
                    unkept[source].add(taker)
        return unkept

    def is_map(self, index: int) -> bool:
        """Return whether a task is a map."""
        return isinstance(self.calls[index][0], MapFunction)


def plan_of(
    tasks: Sequence[Call],
    strategy: Strategy,
    *,
    options: Mapping[int, Options],
    needs: Mapping[int, tuple[int, ...]],
    handled: AbstractSet[int],
    awaits: bool = True,
) -> Plan:
    """Return the plan of the tasks. `awaits` says whether any of them may be a coroutine function.

    >>> from procession._model.strategy import Hybrid
    >>> tasks = [(len, ("a",), {})] * 4
    >>> plan = plan_of(tasks, Hybrid(), options={}, needs={2: (0,), 3: (0, 2)}, handled={0, 2})
    >>> plan.stages
    (Stage(start=0, stop=2, at_once=False), Stage(start=2, stop=4, at_once=True))
    >>> plan.edges
    {3: (2,)}
    """
    stages = strategy.stages(len(tasks))
    # At most one stage runs its tasks at once, and it is the last: see the strategies.
    first = next((stage.start for stage in stages if stage.at_once), len(tasks))
    needs = dict(needs)
    edges = needs
    if first:
        inside = {index: tuple(n for n in needed if n >= first) for index, needed in needs.items() if index >= first}
        edges = {index: needed for index, needed in inside.items() if needed}
    coroutines = frozenset(_coroutines(tasks) if awaits else ())
    return Plan(list(tasks), stages, dict(options), needs, edges, frozenset(handled), coroutines)


def segments(plan: Plan) -> Iterator[tuple[Stage, bool]]:
    """Yield the stages of a plan, each with whether it has coroutine functions.

    A stage in order is divided into segments, so that each has either coroutine functions or plain functions.

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
        if function is not last:  # a function that comes many times in a row is examined once
            last, awaited = function, is_coroutine_function(function)
        if awaited:
            yield index
