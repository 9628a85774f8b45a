"""The tables of a run's tasks, and of a map's elements: which rows stand on a page, and in which order."""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from procession.journal import Reader, RunInfo, Running, TaskInfo, TaskStatus
from procession.web.definitions import Definition
from procession.web.query_params import Wanted
from procession.web.waiting import Waits, held_back_by, waits_of

TASKS = 100
"""Rows of a table, at most."""

SOUGHT = 400
"""Places that a query names one by one, at most."""

_STEP = 10_000
"""Places that are looked through at once for tasks that have not begun."""


class Row(NamedTuple):
    """A line of the table of tasks."""

    place: int
    name: str
    origin: str
    state: str
    ended: TaskInfo | None
    since: float | None
    """When the task began, if it runs."""
    waits: Waits | None = None
    """What it waits for, or waited for when the run ended, as far as is known."""
    pausing: bool = False
    """Whether it waits for its next attempt."""
    held_by: str | None = None
    """The name of the limit that holds it back, or some of its elements."""


@dataclass(frozen=True)
class Table:
    """A part of a run's tasks, or of the elements of a map; and from which place the parts around it begin."""

    rows: list[Row]
    begin: int
    earlier: int | None
    later: int | None
    total: int | None = None


def row_of(definition: Definition, info: RunInfo, one: TaskStatus, waits: Waits | None = None) -> Row:
    """Return the row of a task that stands like that."""
    held_by = held_back_by(info, one.task) if one.ended is None else None
    name = one.label or (definition.name(one.task) if one.ended is None else one.ended.name)
    return Row(
        one.task, name, definition.origin(one.task), one.state, one.ended, one.since, waits, one.pausing, held_by
    )


def tasks_of(
    reader: Reader, key: int, info: RunInfo, definition: Definition, wanted: Wanted, running: Sequence[Running]
) -> Table:
    """Return the wanted tasks of a run; `running` are those that run now."""
    return _Tasks(reader, key, info, definition, wanted, running).table()


def elements_of(reader: Reader, key: int, task: int, definition: Definition, wanted: Wanted) -> Table:
    """Return the wanted elements of a map, of those that have ended."""
    state, text, begin = wanted.recorded, wanted.text, wanted.begin

    def row(one: TaskInfo) -> Row:
        return Row(one.element or 0, one.label or one.name, definition.origin(task), one.state, one, None)

    if wanted.order is not None:
        found = reader.tasks(key, task=task, state=state, text=text, limit=TASKS + 1, offset=begin, order=wanted.order)
        return _by_rank([row(one) for one in found], begin)
    found = reader.tasks(key, task=task, state=state, text=text, begin=begin, limit=TASKS + 1)
    earlier = reader.earlier(key, task=task, state=state, text=text, begin=begin, limit=TASKS) if begin else None
    later = found[TASKS].element if len(found) > TASKS else None
    return Table([row(one) for one in found[:TASKS]], begin, earlier, later)


def _by_rank(rows: list[Row], begin: int) -> Table:
    """Return a table whose parts begin at a rank and not at a place."""
    later = begin + TASKS if len(rows) > TASKS else None
    return Table(rows[:TASKS], begin, max(0, begin - TASKS) if begin else None, later)


