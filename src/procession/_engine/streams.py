"""Streams: the elements of maps on their way to the tasks that take them. No thread, no clock, no value, only places.

    drawn ──▶ called ──▶ ended, well or not ──▶ taken by each taker ──▶ let go, if values are not kept
    └─ at most `window` of a source are drawn and not taken by its slowest taker that binds ─┘

A *source* is a map whose elements are taken as they end. A *taker* is a map that has a call for each of them, in any
order, or a task that iterates over them, in order. So that nothing waits without end, a taker binds its sources only
from when it can take: not before it has begun, and not while the task that it belongs to waits for another stream.

A map that takes elements as they end may have drawn many while one is missing that is slow. Where somebody further on
needs that one first, to go on in order or side by side with another map, the window must not be full of later ones by
then. So such a map draws no element that lies a window or more beyond the first that its own takers miss, and any that
does not: however many later ones it drew while nobody bound it.

An element that has failed is taken, too, as nothing: its place is marked by its complement.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from typing import Final

WINDOW: Final = 64
"""Elements of a map that are drawn and not handed on, at most, unless there are more than 16 workers."""


def window_of(max_workers: int, batch: int = 1) -> int:
    """Return how many elements of a map may be drawn and not handed on: four, or two batches, for each worker."""
    return max(WINDOW, max_workers * max(4, 2 * batch))


class Source:
    """The elements of one map, as far as others take them.

    `kept` says whether its values stay for the results, and `in_order` whether anybody further on takes elements in
    order, or side by side with those of another map. Where `batch` are called together, there is room for so many or
    for none, or batches would become ever smaller: there is, at the latest, once all that was drawn is taken.
    """

    __slots__ = (
        "_batch",
        "_forsaken",
        "_held",
        "cut",
        "drawn",
        "fed_by",
        "history",
        "in_order",
        "length",
        "takers",
        "waiting",
        "waits",
        "window",
    )

    def __init__(self, window: int, *, kept: bool, in_order: bool = False, batch: int = 1) -> None:
        self.window = window
        self._batch = batch
        self.in_order = in_order
        self.fed_by: Taker | None = None
        """What takes the elements that are drawn for it, where these must not lie too far ahead."""
        self.drawn = 0
        """How many elements were drawn."""
        self.length: int | None = None
        """How many elements there are in all, once that is known."""
        self.cut = False
        """Whether no other element will end: the map has failed as a whole, or `waits`."""
        self.waits = False
        """Whether what is missing will come when the run goes on: elements wait, here or where these come from."""
        self.waiting = 0
        """How many elements were drawn and left, as they wait. They take no room."""
        self.takers: dict[Taker, int] = {}
        """Those who take its elements, each with the bit by which it knows this source."""
        self.history: list[int] | None = [] if kept else None
        """The elements that have ended, in that order, for takers that come later; `None` where values are let go."""
        self._forsaken = False
        """Whether the last taker has closed."""
        self._held: dict[int, int] = {}
        """Place → how many takers have not taken an element that has ended. Only where values are let go."""

    @property
    def room(self) -> int | None:
        """How many further elements, or places, may be drawn now; `None` if no taker binds the source."""
        if self.in_order:
            below = self.below
            if below is None:
                return None
            if self.fed_by is None:
                return self._for_batches(below - self.drawn)
            first = self.fed_by.first_ahead
            return self.window if first is None else below - first
        taken = [taker.taken for taker in self.takers if taker.binds]
        return self._for_batches(self.window - (self.drawn - self.waiting - min(taken))) if taken else None

    def _for_batches(self, room: int) -> int:
        return room if room >= self._batch else 0

    @property
    def below(self) -> int | None:
        """The place below which elements may be drawn now; `None` where any may."""
        first = [taker.first_missing for taker in self.takers if taker.binds] if self.in_order else None
        return min(first) + self.window if first else None

    @property
    def wanted(self) -> bool:
        """Whether another element is of any use."""
        return self.history is not None or not self._forsaken

    def end(self, places: Sequence[int]) -> list[int]:
        """Take note that elements have ended; return those whose values are to be let go at once."""
        if self.history is not None:
            self.history.extend(places)
        elif len(self.takers) > 1:
            self._held.update(dict.fromkeys((place for place in places if place >= 0), len(self.takers)))
        for taker, bit in self.takers.items():
            taker.arrive(places, bit)
        return [] if self.takers or self.history is not None else [place for place in places if place >= 0]

    def leave(self, taker: "Taker") -> int:
        """Remove a taker; return the bit by which it knew this source."""
        bit = self.takers.pop(taker)
        self._forsaken = not self.takers
        return bit

    def let_go(self, places: Iterable[int]) -> list[int]:
        """Take note that one taker has no use for elements any more; return those whose values are to be let go."""
        if self.history is not None:
            return []
        gone: list[int] = []
        held = self._held
        places = [~place if place < 0 else place for place in places]  # failed elsewhere, it may have a value here
        if not held:
            return places
        for place in places:
            left = held.pop(place, 1) - 1
            if left:
                held[place] = left
            else:
                gone.append(place)
        return gone


class Taker:
    """Takes the elements of sources, each when all of the sources have it: in any order, or `ordered`.

    What it takes it draws for the source `own`, if it is a map that others take elements of.
    """

    __slots__ = (
        "_ahead",
        "_all",
        "_arrived",
        "_beyond",
        "_failed",
        "_lengths",
        "_next",
        "_ordered",
        "_ready",
        "binds",
        "closed",
        "first_missing",
        "own",
        "sources",
        "taken",
    )

    def __init__(
        self,
        sources: Iterable[Source],
        *,
        ordered: bool,
        binds: bool,
        lengths: tuple[int, ...] = (),
        own: Source | None = None,
    ) -> None:
        self.sources = tuple(dict.fromkeys(sources))
        self._lengths = lengths
        self.own = own if own is not None and own.in_order else None
        """The source whose elements must not run ahead of those that others miss."""
        if self.own is not None:
            self.own.fed_by = self
        self.first_missing = 0
        """The first place that was not taken; counted where the order counts for anybody further on."""
        self._beyond: set[int] = set()
        """The places after that which were taken."""
        self.binds = binds
        """Whether the sources wait for this taker."""
        self.taken = 0
        """How many elements were taken, failed ones included."""
        self.closed = False
        self._ordered = ordered
        self._next = 0
        self._ready: deque[int] = deque()
        """What may be taken now, unless it lies too far ahead."""
        self._ahead: list[int] = []
        """The same where anything may lie too far ahead: a heap of places."""
        self._all = (1 << len(self.sources)) - 1
        self._arrived: dict[int, int] = {}
        """What may not be taken yet, as others are missing: the bits of the sources that have it."""
        self._failed: set[int] = set()
        """Which have failed, of what may not be taken yet, or may lie too far ahead."""
        for number, source in enumerate(self.sources):
            source.takers[self] = 1 << number
            self.arrive(source.history or (), 1 << number)

    def arrive(self, places: Sequence[int], bit: int) -> None:
        """Take note that elements of the source with this bit have ended."""
        if self._all > 1:
            for place in places:
                self._arrive(place, bit)
        elif not self._ordered:
            self._put(places)
        else:
            for place in places:
                if place == self._next and not self._arrived:  # as most often
                    self._ready.append(place)
                    self._next += 1
                else:
                    self._arrive(place, bit)

    def _arrive(self, place: int, bit: int) -> None:
        if place < 0:
            place = ~place
            self._failed.add(place)
        arrived = self._arrived
        arrived[place] = arrived.get(place, 0) | bit
        if not self._ordered:
            if arrived[place] == self._all:
                self._make_ready(place)
            return
        while arrived.get(self._next, 0) == self._all:
            self._make_ready(self._next)
            self._next += 1

    def start_over(self) -> int:
        """Count all that was taken; return how many elements these are. For one that takes them in order."""
        place = self._next - len(self._ready)
        self.count(range(self.taken, place))
        return place

    @property
    def ready(self) -> bool:
        """Whether anything may be taken now."""
        return bool(self._ready) or (bool(self._ahead) and not self._is_far(self._ahead[0]))

    @property
    def arrived(self) -> int:
        """How many elements all sources have handed on, and were not taken."""
        return len(self._ready) + len(self._ahead)

    @property
    def held_up(self) -> bool:
        """Whether all that has ended lies too far ahead."""
        return bool(self._ahead) and not self.ready

    @property
    def first_ahead(self) -> int | None:
        """The first place that may lie too far ahead; `None` where nothing does."""
        return self._ahead[0] if self._ahead else None

    @property
    def may_rest(self) -> bool:
        """Whether others may come before the next is taken: not where it is the first, or one of the last."""
        return self.taken > 0 and all(source.length is None for source in self.sources)

    @property
    def over(self) -> bool:
        """Whether all elements were taken."""
        return not (self._ready or self._ahead) and all(source.length == self.taken for source in self.sources)

    @property
    def cut(self) -> bool:
        """Whether what is still missing will not come: a source has failed as a whole, or waits."""
        return not (self._ready or self._ahead) and any(source.cut for source in self.sources)

    @property
    def waits(self) -> bool:
        """Whether that is so as elements wait, and for nothing else."""
        cut = [source for source in self.sources if source.cut]
        return bool(cut) and all(source.waits for source in cut)

    @property
    def uneven(self) -> bool:
        """Whether a source has more elements than another one, or a list beside them, will ever have."""
        known = [source.length for source in self.sources if source.length is not None]
        known += self._lengths
        if not known or (len(self.sources) == 1 and not self._lengths):
            return False
        shortest = min(known)
        return max(known) > shortest or any(source.drawn > shortest for source in self.sources)

    def take(self, most: int, *, counted: bool = True) -> list[int]:
        """Return the places of up to `most` elements; of failed ones complemented. Later `count` them, if not now."""
        if self._ahead:
            self._reach(most)
        next_place = self._ready.popleft
        places = [next_place() for _ in range(min(most, len(self._ready)))]
        if counted:
            self.count(places)
        return places

    def _reach(self, most: int) -> None:
        """Make up to `most` elements ready of those that do not lie too far ahead."""
        ready, ahead, failed = self._ready, self._ahead, self._failed
        below = None if self.own is None else self.own.below
        while ahead and len(ready) < most and (below is None or ahead[0] < below):
            place = heappop(ahead)
            if place in failed:
                failed.remove(place)
                place = ~place
            ready.append(place)

    def count(self, places: Sequence[int]) -> None:
        """Count elements as taken."""
        self.taken += len(places)
        if not self.sources[0].in_order:
            return
        first = self.first_missing
        if self._ordered or (not self._beyond and places == list(range(first, first + len(places)))):
            self.first_missing += len(places)
            return
        for place in places:
            if max(place, ~place) != self.first_missing:
                self._beyond.add(max(place, ~place))
                continue
            self.first_missing += 1
            while self.first_missing in self._beyond:
                self._beyond.remove(self.first_missing)
                self.first_missing += 1

    def unorder(self) -> None:
        """Take elements in any order from now on."""
        self._ordered = False
        for place in sorted(self._arrived):
            self._make_ready(place)

    def close(self) -> list[tuple[Source, list[int]]]:
        """Take nothing any more; return what is to be let go of each source."""
        if self.closed:
            return []
        self.closed = True
        gone: list[tuple[Source, list[int]]] = []
        for source in self.sources:
            bit = source.leave(self)
            arrived = [place for place, bits in self._arrived.items() if bits & bit]
            gone.append((source, source.let_go([*self._ready, *self._ahead, *arrived])))
        self._ready.clear()
        self._ahead.clear()
        self._arrived.clear()
        return gone

    def _make_ready(self, place: int) -> None:
        del self._arrived[place]
        if place in self._failed:
            self._failed.discard(place)
            place = ~place
        self._put((place,))

    def _put(self, places: Sequence[int]) -> None:
        if self.own is None:
            self._ready.extend(places)
            return
        ahead = self._ahead
        for place in places:
            if place < 0:
                self._failed.add(~place)
            heappush(ahead, max(place, ~place))

    def _is_far(self, place: int) -> bool:
        below = None if self.own is None else self.own.below
        return below is not None and place >= below
