"""Group commit: what workers record is written by whichever of them comes first, for all who came by then.

    worker ──add──▶ queue ──┐
    worker ──add──▶ queue ──┼──▶ the one who holds the lock: one transaction ──▶ each record's `then`
    worker ──add──▶ queue ──┘    the others go on with other tasks

The busier the journal is, the larger the groups. Records are committed in the order in which they were queued, and none
after one that could not be: so no record is ever ahead of what it stands for. Threads need no thread for it; an engine
that has a single one, an event loop or a coordinator, has a `CommitThread` beside it.
"""

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from queue import SimpleQueue
from typing import Any, Final, Generic, Protocol, TypeVar

from procession._model.record import CallRecord, Record, Recorded, WaitKind, WaitRecord

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
    def executions(self) -> int:
        """How many times the run was executed, this time included."""
        ...

    @property
    def recorded(self) -> Mapping[int, Recorded]:
        """What earlier executions recorded of tasks that succeeded, by task."""
        ...

    def elements(self, index: int, places: range | None = None) -> Mapping[int, Recorded]:
        """Return the elements of a map that are recorded as completed, by their place; all, or those of `places`."""
        ...

    def last_element(self, index: int) -> int:
        """Return the place of the last element of a map that an earlier execution recorded, -1 if there is none."""
        ...

    def digests_inside(self, index: int) -> dict[int, bytes]:
        """Return the digests of a map's elements that have made calls or waited in earlier executions, by place."""
        ...

    def forget_inside(self, index: int, element: int) -> None:
        """Delete the calls that an element has made, and what it has waited for."""
        ...

    def forget_elements(self, index: int, start: int) -> None:
        """Delete what is recorded of a map's elements from a place on."""
        ...

    @property
    def calls(self) -> "CallRecords":
        """The records of the calls that tasks of the run make themselves."""
        ...

    @property
    def waits(self) -> "WaitRecords":
        """What tasks of the run wait for."""
        ...

    def decode(self, data: bytes, where: str) -> object:
        """Return a value that was recorded; `where` is named where it cannot be read back. Raises `ResultError`."""
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


class CallRecords(Protocol):
    """The records of the calls that tasks of one run make themselves."""

    def commit(self, group: Sequence[CallRecord], /, *, again: bool = False) -> None:
        """Record all of these or, with an exception, none. `again`: an earlier try may have recorded them after all."""
        ...

    def read(self, index: int, element: int) -> Sequence[CallRecord]:
        """Return the recorded calls of a task, or of an element of a map, by their places."""
        ...

    def forget(self, index: int, element: int, start: int) -> None:
        """Delete the recorded calls of a task, or of an element of a map, from a place on."""
        ...

    def go_on_from(self, index: int, element: int, failed: Collection[int]) -> None:
        """Record that a task, or element, has gone on after these calls have failed."""
        ...


class WaitRecords(Protocol):
    """What the tasks of one run wait for."""

    def begin(
        self, index: int, element: int, kind: WaitKind, name: str, seconds: float | None, element_digest: bytes | None
    ) -> WaitRecord:
        """Return how it stands with what a task, or element, waits for; record that it waits, `seconds` at most."""
        ...

    def forget_answer(self, index: int, element: int, name: str) -> None:
        """Forget the answer that a task, or element, has been given, so that it waits for it anew."""
        ...

    def forget_but(self, index: int, element: int, passed: Collection[tuple[WaitKind, str]]) -> None:
        """Forget what a task, or element, has waited for, but for these."""
        ...

    def ready(self) -> Sequence[tuple[int, int]]:
        """Return the tasks and elements, as `WHOLE` or by their place, that have to wait no longer."""
        ...


class Timed(Protocol):
    """A record that says how long its call took."""

    @property
    def duration(self) -> float:
        """In seconds."""
        ...


R = TypeVar("R", bound=Timed)


