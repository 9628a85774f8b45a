"""The outlet of one map: where its elements leave it while the run goes on, for those who take them.

    map ──hand_on──▶ Outlet ──settle──▶ Source ─ Taker ──take──▶ Feed ──▶ a map, or a task that iterates
     ▲                 └──rouse: wake those who found nothing──────▶│
     └──────────────wake: there is room again──────────────────────┘

Whoever ends an element appends its place and looks whether anybody is asleep: both are atomic. Whoever finds nothing
says first that he is asleep, and then looks once more. So neither can miss the other, and an element takes no lock.
Where all that has ended lies too far ahead for those who are asleep, only an element that lies less far wakes them.
All else is decided by `streams` under the one lock of the run, which no code of the user runs under. What is raised
there breaks the run down: somebody could wait without end for an element that was lost.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Protocol, cast

from procession._engine.callbacks import breaks_down
from procession._engine.streams import Source, Taker

_QUICK_S = 0.001
"""A map that was woken up so lately is not woken up for a single element."""

Results = list[Any] | dict[int, Any]


class Wake(Protocol):
    """A function that has somebody go on."""

    def __call__(self) -> object: ...


class Waiting(Protocol):
    """What an outlet knows of a feed, which takes its elements and may wait for them."""

    @property
    def taker(self) -> Taker:
        """The places of what it takes."""
        ...

    @property
    def wake(self) -> Wake:
        """What has the taker go on that found nothing."""
        ...

    @property
    def can_go_on(self) -> bool:
        """Whether there is anything to take, or it is known that nothing more will come."""
        ...

    @property
    def below(self) -> float:
        """The place from which on an element is of no use, as all that has ended lies too far ahead."""
        ...

    def rise(self) -> None:
        """Take note that the taker is not asleep any more, nor does it rest."""
        ...

    def note_held_up(self) -> None:
        """Where all that has ended lies too far ahead, have those who take elements of its map wake it."""
        ...

    def reaches_further(self) -> bool:
        """Return whether the taker is asleep and can go on, as others have taken elements of its map."""
        ...

    def wake_resting(self) -> None:
        """Wake those who rest and take elements of its map, where that has to wait for them."""
        ...


class Outlet:
    """Hands the elements of one map on to those who take them."""

    __slots__ = (
        "_end_run",
        "_lock",
        "_woken_at",
        "arrivals",
        "asleep",
        "below",
        "feed",
        "full",
        "over",
        "reserved",
        "resting",
        "results",
        "source",
        "waits_for_caller",
        "wake",
    )

    def __init__(self, lock: threading.Lock, source: Source, break_down: Callable[[BaseException], object]) -> None:
        self._lock = lock
        self._woken_at = 0.0
        self._end_run = break_down
        self.source = source
        self.results: Results = [] if source.history is not None else {}
        """The values of the map; where they are not kept, those that are still to be taken."""
        self.arrivals: deque[int] = deque()
        """The places of elements that have ended and are not settled; those of failed ones are complemented."""
        self.asleep: list[Waiting] = []
        """Those who found nothing to take."""
        self.resting: list[Waiting] = []
        """Those who look again soon by themselves, and are woken only where the map has to wait for them."""
        self.below = inf
        """The place from which on an element is of no use to those who are asleep."""
        self.feed: Waiting | None = None
        """What takes the elements that are drawn for the map, if it takes those of others."""
        self.over = False
        """Whether the run is over."""
        self.full = False
        """Whether the map waits for others to take elements before it draws another one."""
        self.wake: Wake = nothing
        """What has the map drawn from again."""
        self.reserved: Waiting | None = None
        """The feed of the caller of the run, for whom the map waits."""
        self.waits_for_caller = False
        """Whether that is so now, and the stage is not to end though nothing is being called."""

    @breaks_down
    def hand_on(self, place: int) -> None:
        """Take note that an element has ended; the place of a failed one is complemented."""
        self.arrivals.append(place)
        if self.asleep and max(place, ~place) < self.below:
            self.rouse()

    def restore(self, values: Sequence[object]) -> None:
        """Restore the values of a map that is recorded as completed: all of its elements have ended."""
        self.results = dict(enumerate(values))
        self.arrivals.extend(range(len(values)))
        self.note_drawn(len(values), over=True)

    @breaks_down
    def rouse(self) -> None:
        """Wake those who can go on now."""
        woken: list[Waiting] = []
        with self._lock:
            further = True
            while further:
                self.settle()
                ready = [feed for feed in self.asleep if feed.can_go_on]
                for feed in ready:
                    feed.rise()
                for feed in self.asleep:
                    feed.note_held_up()
                woken += ready
                further = self.reach_further() and bool(self.arrivals)
            held_up = list(self.asleep)
        for feed in woken:
            feed.wake()
        for feed in held_up:
            feed.wake_resting()

    def room(self, drawn: int) -> int | None:
        """Return how many further elements may be drawn; `None` where nobody keeps the map from drawing.

        Where there is no room, the map will be woken up once there is.
        """
        try:
            with self._lock:
                self.source.drawn = drawn
                self.settle()
                source = self.source
                room = None if source.in_order and source.fed_by else source.room  # else `take` holds it back
                if room is None or room > 0:
                    self.full = self.waits_for_caller = False
                    return room
                self.fill_up()
            self.wake_resting()
        except BaseException as error:
            self.break_down(error)
            raise
        return room

    @breaks_down
    def note_drawn(self, drawn: int, *, over: bool) -> None:
        """Take note of how many elements were drawn, and whether there will be no other one."""
        source = self.source
        source.drawn = drawn
        if over and source.length is None:
            with self._lock:
                if not source.cut:  # else there are others, which will never come
                    source.length = drawn
                self.waits_for_caller = False
                resting = list(self.resting)
            self.rouse()
            for feed in resting:
                feed.wake()

    @breaks_down
    def cut(self, *, waits: bool = False) -> None:
        """Take note that what has not ended will not: the map has failed as a whole, or `waits`."""
        source = self.source
        with self._lock:
            source.waits = waits and (source.waits or not source.cut)
            source.cut = True
        self.rouse()

    @breaks_down
    def hold_back(self, count: int) -> None:
        """Take note that an element more waits, or, with -1, one less."""
        with self._lock:
            self.source.waiting += count
            has_room = self.has_room_again(at_once=True)
        if has_room:
            self.wake_up()

    @breaks_down
    def wake_up(self) -> None:
        """Continue drawing from the map, as there is room for more elements."""
        self.wake()
        if self.reserved is not None:
            with self._lock:
                self.waits_for_caller = self.full and not self.reserved.taker.closed

    def wake_resting(self) -> None:
        """Wake those who rest, where the map has to wait for them."""
        if self.full:
            for feed in list(self.resting):
                feed.wake()

    def break_down(self, error: BaseException) -> None:
        """End the run with an error of its own."""
        self._end_run(error)

    def end(self) -> None:
        """Let go of all that the run refers to as well, as it is over: no cycle may stay."""
        self.wake, self._end_run, self.reserved, self.feed = nothing, nothing, None, None
        self.asleep, self.resting = [], []

    # With the lock held

    def fill_up(self) -> None:
        """Take note that the map has to wait until others take elements."""
        self.full = True
        self.waits_for_caller = self.reserved is not None and not self.reserved.taker.closed

    def reach_further(self) -> bool:
        """See how far those reach who are asleep; return whether that is further: there may be arrivals for them."""
        before, self.below = self.below, max([feed.below for feed in self.asleep], default=inf)
        return self.below > before

    def settle(self) -> None:
        """Pass on what has ended."""
        arrivals, source = self.arrivals, self.source
        while arrivals:
            next_place = arrivals.popleft
            self.let_go(source.end([next_place() for _ in range(len(arrivals))]))

    def let_go(self, places: Sequence[int]) -> None:
        """Drop the values of elements that nobody needs any more; those that have failed here have none."""
        results = cast("dict[int, Any]", self.results)
        for place in places:
            results.pop(place, None)

    def has_room_again(self, *, at_once: bool) -> bool:
        """Return whether the map is to be woken up, as there is room again; `at_once` for a single element, too."""
        if not self.full:
            return False
        room, now = self.source.room, time.perf_counter()
        if room is not None and not (self.feed is not None and self.feed.reaches_further()):
            if room <= 0:
                return False
            if not at_once and 2 * room < self.source.window and now - self._woken_at < _QUICK_S:
                return False  # it would be back at once
        self.full, self._woken_at = False, now
        return True


def nothing(_: BaseException | None = None) -> None:
    """Do nothing, in place of what is called no more."""
