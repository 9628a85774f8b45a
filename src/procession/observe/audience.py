"""All who are told of one run.

tell ──┬──▶ the log                        ┐ at once, where it happens
       ├──▶ observers that are immediate   ┘
       └──▶ a feed for each other observer, and progress ──▶ threads of their own
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from procession._engine.run_state import RunState
from procession._model.event import Event
from procession._model.observer import Observer
from procession.observe.feed import Feed
from procession.observe.guard import Guarded
from procession.observe.log import log, verbose


class Follower(Protocol):
    """Follows a run in a thread of its own."""

    def begin(self, run_state: RunState, started: Event) -> None:
        """Begin to follow a run in which nothing is under way yet."""
        ...

    def tell(self, event: Event) -> None:
        """Take note of what the columns of the ledger do not show, without holding up who tells it."""
        ...

    def end(self, ended: Event) -> None:
        """Take note of the end."""
        ...

    def close(self) -> None:
        """Wait until everything is done, within reason."""
        ...


class Audience:
    """The log and the observers of one run, who may be none.

    `observed` says whether there are observers; `verbose` whether some want each start and end told as it happens.
    """

    def __init__(self, observers: Sequence[Observer], followers: Iterable[Follower] = ()) -> None:
        guarded = [(Guarded(observer), bool(getattr(observer, "immediate", False))) for observer in observers]
        self._immediate = [observer for observer, immediate in guarded if immediate]
        self._followers: list[Follower] = [Feed(observer) for observer, immediate in guarded if not immediate]
        self._followers += followers
        self.observed = bool(guarded)
        self.verbose = bool(self._immediate) or verbose()

    @property
    def waits(self) -> bool:
        """Whether `end` waits for a thread."""
        return bool(self._followers)

    def begin(self, run_state: RunState, started: Event) -> None:
        """Say that a run has begun, in which nothing is under way yet."""
        self.tell(started)
        for follower in self._followers:
            follower.begin(run_state, started)

    def tell(self, event: Event) -> None:
        """Tell of an event."""
        log(event)
        for observer in self._immediate:
            observer.on_event(event)
        for follower in self._followers:
            follower.tell(event)

    def end(self, ended: Event) -> None:
        """Say how the run ended; when this returns, everyone has been told of it who is not blocked."""
        self.tell(ended)
        for follower in self._followers:
            follower.end(ended)
        for follower in self._followers:
            follower.close()


def audience_of(observers: Sequence[Observer], *, progress: bool) -> Audience:
    """Return who is told of a run, with `progress` people too."""
    if not progress:
        return Audience(observers)
    from procession.observe.progress import Display  # for people only

    return Audience(observers, [Display()])
