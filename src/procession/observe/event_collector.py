"""Collects the events of a run from the columns that its workers fill in anyway.

    starts ──▶ Column ─┐
    ends ────▶ Column ─┴─ what is new ──▶ moments, by time ──▶ events

Starts are looked at before ends, and later tasks before earlier ones. So whatever ended before a start that is seen
is seen too, and an end whose start is not seen waits for the next look: nothing is told before its cause.
"""

import time
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from procession._engine.run_state import RunState
from procession._model.event import Event, EventName
from procession.observe.column import Column

Moment = int
"""`2 * index` for the start of a task, `2 * index + 1` for its end, and `-1 - place` for an event that was told.

Numbers, for a run may have millions: the garbage collector does not look at them, and they are sorted in no time.
"""


class EventCollector:
    """Collects the events of a run in which nothing is under way yet."""

    def __init__(self, run_state: RunState) -> None:
        self._run_state: Final = run_state
        self._epoch = run_state.moment(0.0)
        self._starts = Column(run_state.ledger.starts)
        self._ends = Column(run_state.ledger.ends)
        self._recorded = self._ends.filled()
        self._seen_maps: dict[int, object] = {}
        self._told: list[Event] = []

    def look(self) -> int:
        """Read the columns; return about how many starts and ends are new. No events are made of them."""
        return self._starts.look() + self._ends.look()

    def moments(self, told: list[Event]) -> list[Moment]:
        """Return the starts and ends that `look` has found, by time, among them the events in `told`."""
        starts, ends = self._starts, self._ends
        began, ended = self._run_state.ledger.starts, self._run_state.ledger.ends
        recalled = self._recalled
        # In the order of what has the same time: what ends at a moment comes before what starts then, unless it took
        # no time at all.
        first: list[Moment] = []
        first_at: list[float] = []
        rest: list[tuple[Moment, float]] = []
        for index in list(ends.new()):
            start, end = began[index], ended[index]
            if start is not None and not starts.shows(index):
                ends.put_off(index)
            elif end is None or index in recalled:
                continue
            elif end == start:
                rest.append((2 * index + 1, end))
            else:
                first.append(2 * index + 1)
                first_at.append(end)
        new = list(starts.new())
        moments, times = first, first_at
        if rest:
            rest += [(2 * index, self._start(index)) for index in new]
            rest.sort()
            moments += [moment for moment, _ in rest]
            times += [at for _, at in rest]
        else:
            moments += [2 * index for index in new]
            times += map(self._start, new) if self._run_state.edges else [began[index] or 0.0 for index in new]
        return self._seen(moments, times, told + self._progressed())

    def failures(self, told: list[Event]) -> list[Moment]:
        """Return the failures that `look` has found, by time, among them the events in `told`."""
        ledger = self._run_state.ledger
        new = [index for index in list(ledger.errors) if self._ends.is_new(index)]
        times = [ledger.ends[index] or 0.0 for index in new]
        return self._seen([2 * index + 1 for index in new], times, told + self._progressed())

    def events(self, moments: Iterable[Moment]) -> Iterator[Event]:
        """Make the events of moments that were returned last. Takes about half a microsecond each."""
        run_state, ledger = self._run_state, self._run_state.ledger
        process_name, run_id, name = run_state.process_name, run_state.run_id, run_state.name
        starts, ends, workers, attempts = ledger.starts, ledger.ends, run_state.workers, run_state.attempts
        errors, stopped, edges, epoch = ledger.errors, ledger.stopped, run_state.edges, self._epoch
        for moment in moments:
            if moment < 0:
                yield self._told[-1 - moment]
                continue
            index = moment >> 1
            start = starts[index]
            if not moment & 1:
                at = epoch + (self._start(index) if edges else start or 0.0)
                yield Event("task_started", process_name, run_id, at, name(index), index, None, 1, workers[index])
                continue
            end = ends[index] or 0.0
            duration = None if start is None else end - start
            attempt = attempts.get(index, 1) if attempts else 1
            error = errors.get(index) if errors else None
            what: EventName = "task_completed" if error is None else "task_failed"
            if index in stopped:
                what, error = "task_cancelled", None
            worker = workers[index]
            yield Event(
                what, process_name, run_id, epoch + end, name(index), index, None, attempt, worker, duration, error
            )

    def event(self, moment: Moment) -> Event:
        """Make the event of one of the moments that were returned last."""
        return next(self.events((moment,)))

    def was_told(self, moment: Moment) -> bool:
        """Return whether a moment is of what was told, and not of what was seen."""
        return moment < 0

    def matters(self, moment: Moment) -> bool:
        """Return whether an observer gets the event of a moment even if there is no time for all events."""
        return moment < 0 or (moment & 1 == 1 and moment >> 1 in self._run_state.ledger.errors)

    def happened(self) -> int:
        """Return how many tasks have started, and ended, up to what was seen last; or, if a run succeeded, in all."""
        recorded = self._recorded + len(self._recalled)
        if self.succeeded:
            return 2 * (len(self._run_state.ledger.starts) - recorded)
        return self._starts.filled() + self._ends.filled() - recorded

    @property
    def _recalled(self) -> Collection[int]:
        """The tasks that ended without being called, after the run had begun."""
        recheck = self._run_state.recheck
        return () if recheck is None else recheck.recalled

    @property
    def succeeded(self) -> bool:
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

    def _seen(self, moments: list[Moment], times: list[float], told: list[Event]) -> list[Moment]:
        self._starts.see()
        self._ends.see()
        self._told = told
        moments += [-1 - place for place in range(len(told))]
        times += [event.at - self._epoch for event in told]
        return [moments[place] for place in sorted(range(len(moments)), key=times.__getitem__)]

    def _progressed(self) -> list[Event]:
        """Return how far those maps have come that have come further and have not ended."""
        run_state, events = self._run_state, list[Event]()
        for index, part in list(run_state.maps.items()):
            progress = part.progress
            if run_state.ledger.ends[index] is None and self._seen_maps.get(index) != progress:
                self._seen_maps[index] = progress
                events.append(
                    Event(
                        "task_progressed",
                        run_state.process_name,
                        run_state.run_id,
                        at=self._epoch + time.perf_counter(),
                        task_name=run_state.name(index),
                        index=index,
                        attempt=1,
                        worker=run_state.workers[index],
                        progress=progress,
                    )
                )
        return events
