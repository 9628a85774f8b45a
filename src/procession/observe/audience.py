"""All who are told of one run.

tell ──┬──▶ the log                        ┐ at once, where it happens
       ├──▶ observers that are immediate   ┘
       └──▶ a feed for each other observer ──▶ its thread
"""

from collections.abc import Sequence

from procession._model.event import Event
from procession._model.observer import Observer
from procession.observe.books import Books
from procession.observe.feed import Feed
from procession.observe.guard import Guarded
from procession.observe.log import log, verbose


class Audience:
    """The log and the observers of one run. `verbose` says whether some want each start and end told as it happens."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        guarded = [(Guarded(observer), bool(getattr(observer, "immediate", False))) for observer in observers]
        self._immediate = [observer for observer, immediate in guarded if immediate]
        self._feeds = [Feed(observer) for observer, immediate in guarded if not immediate]
        self.verbose = bool(self._immediate) or verbose()

    @property
    def waits(self) -> bool:
        """Whether `end` waits for a thread."""
        return bool(self._feeds)

    def begin(self, books: Books, started: Event) -> None:
        """Say that a run has begun, in which nothing is under way yet."""
        self.tell(started)
        for feed in self._feeds:
            feed.begin(books, started)

    def tell(self, event: Event) -> None:
        """Tell of an event."""
        log(event)
        for observer in self._immediate:
            observer.on_event(event)
        for feed in self._feeds:
            feed.tell(event)

    def end(self, ended: Event) -> None:
        """Say how the run ended; when this returns, everyone has been told of it who is not blocked."""
        self.tell(ended)
        for feed in self._feeds:
            feed.end(ended)
        for feed in self._feeds:
            feed.close()
