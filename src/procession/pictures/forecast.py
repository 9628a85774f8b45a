"""How long a run would have taken otherwise: with more workers, or in another order. Pure.

spans ──▶ Work of each task ──▶ forecast: the first that is ready starts whenever a worker is free
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import NamedTuple

from procession._model.strategy import Stage
from procession.pictures.schedule import Busy, Span

_CALLS = 4096
"""Calls that a map is taken to have had, at most, for each stretch of a worker."""


class Work(NamedTuple):
    """What there was to do for one task."""

    calls: list[float]
    """How long each call took, in seconds. Of a map, workers share them."""
    pause: float
    """How many seconds no worker made its call: the pauses between attempts."""
    drawn: float = 0.0
    """How long it took to draw the elements of a map, which come one after another."""

    @property
    def least(self) -> float:
        """How long it takes at least, however many there are for it."""
        return max(*self.calls, self.drawn + self.calls[-1]) + self.pause

    @property
    def whole(self) -> float:
        """How long it takes where one call follows the other."""
        return self.drawn + sum(self.calls) + self.pause


def works_of(begun: Iterable[Busy]) -> dict[int, Work]:
    """Return the calls of each task that began."""
    parts: dict[int, list[Busy]] = {}
    for busy in begun:
        parts.setdefault(busy.span.index, []).append(busy)
    return {index: _work(mine) for index, mine in parts.items()}


def _work(parts: list[Busy]) -> Work:
    if len(parts) == 1 and not parts[0].span.elements:
        return Work([parts[0].end - parts[0].start], 0.0)
    if any(busy.span.elements for busy in parts):
        calls = [call for busy in parts for call in _calls(busy.start, busy.end, busy.span)]
        return Work([took for _, took in sorted(calls)], 0.0, sum(busy.span.drawn for busy in parts))
    busy = sum(part.end - part.start for part in parts)
    whole = max(part.end for part in parts) - min(part.start for part in parts)
    return Work([busy], max(0.0, whole - busy))


def _calls(start: float, end: float, span: Span) -> list[tuple[float, float]]:
    """Return the calls of a map that a worker made, as far as is known: the longest, and the others alike."""
    busy = end - start if span.busy is None else span.busy
    parts = min(span.elements or 1, _CALLS)
    if span.longest is None or parts == 1:
        return [(start + (end - start) * place / parts, busy / parts) for place in range(parts)]
    at, longest = span.longest
    each = (busy - longest) / (parts - 1)
    before = min(parts - 1, round((at - start) / each)) if each > 0 else 0
    calls = [(start + each * place, each) for place in range(before)]
    calls.append((at, longest))
    calls += [(at + longest + each * place, each) for place in range(parts - 1 - before)]
    return calls


def forecast(
    works: Mapping[int, Work],
    stages: Sequence[Stage],
    needs: Mapping[int, tuple[int, ...]],
    workers: int,
    *,
    urgent_first: bool = False,
) -> float:
    """Return how many seconds the calls take on so many workers, with nothing lost in between.

    The first task that is ready is begun whenever a worker is free; with `urgent_first` it is the one with most to
    come after it, and the longest element of a map.

    >>> works = {0: Work([1.0], 0.0), 1: Work([1.0] * 6, 0.0), 2: Work([3.0], 0.0)}
    >>> [forecast(works, [Stage(0, 3, at_once=True)], {1: (0,)}, workers) for workers in (1, 2, 4)]
    [10.0, 5.0, 3.0]
    """
    total = 0.0
    for stage in stages:
        indexes = [index for index in range(stage.start, stage.stop) if index in works]
        if stage.at_once:
            total += _at_once({index: works[index] for index in indexes}, needs, workers, urgent_first=urgent_first)
        else:
            total += sum(works[index].whole for index in indexes)
    return total


def _at_once(
    works: Mapping[int, Work], needs: Mapping[int, tuple[int, ...]], workers: int, *, urgent_first: bool
) -> float:
    waiting, dependents = _wired(works, needs)
    rank = dict.fromkeys(works, 0.0)
    if urgent_first:
        rank = _ranks(works, dependents)
        works = {index: work._replace(calls=sorted(work.calls, reverse=True)) for index, work in works.items()}
    came = count()
    ready = [(-rank[index], next(came), index) for index in works if not waiting[index]]
    heapq.heapify(ready)
    left = {index: len(work.calls) for index, work in works.items()}
    ended, begun = dict.fromkeys(works, 0), dict[int, float]()
    under_way: list[tuple[float, bool, int]] = []  # until when, whether a worker is at it, which task
    free, now = workers, 0.0
    while ready or under_way:
        while ready and free:
            index = ready[0][2]
            calls = works[index].calls
            begun.setdefault(index, now)
            heapq.heappush(under_way, (now + calls[-left[index]], True, index))
            free -= 1
            left[index] -= 1
            if not left[index]:
                heapq.heappop(ready)
        now, worked, index = heapq.heappop(under_way)
        if worked:
            free += 1
            ended[index] += 1
            if ended[index] < len(works[index].calls):
                continue
            work = works[index]
            there = max(now, begun[index] + work.drawn + work.calls[-1]) + work.pause
            if there > now:
                heapq.heappush(under_way, (there, False, index))
                continue
        for dependent in dependents.get(index, ()):
            waiting[dependent] -= 1
            if not waiting[dependent]:
                heapq.heappush(ready, (-rank[dependent], next(came), dependent))
    return now


def _wired(
    works: Mapping[int, Work], needs: Mapping[int, tuple[int, ...]]
) -> tuple[dict[int, int], dict[int, list[int]]]:
    """Return for how many others each task waits, and which ones wait for it."""
    waiting: dict[int, int] = {}
    dependents: dict[int, list[int]] = {}
    for index in works:
        mine = {need for need in needs.get(index, ()) if need in works}
        waiting[index] = len(mine)
        for need in mine:
            dependents.setdefault(need, []).append(index)
    return waiting, dependents


def _ranks(works: Mapping[int, Work], dependents: Mapping[int, list[int]]) -> dict[int, float]:
    """Return how long it takes at least from the start of each task to the end of all that waits for it."""
    rank: dict[int, float] = {}
    for index in sorted(works, reverse=True):  # a task takes values of tasks before it only
        rank[index] = works[index].least + max((rank[after] for after in dependents.get(index, ())), default=0.0)
    return rank
