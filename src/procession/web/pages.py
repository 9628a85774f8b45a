"""What each page shows, as the templates take it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request

from procession._model.text import counted
from procession.journal import Mark, Reader, RunInfo, Running, TaskInfo, TaskStatus
from procession.journal.latest import Latest
from procession.web import query_params
from procession.web.definitions import KEEP, Definition
from procession.web.graph import graph_of
from procession.web.query_params import State
from procession.web.timeline import CELLS, timeline_of

RUNS = 50
TASKS = 100
NESTED = 20
RUNNING = 40
"""Rows of a page, at most."""

_FEW = 8
_SOUGHT = 400
"""Places that a query names one by one, at most."""

Context = dict[str, Any]


class Row(NamedTuple):
    """A line of the table of tasks."""

    place: int
    name: str
    origin: str
    state: str
    ended: TaskInfo | None
    since: float | None
    """When it began, of one that runs."""


@dataclass(frozen=True)
class Table:
    """A part of a run's tasks, or of the elements of a map; and from which place the parts around it begin."""

    rows: list[Row]
    begin: int
    earlier: int | None
    later: int | None
    total: int | None = None


class Pages:
    """Makes pages of a journal; it keeps no more than what cannot change."""

    def __init__(self) -> None:
        self._definitions: Final = Latest[tuple[int, int], Definition](KEEP)
        self._times: Final = Latest[tuple[int, int, float | None], tuple[float, Context]](NESTED)

    def runs(self, reader: Reader, request: Request) -> Context:
        """Return the list of runs."""
        status = query_params.status(request)
        process = query_params.text(request, "process", 1000) or None
        text = query_params.text(request, "q")
        before, after = query_params.number(request, "before"), query_params.number(request, "after")
        found = reader.runs(status=status, process=process, text=text, before=before, after=after, limit=RUNS + 1)
        more = len(found) > RUNS
        if more:
            found = found[1:] if after is not None else found[:-1]
        counts = reader.counts()
        return {
            "found": found,
            "older": found[-1].key if found and (more or after is not None) else None,
            "newer": found[0].key if found and (before is not None or (more and after is not None)) else None,
            "counts": counts,
            "total": sum(counts.by_status.values()),
            "status": status,
            "process": process,
            "text": text,
        }

    def run(self, reader: Reader, request: Request, key: int) -> Context:
        """Return how one run stands, and a part of its tasks."""
        info = reader.run(key)
        definition = self._definition(reader, key, info)
        state = query_params.state(request)
        text = query_params.text(request, "q")
        begin = query_params.number(request, "from") or 0
        if text.removeprefix("#").isdecimal() and len(text) < query_params.LONGEST_TEXT // 2:
            # Nobody's task is called a number: it is a place.
            begin, text = min(int(text.removeprefix("#")), max(definition.count - 1, 0)), ""
        nested = reader.runs(parent=key, limit=NESTED + 1)
        running = _running(reader, key, info)
        return {
            **self._head(reader, key, info),
            "table": _tasks(reader, key, info, definition, state, text, begin),
            "definition": definition,
            "has_graph": definition.count > 0 and reader.has_shape(key),
            "nested": nested[:NESTED],
            "more_nested": len(nested) > NESTED,
            "running": running[:RUNNING],
            "more_running": max(0, len(running) - RUNNING),
            "good": reader.last_good(key) if info.status in ("failed", "cancelled", "interrupted") else None,
            "state": state,
            "text": text,
        }

    def nested(self, reader: Reader, request: Request, key: int) -> Context:
        """Return the runs that are nested in one."""
        before, after = query_params.number(request, "before"), query_params.number(request, "after")
        found = reader.runs(parent=key, before=before, after=after, limit=RUNS + 1)
        more = len(found) > RUNS
        if more:
            found = found[1:] if after is not None else found[:-1]
        return {
            **self._head(reader, key, reader.run(key)),
            "found": found,
            "older": found[-1].key if found and (more or after is not None) else None,
            "newer": found[0].key if found and (before is not None or (more and after is not None)) else None,
        }

    def task(self, reader: Reader, request: Request, key: int, task: int, element: int | None) -> Context:
        """Return how one task, or one element of a map, stands."""
        info = reader.run(key)
        definition = self._definition(reader, key, info)
        if task >= definition.count:
            raise HTTPException(404, f"the run has {counted(definition.count, 'task')}, and none at place {task}")
        state = query_params.state(request)
        is_map = element is None and definition.is_map(task)
        if element is None:
            row = _row(definition, reader.status(key, info, task))
        else:
            ended = reader.task(key, task, element)
            if ended is None:
                raise HTTPException(404, f"task {task} has no record of an element {element}")
            row = Row(task, ended.name, definition.origin(task), ended.state, ended, None)
        begin = query_params.number(request, "from") or 0
        return {
            **self._head(reader, key, info),
            "row": row,
            "element": element,
            "elements": _elements(reader, key, task, definition, state, begin) if is_map else None,
            "inside": reader.nested(key, task, element),
            "state": state,
            "count": definition.count,
        }

    def graph(self, reader: Reader, key: int, info: RunInfo) -> Context:
        """Return which tasks of a run wait for which, and how they stand."""
        outline = self._definition(reader, key, info).outline(reader, key)
        if outline is None:
            return {"graph": None}
        ends = dict(reader.ends(key))
        maybe_begun = [one.task for one in info.running]
        over = info.status != "running"
        if over:  # what has parts may have begun, too
            made = (task for node in outline.nodes if node.kind != "task" for task in node.tasks)
            maybe_begun += [task for task in made if task not in ends]
        begun = reader.statuses(key, info, maybe_begun)
        return {"graph": graph_of(outline, key, ends.items(), begun, over=over)}

    def time(self, reader: Reader, key: int, info: RunInfo) -> Context:
        """Return where the time of a run went: in proportion to the run, so it is kept for a while."""
        which = (key, info.executions, info.ended_at)
        began = time.monotonic()
        until, kept = self._times.get(which) or (0.0, {})
        if until < began:
            kept = self._time(reader, key, info)
            # One that goes on is looked at again, but not all the time.
            going = began + max(1.0, 10 * (time.monotonic() - began))
            self._times.put(which, (going if info.status == "running" else float("inf"), kept))
        return kept

    def compared(self, reader: Reader, request: Request, key: int) -> Context:
        """Return the differences to another run: by default to the last good one of the same process."""
        info = reader.run(key)
        other = query_params.number(request, "with")
        other = reader.last_good(key) if other is None else other
        head = self._head(reader, key, info)
        if other is None:
            return {**head, "other": None}
        then = reader.run(other)
        now_is, then_was = (self._definition(reader, at, run) for at, run in ((key, info), (other, then)))
        changed = _changes(then_was, now_is)
        failures = reader.failures(key, other, RUNS + 1)
        return {
            **head,
            "other": other,
            "then": then,
            "changes": changed[:RUNS],
            "more_changes": max(0, len(changed) - RUNS),
            "counts": (then_was.count, now_is.count),
            "failures": failures[:RUNS],
            "more_failures": len(failures) > RUNS,
            "argv": _argv(info.origin) != _argv(then.origin) and (_argv(then.origin), _argv(info.origin)),
        }

    def _definition(self, reader: Reader, key: int, info: RunInfo) -> Definition:
        """Return the definition of a run; only another execution can change it."""
        which = key, info.executions
        found = self._definitions.get(which)
        if found is None:
            found = Definition(reader.definition(key))
            self._definitions.put(which, found)
        return found

    def _head(self, reader: Reader, key: int, info: RunInfo) -> Context:
        return {"key": key, "run": info, "outer": reader.outer(key), "done": _done(reader, key, info)}

    def _time(self, reader: Reader, key: int, info: RunInfo) -> Context:
        definition = self._definition(reader, key, info)
        # What an earlier execution recorded lies before this one. A server's clock may differ a little from ours.
        since = 0.0 if info.executions == 1 else info.started_at - 1.0
        shares = reader.shares(key, maps=definition.maps, since=since)
        going = [_going(one, reader.now) for one in _running(reader, key, info)]
        if not shares and not going:
            return {"shares": [], "timeline": None}
        times = [(one.begin, one.end) for one in shares] + [(one.begin, one.end) for one in going]
        begin, end = min(begin for begin, _ in times), max(end for _, end in times)
        cell = max(end - begin, 1e-6) / CELLS
        marks = reader.marks(key, maps=definition.maps, begin=begin, cell=cell)
        return {"shares": shares, "timeline": timeline_of([*marks, *going], begin, end)}


