"""Group commit: what workers record is written by whichever of them comes first, for all who came by then.

    worker ──add──▶ queue ──┐
    worker ──add──▶ queue ──┼──▶ the one who holds the lock: one transaction ──▶ each record's `then`
    worker ──add──▶ queue ──┘    the others go on with other tasks

There is no thread for it, and the busier the journal is, the larger the groups. Records are committed in the order in
which they were queued, and none after one that could not be: so no record is ever ahead of what it stands for.
"""

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from procession._model.record import Record, Recorded

GROUP = 1000
"""Records in one transaction, at most."""

AT_RISK = 64
"""Calls that have ended and are not committed, at most, when another call begins: a crash makes them again."""
AT_RISK_S = 0.02
"""The same in seconds that these calls took, where that allows more of them."""


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

    @property
    def encode_elsewhere(self) -> Callable[[object], bytes] | None:
        """What does the same as `encode` in another process, to bytes that `pickle.loads` reads; `None` if nothing."""
        ...

    def commit(self, group: Sequence[Record], /, *, again: bool = False) -> None:
        """Record all of these or, with an exception, none. `again`: an earlier try may have recorded them after all."""
        ...


class GroupCommit:
    """Has records committed in groups, in the order in which they were queued.

    Once a group could not be committed, `failed` is called with the reason, and nothing more is until `close`, which
    tries once more. `lost` is called there with the reason and with the records that still could not be committed.
    """

    __slots__ = ("_at_risk", "_at_risk_s", "_count", "_error", "_failed", "_lock", "_lost", "_over", "_queue", "_write")

    def __init__(
        self,
        write: Callable[..., None],
        failed: Callable[[BaseException], object],
        lost: Callable[[BaseException, Sequence[Record]], object],
    ) -> None:
        self._write = write
        self._failed = failed
        self._lost = lost
        self._queue: deque[tuple[Record, Callable[[], object] | None]] = deque()
        self._lock = threading.Lock()  # held by the one who commits
        self._count = threading.Lock()
        self._at_risk = 0
        self._at_risk_s = 0.0
        self._error: BaseException | None = None
        self._over = False

    @property
    def pending(self) -> bool:
        """Whether something is queued that nobody has begun to commit, and that somebody may."""
        return bool(self._queue) and self._error is None

    @property
    def waits(self) -> bool:
        """Whether something is queued and nobody is committing."""
        return self.pending and not self._lock.locked()

    @property
    def behind(self) -> bool:
        """Whether so much has ended and is not committed that no other call may begin."""
        return self._at_risk > AT_RISK and self._at_risk_s > AT_RISK_S and self._error is None

    def add(self, record: Record, then: Callable[[], object] | None = None) -> None:
        """Queue a record; `then` is called, if given, once it is committed. Does nothing once closed."""
        with self._count:
            self._at_risk += 1
            self._at_risk_s += record.duration
        if not self._over:
            self._queue.append((record, then))

    def offer(self) -> None:
        """Commit what is queued, unless somebody is at it: then that one will."""
        # Looked at again after the release: somebody may have queued a record and found the lock still taken.
        while self.pending and self._lock.acquire(blocking=False):
            try:
                self._drain()
            finally:
                self._lock.release()

    def flush(self) -> None:
        """Commit what is queued, and return when all that was queued before the call is committed, or can't be."""
        with self._lock:
            self._drain()

    def close(self) -> None:
        """Commit what is left, trying once more where it could not be, and take nothing more."""
        interruption: BaseException | None = None
        with self._lock:
            try:
                self._drain()
            except BaseException as ctrl_c:  # what has ended is to be recorded all the same
                interruption = ctrl_c
            again, self._error = self._error, None
            if again is not None:
                self._drain(again=True)
            self._over = True
            error = self._error
            records = [record for record, _ in self._queue]
            self._queue.clear()
        try:
            if error is not None:
                self._lost(error if again is None else again, records)
            if interruption is not None:
                raise interruption
        finally:
            interruption = None  # no cycle may stay

    def _drain(self, *, again: bool = False) -> None:
        while self._queue and self._error is None:
            group = [self._queue.popleft() for _ in range(min(GROUP, len(self._queue)))]
            records = [record for record, _ in group]
            try:
                self._write(records, again=True) if again else self._write(records)
            except BaseException as error:
                self._queue.extendleft(reversed(group))
                self._error = error
                self._failed(error)
                if not isinstance(error, Exception):
                    raise
            else:
                took = sum(record.duration for record in records)
                with self._count:
                    self._at_risk -= len(group)
                    self._at_risk_s -= took
                for _, then in group:
                    if then is not None:
                        then()
