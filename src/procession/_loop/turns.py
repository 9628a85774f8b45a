"""Whose turn it is to start a call where several have some: the ready tasks, and maps."""

from collections import deque
from time import perf_counter

from procession._loop.map import CoroutineMap

_TURN = 16
"""Calls of one map, or tasks, that start before others have their turn."""
_TURN_S = 0.001
"""For so many seconds a turn goes on where one call follows another in a slot: they are short, and changing turns takes
longer than some of them."""


class Turns:
    """The ready tasks (`None`) and the maps that may have an element, in turn. The first has its turn."""

    __slots__ = ("_left", "_line", "_since")

    def __init__(self) -> None:
        self._line: deque[CoroutineMap | None] = deque([None])
        self._left, self._since = _TURN, 0.0

    def __len__(self) -> int:
        return len(self._line)

    def take(self, *, follows: bool = False) -> CoroutineMap | None:
        """Return whose turn it is to start a call; `follows` says that it is in the slot of one that has just ended."""
        if not self._left:
            if follows and perf_counter() - self._since < _TURN_S:
                self._left = _TURN
            else:
                self.pass_on()
        self._left -= 1
        return self._line[0]

    def pass_on(self) -> None:
        """Let the next have its turn."""
        self._line.rotate(-1)
        self._begin()

    def put_first(self, coroutine_map: CoroutineMap) -> None:
        """Let a map that begins have its turn at once."""
        coroutine_map.listed = True
        self._line.appendleft(coroutine_map)
        self._begin()

    def put_soon(self, coroutine_map: CoroutineMap) -> None:
        """Let a map that was woken have its turn at once, or next where another turn has just begun."""
        if coroutine_map.listed:
            return
        if perf_counter() - self._since > _TURN_S:
            self.put_first(coroutine_map)
        else:
            coroutine_map.listed = True
            self._line.insert(1, coroutine_map)

    def put(self, coroutine_map: CoroutineMap) -> None:
        """Let a map have its turn, if it is not in the line yet."""
        if not coroutine_map.listed:
            coroutine_map.listed = True
            self._line.append(coroutine_map)

    def remove(self, coroutine_map: CoroutineMap) -> None:
        """Let a map have no turn any more."""
        if coroutine_map.listed:
            coroutine_map.listed = False
            self._line.remove(coroutine_map)
            self._begin()

    def _begin(self) -> None:
        self._left, self._since = _TURN, perf_counter()
