"""The places of the workers of a stage: at most `max_workers` of them make calls at the same time."""

import threading
from collections import deque

from procession._engine.latch import Latch
from procession._engine.worker import Worker


class Places:
    """Counts the workers that have a place, and those that have lent theirs. All but `wait` is called with the lock."""

    __slots__ = ("_most", "_returning", "active", "displaced", "lock")

    def __init__(self, most: int) -> None:
        self.lock = threading.Lock()
        self.active = 0
        """How many workers have a place."""
        self.displaced = 0
        """How many have none, and have not left."""
        self._most = most
        self._returning: deque[tuple[Worker, Latch]] = deque()
        """Those that need one to go on with their call."""

    @property
    def is_full(self) -> bool:
        """Whether there is no place left."""
        return self.active >= self._most

    @property
    def wanted(self) -> bool:
        """Whether a worker with a call waits for a place."""
        return bool(self._returning)

    def vacate(self) -> None:
        """Give a place away: to a worker with a call that waits for one, if there is one."""
        if self._returning:
            worker, granted = self._returning.popleft()
            worker.has_place = True
            self.displaced -= 1
            granted.open()
        else:
            self.active -= 1

    def lend(self, worker: Worker) -> None:
        """Take a worker's place away while it waits, for others to use."""
        if worker.has_place:
            worker.has_place = False
            self.displaced += 1
            self.vacate()

    def regain(self, worker: Worker) -> bool:
        """Give a worker its place back, if there is room; return whether it has one."""
        if not worker.has_place and not self.is_full:
            worker.has_place = True
            self.active += 1
            self.displaced -= 1
        return worker.has_place

    def leave(self, worker: Worker) -> None:
        """Count a worker no more."""
        if worker.has_place:
            self.vacate()
        else:
            self.displaced -= 1

    def await_place(self, worker: Worker) -> Latch:
        """Reserve the next free place for a worker; return a latch that opens when the worker has it."""
        granted = Latch()
        self._returning.append((worker, granted))
        return granted

    def give_up(self, worker: Worker) -> None:
        """End the wait of a worker for a place, as it was abandoned."""
        for waiting in list(self._returning):
            if waiting[0] is worker:
                self._returning.remove(waiting)
                waiting[1].open()