class Done(NamedTuple):
    """How far a run has come."""

    ended: int
    failed: int
    total: int


_COUNTED = 20_000
"""Tasks that are counted each time a run is looked at, at most; of more, the run itself says how far it is."""


def _done(reader: Reader, key: int, info: RunInfo) -> Done | None:
    """Return how far a run has come. It says so itself once a second; counting is up to date."""
    told = info.progress
    if told is None or info.status != "running" or told.total > _COUNTED:
        return None if told is None else Done(*told)
    return Done(min(max(told.ended, reader.ended(key)), told.total), told.failed, told.total)


def _tasks(
    reader: Reader,
    key: int,
    info: RunInfo,
    definition: Definition,
    state: State | None,
    text: str,
    begin: int,
) -> Table:
    begin = min(begin, definition.count)

    def rows(statuses: Sequence[TaskStatus]) -> list[Row]:
        return [_row(definition, one) for one in statuses]

    if text:
        places = list(definition.matching(text))
        shown = [place for place in places if place >= begin]
        if state is None:
            before = [place for place in places if place < begin][-TASKS:]
            later = shown[TASKS] if len(shown) > TASKS else None
            statuses = reader.statuses(key, info, shown[:TASKS])
            return Table(rows(statuses), begin, before[0] if before else None, later, len(places))
        if len(places) <= _SOUGHT:
            found = reader.tasks(key, state=state, among=places, limit=_SOUGHT) if places else []
            return Table(rows(reader.statuses_of(key, info, found)), 0, None, None)
    if state is None:
        end = min(begin + TASKS, definition.count)
        earlier = max(0, begin - TASKS) if begin else None
        later = end if end < definition.count else None
        statuses = reader.statuses(key, info, range(begin, end))
        return Table(rows(statuses), begin, earlier, later, definition.count)
    found = reader.tasks(key, state=state, text=text, begin=begin, limit=TASKS + 1)
    earlier = reader.earlier(key, state=state, text=text, begin=begin, limit=TASKS) if begin else None
    later = found[TASKS].task if len(found) > TASKS else None
    return Table(rows(reader.statuses_of(key, info, found[:TASKS])), begin, earlier, later)


