"""What is new in a column that workers fill in, each place once."""

from collections.abc import Iterator
from typing import Final

Readings = list[float | None]
"""A reading of the clock for each task, or `None` as long as there is none."""

_BLOCK: Final = 1024
_STEP: Final = 128


class Column:
    """The places of a column from `start` up to and without `stop`, as far as they have been seen.

    It is looked at in blocks. One that is full is never looked at again, and one in which nothing is new costs 1 ns a
    place. The last block comes first: what a task waits for stands before it, so if a place is seen to be filled in,
    those of the tasks that it waited for are too, although each block is copied at another moment.

    >>> readings = [None, 1.0, None]
    >>> column = Column(readings)
    >>> readings[2] = 2.5
    >>> column.look(), list(column.new()), column.is_new(1)
    (1, [2], False)
    >>> column.see()
    >>> column.look(), column.filled()
    (0, 2)
    """

    __slots__ = ("_changed", "_empty", "_full", "_open", "_readings", "_seen", "_start", "_stop")

    def __init__(self, readings: Readings, start: int = 0, stop: int | None = None) -> None:
        self._readings = readings
        self._start = start
        self._stop = len(readings) if stop is None else stop
        self._empty: Readings = [None] * _BLOCK
        # By the index of their first place: blocks that are not full, as they were seen; the last comes first.
        self._seen: dict[int, Readings] = {}
        self._full: set[int] = set()
        self._changed: dict[int, Readings] = {}
        self._open = list(range(start, self._stop, _BLOCK))[::-1]
        self.look()
        self.see()

    def look(self) -> int:
        """Look; return about how many places have been filled in since what was seen: 0 if none have."""
        readings, seen, empty, stop = self._readings, self._seen, self._empty, self._stop
        self._changed = changed = {}
        new = 0
        for first in self._open:
            block = readings[first : min(first + _BLOCK, stop)]
            before = seen.get(first, empty)
            if block != before and (before is not empty or block != empty[: len(block)]):
                changed[first] = block
                step = max(1, min(_STEP, len(block) // 8))
                probes = range(0, len(block), step)
                new += max(1, step * sum(block[place] is not None and before[place] is None for place in probes))
        return new

    def new(self) -> Iterator[int]:
        """Return those places, in order."""
        for first, block in reversed(self._changed.items()):
            before = self._seen.get(first, self._empty)
            for place, reading in enumerate(block):
                if reading is not None and before[place] is None:
                    yield first + place

    def is_new(self, index: int) -> bool:
        """Return whether a place is one of those."""
        first = self._first(index)
        block = self._changed.get(first)
        return (
            block is not None
            and block[index - first] is not None
            and self._seen.get(first, self._empty)[index - first] is None
        )

    def shows(self, index: int) -> bool:
        """Return whether a place is seen to be filled in, now or before."""
        first = self._first(index)
        block = self._changed.get(first) or self._seen.get(first)
        return first in self._full if block is None else block[index - first] is not None

    def put_off(self, index: int) -> None:
        """Leave a place that is new for the next look."""
        first = self._first(index)
        self._changed[first][index - first] = None

    def see(self) -> None:
        """Take all that is new as seen."""
        full = self._full
        before = len(full)
        for first, block in self._changed.items():
            if all(block):  # a reading is never 0
                full.add(first)
                self._seen.pop(first, None)
            else:
                self._seen[first] = block
        if len(full) > before:
            self._open = [first for first in self._open if first not in full]
        self._changed = {}

    def filled(self) -> int:
        """Return how many places are filled in in what was seen."""
        full = sum(min(_BLOCK, self._stop - first) for first in self._full)
        return full + sum(len(list(filter(None, block))) for block in self._seen.values())

    def _first(self, index: int) -> int:
        return index - (index - self._start) % _BLOCK
