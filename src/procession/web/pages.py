"""What each page shows, as the templates take it."""

import time
from collections.abc import Mapping
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from typing import Any, Final, NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request

from procession._model.record import WHOLE
from procession._model.text import counted
from procession.journal import Mark, Reader, RunInfo, Running
from procession.journal.latest import Latest
from procession.pictures.nodes import renamed
from procession.web import query_params
from procession.web.definitions import KEEP, Definition
from procession.web.failures import failures_of
from procession.web.graph import graph_of
from procession.web.next_steps import next_step, rerun_of
from procession.web.tables import SOUGHT, Row, elements_of, row_of, tasks_of
from procession.web.timeline import CELLS, EXACT, timeline_of
from procession.web.usual import histories_of, others, usual_of
from procession.web.waiting import waits_of

RUNS = 50
CALLS = 500
"""Calls that tasks made themselves which a page shows, at most."""
NESTED = 20
RUNNING = 40
"""Rows of a page, at most."""

COUNTED = 20_000
"""Up to how many tasks are counted each time a run is shown, and elements each time their map is.

With more tasks, the run itself reports how far it is.
"""

VALUE = 5_000
"""Bytes of a recorded value, at most, that are shown."""

_FEW = 8
_NONE_S = 1e-9
"""No call is shorter, so none is summed up."""

Context = dict[str, Any]


