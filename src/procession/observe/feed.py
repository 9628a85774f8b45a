"""Passes the events of a run on to one observer, in a thread of its own.

    workers ──▶ columns of the ledger ──look, every 30 ms──▶ events, by time ──▶ on_event
    workers ──tell──▶ what the columns do not show ──────────────┘

Workers do nothing for it: they note the start and end of each task in any case, and the columns in which they do so
are the queue. Where an observer is too slow, no event is made, and the missing ones are counted.
"""

import contextvars
import threading
import time
from collections import deque
from typing import Final

from procession._engine.run_state import RunState
from procession._model.event import Event
from procession.observe.event_collector import EventCollector
from procession.observe.guard import Guarded
from procession.observe.log import log_trouble

PERIOD_S: Final = 0.03
"""Seconds between two looks, at least."""

PATIENCE_S: Final = 1.0
"""Seconds an observer may take for what is new at a look, and for what is left at the end of a run."""

_TOLD: Final = frozenset({"task_retrying", "task_held_back", "task_suspended", "task_abandoned_ended"})
_TOLD_AT_MOST: Final = 10_000
_FEW: Final = 1_000
_THRIFT: Final = 20
_SAMPLES: Final = 8
_COLD_S: Final = 1e-4


class Feed:
    """Passes the events of one run on to one observer."""

    def __init__(self, observer: Guarded) -> None:
        self._observer = observer
        self._told: deque[Event] = deque()
        self._dropped = 0  # of what was told
        self._passed_on = 0  # of what was seen
        self._skipped = 0  # of what was seen, about
        # How long the last events took, each. The least of them is what an event takes: the others may have waited
        # for the interpreter's lock, which workers hold for milliseconds.
        self._took: deque[float] = deque(maxlen=_SAMPLES)
        self._deadline = float("inf")
        self._ended: Event | None = None
        self._over = threading.Lock()
        self._over.acquire()
        self._thread: threading.Thread | None = None

    def begin(self, run_state: RunState, started: Event) -> None:
        """Start the thread, for a run in which no task has started yet."""
        collector, context = EventCollector(run_state), contextvars.copy_context()
        thread = threading.Thread(
            target=lambda: context.run(self._serve_all, collector, started),
            name=f"procession-observer-{self._observer.name}",
            daemon=True,  # so that one that is blocked for ever does not hold up the interpreter's exit
        )
        try:
            thread.start()
        except RuntimeError as error:
            log_trouble("observer_failed", started, self._observer.name, error=error, switched_off=True)
        else:
            self._thread = thread

    def tell(self, event: Event) -> None:
        """Queue an event that the columns of the ledger do not show."""
        if event.name in _TOLD:
            if len(self._told) < _TOLD_AT_MOST:
                self._told.append(event)
            else:
                self._dropped += 1

    def end(self, ended: Event) -> None:
        """Take the event that ended the run; from now on the observer has `PATIENCE_S` to catch up."""
        self._ended = ended
        self._deadline = time.perf_counter() + PATIENCE_S
        self._over.release()

    def close(self) -> None:
        """Wait until the observer has been told of the end. One that is blocked is left behind, which is logged."""
        if self._thread is not None and self._ended is not None:
            # The last event may be told as late as the deadline, and may take a while.
            self._thread.join(max(0.0, self._deadline - time.perf_counter()) + PATIENCE_S)
            if self._thread.is_alive():
                log_trouble("observer_left_behind", self._ended, self._observer.name)

    # In the thread

    def _serve_all(self, collector: EventCollector, started: Event) -> None:
        try:
            self._serve(collector, started)
        except BaseException as error:  # not from the observer
            log_trouble("observer_failed", started, self._observer.name, error=error, switched_off=True)

    def _serve(self, collector: EventCollector, started: Event) -> None:
        self._pass_on(started)
        pause = PERIOD_S
        while not self._over.acquire(timeout=pause):
            began = time.perf_counter()
            new = collector.look()
            # Long columns are looked at less often.
            pause = max(PERIOD_S, _THRIFT * (time.perf_counter() - began))
            self._catch_up(collector, new, began + PATIENCE_S)
            if self._observer.off:
                return
        # Where a run has succeeded, it is known without a look how much is left, and that there are no failures.
        left = collector.happened() - self._passed_on - self._skipped if collector.succeeded else 0
        if self._affords(left):
            self._catch_up(collector, collector.look(), self._deadline)
        assert self._ended is not None
        dropped = self._dropped + collector.happened() - self._passed_on
        if dropped:
            log_trouble("events_dropped", self._ended, self._observer.name, dropped=dropped)
        self._pass_on(self._ended.with_dropped(dropped))

    def _catch_up(self, collector: EventCollector, new: int, until: float) -> None:
        told = [self._told.popleft() for _ in range(len(self._told))]
        if self._affords(new):
            moments = collector.moments(told)
        else:
            moments = collector.failures(told)
            self._skipped += new
        on_event, took, before = self._observer.on_event, self._took, time.perf_counter()
        for passed, event in enumerate(collector.events(moments), 1):
            on_event(event)
            now = time.perf_counter()
            took.append(now - before)
            before = now
            if passed == _SAMPLES and not self._affords(len(moments) - passed):
                left = moments[passed:]
                moments[passed:] = filter(collector.matters, left)  # what the loop goes on with
                self._skipped += len(left) - (len(moments) - passed)
            if now > until or now > self._deadline:
                left = moments[passed:]
                self._dropped += sum(map(collector.was_told, left))
                moments = moments[:passed]
                break
        self._passed_on += len(moments) - sum(map(collector.was_told, moments))

    def _affords(self, count: int) -> bool:
        """Return whether the observer is likely to be quick enough for so many events."""
        least = min(self._took)
        # The first calls take several times as long as later ones.
        return count <= _FEW or count * least <= PATIENCE_S or (len(self._took) < _SAMPLES and least < _COLD_S)

    def _pass_on(self, event: Event) -> None:
        began = time.perf_counter()
        self._observer.on_event(event)
        self._took.append(time.perf_counter() - began)
