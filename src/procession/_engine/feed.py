"""The feed of one taker: where the elements of maps come to it as they end. See `outlet` for what is between them."""

import threading
from collections.abc import Sequence
from math import inf
from typing import Any

from procession._engine.callbacks import breaks_down
from procession._engine.outlet import Outlet, Wake, nothing
from procession._engine.streams import Taker


class Feed:
    """Takes elements, each with what stands at its place in every column: the values of a map, or a list."""

    __slots__ = ("_columns", "_lock", "_outlets", "_own", "goes_on", "reserved", "taker", "wake")

    def __init__(
        self,
        lock: threading.Lock,
        columns: Sequence[Outlet | Sequence[Any]],
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
        self.wake: Wake = nothing
        """What has the taker go on that found nothing."""

    @property
    def can_go_on(self) -> bool:
        """Whether there is anything to take, or it is known that nothing more will come."""
        taker = self.taker
        return taker.ready or taker.over or taker.cut or taker.uneven or taker.closed

    @property
    def arrived(self) -> int:
        """About how many elements may be taken."""
        return self.taker.arrived + max(len(outlet.arrivals) for outlet in self._outlets)

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
