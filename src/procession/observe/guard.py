"""Keeps the errors of an observer away from the run."""

import threading

from procession._model.event import Event
from procession._model.observer import Observer
from procession.observe.log import log_trouble

FAILURES = 3
"""How often an observer may raise in one run before it is told nothing more."""


class Guarded:
    """Passes events on to an observer, and logs what the observer raises instead of raising it."""

    __slots__ = ("_failures", "_on_event", "name")

    def __init__(self, observer: Observer) -> None:
        self._on_event = observer.on_event
        self._failures = 0
        self.name = type(observer).__name__

    @property
    def off(self) -> bool:
        """Whether the observer has raised so often that it gets no more events."""
        return self._failures >= FAILURES

    def on_event(self, event: Event) -> None:
        """Tell the observer of an event."""
        if self._failures >= FAILURES:
            return
        try:
            self._on_event(event)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise  # of the user, not of the observer
            self._failures += 1
            log_trouble("observer_failed", event, self.name, error=error, switched_off=self.off)
