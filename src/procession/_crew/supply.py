"""What waits to be sent, in the order in which it is to be.

given back, or due to be retried ─┐
the elements of open maps ────────┼──▶ take ──▶ units that travel together
what is ready in the ledger ──────┘
"""

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import count

from procession._crew.drawn import DrawnMap
from procession._crew.earlier import EARLIER
from procession._crew.unit import Awaited, PlainUnits, Unit
from procession._engine.course import Course
from procession._model.task import PLAIN, Call, Each, is_process
from procession._plan.wiring import bound


class Supply:
    """Claims from the ledger of a course, and keeps what was claimed and not yet sent. Used by one thread."""

    def __init__(self, course: Course) -> None:
        self._course = course
        self._back: deque[Unit] = deque()
        self._later: list[tuple[float, int, Unit]] = []
        self._number = count()
        self._maps: deque[DrawnMap] = deque()
        self.open: set[DrawnMap] = set()
        self.in_order = True
        plan = course.plan
        self._plain = not (plan.options or plan.needs or plan.coroutines or course.verbose)
        self._last: object = None
        self._last_stays = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing, now or later."""
        return not (self._back or self._later or self.open or self._course.ledger.ready)

    @property
    def pause(self) -> float | None:
        """How long until something is to be retried, in seconds."""
        return max(self._later[0][0] - time.perf_counter(), 0.0) if self._later else None

    @property
    def is_hungry(self) -> bool:
        """Whether there is a map whose next element may come at any moment, or be a while in coming."""
        return any(job.lazy for job in self._maps)

    def count(self) -> int:
        """Return about how many calls are there to be sent, now or when others have ended."""
        workers = self._course.max_workers
        return len(self._back) + len(self._course.ledger.ready) + sum(job.left(workers) for job in self._maps)

    @property
    def near(self) -> int:
        """About how many calls could be sent now."""
        return len(self._back) + len(self._course.ledger.ready) + sum(job.near for job in self._maps)

    @property
    def next_stays(self) -> bool:
        """Whether the next task is a process."""
        ready = self._course.ledger.ready
        try:
            return self._back[0].stays if self._back else self._stays(self._course.plan.calls[ready[0]][0])
        except IndexError:
            return False

    def take(self, limit: int) -> Sequence[Unit]:
        """Claim what can travel together, at most so many."""
        if self._plain and not self._back and (plain := self._take_plain(limit)):
            return plain
        units: list[Unit] = []
        while len(units) < limit and (unit := self._next(units)) is not None:
            # A task whose start is told is sent when it is told.
            single = unit.alone or unit.stays or (self._course.verbose and unit.job is None)
            if single and units:
                self._back.appendleft(unit)
                break
            units.append(unit)
            if single:
                break
            if len(units) == 1 and not self.in_order and self._course.recorder is None:
                units += self._followers(unit, limit - 1)
                if len(units) > 1:
                    break
        return units

    def claim(self, unit: Unit) -> None:
        """Claim a call that was made with the one before it, as soon as that has ended and made it ready."""
        with suppress(ValueError):  # nothing is ready any more in a run that was halted
            self._course.ledger.ready.remove(unit.index)

    def give_back(self, units: Sequence[Unit]) -> None:
        """Take back calls that were not begun: they are the first to be sent again."""
        self._back.extendleft(reversed(units))

    def retry(self, unit: Unit, seconds: float) -> None:
        """Keep a call until its next attempt is due."""
        heapq.heappush(self._later, (time.perf_counter() + seconds, next(self._number), unit))

    def due(self) -> Iterator[Unit]:
        """Hand out the calls whose next attempt is due."""
        while self._later and self._later[0][0] <= time.perf_counter():
            yield heapq.heappop(self._later)[2]

    def drop(self) -> Iterator[Unit]:
        """Hand out everything that waits, for nothing is to be sent any more."""
        self._maps.clear()
        while self._back:
            yield self._back.popleft()
        while self._later:
            yield self._later.pop()[2]

    # Inside

    def _take_plain(self, limit: int) -> PlainUnits | None:
        """Claim tasks with nothing to them but the call, if the next ones are such.

        Measured: to claim, send and settle one of many takes the coordinator 1.7 µs; with a unit for each, 3.3.
        """
        calls, ready, indexes = self._course.plan.calls, self._course.ledger.ready, list[int]()
        try:
            while len(indexes) < limit:
                index = ready.popleft()
                if self._stays(calls[index][0]):
                    self._course.ledger.put_back(index)
                    break
                indexes.append(index)
        except IndexError:
            pass
        return PlainUnits(calls, indexes) if indexes else None

    def _followers(self, first: Unit, limit: int) -> list[Unit]:
        """Return the calls that only wait for one another, from the first on: they can be made where that one is.

        So a chain's values stay where they are made, and it does not come back here at each of its links.
        """
        course, plan = self._course, self._course.plan
        units: list[Unit] = []
        index = first.index
        while first.job is None and len(units) < limit:
            after = course.ledger.sole_dependent(index)
            if after is None or after in plan.options or after in plan.coroutines:
                break
            function, args, kwargs = plan.calls[after]
            # What it takes besides has ended before: it waits for nothing else.
            values = {need: EARLIER if need == index else course.ledger.values[need] for need in plan.needs[after]}
            unit = Unit(after, (function, *bound(args, kwargs, values)), PLAIN, stays=self._stays(function))
            if unit.stays:
                break
            unit.follows = True
            units.append(unit)
            index = after
        return units

    def _next(self, before: Sequence[Unit]) -> Unit | None:
        """Claim the next call to send after these."""
        if self._back:
            return self._back.popleft()
        while True:
            unit = self._from_maps()
            if unit is not None or (self.in_order and self.open):
                return unit
            try:
                index = self._course.ledger.ready.popleft()
            except IndexError:
                return None
            function = self._course.plan.calls[index][0]
            if self.in_order and before and (isinstance(function, Each) or index in self._course.plan.needs):
                # What it takes may be the value of one before it, which has not even been sent.
                self._course.ledger.put_back(index)
                return None
            if not isinstance(function, Each):
                call, options = self._course.call(index)
                return Unit(index, self._called(index, call), options, stays=self._stays(function))
            self._open(index, function)

    def _from_maps(self) -> Unit | None:
        for job in list(self._maps):
            drawn = job.draw()
            if drawn is not None:
                place, element, digest = drawn
                call = self._called(job.index, (job.function, element, {}))
                return Unit.of(job, place, call, digest, stays=self._stays(job.function))
            if not job.more:
                self._maps.remove(job)
        return None

    def _open(self, index: int, each: Each) -> None:
        course = self._course
        course.ledger.starts[index] = time.perf_counter()
        course.workers[index] = threading.current_thread().name
        try:
            job = DrawnMap(course, index, each, course.plan.options.get(index, PLAIN), in_order=self.in_order)
        except BaseException as error:
            course.raised(index, error, in_order=self.in_order)
            return
        course.maps[index] = job
        self._maps.append(job)
        self.open.add(job)

    def _stays(self, function: Callable[..., object]) -> bool:
        if function is not self._last:  # the same one over and over is looked at once
            self._last, self._last_stays = function, is_process(function)
        return self._last_stays

    def _called(self, index: int, call: Call) -> Call:
        if index not in self._course.plan.coroutines:
            return call
        function: Callable[..., object] = call[0]
        return (Awaited(function), *call[1:])
