"""A map whose elements are called elsewhere: one coordinator draws them, and is told how their calls ended."""

import contextvars
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from procession._engine.call_context import CURRENT_CALL, CallContext
from procession._engine.map import WINDOW, MapJob
from procession._engine.run_state import RunState
from procession._model.outcome import Away
from procession._model.remote_setup import REMOTE_SETUP
from procession._model.task import MapFunction, Options
from procession._model.text import shown
from procession._remote.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable


class RemoteMap(MapJob):
    """The call of one map task. `lazy` says that its elements may be a while in coming.

    They are drawn in a thread then, and no more than so many that have not ended: a source may wait for what becomes
    of those it has given.
    """

    __slots__ = ("_most", "_source", "end", "function", "index", "lazy", "options", "out", "remote_setup", "start")

    def __init__(
        self, run_state: RunState, index: int, map_function: MapFunction, options: Options, *, in_order: bool
    ) -> None:
        super().__init__(run_state, index, map_function, options, in_order=in_order)
        self.index = index
        self.start: float | None = None
        self.end = time.perf_counter()
        self.function: Callable[..., Any] = map_function.function
        self.options = options
        self.lazy = True
        self.out = 0
        self._most = max(WINDOW, 2 * run_state.max_workers)
        self._source: Source | None = None
        with self._lock:
            contextvars.copy_context().run(self._enter)
        self.remote_setup = self._context.get(REMOTE_SETUP)
        self.lazy = not self._at_hand

    def draw(self) -> tuple[int, tuple[Any, ...], bytes] | None:
        """Return the next element to call, with its place and digest, or `None` if there is none for now."""
        while (drawn := self._from_source() if self.lazy else self._at_once()) is not None:
            place, element = drawn
            try:
                digest = self._recall(place, element)
            except Exception as error:  # it has none, or is not the one that was recorded
                self._raised(place, error, time.perf_counter())
            else:
                if digest is not None:
                    self.out += 1
                    return place, element, digest
            self._count(place)
        return None

    def left(self, workers: int) -> int:
        """Return how many elements are still to be drawn, as far as is known."""
        if not self.more:
            return 0
        # That there is no more is found out by drawing, too.
        return WINDOW * workers if self.lazy else max(self._length - self._drawn + len(self._window), 1)

    @property
    def near(self) -> int:
        """How many elements could be called now, as far as is known."""
        if not self.lazy:
            return self.left(1)
        return max(len(self._window), int(self._ahead < self._most)) if self.more else 0

    @property
    def drawing_s(self) -> float:
        """How long it took to draw, in seconds."""
        return self._drawing_s

    @property
    def more(self) -> bool:
        """Whether there may be something to draw, now or when others have ended."""
        exhausted = self._exhausted  # asked first: another thread fills the window, and says so after that
        return self._failure is None and (not exhausted or bool(self._window))

    def returned(self, place: int, digest: bytes, value: object, start: float, end: float) -> None:
        """Take note of what an element's call returned. Raises for a value that cannot be recorded."""
        self._keep(place, digest, value, start)
        self._over(place, start, end)

    def raised(self, place: int, error: BaseException, start: float, end: float) -> None:
        """Take note of what an element's call raised."""
        self._raised(place, error, start)
        self._over(place, start, end)

    def dropped(self, place: int) -> None:
        """Take note that an element that was drawn will not be called."""
        self._cut_short = True
        self._run_state.attempts.pop((self._index, place), None)
        self.out -= 1

    def concluded(self) -> list[Any]:
        """Return the results, or raise what became of the map."""
        self._ended = True
        self.close()
        return self._concluded()

    def close(self) -> None:
        """Draw no more."""
        source, self._source = self._source, None
        if source is not None:
            source.close()

    def _ask(self) -> None:
        """Ask for nobody: there is one who draws."""

    def _iterables(self) -> tuple[Any, ...]:
        # What is drawn from has to be here; its elements may lie elsewhere.
        return tuple(value.fetch() if isinstance(value, Away) else value for value in super()._iterables())

    def _at_once(self) -> tuple[int, tuple[Any, ...]] | None:
        self._refill = WINDOW
        return self._next()

    def _from_source(self) -> tuple[int, tuple[Any, ...]] | None:
        """Return an element that is there already, and see to it that there will be others."""
        for asked in False, True:
            if self._run_state.ledger.halted or self._failure is not None:
                return None
            with suppress(IndexError):
                return self._window.popleft()
            if asked or self._exhausted or self._ahead >= self._most:
                return None
            if self._source is None:
                self._source = self._opened_source()
            self._source.ask()
        return None

    @property
    def _ahead(self) -> int:
        """How many elements are drawn and have not ended."""
        return self._drawn - self._done

    def _opened_source(self) -> Source:
        name = f"procession-{shown(self._run_state.process_name, 40)}-source"
        context = self._run_state.context.copy()
        context.run(CURRENT_CALL.set, CallContext(self._run_state, name, self.index))
        return Source(self._fill, name, context)

    def _fill(self) -> None:
        self._refill = max(min(self._refill, self._most - self._ahead), 1)
        self._refilled()

    def _over(self, place: int, start: float, end: float) -> None:
        self.out -= 1
        self.start = start if self.start is None else min(self.start, start)
        self.end = max(self.end, end)
        self._count(place)
