"""Which calls the tasks of a run have made themselves, for its timeline.

A task may make any number of them. So once there are many, those that are too short to be told apart in a picture of
the whole run are summed up, and there are never more than about `LIMIT`.
"""

import threading
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from procession._model.made_calls import MadeCalls

LIMIT: Final = 2_000
"""Calls, or sums of them, that are kept."""


class CallUnderWay(Protocol):
    """A call that goes on."""

    def so_far(self) -> MadeCalls:
        """Return the call as if it ended now."""
        ...


class CallsMade:
    """The calls that the tasks of a run have made themselves and that have ended, and those that go on."""

    __slots__ = ("_cell", "_full", "_lock", "_made", "under_way")

    def __init__(self) -> None:
        self._made: list[MadeCalls] = []
        self._lock = threading.Lock()
        self._full = LIMIT
        """How many there may be before they are summed up anew."""
        self._cell = 0.0
        """Calls that are shorter than so many seconds are summed up."""
        self.under_way: set[CallUnderWay] = set()
        """The calls that have begun and not ended."""

    def add(self, made: MadeCalls) -> None:
        """Add a call that has ended."""
        self._made.append(made)
        if len(self._made) > self._full:
            with self._lock:
                if len(self._made) > self._full:
                    self._sum_up()

    def read(self) -> list[MadeCalls]:
        """Return what there is by now."""
        return self._made.copy()

    def read_under_way(self) -> list[MadeCalls]:
        """Return the calls that go on, as far as they have come."""
        return [call.so_far() for call in self.under_way.copy()]

    def _sum_up(self) -> None:
        made = self._made.copy()  # others may add to it meanwhile
        count = len(made)
        begin, end = min(one.start for one in made), max(one.end for one in made)
        made.sort(key=lambda one: (one.worker, one.start))
        self._cell = max(self._cell, (end - begin) / LIMIT)
        while len(summed := list(_summed(made, begin, self._cell))) > LIMIT // 4 and self._cell <= end - begin:
            self._cell *= 2
        self._full = max(LIMIT, 2 * len(summed))  # more than that where there were more workers
        self._made[:count] = summed


def _summed(made: Sequence[MadeCalls], begin: float, cell: float) -> Iterator[MadeCalls]:
    """Yield calls, ordered by workers and starts, with those of one worker summed up that begin in one cell."""
    together, here = [made[0]], _place(made[0], begin, cell)
    for one in made[1:]:
        place = _place(one, begin, cell)
        if place is not None and place == here and one.worker == together[0].worker:
            together.append(one)
        else:
            yield _sum(together)
            together, here = [one], place
    yield _sum(together)


def _sum(made: Sequence[MadeCalls]) -> MadeCalls:
    if len(made) == 1:
        return made[0]
    return made[0]._replace(
        attempts=max(one.attempts for one in made),
        end=max(one.end for one in made),
        failed=sum(one.failed for one in made),
        calls=sum(one.calls for one in made),
        busy=sum(one.busy for one in made),
    )


def _place(made: MadeCalls, begin: float, cell: float) -> int | None:
    """Return the cell that a short call begins in, or `None` for one that stands by itself."""
    return int((made.start - begin) / cell) if made.end - made.start < cell else None
