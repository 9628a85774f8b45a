"""The window of one map: the elements that are drawn and not yet begun, on any engine, and the drawing of others.

iterables, or a Feed ──draw (one thread at a time)──▶ Window ──pop──▶ a call
     room ◀─ Outlet                                     ├──▶ ElementEnds: room in the results, elements that are skipped
                                                        └──▶ MapShares: how long drawing took

What an iterable raises goes to the caller of `draw`. How elements end is none of the window's business.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from operator import length_hint
from typing import Any

from procession._engine.bounded_source import BoundedSource
from procession._engine.element_batches import Element, ElementBatches
from procession._engine.element_ends import ElementEnds
from procession._engine.feed import Feed
from procession._engine.map_shares import MapShares
from procession._engine.outlet import Outlet
from procession._engine.run_state import RunState
from procession._engine.streams import WINDOW, window_of
from procession._model.text import shown
from procession._plan.pipelines import AT_HAND

QUICK_S = 0.001
"""A source that takes longer than this for an element is slow: each element is handed out as soon as it is there."""


class SourceFailed(BaseException):
    """Nothing more can be drawn: an iterable has raised `error`, or the iterables are not equally long."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Window:
    """Elements that are drawn and not begun. The worker that pops one owns it: popping from a deque is atomic.

    Where calls get several elements each (`batches`), the window holds such calls, and what a driver knows as an
    element is one of them: that of its first element, with lists of arguments.
    """

    __slots__ = (
        "_cut_short",
        "_deadline",
        "_dropped",
        "_ends",
        "_is_closed",
        "_is_stopped",
        "_iterator",
        "_ledger",
        "_lock",
        "_max_workers",
        "_name",
        "_outlet",
        "_refill",
        "_shares",
        "_where",
        "asleep",
        "at_hand",
        "batches",
        "drawn",
        "elements",
        "exhausted",
        "feed",
        "length",
    )

    def __init__(
        self,
        run_state: RunState,
        index: int,
        ends: ElementEnds,
        shares: MapShares,
        batches: ElementBatches | None,
        where: str,
    ) -> None:
        self._ledger = run_state.ledger
        self._deadline = run_state.deadline
        self._name = f"procession-{shown(run_state.process_name, 40)}"
        self._max_workers = run_state.max_workers
        self._ends = ends
        self._outlet = ends.outlet
        self._shares = shares
        self._where = where
        self.batches = batches
        """What each call stands for, where calls get several elements."""
        self.feed: Feed | None = None if run_state.streams is None else run_state.streams.feed_of(index)
        """What is drawn from, where the elements come from other maps as they end."""
        self.elements: deque[Element] = deque()
        self.drawn = 0
        """How many elements were drawn."""
        self.length = 0
        """About how many elements there are; 0 where nothing is known."""
        self.exhausted = False
        """Whether all elements are drawn. Set after the last of them is in the window."""
        self.at_hand = self.feed is not None
        """Whether drawing takes no time."""
        self.asleep = False
        """Whether nothing can be drawn until the driver is woken up."""
        self._is_stopped = False
        self._is_closed = False
        """Whether nobody takes the elements any more, nor are they kept."""
        self._cut_short = False
        """Whether elements were to come from other maps, and never will."""
        self._dropped: list[int] = []
        """How many elements were drawn and not called, as nobody took them any more, a number for each call."""
        self._iterator: Iterator[tuple[Any, ...]] | None = None
        self._refill = 1
        self._lock = threading.Lock()  # held while the iterables are drawn from, which may take long

    @property
    def size(self) -> int:
        """How many elements a call has, at most."""
        return 1 if self.batches is None else self.batches.size

    @property
    def most(self) -> int:
        """How many calls may be drawn and not ended."""
        return window_of(self._max_workers, self.size) // self.size

    # Taking elements

    def pop(self) -> Element:
        """Return the next element. Raises `IndexError` if there is none."""
        element = self.elements.popleft()
        return element if self.batches is None else self.batches.opened(element, self._ends.recall)

    def peek(self) -> bool:
        """Return whether there is an element.

        What a slow iterable has given of a batch gets here once the next element is a while in coming.
        """
        if self.batches is not None and not self.elements and self.batches.is_late:
            self.batches.hand_out(self.elements)
        return bool(self.elements)

    # Drawing

    def open(self, iterables: tuple[Iterable[Any], ...]) -> bool:
        """Begin to iterate over what is drawn from; return whether any of it can be drawn from only once."""
        self.length = max(map(_about, iterables))
        self.at_hand = all(type(iterable) in AT_HAND for iterable in iterables)
        iterators = [iter(iterable) for iterable in iterables]
        self._iterator = zip(*iterators, strict=True)
        if self._deadline is not None and not self.at_hand:
            self._iterator = BoundedSource(self._iterator, self._deadline, f"{self._name}-source")
        return any(iterator is iterable for iterator, iterable in zip(iterators, iterables, strict=True))

    def draw(self, most: int = WINDOW, tell: Callable[[], object] | None = None, *, since: int | None = None) -> bool:
        """Draw elements for up to `most` calls; return whether there is an element. Raises `SourceFailed`.

        `since` is the number of elements that had been drawn when there was room for so many calls.

        Nobody waits long for somebody else who draws from a slow source: there may be other tasks, and what comes may
        depend on them. `tell` is called after each element that is drawn, as the next one may be long in coming.
        """
        if not self._lock.acquire(timeout=QUICK_S):
            return self.peek()
        try:
            if self.elements:
                return True
            size = self.size
            most = most * size - (0 if since is None else self.drawn - since)  # others may have drawn meanwhile
            if self._outlet is not None and not self.exhausted:
                most = self._bounded(self._outlet, most)
            if self.exhausted or most <= 0:
                return False
            if self.feed is not None:
                return self._draw_fed(self.feed, min(WINDOW if self.batches is None else size, most))
            most -= most % size  # only the last batch may have fewer
            return bool(most) and self._iterator is not None and self._draw(self._iterator, most, tell)
        finally:
            self._lock.release()

    @property
    def keeps_waiting(self) -> bool:
        """Whether somebody draws from a source that may be slow."""
        return not self.at_hand and self._lock.locked()

    def _draw(self, iterator: Iterator[tuple[Any, ...]], most: int, tell: Callable[[], object] | None) -> bool:
        """Draw from the iterables; return whether they gave anything."""
        start, before = time.perf_counter(), self.drawn
        try:
            if self.at_hand:
                self._draw_all(iterator, min(max(WINDOW // self.size, 1) * self.size, most))
            elif self.batches is not None:
                self._draw_batch(iterator, self.batches, most, tell)
            else:
                self._draw_each(iterator, min(self._refill, most), tell)
        except BaseException as error:
            self.exhausted = True
            raise SourceFailed(self._clear(error)) from None
        finally:
            self._shares.drawing_s += time.perf_counter() - start
        self.note_drawn()
        return self.drawn > before

    def note_drawn(self) -> None:
        """Tell those who take the elements how many there are by now."""
        if self._outlet is not None:
            self._outlet.note_drawn(self.drawn, over=self.exhausted)

    def _draw_all(self, iterator: Iterator[tuple[Any, ...]], wanted: int) -> None:
        drawn: deque[Element] = deque()
        try:
            drawn.extend(enumerate(islice(iterator, wanted), self.drawn))
        finally:  # what came before an error is not lost with it
            self._ends.make_room(self.drawn + len(drawn))
            self.drawn += len(drawn)
            self._put(drawn)
        self.exhausted = len(drawn) < wanted

    def _draw_each(self, iterator: Iterator[tuple[Any, ...]], wanted: int, tell: Callable[[], object] | None) -> None:
        start, before = time.perf_counter(), self.drawn
        quick = True
        for element in islice(iterator, wanted):
            self._ends.make_room(self.drawn + 1)
            self.elements.append((self.drawn, element))
            self.drawn += 1
            if tell is not None:
                tell()
            quick = time.perf_counter() - start < QUICK_S
            if not quick:
                break
        else:
            self.exhausted = self.drawn - before < wanted
        # A slow source gets to hand out each element as soon as there is one.
        self._refill = min(WINDOW, self._refill * 2) if quick else 1

    def _draw_batch(
        self,
        iterator: Iterator[tuple[Any, ...]],
        batches: ElementBatches,
        most: int,
        tell: Callable[[], object] | None,
    ) -> None:
        """Draw a full batch, however long that takes. Meanwhile others may `peek`, and take what is there."""
        before, over = self.drawn, False
        try:
            for element in islice(iterator, most):
                self._ends.make_room(self.drawn + 1)
                gathered = batches.gather((self.drawn, element))
                self.drawn += 1
                if gathered == 1 and tell is not None:
                    tell()
                if gathered >= batches.size or self.stopped:
                    break
            else:
                over = self.drawn - before < most
        finally:
            batches.hand_out(self.elements)
        if over:
            self.exhausted = True  # not before the last is in the window

    def _put(self, elements: Iterable[Element]) -> None:
        self.elements.extend(elements if self.batches is None else self.batches.packed(elements))

    def _clear(self, error: BaseException) -> BaseException:
        if isinstance(error, ValueError) and str(error).startswith("zip() argument"):
            return ValueError(
                f"{self._where}: the iterables of a map must be equally long; "
                f"after {self.drawn} elements, {str(error)[6:]}"
            )
        return error

    # Drawing what other maps hand on

    def _draw_fed(self, feed: Feed, wanted: int) -> bool:
        """Draw what other maps have handed on, until there is an element."""
        while not (self.elements or self.exhausted) and wanted > 0:
            self.asleep = True  # before it is looked: the driver may be woken up right after that
            elements, taker = feed.take(wanted), feed.taker
            if elements:
                self.asleep = False
                self._take(elements)
            elif taker.uneven:
                self.exhausted = True
                raise SourceFailed(ValueError(f"{self._where}: the iterables of a map must be equally long"))
            elif taker.over or taker.cut or taker.closed:
                self.asleep, self.exhausted, self._cut_short = False, True, taker.cut or not taker.over
            else:
                break
            if self._outlet is not None:
                if self._cut_short:
                    self._outlet.cut(waits=taker.waits)
                self._outlet.note_drawn(self.drawn, over=self.exhausted)
                wanted = 0 if self.exhausted else self._bounded(self._outlet, wanted)
        return bool(self.elements)

    def _take(self, elements: list[Element]) -> None:
        """Keep elements that were handed on; those that failed have complemented places, and are skipped."""
        self._ends.make_room_for(elements)
        self.drawn += len(elements)
        failed = [~place for place, _ in elements if place < 0]
        self._put([element for element in elements if element[0] >= 0] if failed else elements)
        for place in failed:
            self._ends.skip(place)

    def _bounded(self, outlet: Outlet, most: int) -> int:
        """Return how many elements may be drawn, of those that would be, so that those who take them keep up."""
        if not outlet.source.wanted:
            self._close()
            return 0
        self.asleep = True  # as in `_draw_fed`
        room = outlet.room(self.drawn)
        if room is None or room > 0:
            self.asleep = False
            return most if room is None else min(most, room)
        return 0

    # The end of drawing

    def rise(self) -> None:
        """Take note that the driver was woken up: there is something to draw, or room, or nobody takes it any more."""
        self.asleep = False
        if self._outlet is not None and not self._outlet.source.wanted and not self.exhausted:
            self._close()

    def stop(self) -> None:
        """Let no other element begin: the map has failed."""
        self._is_stopped = True
        self.elements.clear()

    def end(self) -> None:
        """Take out what somebody was about to fill in as the window was closed."""
        if self._is_closed:
            self._drop()

    def close_feed(self) -> None:
        """Take nothing of other maps any more."""
        if self.feed is not None:
            self.feed.close()

    def let_go(self) -> None:
        """Let go of the iterables: the map has ended."""
        iterator, self._iterator = self._iterator, None
        if isinstance(iterator, BoundedSource):
            iterator.close()

    def _close(self) -> None:
        """Draw nothing more, and begin nothing more: nobody takes it."""
        self._is_closed = True
        self.exhausted = True
        self._drop()
        self.close_feed()

    def _drop(self) -> None:
        """Take out what nobody will call. Others may claim from it meanwhile, and draw."""
        with suppress(IndexError):
            while True:
                _, args = self.elements.popleft()
                self._dropped.append(1 if self.batches is None else len(args[0]))

    # What is left

    @property
    def stopped(self) -> bool:
        """Whether no other element may begin: the run is halted, or the map has failed."""
        return self._ledger.halted or self._is_stopped

    @property
    def nothing_left(self) -> bool:
        """Whether no element is left to begin."""
        exhausted = self.exhausted  # asked first: another thread fills the window, and says so after that
        return self.stopped or (exhausted and not self.elements)

    @property
    def is_closed(self) -> bool:
        """Whether elements are not drawn, or not begun, as nobody takes them any more, nor are they kept."""
        return self._is_closed

    @property
    def is_cut_short(self) -> bool:
        """Whether there are elements that have not begun, and will not."""
        return self._cut_short or self._is_closed or bool(self.elements) or not self.exhausted

    @property
    def called(self) -> int:
        """How many of the elements that were drawn were not dropped."""
        return self.drawn - sum(self._dropped)

    @property
    def total(self) -> int | None:
        """How many elements there are; `None` as long as nobody knows."""
        if self.exhausted:
            return self.called
        return self.length if self.drawn <= self.length > 0 else None


def _about(iterable: object) -> int:
    """Return about how many elements there are; 0 where nothing is known."""
    try:
        return length_hint(iterable)
    except Exception:
        return 0
