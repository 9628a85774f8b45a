"""The elements of one map that wait for an answer or until a time, and are called again while their run goes on.

an element raises TaskSuspended ──suspend──▶ waiting ──wake──▶ the window of the map ──begin──▶ a call like any other
                                               └── nothing else of the map is left: it is left itself, as it waits

So neither a worker nor the stage waits for them. A map that was left goes on with them where it was.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from procession._engine.element_batches import Element


class _Waiting(NamedTuple):
    element: Element
    digest: bytes
    why: str


class SuspendedElements:
    """What elements of one map wait for. `window` holds the elements of the map that are to be called."""

    def __init__(self, window: deque[Element]) -> None:
        self._window = window
        self.wake_map: Callable[[], object] = _nothing
        """What has a map that was not left look into its window."""
        self._waiting: dict[int, _Waiting] = {}
        self._woken: set[int] = set()
        """Those of them that are in the window."""
        self._is_left = False
        """Whether nothing else of the map is left, nor has it been woken since."""
        self._goes_on = False
        """Whether the map has been woken since it was left, and no worker has come yet."""
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def is_woken(self) -> bool:
        """Whether some of them are in the window."""
        return bool(self._woken)

    def suspend(self, element: Element, digest: bytes, why: str) -> None:
        """Keep an element that was left, as it waits."""
        with self._lock:
            self._waiting[element[0]] = _Waiting(element, digest, why)

    def begin(self, place: int) -> bytes | None:
        """Return the digest of an element that is called again; `None` for any other one."""
        with self._lock:
            self._woken.discard(place)
            waiting = self._waiting.pop(place, None)
        return None if waiting is None else waiting.digest

    def wake(self, places: Iterable[int], resume: Callable[[], bool] | None) -> bool:
        """Put elements that wait into the window, and have the map go on; return whether there are any.

        `resume` makes the task of the map ready again, unless something speaks against that; `None` if the task has not
        been left, as far as is known.
        """
        with self._lock:
            woken = [place for place in places if place in self._waiting and place not in self._woken]
            if not woken or self._is_left != (resume is not None):  # it is being left right now
                return False
            if resume is not None:
                if not resume():
                    return False
                self._is_left, self._goes_on = False, True
            self._woken.update(woken)
            self._window.extend(self._waiting[place].element for place in woken)
        if resume is None:
            self.wake_map()
        return True

    def leave(self) -> dict[int, str]:
        """Take note that nothing else of the map is left; return what elements wait for, by place.

        Those that were woken too late are woken anew when the map goes on.
        """
        with self._lock:
            if self._woken:
                others = [element for element in self._window if element[0] not in self._woken]
                self._window.clear()
                self._window.extend(others)
                self._woken.clear()
            self._is_left = bool(self._waiting)
            return {place: waiting.why for place, waiting in self._waiting.items()}

    def take_up(self) -> bool:
        """Return, once, whether the map goes on that was left."""
        with self._lock:
            goes_on, self._goes_on = self._goes_on, False
            return goes_on

    def close(self) -> None:
        """Wake the map no more: no cycle may stay."""
        self.wake_map = _nothing


def _nothing() -> None:
    pass
