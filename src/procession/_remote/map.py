"""A map whose elements are called elsewhere: the coordinator draws them, and is told how their calls ended.

a list or the like ────────────────────────draw──▶ element ──▶ a call that waits to be sent
anything else ──a thread draws──▶ window ──draw──▶ element ──▶
"""

import contextvars
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from procession._engine.call_context import CURRENT_CALL, CallContext
from procession._engine.element_batches import Element
from procession._engine.map_state import MapState
from procession._engine.run_state import RunState
from procession._engine.streams import WINDOW
from procession._engine.window import QUICK_S
from procession._model.map_share import MapShare
from procession._model.progress import Progress
from procession._model.remote_setup import REMOTE_SETUP
from procession._model.task import MapFunction, Options
from procession._model.text import shown
from procession.errors import WorkersUnavailableError

if TYPE_CHECKING:
    from procession._model.outcome import NotKept


class RemoteMap:
    """Drives the state of one map. For the coordinator's thread only.

    Of a source that may take its time, at most `max(64, 4 * max_workers)` elements, or two batches for each worker, are
    drawn and have not ended: it may wait for what becomes of those that it has given. Of elements of over a megabyte
    these are two for each worker. Of a source that is at hand, so many may pause between two attempts, and those in the
    batches that are under way come on top.
    """

    __slots__ = (
        "_most",
        "_run_state",
        "_source",
        "_window",
        "end",
        "index",
        "out",
        "pausing",
        "remote_setup",
        "start",
        "state",
    )

    def __init__(
        self, run_state: RunState, index: int, map_function: MapFunction, options: Options, *, in_order: bool
    ) -> None:
        self.index = index
        self.state = MapState(run_state, index, map_function, options, in_order=in_order)
        self._window = self.state.window
        self.out = 0
        """How many elements were handed out and have not ended."""
        self.pausing = 0
        """How many of these wait for their next attempt."""
        self.start: float | None = None
        """When the first call began."""
        self.end = time.perf_counter()
        """When the last call ended."""
        self._run_state = run_state
        self._most = self._window.most
        self._source: _Source | None = None
        context = contextvars.copy_context()
        context.run(self.state.open, self.end)
        self.remote_setup = context.get(REMOTE_SETUP)

    @property
    def lazy(self) -> bool:
        """Whether its elements may be a while in coming."""
        return not self._window.at_hand

    @property
    def sleeps(self) -> bool:
        """Whether nothing can be drawn until others hand elements on, or take some of this map, which wakes it."""
        return self._window.asleep and not self.lazy

    @property
    def progress(self) -> Progress:
        """How far the map has come, in elements."""
        return self.state.progress

    @property
    def total(self) -> int | None:
        """How many elements there are; `None` as long as nobody knows."""
        return self._window.total

    def draw(self) -> tuple[int, tuple[object, ...], bytes] | None:
        """Return the next element to call, with its place and digest, or `None` if there is none for now."""
        while self.pausing < self._most and (drawn := self._next()) is not None:
            place, element = drawn
            try:
                digest = self.state.begin(place, element)
            except Exception as error:  # it has none, or is not the one that was recorded
                count = self.state.raised(place, error, time.perf_counter())
                self.state.shares.join(threading.current_thread().name).count(count, failed=True)
            else:
                if digest is not None:
                    self.out += 1
                    return place, element, digest
        return None

    def draw_less(self) -> None:
        """Draw fewer elements ahead from now on, as they are large."""
        if self.lazy:
            self._most = min(self._most, 2 * self._run_state.max_workers)

    def left(self, workers: int) -> int:
        """Return about how many elements are still to be drawn, where others need not end first."""
        window = self._window
        if window.nothing_left or self._is_full:
            return 0
        if window.asleep:
            return len(window.elements)
        if self.lazy:
            return WINDOW * workers
        # That there is no more is found out by drawing, too.
        left = -((window.drawn - window.length) // window.size) if window.feed is None else window.feed.arrived
        if self.state.outlet is not None:
            left = min(left, self._most - self.out)
        return max(left + len(window.elements), 1)

    @property
    def near(self) -> int:
        """About how many elements could be called now."""
        return min(self.left(1), max(len(self._window.elements), 1)) if self.lazy else self.left(1)

    def ended(self, start: float, end: float) -> None:
        """Count an element whose call has ended, well or not, and keep when it began and ended."""
        self.out -= 1
        self.start = start if self.start is None else min(self.start, start)
        self.end = max(self.end, end)

    def drop(self) -> None:
        """Count an element that was handed out and will not be called."""
        self.out -= 1
        self.state.drop()

    def share(self, worker: str, start: float, end: float) -> MapShare:
        """Return the part of a worker that comes to the map with the call that began and ended then."""
        share = MapShare(self.index, worker, start, end)
        self.state.shares.add(share)
        self._run_state.map_shares.append(share)
        return share

    def conclude(self) -> "list[object] | NotKept":
        """Return the results, or raise what the map came to."""
        self.close()
        self.state.shares.end()
        return self.state.conclude()

    def close(self) -> None:
        """Draw no more."""
        source, self._source = self._source, None
        if source is not None:
            source.close()

    @property
    def _is_full(self) -> bool:
        """Whether some elements have to end before another one may be drawn."""
        if not self.lazy:
            return self.pausing >= self._most
        return not self._window.elements and self.out >= self._most

    def _next(self) -> Element | None:
        """Return an element that is there; where that may take its time, see to it that there will be others."""
        window = self._window
        if not self.lazy:
            return self.state.claim()
        for asked in False, True:
            if window.stopped:
                return None
            window.peek()
            with suppress(IndexError):
                return window.pop()
            if asked or window.exhausted or window.asleep or self._is_full:
                return None
            if self._source is None:
                self._source = self._open_source()
            self._source.ask(self._most - self.out)
        return None

    def _open_source(self) -> "_Source":
        name = f"procession-{shown(self._run_state.process_name, 40)}-source"
        context = self._run_state.context.copy()
        context.run(CURRENT_CALL.set, CallContext(self._run_state, name, self.index))
        return _Source(self.state, name, context)


class _Source:
    """A thread that draws each time it is asked to, while the coordinator goes on."""

    __slots__ = ("_answered", "_asked", "_busy", "_most", "_over", "_quick", "_state", "_thread")

    def __init__(self, state: MapState, name: str, context: contextvars.Context) -> None:
        self._state = state
        self._most = 1
        self._asked = threading.Semaphore(0)
        self._answered = threading.Event()
        self._busy = False
        self._over = False
        self._quick = True
        self._thread = threading.Thread(target=context.run, args=(self._serve,), name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise WorkersUnavailableError(f"no thread could be started to draw from an iterable: {error}") from None

    def ask(self, most: int) -> None:
        """Draw up to `most` elements in the thread. Return when they are there if that is quick, else at once."""
        if not self._busy:
            self._busy = True
            self._most = most
            self._answered.clear()
            self._asked.release()
        if self._quick:
            self._quick = self._answered.wait(QUICK_S)

    def close(self) -> None:
        """End the thread, and wait for the element that it is drawing: nobody can stop that."""
        self._over = True
        self._asked.release()
        self._thread.join()

    def _serve(self) -> None:
        while not self._over:
            try:
                self._asked.acquire()
                if self._over:
                    return
                start = time.perf_counter()
                self._state.draw(self._most)
                self._quick = time.perf_counter() - start < QUICK_S
                self._busy = False
                self._answered.set()
            except BaseException as error:  # not from the iterables
                self._busy = False
                self._state.fail(error)
