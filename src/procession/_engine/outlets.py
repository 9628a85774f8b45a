"""Where the elements of maps go while a run goes on: from the outlet of one map to the feeds of those who take them.

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
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from math import inf
from typing import Any, cast

from procession._engine.callbacks import breaks_down
from procession._engine.streams import Source, Taker, window_of
from procession._model.handle import Handle, index_of
from procession._model.task import PLAIN, MapFunction
from procession._plan.pipelines import streams_in
from procession._plan.plan import Plan

_QUICK_S = 0.001
"""A map that was woken up so lately is not woken up for a single element."""

Results = list[Any] | dict[int, Any]


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
        self.asleep: list[Feed] = []
        """Those who found nothing to take."""
        self.resting: list[Feed] = []
        """Those who look again soon by themselves, and are woken only where the map has to wait for them."""
        self.below = inf
        """The place from which on an element is of no use to those who are asleep."""
        self.feed: Feed | None = None
        """What takes the elements that are drawn for the map, if it takes those of others."""
        self.over = False
        """Whether the run is over."""
        self.full = False
        """Whether the map waits for others to take elements before it draws another one."""
        self.wake: Callable[[], object] = _nothing
        """What has the map drawn from again."""
        self.reserved: Feed | None = None
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
        woken: list[Feed] = []
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
    def cut(self) -> None:
        """Take note that the map has failed as a whole: what has not ended never will."""
        with self._lock:
            self.source.cut = True
        self.rouse()

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
        self.wake, self._end_run, self.reserved, self.feed = _nothing, _nothing, None, None
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


class Feed:
    """Takes elements, each with what stands at its place in every column: the values of a map, or a list."""

    __slots__ = ("_columns", "_lock", "_outlets", "_own", "goes_on", "reserved", "taker", "wake")

    def __init__(
        self,
        lock: threading.Lock,
        columns: Sequence["Outlet | Sequence[Any]"],
        *,
        ordered: bool,
        binds: bool,
        own: Outlet | None = None,
        reserved: bool = False,
        goes_on: bool = False,
    ) -> None:
        self.goes_on = goes_on
        """Whether a task that is called again takes the rest from here, as what it has taken is not kept."""
        self.reserved = reserved
        """Whether it was there before the run began, for the caller, so that the map may wait for it."""
        self._lock = lock
        self._columns = columns
        self._outlets = list({id(column): column for column in columns if isinstance(column, Outlet)}.values())
        lengths = tuple(len(column) for column in columns if not isinstance(column, Outlet))
        sources = [outlet.source for outlet in self._outlets]
        self._own = own
        self.taker = Taker(
            sources, ordered=ordered, binds=binds, lengths=lengths, own=None if own is None else own.source
        )
        if own is not None:
            own.feed = self
        self.wake: Callable[[], object] = _nothing
        """What has the taker go on that found nothing."""

    @property
    def can_go_on(self) -> bool:
        """Whether there is anything to take, or it is known that nothing more will come."""
        taker = self.taker
        return taker.ready or taker.over or taker.cut or taker.uneven or taker.closed

    def take(self, most: int, *, counted: bool = True, rests: bool = False) -> list[tuple[int, tuple[Any, ...]]]:
        """Return up to `most` elements: their places and values. Failed ones have no values, and complemented places.

        Where there are none, the taker will be woken up once there are, or there is nothing more to come. One that
        `rests` is woken only where a map has to wait for it, until it calls `fall_asleep`.
        """
        try:
            with self._lock:
                rests = rests and self.taker.may_rest
                places = self._places(most, counted=counted, rests=rests)
                taken = self._taken(places)
                for outlet in self._outlets if places else ():
                    outlet.let_go(outlet.source.let_go(places))
                woken = self._with_room(at_once=not places)
            for outlet in woken:
                outlet.wake_up()
            self.wake_resting()
        except BaseException as error:
            self.break_down(error)
            raise
        return taken

    def fall_asleep(self) -> bool:
        """Let a taker that has rested be woken up by its next element; return `False` if it can continue now."""
        try:
            with self._lock:
                return not self._goes_on(rests=False)
        except BaseException as error:
            self.break_down(error)
            raise

    def wake_resting(self) -> None:
        """Wake those who rest and take elements of the map that this feed is of, where that has to wait for them."""
        if self._own is not None:
            self._own.wake_resting()

    def note_taken(self, places: Sequence[int]) -> None:
        """Count elements as taken that were not counted before, and wake maps that wait for that."""
        self.taker.count(places)
        if any(outlet.full for outlet in self._outlets):
            self._wake_sources()

    @breaks_down
    def _wake_sources(self) -> None:
        with self._lock:
            woken = self._with_room(at_once=False)
        for outlet in woken:
            outlet.wake()

    @breaks_down
    def bind(self, *, binds: bool = True) -> None:
        """Set whether the maps wait for this taker."""
        with self._lock:
            self.taker.binds = binds
            woken = [] if binds else self._with_room(at_once=True)
        for outlet in woken:
            outlet.wake_up()

    def start_over(self) -> int:
        """Count all that earlier calls of a task have taken; return how many elements these are."""
        place = self.taker.start_over()
        self._wake_sources()
        return place

    @breaks_down
    def close(self) -> None:
        """Take nothing any more."""
        with self._lock:
            for outlet in self._outlets:
                outlet.settle()
            gone = self.taker.close()
            for source, places in gone:
                next(outlet for outlet in self._outlets if outlet.source is source).let_go(places)
            self.rise()
            woken = self._outlets if gone else []
            for outlet in woken:
                outlet.full = False
                if outlet.over and not outlet.source.takers:
                    outlet.results = {}
        for outlet in woken:
            outlet.wake_up()

    def break_down(self, error: BaseException) -> None:
        """End the run with an error of its own."""
        self._outlets[0].break_down(error)

    # With the lock held

    def _with_room(self, *, at_once: bool) -> list[Outlet]:
        return [outlet for outlet in self._outlets if outlet.full and outlet.has_room_again(at_once=at_once)]

    def note_held_up(self) -> None:
        """Where all that has ended lies too far ahead, have those who take elements of this map wake it."""
        if self._own is not None and self.taker.held_up:
            self._own.fill_up()

    @property
    def below(self) -> float:
        """The place from which on an element is of no use, as all that has ended lies too far ahead."""
        own = self.taker.own
        below = own.below if own is not None and self.taker.held_up else None
        return inf if below is None else below

    def reaches_further(self) -> bool:
        """Return whether the taker is asleep and can go on, as others have taken elements of its map."""
        further = False
        for outlet in self._outlets:
            if self in outlet.asleep and outlet.reach_further() and outlet.arrivals:
                outlet.settle()
                further = True
        return further and self.can_go_on

    def rise(self) -> None:
        """Take note that the taker is not asleep any more, nor does it rest."""
        for outlet in self._outlets:
            for waiting in (outlet.asleep, outlet.resting):
                if self in waiting:
                    waiting.remove(self)

    def _taken(self, places: list[int]) -> list[tuple[int, tuple[Any, ...]]]:
        columns = [column.results if isinstance(column, Outlet) else column for column in self._columns]
        if len(columns) == 1:
            column = columns[0]
            return [(place, (column[place],) if place >= 0 else ()) for place in places]
        return [(place, tuple([column[place] for column in columns]) if place >= 0 else ()) for place in places]

    def _places(self, most: int, *, counted: bool, rests: bool) -> list[int]:
        if not self._goes_on(rests=rests) or self.taker.uneven:
            return []
        return self.taker.take(most, counted=counted)

    def _goes_on(self, *, rests: bool) -> bool:
        """Return whether the taker can go on; else it rests, or is asleep, from now on."""
        self.rise()
        while True:
            for outlet in self._outlets:
                outlet.settle()
            if self.can_go_on:
                return True
            self.note_held_up()
            for outlet in self._outlets:
                (outlet.resting if rests else outlet.asleep).append(self)
                outlet.reach_further()
            if rests or not (any(outlet.arrivals for outlet in self._outlets) or self.can_go_on):
                return False
            self.rise()


class Streams:
    """The outlets and feeds of one run: what leaves a map for each task that takes its elements as they end."""

    __slots__ = ("_closed", "_lock", "_ordered", "_plan", "_reserved", "feeds", "outlets")

    def __init__(self, plan: Plan, max_workers: int, break_down: Callable[[BaseException], object]) -> None:
        self._plan = plan
        self._lock = threading.Lock()
        self._closed = False
        unkept = plan.unkept
        self._ordered = plan.followed & set(unkept)
        """The maps that wait for the caller of the run to take their elements in order."""
        in_order = _in_order(plan, self._ordered)
        takers: dict[int, list[int]] = {}
        for taker, taken in plan.streams.items():
            for source in taken:
                takers.setdefault(source, []).append(taker)

        def batch_of(index: int) -> int:
            function = plan.calls[index][0]
            return (function.batch if isinstance(function, MapFunction) else None) or 1

        self.outlets = {
            index: Outlet(
                self._lock,
                Source(
                    window_of(max_workers, max(batch_of(index), *map(batch_of, takers.get(index, ())), 1)),
                    kept=index not in unkept or bool(unkept[index]),  # for a task that takes the whole list
                    in_order=index in in_order,
                    batch=batch_of(index),
                ),
                break_down,
            )
            for index in plan.outlets
        }
        self.feeds: dict[int, list[tuple[int, Feed]]] = {}
        """For each task that takes elements: a feed for each stream among its arguments, with the map it comes from;
        for each map that does: one feed, of all maps that it takes."""
        for index, taken in plan.streams.items():
            edges = set(plan.edges.get(index, ()))
            # Those begin that wait for nothing else; a limit may hold one back until others have ended.
            limited = bool(plan.options.get(index, PLAIN).limit) and not plan.is_map(index)
            binds = {source for source in taken if not limited and edges <= set(plan.edges.get(source, ()))}
            if plan.is_map(index):
                self.feeds[index] = [(taken[0], self._feed_of_map(index, binds=len(binds) == len(taken)))]
            else:
                self.feeds[index] = [
                    (
                        source,
                        Feed(
                            self._lock,
                            (self.outlets[source],),
                            ordered=True,
                            binds=source in binds,
                            goes_on=self.outlets[source].source.history is None,
                        ),
                    )
                    for source in streams_in(plan.calls[index])
                    if source in taken
                ]

        # A map whose values are not kept waits for the caller. Of the others, the caller may come when all is over.
        self._reserved = {
            index: Feed(
                self._lock, (self.outlets[index],), ordered=True, binds=index in unkept, reserved=index in unkept
            )
            for index in plan.followed
        }
        for index, feed in self._reserved.items():
            if feed.reserved:
                self.outlets[index].reserved = feed

    def restore(self, index: int, values: object) -> None:
        """Take for ended a task that an earlier execution has recorded: it takes nothing, and has handed on all."""
        for _, feed in self.feeds.get(index, ()):
            feed.close()
        outlet = self.outlets.get(index)
        if outlet is not None:
            outlet.restore(cast("list[object]", values))

    def feed_of(self, index: int) -> Feed | None:
        """Return the feed of a map; `None` if it takes no elements of others as they end."""
        feeds = self.feeds.get(index)
        return None if feeds is None else feeds[0][1]

    def follow(self, index: int, *, ordered: bool = True) -> Feed | None:
        """Return another feed of a map: the one that was reserved, if there is one. `None` if the run is over."""
        reserved = self._reserved.pop(index, None)
        if reserved is not None:
            if not ordered:
                self._unorder(index, reserved)
            return reserved
        with self._lock:
            return None if self._closed else Feed(self._lock, (self.outlets[index],), ordered=ordered, binds=False)

    def _unorder(self, index: int, reserved: Feed) -> None:
        """Let the caller take elements in any order; maps whose order nobody else needs stop keeping it."""
        with self._lock:
            reserved.taker.unorder()
            self._ordered -= {index}
            in_order = _in_order(self._plan, self._ordered)
            for each, outlet in self.outlets.items():
                outlet.source.in_order = each in in_order
            woken = [outlet for outlet in self.outlets.values() if outlet.has_room_again(at_once=True)]
        for outlet in woken:
            outlet.wake_up()

    def fail(self, index: int) -> None:
        """Take note that a task has failed: it takes nothing more, and what it has not handed on will never come."""
        self.end_taking(index)
        outlet = self.outlets.get(index)
        if outlet is not None and outlet.source.length is None:
            outlet.cut()

    def end_taking(self, index: int) -> None:
        """Take note that a task takes nothing more."""
        for _, feed in self.feeds.get(index, ()):
            feed.close()

    def has_lost(self, index: int) -> bool:
        """Return whether a task has ended taking elements that are not kept: their map may have been cancelled then."""
        return any(feed.goes_on and feed.taker.closed for _, feed in self.feeds.get(index, ()))

    def open(self, index: int) -> list[tuple[int, Feed]]:
        """Return the feeds of a task that is to be called: those that were there from the start, or new ones."""
        anew = [(source, self.follow(source) if feed.taker.closed else feed) for source, feed in self.feeds[index]]
        feeds = self.feeds[index] = [(source, feed) for source, feed in anew if feed is not None]
        return feeds

    @property
    def wait_for_caller(self) -> bool:
        """Whether a map waits for the caller of the run to take elements."""
        return any(outlet.waits_for_caller for outlet in self.outlets.values())

    def halt(self) -> None:
        """Wake all who wait for elements, or were to be woken up when the run broke down: nothing new may start."""
        with self._lock:
            waiting = {feed for outlet in self.outlets.values() for feed in (*outlet.asleep, *outlet.resting)}
            waiting.update(feed for feeds in self.feeds.values() for _, feed in feeds)
            for feed in waiting:
                feed.rise()
            held_up = [outlet for outlet in self.outlets.values() if outlet.waits_for_caller]
        for feed in waiting:
            feed.wake()
        for outlet in held_up:
            outlet.wake()

    def close(self) -> None:
        """Wake all who wait for elements, as the run is over, and let go of them: no cycle may stay."""
        self.halt()
        with self._lock:
            self._closed = True
            for outlet in self.outlets.values():
                outlet.over = True
                if not outlet.source.takers:
                    outlet.results = {}  # the caller has them
        for outlet in self.outlets.values():
            outlet.end()
        for feeds in self.feeds.values():
            for _, feed in feeds:
                feed.wake = _nothing

    def _feed_of_map(self, index: int, *, binds: bool) -> Feed:
        columns: list[Outlet | Sequence[Any]] = []
        for value in self._plan.calls[index][1]:
            if type(value) is Handle:
                columns.append(self.outlets[index_of(value)])
            else:
                items: Iterable[Any] = value
                columns.append(items if isinstance(items, Sequence) else list(items))
        return Feed(self._lock, columns, ordered=False, binds=binds, own=self.outlets.get(index))


def _in_order(plan: Plan, followed: AbstractSet[int]) -> set[int]:
    """Return the maps of which somebody further on takes elements in order, or side by side with another map.

    Of those that are `followed`, the caller of the run does.
    """
    found = set(followed)
    for index in sorted(plan.streams, reverse=True):
        taken = plan.streams[index]
        if len(taken) > 1 or not plan.is_map(index) or index in found:
            found.update(taken)
    return found


def _nothing(_: BaseException | None = None) -> None:
    pass
