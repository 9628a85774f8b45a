"""A map whose elements are called elsewhere: one coordinator draws them, and is told how their calls ended."""

import time
from typing import TYPE_CHECKING, Any

from procession._engine.course import Course
from procession._engine.each import WINDOW, MapJob
from procession._model.task import Each, Options

if TYPE_CHECKING:
    from collections.abc import Callable


class DrawnMap(MapJob):
    """The call of one map task. `lazy` says that its elements are drawn from what does not know how many it has."""

    __slots__ = ("end", "function", "index", "lazy", "options", "out", "start")

    def __init__(self, course: Course, index: int, each: Each, options: Options, *, in_order: bool) -> None:
        super().__init__(course, index, each, options, in_order=in_order)
        self.index = index
        self.start: float | None = None
        self.end = time.perf_counter()
        self.function: Callable[..., Any] = each.function
        self.options = options
        self.lazy = True
        self.out = 0
        with self._lock:
            self._enter()
        self.lazy = not self._at_hand

    def draw(self) -> tuple[int, tuple[Any, ...], bytes] | None:
        """Return the next element to call, with its place and digest, or `None` if there is none for now."""
        window = max(WINDOW, 2 * self._course.max_workers)
        while True:
            ahead = self._drawn - self._done
            if self.lazy and ahead >= window and not self._window:
                return None
            self._refill = max(min(self._refill, window - ahead), 1) if self.lazy else WINDOW
            drawn = self._next()
            if drawn is None:
                return None
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

    def left(self, workers: int) -> int:
        """Return how many elements are still to be drawn, as far as is known."""
        if not self.more:
            return 0
        # That there is no more is found out by drawing, too.
        return WINDOW * workers if self.lazy else max(self._length - self._drawn + len(self._window), 1)

    @property
    def more(self) -> bool:
        """Whether there may be something to draw, now or when others have ended."""
        return self._failure is None and (bool(self._window) or not self._exhausted)

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
        self._course.attempts.pop((self._index, place), None)
        self.out -= 1

    def concluded(self) -> list[Any]:
        """Return the results, or raise what became of the map."""
        self._ended = True
        self._course.flush()
        return self._concluded()

    def _over(self, place: int, start: float, end: float) -> None:
        self.out -= 1
        self.start = start if self.start is None else min(self.start, start)
        self.end = max(self.end, end)
        self._count(place)
