"""What the recorded calls of all tasks of one run share: the way into its journal, and their limits.

    a task in a thread ──commit──────────▶ GroupCommit ──▶ journal
    a coroutine ────────commit_beside──▶ CommitThread ──▶ GroupCommit

A call has returned, for its task, only when its record is committed.
"""

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from procession._engine.admission import Admission
from procession._engine.call_attempts import AttemptingRun, limits_held
from procession._engine.calls_made import CallsMade
from procession._engine.commit import CallRecords, CommitThread, GroupCommit, WaitRecords
from procession._model.event import EventName
from procession._model.limit import Limits
from procession._model.made_calls import MadeCalls
from procession._model.record import CallRecord
from procession._model.task import Options
from procession._model.text import shown
from procession._plan.identity import called, qualified
from procession.errors import TaskCancelled

if TYPE_CHECKING:
    import asyncio


class RunOfCalls(AttemptingRun, Protocol):
    """What recorded calls need of the run."""

    max_workers: int
    verbose: bool
    """Whether somebody is to be told of each start and end."""
    open_elements: dict[tuple[int, int], bytes]
    """The digests of elements of maps that were drawn in a recorded run and have not ended, by task and place."""
    refusals: dict[tuple[int, int], BaseException]
    """How tasks and elements end, whatever they return: they were refused a call, or are left, as they wait."""

    def report(
        self,
        name: EventName,
        index: int,
        attempt: int,
        duration: float | None,
        error: BaseException | None = None,
        element: int | None = None,
        call: tuple[int, str] | None = None,
    ) -> None:
        """Tell of something that happened to a task, or to a call that it makes itself, by its place and name."""
        ...

    def moment(self, reading: float) -> float:
        """Return the seconds since the epoch that a reading of the clock stands for."""
        ...

    def interrupt(self, error: BaseException) -> None:
        """Stop the run, because of an error that is not a task's."""
        ...


class CallsRecorder(Protocol):
    """What recorded calls need of the way into a journal."""

    @property
    def allow_changes(self) -> bool:
        """Whether a call that is another than the recorded one is made, rather than refused."""
        ...

    @property
    def executions(self) -> int:
        """How many times the run was executed, this time included."""
        ...

    @property
    def calls(self) -> CallRecords:
        """The records of the calls."""
        ...

    @property
    def waits(self) -> WaitRecords:
        """What the tasks wait for."""
        ...

    def encode(self, value: object) -> bytes:
        """Return a value as it will be recorded. Raises `ResultError`."""
        ...

    def decode(self, data: bytes, where: str) -> object:
        """Return a value that was recorded. Raises `ResultError`."""
        ...


