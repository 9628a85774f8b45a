"""Which tasks take the elements of maps as they end, and what these tasks wait for in place of the whole lists.

A task that takes elements begins together with the maps that it takes them from: when all has ended of which these, or
the task itself, take whole values. Where such a whole value follows from one of the maps, that map has ended by then,
and its list is taken as a whole.
"""

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Final, cast

from procession._model.handle import Handle, Stream, index_of
from procession._model.task import PLAIN, Call, MapFunction, name_of
from procession._model.text import shown
from procession._plan.plan import Plan

AT_HAND: Final = frozenset({list, tuple, range, str, bytes, dict, set, frozenset})
"""Types of iterables whose elements are there already, so that to draw from them takes no time."""


def pipelined(plan: Plan, followed: AbstractSet[int] = frozenset()) -> Plan:
    """Return the plan with the tasks that take elements beginning together with the maps that give them.

    The elements of the maps that are `followed` are handed out to the caller of the run, too.

    >>> from procession._model.handle import Owner
    >>> from procession._model.strategy import Parallel
    >>> from procession._model.task import PLAIN
    >>> from procession._plan.plan import plan_of
    >>> first, second = (MapFunction(len), (["a"],), {}), (MapFunction(abs), (Handle(Owner("p"), 0, len),), {})
    >>> plan = plan_of([first, second], Parallel(), options={0: PLAIN, 1: PLAIN}, needs={1: (0,)}, handled={0})
    >>> plan.edges, pipelined(plan).edges, pipelined(plan).streams
    ({1: (0,)}, {}, {1: (0,)})
    """
    if not (plan.edges or plan.unkept or followed):
        return plan
    maps = set(filter(plan.is_map, plan.options))
    candidates = {
        index: taken
        for index, needs in plan.edges.items()
        if not maps.isdisjoint(needs) and (taken := _taken(plan, index))
    }
    edges, streams = dict(plan.edges), dict[int, tuple[int, ...]]()
    for index in sorted(candidates):
        taken, whole = candidates[index], set(plan.edges[index]) - candidates[index]
        whole |= taken & _before(whole, plan.edges)
        live = taken - whole
        # They begin when their own elements may, so that whole values that these follow from are waited for, too.
        while late := live & _before({need for source in live for need in edges.get(source, ())}, plan.edges):
            whole |= late
            live -= late
        if plan.is_map(index) and live != taken:
            live = set[int]()  # it takes its elements side by side
        _refuse_unkept(plan, index, taken - live)
        if live:
            streams[index] = tuple(sorted(live))
            edges[index] = tuple(sorted(whole.union(*(edges.get(source, ()) for source in live))))
            if not edges[index]:
                del edges[index]
    plan = plan._replace(edges=edges, streams=streams)
    unkept = {index for index, takers in plan.unkept.items() if plan.is_map(index) and not takers}
    at_once = [range(stage.start, stage.stop) for stage in plan.stages if stage.at_once]
    followed, unkept = ({i for i in some if any(i in stage for stage in at_once)} for some in (followed, unkept))
    return plan._replace(outlets=unkept.union(followed, *streams.values()), followed=followed)


def refuse_retries(plan: Plan) -> None:
    """Raise for a task of a run without a journal that may be retried, and whose elements would be gone by then."""
    for index, taken in plan.streams.items():
        if plan.is_map(index) or not plan.options.get(index, PLAIN).retries:
            continue
        for source in taken:
            if not (plan.options.get(source, PLAIN).keep or plan.unkept.get(source)):
                raise ValueError(
                    f"task {index} ({shown(name_of(plan.calls[index][0]))}) may be retried, and would get nothing then "
                    f"of the elements of task {source} ({shown(name_of(plan.calls[source][0]))}), whose values are not "
                    "kept (keep=False): execute the process with a journal, from which they are read back, keep the "
                    "values, or leave the retries out"
                )


def elements_come_here(plan: Plan) -> bool:
    """Return whether elements have to come to the process of the run, wherever calls are made.

    So it is where a task or the caller iterates over some, or some are let go once they are taken. Others go from one
    map to the next wherever their calls are made.
    """
    return (
        bool(plan.followed)
        or any(index in plan.unkept for index in plan.outlets)
        or not all(map(plan.is_map, plan.streams))
    )


def _refuse_unkept(plan: Plan, index: int, late: AbstractSet[int]) -> None:
    """Raise for a task that takes elements that are not kept and cannot begin before their map has ended."""
    for source in sorted(late):
        if not plan.options[source].keep:
            raise ValueError(
                f"task {index} ({shown(name_of(plan.calls[index][0]))}) takes elements of task {source} "
                f"({shown(name_of(plan.calls[source][0]))}), whose values are not kept (keep=False), and cannot begin "
                "before that has ended, since it takes another value that follows from it: keep the values, or take "
                "the other one in another task"
            )


def _taken(plan: Plan, index: int) -> set[int]:
    """Return the maps of the same stage whose elements a task may take as they end."""
    function, args, kwargs = plan.calls[index]
    if isinstance(function, MapFunction):
        sources, constants = set[int](), set(_whole((), kwargs))
        for value in args:
            if isinstance(value, Handle) and plan.is_map(index_of(value)) and index_of(value) in plan.edges[index]:
                sources.add(index_of(value))
            elif type(value) not in AT_HAND:
                return set()
        return set() if sources & constants else sources
    return set(streams_in(plan.calls[index])).intersection(plan.edges[index]) - set(_whole(args, kwargs))


def streams_in(call: Call) -> list[int]:
    """Return the maps whose streams are among the arguments of a call, once for each."""
    _, args, kwargs = call
    return [index_of(value) for value in (*args, *kwargs.values()) if isinstance(value, Stream)]


def _whole(args: tuple[object, ...], kwargs: Mapping[str, object]) -> Iterator[int]:
    """Yield the tasks whose whole values are among arguments."""
    for value in (*args, *kwargs.values()):
        holder: Iterable[object] = (value,)
        if type(value) in (list, tuple):
            holder = cast("Iterable[object]", value)
        elif type(value) is dict:
            holder = cast("dict[object, object]", value).values()
        yield from (index_of(item) for item in holder if type(item) is Handle)


def _before(tasks: AbstractSet[int], edges: Mapping[int, tuple[int, ...]]) -> set[int]:
    """Return these tasks and all that they wait for, directly or through others."""
    found, pending = set(tasks), list(tasks)
    while pending:
        new = [need for need in edges.get(pending.pop(), ()) if need not in found]
        found.update(new)
        pending += new
    return found