def _elements(
    reader: Reader,
    key: int,
    task: int,
    definition: Definition,
    state: State | None,
    begin: int,
) -> Table:
    found = reader.tasks(key, task=task, state=state, begin=begin, limit=TASKS + 1)
    rows = [Row(one.element or 0, one.name, definition.origin(task), one.state, one, None) for one in found[:TASKS]]
    earlier = reader.earlier(key, task=task, state=state, begin=begin, limit=TASKS) if begin else None
    return Table(rows, begin, earlier, found[TASKS].element if len(found) > TASKS else None)


def _row(definition: Definition, one: TaskStatus) -> Row:
    name = definition.name(one.task) if one.ended is None else one.ended.name
    return Row(one.task, name, definition.origin(one.task), one.state, one.ended, one.since)


def _running(reader: Reader, key: int, info: RunInfo) -> list[Running]:
    """Return the tasks that run now: those the run reported a moment ago, without those that have ended since."""
    told = info.running[:_SOUGHT]
    statuses = reader.statuses(key, info, [one.task for one in told])
    return [one for one, now in zip(told, statuses, strict=True) if now.state == "running"]


def _going(one: Running, now: float) -> Mark:
    end = max(now, one.started_at)
    return Mark(one.worker, 0, 0, 0, one.started_at, end, end - one.started_at, one.task, None, one.name)


def _changes(then: Definition, now: Definition) -> list[str]:
    """Say what changed in the definition from then to now, of tasks that changed alike in one line."""
    before, after = then.fingerprint, now.fingerprint
    if before == after:
        return []
    alike: dict[tuple[str, str], list[int]] = {}
    both = min(then.count, now.count)
    for place in sorted(before.changed(after)):
        if place >= both:
            break
        alike.setdefault((then.origin(place), now.origin(place)), []).append(place)
    said: list[str] = []
    if then.count != now.count:
        were, are = ("was" if then.count == 1 else "were"), ("is" if now.count == 1 else "are")
        said.append(f"There {were} {counted(then.count, 'task')}; now there {are} {now.count:,}.")
    for (was, is_now), places in alike.items():
        what = f"{is_now}: other arguments" if was == is_now else f"{was} is now {is_now}"
        few = ", ".join(map(str, places[:_FEW])) + (", …" if len(places) > _FEW else "")
        said.append(f"{what} ({'task' if len(places) == 1 else f'{len(places):,} tasks:'} {few})")
    return said


def _argv(origin: Mapping[str, Any]) -> list[str]:
    return [str(word) for word in origin.get("argv", ())]
