"""What happened in a run since somebody looked last, read from the columns that its workers fill in anyway.

    starts ──copy──▶ ─┐
    ends ────copy──▶ ─┴─ compared with the copies of the look before ──▶ moments, by time ──▶ events

A column is copied in one step, `starts` before `ends`. So whatever ended before a start that is seen is seen too, and
an end whose start is not seen waits for the next look: nothing is told before its cause.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Final

from procession._model.event import Event, EventName
from procession._model.progress import Progress
from procession.observe.books import Books

_BLOCK: Final = 1024
_START, _END, _TOLD = range(3)

Moment = tuple[float, int, int, int]
"""When, by the clock, for seconds since the epoch are too coarse to sort by; rank among what has the same time; which
task; and what: it started, it ended, or it is in the list of what was told, at the place of this number less `_TOLD`.
"""


class Lookout:
    """Looks at the books of a run, in which nothing is under way yet."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._epoch = books.moment(0.0)
        self._starts = self._seen_starts = books.ledger.starts[:]
        self._ends = self._seen_ends = books.ledger.ends[:]
        self._seen_parts: dict[int, Progress] = {}
        self._told: list[Event] = []

    def look(self) -> int:
        """Look; return how many starts and ends are new. Costs a few ns a task, and makes no events of them."""
        self._starts = self._books.ledger.starts[:]
        self._ends = self._books.ledger.ends[:]
        seen = self._seen_starts.count(None) + self._seen_ends.count(None)
        return seen - self._starts.count(None) - self._ends.count(None)

    def moments(self, told: list[Event]) -> list[Moment]:
        """Return what is new at this look, by time, among it what was told in another way."""
        starts, ends = self._starts, self._ends
        now = self._books.ledger.starts
        moments: list[Moment] = []
        for index in _news(self._seen_ends, ends):
            end = ends[index]
            if starts[index] is None and now[index] is not None:
                ends[index] = None  # for the next look
            elif end is not None:
                # What ends at a moment comes before what starts then, unless it took no time at all.
                moments.append((end, int(end == self._start(index)), index, _END))
        moments += [(self._start(index), 1, index, _START) for index in _news(self._seen_starts, starts)]
        return self._seen(moments, told + self._progressed())

    def failures(self, told: list[Event]) -> list[Moment]:
        """Return the same without tasks that started or ended well."""
        ends = self._ends
        moments: list[Moment] = []
        for index in list(self._books.ledger.errors):
            end = ends[index]
            if end is not None and self._seen_ends[index] is None:
                moments.append((end, 0, index, _END))
        return self._seen(moments, told + self._progressed())

    def event(self, moment: Moment) -> Event:
        """Make the event of one of the moments that were returned last."""
        reading, _, index, what = moment
        if what >= _TOLD:
            return self._told[what - _TOLD]
        books, ledger, at = self._books, self._books.ledger, self._epoch + reading
        if what == _START:
            return self._event("task_started", at, index)
        start, end = ledger.starts[index], ledger.ends[index]
        duration = None if start is None or end is None else end - start
        attempt = books.attempts.get(index, 1)
        if index in ledger.stopped:
            return self._event("task_cancelled", at, index, attempt, duration)
        error = ledger.errors.get(index)
        return self._event("task_completed" if error is None else "task_failed", at, index, attempt, duration, error)

    def _start(self, index: int) -> float:
        """Return when a task started, but no earlier than what it waits for ended.

        A worker notes as a start its own last look at the clock, and another may have made the task ready since.
        """
        start = self._starts[index] or 0.0
        edges = self._books.edges
        if index in edges:
            return max(start, *(self._ends[need] or 0.0 for need in edges[index]))
        return start

    def _seen(self, moments: list[Moment], told: list[Event]) -> list[Moment]:
        self._seen_starts, self._seen_ends, self._told = self._starts, self._ends, told
        moments += [(event.at - self._epoch, 2, event.index or 0, _TOLD + place) for place, event in enumerate(told)]
        moments.sort()
        return moments

    def _progressed(self) -> list[Event]:
        """Return how far those maps have come that have come further and have not ended."""
        events: list[Event] = []
        for index, part in list(self._books.maps.items()):
            progress = part.progress
            if self._ends[index] is None and self._seen_parts.get(index) != progress:
                self._seen_parts[index] = progress
                at = self._epoch + time.perf_counter()
                events.append(self._event("task_progressed", at, index, progress=progress))
        return events

    def _event(
        self,
        name: EventName,
        at: float,
        index: int,
        attempt: int = 1,
        duration: float | None = None,
        error: BaseException | None = None,
        progress: Progress | None = None,
    ) -> Event:
        books = self._books
        return Event(
            name,
            books.process_name,
            books.run_id,
            at=at,
            task_name=books.name(index),
            index=index,
            attempt=attempt,
            worker=books.workers[index],
            duration_s=duration,
            error=error,
            progress=progress,
        )


def _news(seen: Sequence[float | None], column: Sequence[float | None]) -> Iterator[int]:
    """Return the places that were filled in since, in order. Blocks in which none was are compared in C."""
    for first in range(0, len(column), _BLOCK):
        block = range(first, min(first + _BLOCK, len(column)))
        if column[first : block.stop] != seen[first : block.stop]:
            yield from (index for index in block if column[index] is not None and seen[index] is None)