class Pages:
    """Makes pages of a journal; it keeps no more than what cannot change."""

    def __init__(self, where: str) -> None:
        """`where` is the address of the journal."""
        self._where: Final = where
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
        first = before is None and after is None and status is None and not text
        return {
            "histories": histories_of(reader, process) if first and found else [],
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
        wanted = query_params.wanted(request)
        text = wanted.text
        if text.removeprefix("#").isdecimal() and len(text) < query_params.LONGEST_TEXT // 2:
            # Nobody's task is called a number: it is a place.
            place = min(int(text.removeprefix("#")), max(definition.count - 1, 0))
            wanted = replace(wanted, begin=place, text="", order=None)
        nested = reader.runs(parent=key, limit=NESTED + 1)
        running = _running(reader, key, info)
        head = self._head(reader, key, info)
        failed = info.error is not None or (head["done"] is not None and head["done"].failed > 0)
        table = tasks_of(reader, key, info, definition, wanted, running)
        inside = reader.calls(key, [row.place for row in table.rows], limit=CALLS)
        return {
            **head,
            "usual": None if head["outer"] else usual_of(reader, key, info),
            "next": next_step(head["outer"][0].run if head["outer"] else info, self._where),
            "failures": failures_of(reader, key, info) if failed else None,
            "table": table,
            "calls": {task: list(made) for task, made in groupby(inside, attrgetter("task"))},
            "counts": _counts(reader, key, definition, len(running)),
            "definition": definition,
            "has_graph": definition.count > 0 and reader.has_shape(key),
            "nested": nested[:NESTED],
            "more_nested": len(nested) > NESTED,
            "running": running[:RUNNING],
            "more_running": max(0, len(running) - RUNNING),
            "good": reader.last_good(key) if info.status in ("failed", "cancelled", "interrupted") else None,
            "wanted": wanted,
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
        wanted = query_params.wanted(request)
        is_map = element is None and definition.is_map(task)
        if element is None:
            status = reader.status(key, info, task)
            begun = status.pausing or status.state not in ("waiting", "not started")
            waits = {} if begun else waits_of(reader, key, info, definition, [task])
            row = row_of(definition, info, status, waits.get(task))
        else:
            ended = reader.task(key, task, element)
            if ended is None:
                raise HTTPException(404, f"task {task} has no record of an element {element}")
            row = Row(task, ended.label or ended.name, definition.origin(task), ended.state, ended, None)
        head = self._head(reader, key, info)
        # A run inside another one is executed with that.
        again = "" if row.ended is None or head["outer"] else rerun_of(info, self._where, task, element)
        return {
            **head,
            "row": row,
            "rerun": again,
            "element": element,
            "elements": elements_of(reader, key, task, definition, wanted) if is_map else None,
            "counts": _element_counts(reader, key, task) if is_map else None,
            "has_labels": definition.has_label(task),
            "value": None if is_map else reader.json_value(key, task, element, VALUE + 1),
            "inside": reader.nested(key, task, element),
            "calls": reader.calls(key, [task], WHOLE if element is None else element, CALLS),
            "wanted": wanted,
            "count": definition.count,
        }

    def graph(self, reader: Reader, key: int, info: RunInfo) -> Context:
        """Return which tasks of a run wait for which, and how they stand."""
        ends = dict(reader.ends(key))
        failed = {task for task, is_failed in ends.items() if is_failed}
        definition = self._definition(reader, key, info)
        outline = definition.outline(reader, key, failed)
        if outline is None:
            return {"graph": None}
        maybe_begun = [one.task for one in info.running]
        over = info.status != "running"
        if over:  # what has parts may have begun, too
            made = (task for node in outline.nodes if node.kind != "task" for task in node.tasks)
            maybe_begun += [task for task in made if task not in ends]
        begun = reader.statuses(key, info, maybe_begun)
        single = [node.tasks[0] for node in outline.nodes if len(node.tasks) == 1]
        labelled = reader.statuses(key, info, [task for task in single if definition.has_label(task)])
        labels = {one.task: one.label for one in labelled if one.label is not None}
        maps = [node.tasks[0] for node in outline.nodes if node.kind == "map" and ends.get(node.tasks[0])]
        elements = reader.elements(key, maps)
        together = sum(len(node.tasks) for node in outline.nodes if len(node.tasks) > 1 and node.tasks[0] in failed)
        graph = graph_of(renamed(outline, labels), key, ends.items(), begun, elements, over=over)
        return {"graph": graph, "failed_together": together}

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
        head = {**self._head(reader, key, info), "chosen": other is not None}
        other = reader.last_good(key) if other is None else other
        head["others"] = [] if head["outer"] else others(reader, key, info)
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
        made, *made_in = reader.calls_span(key, since)
        if not shares and not going and not made:
            return {"shares": [], "drawn": None}
        times = [(one.begin, one.end) for some in (shares, going) for one in some] + ([made_in] if made else [])
        begin, end = min(begin for begin, _ in times), max(end for _, end in times)
        shape = definition.shape(reader, key) if reader.ended(key) <= EXACT else None
        cell = max(end - begin, 1e-6) / CELLS
        recorded = reader.call_marks(key, begin=begin, cell=_NONE_S if made <= EXACT else cell) if made else []
        cell = _NONE_S if shape else cell
        marks = [*reader.marks(key, maps=definition.maps, begin=begin, cell=cell, labels=definition.labels), *going]
        status = "cancelled" if info.status == "interrupted" else info.status
        drawn = timeline_of(marks, begin, end, key, shape=shape, status=status, recorded=recorded)
        return {"shares": shares, "drawn": drawn}


class Done(NamedTuple):
    """How far a run has come."""

    ended: int
    failed: int
    total: int


def _done(reader: Reader, key: int, info: RunInfo) -> Done | None:
    """Return how far a run has come. It says so itself once a second; counting is up to date."""
    told = info.progress
    if told is None or info.status != "running" or told.total > COUNTED:
        return None if told is None else Done(*told)
    return Done(min(max(told.ended, reader.ended(key)), told.total), told.failed, told.total)


def _counts(reader: Reader, key: int, definition: Definition, running: int) -> dict[str, int]:
    """Return how many tasks of a run stand in which state; of a large run, only those that are quickly counted."""
    if definition.count > COUNTED:
        return {"all": definition.count, "running": running}
    ended, failed, retried = reader.count_tasks(key)
    waiting = max(0, definition.count - ended - running)
    return {
        "all": definition.count,
        "failed": failed,
        "running": running,
        "waiting": waiting,
        "retried": retried,
        "completed": ended - failed,
    }


def _element_counts(reader: Reader, key: int, task: int) -> dict[str, int | None]:
    """Return how many elements of a map ended in which way; `None` for each where counting them takes long."""
    found = reader.count_map(key, task, COUNTED)
    if found is None:
        return dict.fromkeys(("all", "failed", "retried", "completed"))
    ended, failed, retried = found
    return {"all": ended, "failed": failed, "retried": retried, "completed": ended - failed}


def _running(reader: Reader, key: int, info: RunInfo) -> list[Running]:
    """Return the running tasks: the tasks that the run reported a moment ago and that have not ended since."""
    told = info.running[:SOUGHT]
    statuses = reader.statuses(key, info, [one.task for one in told])
    return [one for one, now in zip(told, statuses, strict=True) if now.state == "running"]


def _going(one: Running, now: float) -> Mark:
    end = max(now, one.started_at)
    return Mark(one.worker, 0, 0, 0, one.started_at, end, end - one.started_at, one.task, None, one.label or one.name)


def _changes(then: Definition, now: Definition) -> list[str]:
    """Return lines on what changed in the definition since then; tasks that changed alike share a line."""
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
