"""The observers of one run, its log, and its progress display.

tell ──┬──▶ the log                        ┐ at once, where it happens
       ├──▶ observers that are immediate   ┘
       └──▶ a feed for each other observer, and progress ──▶ threads of their own
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from procession._engine.run_state import RunState
from procession._model.event import Event, EventName
from procession._model.observer import Observer
from procession.observe.feed import Feed
from procession.observe.guard import Guarded
from procession.observe.log import DEBUG_EVENTS, is_logged, log, verbose


class Follower(Protocol):
    """Follows a run in a thread of its own."""

    def begin(self, run_state: RunState, started: Event) -> None:
        """Begin to follow a run in which no task has started yet."""
        ...

    def tell(self, event: Event) -> None:
        """Take an event that the columns of the ledger do not show; returns at once."""
        ...

    def end(self, ended: Event) -> None:
        """Take the event that ended the run; returns at once."""
        ...

    def close(self) -> None:
        """Wait until the last event has been passed on, for a few seconds at most."""
        ...


class Audience:
    """The log and the observers of one run; there may be no observers.

    `observed` says whether there are observers; `verbose` says whether each start and end is an event as it happens.
    """

    def __init__(self, observers: Sequence[Observer], followers: Iterable[Follower] = ()) -> None:
        guarded = [(Guarded(observer), bool(getattr(observer, "immediate", False))) for observer in observers]
        self._immediate = [observer for observer, immediate in guarded if immediate]
        self._followers: list[Follower] = [Feed(observer) for observer, immediate in guarded if not immediate]
        self._followers += followers
        self.observed = bool(guarded)
        debugged = verbose()
        self.verbose = bool(self._immediate) or debugged
        # Events of which a run may have two for each task: whether they are logged is asked once.
        self._not_logged = frozenset[EventName]() if debugged else DEBUG_EVENTS

    @property
    def waits(self) -> bool:
        """Whether `end` waits for a thread."""
        return bool(self._followers)

    def hears(self, name: EventName) -> bool:
        """Return whether an event is wanted by anyone: by an observer, or by the log."""
        return self.observed or self.waits or is_logged(name)

    def begin(self, run_state: RunState, started: Event) -> None:
        """Tell the observers that a run has begun, in which no task has started yet."""
        self.tell(started)
        for follower in self._followers:
            follower.begin(run_state, started)

    def tell(self, event: Event) -> None:
        """Pass an event on to the log and to all observers."""
        if event.name not in self._not_logged:
            log(event)
        for observer in self._immediate:
            observer.on_event(event)
        for follower in self._followers:
            follower.tell(event)

    def end(self, ended: Event) -> None:
        """Tell the observers how the run ended; on return, all have been told that are not blocked."""
        self.tell(ended)
        for follower in self._followers:
            follower.end(ended)
        for follower in self._followers:
            follower.close()


def audience_of(observers: Sequence[Observer], *, progress: bool) -> Audience:
    """Return the audience of a run; with `progress`, a display of its progress is part of it."""
    if not progress:
        return Audience(observers)
    from procession.observe.progress import Display  # for people only

    return Audience(observers, [Display()])
