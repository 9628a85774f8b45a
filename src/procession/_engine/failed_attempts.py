"""The attempts of one run that failed and are followed by others: when each was, and which tasks pause after one.

A call's attempts are made one after another, so nothing of it is written by two threads at the same time.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

from procession._model.attempt import ATTEMPTS, FailedAttempt
from procession._model.record import WHOLE
from procession._model.text import in_a_line


class _Failed(NamedTuple):
    start: float
    end: float
    next_start: float | None
    error: str


class FailedAttempts:
    """The failed attempts of the tasks of a run and, with `elements`, of the elements of its maps."""

    __slots__ = ("_elements", "_failed", "maps", "pausing")

    def __init__(self, *, elements: bool) -> None:
        self._elements = elements
        self._failed: dict[tuple[int, int], list[_Failed]] = {}
        self.pausing: set[int] = set()
        """Tasks that wait for their next attempt."""
        self.maps: set[int] = set()
        """Maps with an element that was attempted again."""

    def add(
        self, index: int, element: int, start: float, error: BaseException | None, end: float | None = None
    ) -> None:
        """Take note that an attempt failed and another one follows.

        `start` is when it began, where it is the first one, and `end` when it ended, if that is not now: readings of
        the clock.
        """
        if element == WHOLE:
            self.pausing.add(index)
        else:
            self.maps.add(index)
            if not self._elements:
                return
        failed = self._failed.setdefault((index, element), [])
        if len(failed) < ATTEMPTS:
            if failed:
                start = failed[-1].next_start or start
            end = time.perf_counter() if end is None else end
            failed.append(_Failed(min(start, end), end, None, "" if error is None else in_a_line(error)))

    def begin(self, index: int, element: int) -> None:
        """Take note that another attempt begins now."""
        self.pausing.discard(index)
        failed = self._failed.get((index, element))
        if failed and failed[-1].next_start is None:
            failed[-1] = failed[-1]._replace(next_start=time.perf_counter())

    def of_task(self, index: int, start: float) -> tuple[FailedAttempt, ...]:
        """Return the failed attempts of a task whose first attempt began at a reading of the clock."""
        until = time.perf_counter() if index in self.pausing else None
        return _since(start, self._failed.get((index, WHOLE), ()), until)

    def take(self, index: int, element: int, start: float) -> tuple[FailedAttempt, ...]:
        """Return the failed attempts of a call as `of_task` does; those of an element are then forgotten."""
        if element == WHOLE:
            return self.of_task(index, start)
        return _since(start, self._failed.pop((index, element), ()))


def _since(start: float, failed: Sequence[_Failed], until: float | None = None) -> tuple[FailedAttempt, ...]:
    """Return attempts from `start` on; a pause that goes on lasts, so far, `until` a reading of the clock."""
    return tuple(
        FailedAttempt(
            max(0.0, one.start - start),
            one.end - one.start,
            max(0.0, (one.next_start or until or one.end) - one.end),
            one.error,
        )
        for one in failed
    )
