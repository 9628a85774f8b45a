"""Group commit: what workers record is written by whichever of them comes first, for all who came by then.

    worker ──add──▶ queue ──┐
    worker ──add──▶ queue ──┼──▶ the one who holds the lock: one transaction ──▶ each record's `then`
    worker ──add──▶ queue ──┘    the others go on with other tasks

Nobody waits for a write of another, there is no thread for it, and the busier the journal is, the larger the groups.
"""

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from procession._model.record import Record, Recorded

GROUP = 1000
"""Records in one transaction, at most."""


class Recorder(Protocol):
    """What an engine needs of a journal: one run's way into it."""

    @property
    def allow_changes(self) -> bool:
        """Whether a call that is another than the recorded one is made, rather than refused."""
        ...

    @property
    def recorded(self) -> Mapping[int, Recorded]:
        """What earlier executions recorded of tasks that ended well, by task."""
        ...

    def elements(self, index: int) -> Mapping[int, Recorded]:
        """Return what earlier executions recorded of a map's elements that ended well, by their place."""
        ...

    def last_element(self, index: int) -> int:
        """Return the place of the last element of a map that an earlier execution recorded, -1 if there is none."""
        ...

    def forget_elements(self, index: int, start: int) -> None:
        """Delete what is recorded of a map's elements from a place on."""
        ...

    def encode(self, value: object) -> bytes:
        """Return a value as it will be recorded. Raises for one that cannot be, or that could not be read back."""
        ...

    def commit(self, group: Sequence[Record], /) -> None:
        """Record all of these or, with an exception, none."""
        ...


class GroupCommit:
    """Has records committed in groups. `broken` is told of a group that could not be, and why."""

    __slots__ = ("_broken", "_lock", "_queue", "_write")

    def __init__(
        self, write: Callable[[Sequence[Record]], None], broken: Callable[[BaseException, Sequence[Record]], None]
    ) -> None:
        self._write = write
        self._broken = broken
        self._queue: deque[tuple[Record, Callable[[], object]]] = deque()
        self._lock = threading.Lock()

    @property
    def pending(self) -> bool:
        """Whether something is queued that nobody has begun to commit."""
        return bool(self._queue)

    def add(self, record: Record, then: Callable[[], object]) -> None:
        """Queue a record; `then` is called once it is committed."""
        self._queue.append((record, then))

    def offer(self) -> None:
        """Commit what is queued, unless somebody is at it: then that one will."""
        # Looked at again after the release: somebody may have queued a record and found the lock still taken.
        while self._queue and self._lock.acquire(blocking=False):
            try:
                self._drain()
            finally:
                self._lock.release()

    def flush(self) -> None:
        """Commit what is queued, and return when all that was queued before the call is committed."""
        with self._lock:
            self._drain()

    def _drain(self) -> None:
        while self._queue:
            group = [self._queue.popleft() for _ in range(min(GROUP, len(self._queue)))]
            records = [record for record, _ in group]
            try:
                self._write(records)
            except BaseException as error:
                self._broken(error, records)
                if not isinstance(error, Exception):
                    raise
            else:
                for _, then in group:
                    then()