class GroupCommit(Generic[R]):
    """Has records committed in groups, in the order in which they were queued.

    Once a group could not be committed, `failed` is called with the reason, and nothing more is until `close`, which
    tries once more. `lost` is called there with the reason and with the records that still could not be committed.
    """

    __slots__ = ("_at_risk", "_at_risk_s", "_count", "_error", "_failed", "_lock", "_lost", "_over", "_queue", "_write")

    def __init__(
        self,
        write: Callable[..., None],
        failed: Callable[[BaseException], object],
        lost: Callable[[BaseException, Sequence[R]], object],
    ) -> None:
        self._write = write
        self._failed = failed
        self._lost = lost
        self._queue: deque[tuple[R, Callable[[], object] | None]] = deque()
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
    def error(self) -> BaseException | None:
        """Why a group could not be committed, if one could not."""
        return self._error

    @property
    def waits(self) -> bool:
        """Whether something is queued and nobody is committing."""
        return self.pending and not self._lock.locked()

    @property
    def busy(self) -> bool:
        """Whether something is queued, and may be committed, or is being committed."""
        return self.pending or self._lock.locked()

    @property
    def behind(self) -> bool:
        """Whether so much has ended and is not committed that no other call may begin."""
        return self._at_risk > AT_RISK and self._at_risk_s > AT_RISK_S and self._error is None

    def room(self, call_s: float, in_flight: int) -> int:
        """Return how many calls may be begun one after another before one of them is committed.

        Each takes `call_s` seconds, and `in_flight` others may end meanwhile.
        """
        calls = max(AT_RISK - self._at_risk, (AT_RISK_S - self._at_risk_s) / max(call_s, 1e-7))
        return int(calls) + 1 - in_flight

    def add(self, record: R, then: Callable[[], object] | None = None) -> None:
        """Queue a record; `then` is called, if given, once it is committed. Does nothing once closed."""
        with self._count:
            self._at_risk += 1
            self._at_risk_s += record.duration
        if not self._over:
            self._queue.append((record, then))

    def offer(self) -> None:
        """Commit what is queued, unless somebody is at it: then that one will."""
        # Looked at again after the release: somebody may have queued a record and found the lock still taken.
        while self.commit_group():
            pass

    def commit_group(self) -> bool:
        """Commit the group that is next; return whether there was one and nobody else was at it."""
        if not (self.pending and self._lock.acquire(blocking=False)):
            return False
        try:
            self._commit_group()
        finally:
            self._lock.release()
        return True

    def flush(self) -> None:
        """Commit what is queued, and return when all that was queued before the call is committed, or can't be."""
        with self._lock:
            self._drain()
        if self._queue:
            self.offer()

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
            self._commit_group(again=again)

    def _commit_group(self, *, again: bool = False) -> None:
        queue = self._queue
        try:
            # They stay in the queue until they are committed: an error of any line here, with no memory left or at
            # Ctrl-C, must not lose one and have later ones committed.
            group = [queue[place] for place in range(min(GROUP, len(queue)))]
            records = [record for record, _ in group]
            took = sum(record.duration for record in records)
            self._write(records, again=True) if again else self._write(records)
            for _ in group:
                queue.popleft()
        except BaseException as error:
            self._error = error
            self._failed(error)
            if not isinstance(error, Exception):
                raise
        else:
            with self._count:
                self._at_risk -= len(group)
                self._at_risk_s -= took
            self._tell(then for _, then in group if then is not None)

    def _tell(self, thens: Iterable[Callable[[], object]]) -> None:
        """Say of each call that it is committed. An error in that stops the run, and of the others it is said, too."""
        for then in thens:
            try:
                then()
            except BaseException as error:
                self._failed(error)


class NoCommits:
    """Stands for the commits of a run that is not recorded: there is nothing to commit."""

    __slots__ = ()

    pending: Final = False
    waits: Final = False
    busy: Final = False
    behind: Final = False

    def offer(self) -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class CommitThread:
    """A thread that commits for an engine whose own thread must not wait for the disk. It is started when needed.

    `committed` is called in it after each group, and `failed` with what else than the journal has failed there.
    """

    __slots__ = ("_asked", "_commits", "_failed", "_lock", "_name", "_thread", "_tokens", "committed")

    def __init__(
        self,
        name: str,
        commits: GroupCommit[Any],
        failed: Callable[[BaseException], object],
    ) -> None:
        self.committed: Callable[[], object] = _nothing
        self._name = name
        self._commits = commits
        self._failed = failed
        self._tokens: SimpleQueue[bool] = SimpleQueue()
        self._asked = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def commit(self) -> None:
        """Ask the thread to commit what is queued; if no thread can be started, commit it here."""
        if self._asked or not self._commits.pending:
            return
        if self._thread is None and not self._start():
            self._commits.offer()
            return
        self._asked = True
        self._tokens.put(True)

    def close(self, *, wait: bool) -> None:
        """End the thread, once it has committed what it is at. Without `wait`, leave it behind."""
        if self._thread is not None:
            self._tokens.put(False)
            if wait:
                self._thread.join()
        self.committed = _nothing  # no cycle may stay

    def _start(self) -> bool:
        """Start the thread, unless another has; return whether there is one."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
                try:
                    self._thread.start()
                except BaseException as error:
                    self._thread = None
                    if isinstance(error, RuntimeError):  # no thread can be started
                        return False
                    raise
        return True

    def _serve(self) -> None:
        while True:
            try:
                if not self._tokens.get():
                    return
                self._asked = False  # before it looks: what is queued later asks again
                while self._commits.commit_group():
                    self.committed()
            except BaseException as error:
                self._asked = False
                self._failed(error)
                self.committed()


def _nothing() -> None:
    pass
