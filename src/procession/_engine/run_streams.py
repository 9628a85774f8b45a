"""The streams of one run: the outlet of each map whose elements others take as they end, and the feeds of those."""

import threading
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, cast

from procession._engine.feed import Feed
from procession._engine.outlet import Outlet, nothing
from procession._engine.streams import Source, window_of
from procession._model.handle import Handle, index_of
from procession._model.task import PLAIN, MapFunction
from procession._plan.pipelines import streams_in
from procession._plan.plan import Plan


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
            self.feeds[index] = self._feeds_of(index, taken)

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

    def leave(self, index: int) -> bool:
        """Cut off a map of which elements wait, until the run goes on; return whether it had not been cut off."""
        outlet = self.outlets.get(index)
        if outlet is None or outlet.source.cut:
            return False
        outlet.cut(waits=True)
        return True

    def is_cut(self, index: int) -> bool:
        """Return whether those who take the elements of a map have been told that no other one will come."""
        outlet = self.outlets.get(index)
        return outlet is not None and outlet.source.cut

    def are_asleep(self, calls: int) -> bool:
        """Return whether so many calls of tasks are asleep in their streams, and the caller of the run if it is one."""
        tasks = [feed for index, feeds in self.feeds.items() if not self._plan.is_map(index) for _, feed in feeds]
        with self._lock:
            outlets = self.outlets.values()
            asleep = {feed for outlet in outlets for feed in outlet.asleep}
            waited_for = {outlet.reserved for outlet in outlets if outlet.waits_for_caller}
            return waited_for <= asleep and len(asleep.intersection(tasks)) == calls

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
                feed.wake = nothing

    def _feeds_of(self, index: int, taken: Sequence[int]) -> list[tuple[int, Feed]]:
        plan = self._plan
        edges = set(plan.edges.get(index, ()))
        # Those begin that wait for nothing else; a limit may hold one back until others have ended.
        limited = bool(plan.options.get(index, PLAIN).limit) and not plan.is_map(index)
        binds = {source for source in taken if not limited and edges <= set(plan.edges.get(source, ()))}
        if plan.is_map(index):
            return [(taken[0], self._feed_of_map(index, binds=len(binds) == len(taken)))]
        return [
            (source, self._feed_of_task(source, binds=source in binds))
            for source in streams_in(plan.calls[index])
            if source in taken
        ]

    def _feed_of_task(self, source: int, *, binds: bool) -> Feed:
        outlet = self.outlets[source]
        return Feed(self._lock, (outlet,), ordered=True, binds=binds, goes_on=outlet.source.history is None)

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