class RunCalls:
    """What the recorded calls of all tasks of one run share: the way into its journal, and the limits.

    `options` are those of the tasks, by place. `later` and `break_down` are as for `Admission`; without `later` there
    are no limits here. `is_worker` says whether a worker of a name is the thread, or coroutine, that calls it.
    """

    def __init__(
        self,
        run: RunOfCalls,
        recorder: CallsRecorder | None,
        options: Mapping[int, Options],
        later: Callable[[float, Callable[[], object]], object] | None,
        break_down: Callable[[BaseException], object],
        is_worker: Callable[[str], bool] | None = None,
    ) -> None:
        self.run = run
        self.is_worker = is_named if is_worker is None else is_worker
        self.recorder = recorder
        self.made = CallsMade()
        """What is shown of them."""
        self._options = options
        self._later = later
        self._break_down = break_down
        self._lock = threading.Lock()
        self._admission: Admission | None = None
        self._made: set[tuple[int, int]] = set()
        """The tasks and elements that have made calls in this execution of the run."""
        self._waiting: set[Callable[[], object]] = set()
        """For each coroutine that waits for a commit: what wakes it."""
        self._named: tuple[object, str] = None, ""
        self._closed = False
        self.records = None if recorder is None else recorder.calls
        self._commits: GroupCommit[CallRecord] | None = None
        if self.records is not None:
            self._commits = GroupCommit(self.records.commit, self._failed, _nothing)
            name = f"procession-{shown(run.process_name, 40)}-calls"
            self._thread = CommitThread(name, self._commits, self._failed)

    def full_name(self, function: Callable[..., Any]) -> str:
        """Return the full name of a function; calls that follow each other are often of one."""
        last, name = self._named
        if last is not function:
            name = qualified(function)
            self._named = function, name
        return name

    def recorded(self, index: int, element: int) -> dict[int, CallRecord]:
        """Return the records of the calls that a task, or an element, has made itself, by place."""
        place = index, element
        first = place not in self._made
        self._made.add(place)
        if self.recorder is None or self.records is None or (first and self.recorder.executions == 1):
            return {}
        return {record.call: record for record in self.records.read(index, element)}

    def element_digest(self, index: int, element: int) -> bytes | None:
        """Return the digest of an element that makes calls, or waits; `None` for a task."""
        return self.run.open_elements.get((index, element))

    def commit(self, record: CallRecord) -> None:
        """Return when a call is recorded. Raises `TaskCancelled` if it cannot be, which has stopped the run."""
        if self._commits is not None:
            self._commits.add(record)
            self._commits.flush()
            self._check()

    async def commit_beside(self, record: CallRecord) -> None:
        """Do the same without holding up the loop."""
        if self._commits is None or self._closed:
            return
        import asyncio

        loop = asyncio.get_running_loop()
        committed = loop.create_future()
        wake = partial(_wake, loop, committed)
        self._waiting.add(wake)  # first, so that a failure from now on wakes it
        try:
            self._commits.add(record, wake)
            self._thread.commit()
            if self._commits.error is None and not self._closed:
                await committed
        finally:
            self._waiting.discard(wake)
        self._check()

    def commit_later(self, group: Sequence[CallRecord], told: Callable[[BaseException | None], object]) -> None:
        """Commit the records of calls that were made elsewhere, without waiting for the commit.

        `told` is called then, in any thread, with what kept them from it.
        """
        if self._commits is None or self._closed:
            told(None)
            return
        *others, last = (
            record._replace(element_digest=self.element_digest(record.index, record.element)) for record in group
        )
        for record in group:
            self.made.add(_made(record))
        told_once = _Told(self._commits, self._waiting, told)
        self._waiting.add(told_once)
        for record in others:
            self._commits.add(record)
        self._commits.add(last, told_once)
        self._thread.commit()
        if self._commits.error is not None or self._closed:
            told_once()

    def admission(self, limits: Limits, index: int, where: str) -> Admission | None:
        """Return the admission that says when a call under these limits may start; `None` for no limits."""
        if not limits:
            return None
        held = limits_held(limits, self._options, index)
        if held:
            raise ValueError(
                f"{where} is under {held[0]!r}, and so is its task: it would wait for its own task. Keep the limit for "
                "one of the two"
            )
        later = self._later
        if later is None:
            raise ValueError(
                f"{where} is under {limits[0]!r}, which is kept by the program that executes the run, and this task "
                "runs elsewhere. Make it a task of its own"
            )
        if any(limit.shared is not None for limit in limits):
            raise ValueError(
                f"{where} is under a limit that is shared with other programs, which holds for tasks only: make it a "
                "task, as of a process that is called"
            )
        with self._lock:
            if self._admission is None:
                resumed = self.recorder is not None and self.recorder.executions > 1
                self._admission = Admission(limits, later, self._break_down, resumed=resumed)
            else:
                self._admission.include(limits)
            return self._admission

    def close(self) -> None:
        """Take nothing more, as the run has ended."""
        self._closed = True
        self._named = None, ""
        if self._admission is not None:
            self._admission.close()
        self._later = self._break_down = _nothing  # no cycle may stay
        if self._commits is not None:
            self._thread.close(wait=True)
            self._commits.close()
        self._wake_all()

    def _check(self) -> None:
        if self._commits is not None and self._commits.error is not None:
            raise TaskCancelled("the run was stopped: a call of the task could not be recorded")

    def _failed(self, error: BaseException) -> None:
        try:
            self.run.interrupt(error)
        finally:
            self._wake_all()

    def _wake_all(self) -> None:
        for wake in list(self._waiting):
            wake()


def is_named(worker: str) -> bool:
    """Return whether a worker of this name is the thread, or the asyncio task, that calls this."""
    # The calls of a thread that cannot be left behind are made by another one if they have a timeout: see `TimedCall`.
    if threading.current_thread().name in (worker, f"{worker}-attempt"):
        return True
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return False
    try:
        here = asyncio.current_task()
    except RuntimeError:  # no loop runs in this thread
        return False
    return here is not None and bool(here.get_name() == worker)


def _made(record: CallRecord) -> MadeCalls:
    """Return a recorded call as it is shown."""
    end, failed = record.started_at + record.duration, int(record.state == "failed")
    place = record.index, record.element, record.call
    return MadeCalls(
        *place, called(record.name), record.attempts, record.started_at, end, record.worker, failed, 1, record.duration
    )


class _Told:
    """Tells who waits for a commit that it is done, or what kept it from being done; once."""

    __slots__ = ("_commits", "_told", "_waiting")

    def __init__(
        self,
        commits: GroupCommit[CallRecord],
        waiting: set[Callable[[], object]],
        told: Callable[[BaseException | None], object],
    ) -> None:
        self._commits = commits
        self._waiting = waiting
        self._told = told

    def __call__(self) -> None:
        with suppress(KeyError):
            self._waiting.remove(self)
            self._told(self._commits.error)


def _wake(loop: "asyncio.AbstractEventLoop", committed: "asyncio.Future[None]") -> None:
    """Wake a coroutine that waits for its record to be committed, unless its loop is closed."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(_resolve, committed)


def _resolve(committed: "asyncio.Future[None]") -> None:
    if not committed.done():
        committed.set_result(None)


def _nothing(*_: object) -> None:
    pass
