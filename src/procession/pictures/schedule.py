"""Where the time of a run went: when each worker was busy, and which tasks held the run up. Pure.

spans ──▶ lanes            who was busy with what, side by side where one worker did several things at once
      ──▶ critical_path    the chain of tasks, each waiting for the one before, that takes longest
      ──▶ waste            the time that workers had nothing to do, by reason
"""

import heapq
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Literal, NamedTuple, Protocol

from procession._model.attempt import FailedAttempt
from procession._model.states import TaskState
from procession._model.strategy import Stage

CALL_ROWS = 3
"""Recorded calls of a lane that stand side by side, at most."""

_EXACT_S = 1e-5  # their times are in seconds since the epoch, which are no more exact once they were added up


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time in which a worker was busy with a task.

    A task has one span, or, where several workers shared a map, one for each worker and stretch. A task that never
    began has one without `start`.
    """

    index: int
    """The place of the task in its process, from 0."""
    name: str
    """The name of the task."""
    state: TaskState
    """How the task ended, or stands."""
    attempts: int
    """How many times the task was called."""
    start: float | None
    """When the span began, in seconds since the run began; `None` if the task never began."""
    duration: float | None
    """How long the span took, in seconds; `None` while it goes on."""
    worker: str | None
    """The name of the thread, asyncio task or worker process; `None` if the task never began."""
    elements: int | None = None
    """How many elements of a map the worker called in the span; `None` for what is no map."""
    failed: int = 0
    """How many of these elements raised."""
    busy: float | None = None
    """How many seconds of the span the worker was making calls; `None` for all of them."""
    longest: tuple[float, float] | None = None
    """The longest call of the span: its start, in seconds since the run began, and its duration in seconds."""
    drawn: float = 0.0
    """How many seconds were spent on drawing elements from the iterables of a map, as far as it is known."""
    element: int | None = None
    """The element of a map whose call the span is, where spans are single calls."""
    calls: int = 1
    """How many calls the span is the sum of. `failed` and `busy` are theirs, `index` and `name` those of one."""
    failed_attempts: tuple[FailedAttempt, ...] = ()
    """The attempts of a single call that failed and were followed by others, as far as they are known."""
    error: str = ""
    """What an attempt raised that was followed by another one, where the span is that attempt."""
    call: int | None = None
    """The place of a recorded call among those of its task, or element, where the span is such a call."""


class Calls(Protocol):
    """Calls of one worker that followed each other, or a single one."""

    @property
    def task(self) -> int:
        """The index of the task in its process; of several calls, that of the first."""
        ...

    @property
    def calls(self) -> int:
        """How many calls these are: 0 for one that has not ended."""
        ...

    @property
    def failed(self) -> int:
        """How many of the calls failed."""
        ...

    @property
    def attempts(self) -> int:
        """The most that one of the calls took."""
        ...

    @property
    def worker(self) -> str:
        """The name of the worker."""
        ...

    @property
    def busy(self) -> float:
        """How many seconds the calls took together."""
        ...


def span_of_calls(calls: Calls, name: str, start: float, duration: float) -> Span:
    """Return the span of calls, which may have begun a little before their run, by the clock of another machine."""
    return Span(
        calls.task,
        name,
        "running" if not calls.calls else "failed" if calls.failed == calls.calls else "completed",
        calls.attempts,
        max(0.0, start),
        duration,
        calls.worker,
        failed=calls.failed if calls.calls > 1 else 0,
        busy=calls.busy,
        calls=max(1, calls.calls),
    )


class Busy(NamedTuple):
    """A span that began, with its end, or for a span that goes on, the end of the timeline."""

    start: float
    """Seconds since the run began."""
    end: float
    """Seconds since the run began."""
    span: Span
    """The span itself."""


class Lane(NamedTuple):
    """What one worker did. A worker that does several things at once, as an event loop does, has several lanes."""

    worker: str
    """The name of the worker."""
    place: int
    """The number of the lane among those of the worker, from 0."""
    spans: list[Busy]
    """What the worker did, in the order of time."""
    calls: Sequence["Lane"] = ()
    """The recorded calls that were made in it: side by side where a task made several at once."""


Reason = Literal["order", "few", "values", "between", "end", "margin"]
"""Why workers had nothing to do: tasks ran in order, there were too few, they waited for values, they were too short
to keep everyone busy, nothing was left to start; or the run itself began or ended."""


def busy_spans(spans: Iterable[Span], until: float) -> list[Busy]:
    """Return the spans that began, in the order of their starts; one that goes on ends, so far, at `until`."""
    begun = [
        Busy(span.start, until if span.duration is None else span.start + span.duration, span)
        for span in spans
        if span.start is not None
    ]
    begun.sort(key=lambda busy: busy[:2])
    return begun


def states_of(span: Span) -> Counter[TaskState]:
    """Return how many calls of a span ended, or stand, in which state; without a map or a sum, that is one."""
    if span.elements is None and span.calls == 1:
        return Counter((span.state,))
    calls = span.calls if span.elements is None else span.elements
    states = Counter[TaskState]({span.state: calls - span.failed})
    states["failed"] += span.failed
    return +states


def lanes_of(begun: Sequence[Busy], exact: float = 0.0) -> list[Lane]:
    """Return the lanes of all workers. Spans of a lane do not overlap; their times may be off by `exact` seconds.

    >>> spans = [Span(n, "f", "completed", 1, start, 1.0, "loop") for n, start in enumerate((0.0, 0.5, 1.5))]
    >>> [[busy.span.index for busy in lane.spans] for lane in lanes_of(busy_spans(spans, 9.0))]
    [[0, 2], [1]]
    """
    lanes: dict[str, list[Lane]] = {}
    free: dict[str, list[tuple[float, int]]] = {}
    for busy in begun:
        worker = busy.span.worker or "?"
        mine, ends = lanes.setdefault(worker, []), free.setdefault(worker, [])
        if ends and ends[0][0] <= busy.start + exact:
            _, place = heapq.heappop(ends)
        else:
            place = len(mine)
            mine.append(Lane(worker, place, []))
        mine[place].spans.append(busy)
        heapq.heappush(ends, (busy.end, place))
    return [lane for worker in sorted(lanes, key=_natural) for lane in lanes[worker]]


def with_calls(lanes: Iterable[Lane], calls: Sequence[Busy]) -> list[Lane]:
    """Return the lanes with the recorded calls in them; a worker that is known by these alone has a lane, too.

    `calls` are in the order of their starts. At most `CALL_ROWS` of them stand side by side; of more, the others are
    summed up.
    """
    found = {(lane.worker, lane.place): lane for lane in lanes}
    within = _starts(found.values())
    made: dict[tuple[str, int], list[Busy]] = {}
    for busy in calls:
        worker, span = busy.span.worker or "?", busy.span
        begun = within.get((worker, span.index, span.element)) or within.get((worker, span.index, None)) or [(0.0, 0)]
        # In that which began last: an event loop may be in several of one map at once.
        last = bisect_right(begun, busy.start + _EXACT_S, key=itemgetter(0))
        made.setdefault((worker, begun[max(0, last - 1)][1]), []).append(busy)
    for worker, place in made.keys() - found.keys():
        found[worker, place] = Lane(worker, place, [])
    ordered = sorted(found.values(), key=lambda lane: (_natural(lane.worker), lane.place))
    return [lane._replace(calls=_side_by_side(made.get(lane[:2], ()))) for lane in ordered]


def _starts(lanes: Iterable[Lane]) -> dict[tuple[str, int, int | None], list[tuple[float, int]]]:
    """Return when a worker began a task, or element, and in which of its lanes, in order."""
    starts: dict[tuple[str, int, int | None], list[tuple[float, int]]] = {}
    for worker, place, spans, _ in lanes:
        for busy in spans:
            starts.setdefault((worker, busy.span.index, busy.span.element), []).append((busy.start, place))
    for begun in starts.values():
        begun.sort()
    return starts


def _side_by_side(calls: Sequence[Busy]) -> Sequence[Lane]:
    """Return the rows of the recorded calls of a lane."""
    rows = lanes_of(calls, _EXACT_S)
    if len(rows) <= CALL_ROWS:
        return rows
    rest = sorted((busy for row in rows[CALL_ROWS - 1 :] for busy in row.spans), key=lambda busy: busy[:2])
    summed = rest[:1]
    for busy in rest[1:]:
        if busy.start < summed[-1].end:
            summed[-1] = _sum_of(summed[-1], busy)
        else:
            summed.append(busy)
    return [*rows[: CALL_ROWS - 1], rows[CALL_ROWS - 1]._replace(spans=summed)]


def _sum_of(one: Busy, other: Busy) -> Busy:
    failed = sum(states_of(busy.span)["failed"] for busy in (one, other))
    together = sum(busy.end - busy.start if busy.span.busy is None else busy.span.busy for busy in (one, other))
    calls = one.span.calls + other.span.calls
    span = replace(one.span, calls=calls, failed=failed, busy=together, state="completed", call=None)
    return Busy(one.start, max(one.end, other.end), span)


def _natural(worker: str) -> list[tuple[int, int, str]]:
    """Order numbers in names as numbers: worker 2 before worker 10."""
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in re.split(r"(\d{1,18})", worker)]


def idle_of(lanes: Iterable[Lane], duration: float) -> dict[str, float]:
    """Return how long each worker did nothing, in seconds."""
    by_worker: dict[str, list[Busy]] = {}
    for lane in lanes:
        by_worker.setdefault(lane.worker, []).extend(lane.spans)
        for row in lane.calls:  # of a task that was left, or cut off, they are all there is
            by_worker[lane.worker] += row.spans
    idle: dict[str, float] = {}
    for worker, spans in by_worker.items():
        busy, until = 0.0, 0.0
        for start, end, _ in sorted(spans, key=lambda busy: busy[:2]):
            busy += max(0.0, end - max(start, until))
            until = max(until, end)
        idle[worker] = max(0.0, duration - busy)
    return idle


def critical_path(
    begun: Sequence[Busy],
    stages: Sequence[Stage],
    needs: Mapping[int, tuple[int, ...]],
    least: Mapping[int, float],
) -> tuple[Span, ...]:
    """Return the chain of tasks that takes longest, each of which waits for the one before.

    No number of workers makes the run shorter than that. A task counts as one span, with what it takes at least, in
    seconds, as its duration: of a map, that is its longest element.
    """
    tasks: dict[int, Span] = {}
    ends: dict[int, float] = {}
    for _, end, span in begun:
        whole = tasks.get(span.index)
        if whole is None:
            tasks[span.index], ends[span.index] = replace(span, duration=least[span.index]), end
        else:
            later = end > ends[span.index]
            ends[span.index] = max(ends[span.index], end)
            elements = None if whole.elements is None else whole.elements + (span.elements or 0)
            tasks[span.index] = replace(
                whole,
                worker=span.worker if later else whole.worker,
                elements=elements,
            )
    lengths: dict[int, float] = {}
    before: dict[int, int] = {}
    base: int | None = None
    for stage in stages:
        last = base
        previous: int | None = base
        for index in range(stage.start, stage.stop):
            if index not in tasks:
                continue
            if stage.at_once:
                inside = [need for need in needs.get(index, ()) if need >= stage.start and need in lengths]
                previous = max(inside, key=lengths.__getitem__, default=base)
            lengths[index] = (tasks[index].duration or 0.0) + (0.0 if previous is None else lengths[previous])
            if previous is not None:
                before[index] = previous
            if last is None or lengths[index] >= lengths[last]:
                last = index
            previous = index
        base = last
    path: list[Span] = []
    at = base
    while at is not None:
        path.append(tasks[at])
        at = before.get(at)
    return tuple(reversed(path))


def most_at_once(begun: Iterable[Busy], exact: float = 0.0) -> int:
    """Return how many spans went on at the same time, at most; they are ordered by their starts."""
    most, ends = 0, list[float]()
    for busy in begun:
        while ends and ends[0] <= busy.start + exact:
            heapq.heappop(ends)
        heapq.heappush(ends, busy.end)
        most = max(most, len(ends))
    return most


def load(begun: Iterable[Busy], duration: float, buckets: int) -> list[float]:
    """Return how many calls went on at the same time, on average, in each of so many equal parts of the run."""
    busy, change = [0.0] * buckets, [0.0] * (buckets + 1)
    width = duration / buckets
    for start, end, span in begun:
        first, last = min(int(start / width), buckets - 1), min(int(end / width), buckets - 1)
        took = end - start
        # Between the calls of one span there may be gaps.
        part = 1.0 if span.calls == 1 or not took or span.busy is None else span.busy / took
        if first == last:
            busy[first] += part * took / width
        else:
            busy[first] += part * (first + 1 - start / width)
            busy[last] += part * (end / width - last)
            change[first + 1] += part
            change[last] -= part
    level = 0.0
    for place in range(buckets):
        level += change[place]
        busy[place] += level
    return busy


def waste(
    begun: Sequence[Busy],
    stages: Sequence[Stage],
    needs: Mapping[int, tuple[int, ...]],
    *,
    workers: int,
    duration: float,
) -> dict[Reason, float]:
    """Return the time that `workers` workers had nothing to do, in seconds, all of them together, by reason."""
    reasons: dict[Reason, float] = dict.fromkeys(("order", "few", "values", "between", "end", "margin"), 0.0)
    within = 0.0
    stage_of = [place for place, stage in enumerate(stages) for _ in range(stage.start, stage.stop)]
    by_stage: list[list[Busy]] = [[] for _ in stages]
    for busy in begun:
        by_stage[stage_of[busy.span.index]].append(busy)
    for stage, spans in zip(stages, by_stage, strict=True):
        if not spans:
            continue
        begin, end = spans[0].start, max(busy.end for busy in spans)
        within += end - begin
        if not stage.at_once:
            reasons["order"] += _unused(spans, begin, end, workers)
            continue
        # The last element of a map that a worker took on began about this long before that worker was done.
        last = max(busy.end - (busy.end - busy.start) / max(1, busy.span.elements or 1) for busy in spans)
        units = sum(busy.span.elements or 1 for busy in spans)
        short = max(0, workers - units) * (end - begin)
        reasons["few"] += short
        wired = any(
            need >= stage.start for index in {busy.span.index for busy in spans} for need in needs.get(index, ())
        )
        filling = min(_unused(spans, begin, last, workers), max(0.0, _unused(spans, begin, end, workers) - short))
        reasons["values" if wired else "between"] += filling
        reasons["end"] += max(0.0, _unused(spans, begin, end, workers) - short - filling)
        # On a map, but without an element: the next one had not come yet.
        reasons["between"] += sum(
            busy.end - busy.start - busy.span.busy for busy in spans if busy.span.busy is not None
        )
    reasons["margin"] = max(0.0, duration - within) * workers
    return reasons


def _unused(spans: Iterable[Busy], begin: float, end: float, workers: int) -> float:
    used = sum(max(0.0, min(busy.end, end) - max(busy.start, begin)) for busy in spans)
    return max(0.0, workers * (end - begin) - used)