class _Tasks:
    """The making of one table."""

    def __init__(
        self,
        reader: Reader,
        key: int,
        info: RunInfo,
        definition: Definition,
        wanted: Wanted,
        running: Sequence[Running],
    ) -> None:
        self.reader = reader
        self.key = key
        self.info = info
        self.definition = definition
        self.wanted = wanted
        self.running = {one.task for one in running}

    def table(self) -> Table:
        wanted, definition = self.wanted, self.definition
        text, begin = wanted.text, min(wanted.begin, definition.count)
        failed_first = wanted.order == "failed" and wanted.state is None
        by_place = wanted.state is None and wanted.order is None
        if failed_first or wanted.state in ("running", "waiting") or (text and by_place):
            places: Sequence[int] = sorted(self._matching(text)) if text else range(definition.count)
            return self._failed_first(places) if failed_first else self._among(places, begin)
        state = wanted.recorded
        if wanted.order is not None:
            found = self.reader.tasks(
                self.key, state=state, text=text, limit=TASKS + 1, offset=wanted.begin, order=wanted.order
            )
            return _by_rank(self._rows(self.reader.statuses_of(self.key, self.info, found)), wanted.begin)
        if text:
            places = list(self._matching(text))
            if len(places) <= SOUGHT:
                found = self.reader.tasks(self.key, state=state, among=places, limit=SOUGHT) if places else []
                return Table(self._rows(self.reader.statuses_of(self.key, self.info, found)), 0, None, None)
        if state is None:
            end = min(begin + TASKS, definition.count)
            earlier = max(0, begin - TASKS) if begin else None
            later = end if end < definition.count else None
            return Table(self._statuses(range(begin, end)), begin, earlier, later, definition.count)
        found = self.reader.tasks(self.key, state=state, text=text, begin=begin, limit=TASKS + 1)
        before = self.reader.earlier(self.key, state=state, text=text, begin=begin, limit=TASKS) if begin else None
        rows = self._rows(self.reader.statuses_of(self.key, self.info, found[:TASKS]))
        return Table(rows, begin, before, found[TASKS].task if len(found) > TASKS else None)

    def _failed_first(self, places: Sequence[int]) -> Table:
        """Return a table of these places, which go up: of the tasks that failed, then of all others."""
        begin, end = self.wanted.begin, self.wanted.begin + TASKS + 1
        failed = self.reader.failed_tasks(self.key, self.definition.count if self.wanted.text else end)
        ranked = (place for is_failed in (True, False) for place in places if (place in failed) is is_failed)
        return _by_rank(self._statuses(list(islice(ranked, begin, end))), begin)

    def _matching(self, text: str) -> Collection[int]:
        """Return the places of the tasks that have the text in their name, their origin or their label."""
        places = self.definition.matching(text)
        if not self.definition.labels:
            return places
        begun = (*self.info.running, *self.info.pausing)
        labels = {one.task for one in begun if one.label is not None and text.lower() in one.label.lower()}
        return labels.union(self.reader.labelled(self.key, text), places)

    def _among(self, places: Sequence[int], begin: int) -> Table:
        """Return a table of those of the places that are wanted, which no record says."""
        at = bisect_left(places, begin)
        shown = list(islice(self._chosen(places[at:]), TASKS + 1))
        earlier = list(islice(self._chosen(places[:at][::-1]), TASKS))
        total = len(places) if self.wanted.state is None else None
        later = shown[TASKS] if len(shown) > TASKS else None
        return Table(self._statuses(shown[:TASKS]), begin, earlier[-1] if earlier else None, later, total)

    def _chosen(self, places: Sequence[int]) -> Iterator[int]:
        """Yield those of the places, which go up or down, whose tasks are in the wanted state."""
        if self.wanted.state is None:
            yield from places
        elif self.wanted.state == "running":
            yield from (place for place in places if place in self.running)
        else:
            for start in range(0, len(places), _STEP):
                part = places[start : start + _STEP]
                not_ended = self.reader.open_between(self.key, *sorted((part[0], part[-1])))
                yield from (place for place in part if place in not_ended and place not in self.running)

    def _statuses(self, places: Sequence[int]) -> list[Row]:
        return self._rows(self.reader.statuses(self.key, self.info, places))

    def _rows(self, statuses: Iterable[TaskStatus]) -> list[Row]:
        statuses = list(statuses)
        begun_not = [one.task for one in statuses if one.state in ("waiting", "not started") and not one.pausing]
        waits = waits_of(self.reader, self.key, self.info, self.definition, begun_not)
        return [row_of(self.definition, self.info, one, waits.get(one.task)) for one in statuses]
