"""Progress of a run for people, shown while it goes on.

    ledger, maps ──polled, 10 times a second──▶ Meter ──▶ readings ──▶ screen
    failures, retries ──tell──▶ deque ──────────────────▶ lines ────▶ screen

It is not an observer, since it needs no events: that is what makes it cheap. A run of less than `DELAY_S` is over
before a user could read anything, and shows nothing.
"""

import logging
import sys
import threading
import time
from collections import deque
from typing import Final

from procession._engine.run_state import RunState
from procession._model.columns import shortened
from procession._model.event import Event
from procession._model.record import WHOLE
from procession._model.text import counted, in_a_line
from procession.observe.log import log_trouble
from procession.observe.meter import Meter
from procession.observe.screen import Screen, screen_for
from procession.observe.stopping import stopping

DELAY_S: Final = 0.2
PERIOD_S: Final = 0.1

_THRIFT: Final = 20
_AT_ONCE: Final = 10
_PATIENCE_S: Final = 2.0


class Display:
    """Shows the progress of one run on the standard error stream, or in a notebook."""

    def __init__(self) -> None:
        self._stream = sys.stderr
        self._said: deque[Event] = deque(maxlen=_AT_ONCE)
        self._count = 0
        self._over = threading.Lock()
        self._over.acquire()
        self._ended: Event | None = None
        self._stopping = False
        self._thread: threading.Thread | None = None

    def begin(self, run_state: RunState, started: Event) -> None:
        """Begin to show the run."""
        thread = threading.Thread(
            target=self._serve, args=(run_state, started), name="procession-progress", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            log_trouble("observer_failed", started, "progress", error=error, switched_off=True)
        else:
            self._thread = thread

    def tell(self, event: Event) -> None:
        """Keep a failure, to be shown at the next update."""
        if event.name in ("task_failed", "task_retrying"):
            self._count += 1
            self._said.append(event)

    def end(self, ended: Event) -> None:
        """Show that the run is over."""
        self._ended = ended
        self._over.release()

    def close(self) -> None:
        """Wait until the last state is shown, or for a while: the terminal may be stopped."""
        if self._thread is not None:
            self._thread.join(_PATIENCE_S)

    # In the thread

    def _serve(self, run_state: RunState, started: Event) -> None:
        began = time.perf_counter()
        meter = Meter(run_state)
        meter.read(began)
        if self._over.acquire(timeout=DELAY_S):
            return
        try:
            screen = screen_for(self._stream)
            try:
                while True:
                    self._tell_all(screen, run_state)
                    self._tell_of_halt(screen, run_state)
                    now = time.perf_counter()
                    screen.show(meter.read(now), now - began)
                    # Of a run of millions of tasks, even a look takes a while.
                    if self._over.acquire(timeout=max(PERIOD_S, _THRIFT * (time.perf_counter() - now))):
                        break
                self._tell_all(screen, run_state)
            finally:
                now = time.perf_counter()
                screen.close(meter.read(now), now - began)
        except Exception as error:
            log_trouble("observer_failed", started, "progress", error=error, switched_off=True)

    def _tell_of_halt(self, screen: Screen, run_state: RunState) -> None:
        """Say once what a cancelled run waits for, and what another Ctrl-C does."""
        if self._stopping or not run_state.ledger.cancelled:
            return
        self._stopping = True
        line = stopping(run_state, by_key=run_state.by_key)
        if line is not None:
            screen.say(line)

    def _tell_all(self, screen: Screen, run_state: RunState) -> None:
        """Print what failed since the last time, unless the program shows its log, which has it already."""
        if not self._count or _log_is_shown():
            return
        count, self._count = self._count, 0
        events = [self._said.popleft() for _ in range(len(self._said))]
        if count > len(events):
            screen.say(f"… {counted(count - len(events), 'more failure')}")
        for event in events:
            label = None
            if event.index is not None:
                label = run_state.label(event.index, WHOLE if event.element is None else event.element)
            screen.say(_told(event, label))


def _told(event: Event, label: str | None) -> str:
    name = "" if event.task_name is None else f" ({shortened(label or event.task_name, 40)})"
    element = "" if event.element is None else f", element {event.element}"
    attempt = f", attempt {event.attempt}" if event.attempt != 1 or event.name == "task_retrying" else ""
    error = "" if event.error is None else f": {in_a_line(event.error)}"
    more = " · trying again" if event.name == "task_retrying" else ""
    return f"{shortened(event.process_name, 40)}: task {event.index}{name}{element}{attempt} failed{error}{more}"


def _log_is_shown() -> bool:
    """Return whether a handler prints the library's log."""
    logger: logging.Logger | None = logging.getLogger("procession")
    while logger is not None:
        for handler in logger.handlers:
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                return True
        logger = logger.parent if logger.propagate else None
    return False
