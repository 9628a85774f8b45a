"""What happened in a run since somebody looked last, read from the columns that its workers fill in anyway.

    starts ──▶ Column ─┐
    ends ────▶ Column ─┴─ what is new ──▶ moments, by time ──▶ events

Starts are looked at before ends, and later tasks before earlier ones. So whatever ended before a start that is seen
is seen too, and an end whose start is not seen waits for the next look: nothing is told before its cause.
"""

import time

from procession._engine.run_state import RunState
from procession._model.event import Event, EventName
from procession._model.progress import Progress
from procession.observe.column import Column

_START, _END, _TOLD = range(3)

Moment = tuple[float, int, int, int]
"""When, by the clock, for seconds since the epoch are too coarse to sort by; rank among what has the same time; which
task; and what: it started, it ended, or it is in the list of what was told, at the place of this number less `_TOLD`.
"""


class EventCollector:
    """Collects the events of a run, in which nothing is under way yet."""

    def __init__(self, run_state: RunState) -> None:
        self._run_state = run_state
        self._epoch = run_state.moment(0.0)
        self._starts = Column(run_state.ledger.starts)
        self._ends = Column(run_state.ledger.ends)
        self._filled = self._starts.filled() + self._ends.filled()
        self._seen_parts: dict[int, Progress] = {}
        self._told: list[Event] = []

    def look(self) -> int:
        """Look; return about how many starts and ends are new. Makes no events of them."""
        return self._starts.look() + self._ends.look()

    def moments(self, told: list[Event]) -> list[Moment]:
        """Return what is new at this look, by time, among it what was told in another way."""
        starts, ends, ledger = self._starts, self._ends, self._run_state.ledger
        moments: list[Moment] = []
        for index in list(ends.new()):
            end = ledger.ends[index]
            if ledger.starts[index] is not None and not starts.shows(index):
                ends.put_off(index)
            elif end is not None:
                # What ends at a moment comes before what starts then, unless it took no time at all.
                moments.append((end, int(end == self._start(index)), index, _END))
        moments += [(self._start(index), 1, index, _START) for index in starts.new()]
        return self._seen(moments, told + self._progressed())

    def failures(self, told: list[Event]) -> list[Moment]:
        """Return the same without tasks that started or ended well."""
        ledger = self._run_state.ledger
        new = [index for index in list(ledger.errors) if self._ends.is_new(index)]
        moments = [(ledger.ends[index] or 0.0, 0, index, _END) for index in new]
        return self._seen(moments, told + self._progressed())

    def event(self, moment: Moment) -> Event:
        """Make the event of one of the moments that were returned last."""
        reading, _, index, what = moment
        if what >= _TOLD:
            return self._told[what - _TOLD]
        run_state, ledger, at = self._run_state, self._run_state.ledger, self._epoch + reading
        if what == _START:
            return self._event("task_started", at, index)
        start, end = ledger.starts[index], ledger.ends[index]
        duration = None if start is None or end is None else end - start
        attempt = run_state.attempts.get(index, 1)
        if index in ledger.stopped:
            return self._event("task_cancelled", at, index, attempt, duration)
        error = ledger.errors.get(index)
        return self._event("task_completed" if error is None else "task_failed", at, index, attempt, duration, error)

    def was_told(self, moment: Moment) -> bool:
        """Return whether a moment is of what was told, and not of what was seen."""
        return moment[3] >= _TOLD

    def happened(self) -> int:
        """Return how many tasks have started, and ended, up to what was seen last; or, if a run ended well, in all."""
        if self.ended_well:
            return 2 * len(self._run_state.ledger.starts) - self._filled
        return self._starts.filled() + self._ends.filled() - self._filled

    @property
    def ended_well(self) -> bool:
        """Whether every task has started and ended, and none has failed."""
        return self._run_state.ledger.over and self._run_state.ledger.well

    def _start(self, index: int) -> float:
        """Return when a task started, but no earlier than what it waits for ended.

        A worker notes as a start its own last look at the clock, and another may have made the task ready since.
        """
        ledger, edges = self._run_state.ledger, self._run_state.edges
        start = ledger.starts[index] or 0.0
        if index in edges:
            return max(start, *(ledger.ends[need] or 0.0 for need in edges[index]))
        return start

    def _seen(self, moments: list[Moment], told: list[Event]) -> list[Moment]:
        self._starts.see()
        self._ends.see()
        self._told = told
        moments += [(event.at - self._epoch, 2, event.index or 0, _TOLD + place) for place, event in enumerate(told)]
        moments.sort()
        return moments

    def _progressed(self) -> list[Event]:
        """Return how far those maps have come that have come further and have not ended."""
        events: list[Event] = []
        for index, part in list(self._run_state.maps.items()):
            progress = part.progress
            if self._run_state.ledger.ends[index] is None and self._seen_parts.get(index) != progress:
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
        run_state = self._run_state
        return Event(
            name,
            run_state.process_name,
            run_state.run_id,
            at=at,
            task_name=run_state.name(index),
            index=index,
            attempt=attempt,
            worker=run_state.workers[index],
            duration=duration,
            error=error,
            progress=progress,
        )
