"""Whose turn it is to start a call where several have some: the ready tasks, and maps."""

from collections import deque

from procession._loop.map import CoroutineMap

_TURN = 16
"""Calls of one map, or tasks, that start before others have their turn."""


class Turns:
    """The ready tasks (`None`) and the maps that may have an element, in turn. The first has its turn."""

    __slots__ = ("_left", "_line")

    def __init__(self) -> None:
        self._line: deque[CoroutineMap | None] = deque([None])
        self._left = _TURN

    def __len__(self) -> int:
        return len(self._line)

    def take(self) -> CoroutineMap | None:
        """Return whose turn it is to start a call."""
        if not self._left:
            self.pass_on()
        self._left -= 1
        return self._line[0]

    def pass_on(self) -> None:
        """Let the next have its turn."""
        self._line.rotate(-1)
        self._left = _TURN

    def put_first(self, coroutine_map: CoroutineMap) -> None:
        """Let a map that begins have its turn at once."""
        coroutine_map.listed = True
        self._line.appendleft(coroutine_map)
        self._left = _TURN

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
            self._left = _TURN
