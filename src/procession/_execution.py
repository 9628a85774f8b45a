"""How a run is carried out: it begins, an engine drives it, and it is finished. Here plan, engine and observers meet.

    begin ──▶ drive: the engine claims tasks and has them run ──▶ finish ──▶ let go
    │                                                             │          └─ those who wait, and the process
    └─ observers, heartbeat of the journal                        └─ books closed, end recorded and told, results

The sync and the async way differ only in who drives, and in the thread that finishes.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from procession._engine.call_context import CURRENT_CALL
from procession._engine.latch import Latch
from procession._engine.run_state import RunState
from procession._engine.tracebacks import let_go
from procession._executor import engine_of
from procession._model.event import Event, EventName
from procession._model.observer import Observer
from procession._model.states import OnError, RunStatus
from procession._model.text import counted, described, shown
from procession._plan.plan import Plan
from procession._recording import recording_of
from procession.errors import RunCancelledError, TaskSkippedError
from procession.observe.audience import audience_of

if TYPE_CHECKING:
    from procession._model.where import ExecutorLike
    from procession.journal import Journal


class Execution:
    """Carries out one run of a plan. `on_end` is told once whether it completed, before anybody who waits."""

    __slots__ = (
        "_audience",
        "_cpu",
        "_on_end",
        "_parent",
        "_recording",
        "_spent",
        "ended",
        "engine",
        "over",
        "plan",
        "results",
        "run_state",
    )

    def __init__(
        self,
        plan: Plan,
        *,
        process_name: str,
        max_workers: int,
        on_error: OnError,
        observers: Sequence[Observer],
        progress: bool,
        executor: "ExecutorLike",
        run_id: str | None,
        journal: "Journal | str | os.PathLike[str] | None",
        allow_changes: bool,
        nested: bool,
        on_end: Callable[[bool], object],
    ) -> None:
        call_context = CURRENT_CALL.get(None)
        self._parent = None if call_context is None else call_context.run
        self._on_end: Callable[[bool], object] | None = on_end
        self._audience = audience_of(observers, progress=progress)
        self._recording = recording_of(
            plan, process_name, run_id, journal, task=call_context if nested else None, allow_changes=allow_changes
        )
        self.plan = plan
        self.over = Latch()
        self.results: list[Any] | None = None
        self.ended: float | None = None
        """When the run was finished, as a reading of the clock."""
        self._cpu = time.process_time()
        self._spent = sum(os.times()[:4])
        try:
            self.run_state = RunState(
                plan,
                process_name=process_name,
                run_id=self._recording.run_id,
                max_workers=max_workers,
                on_error=on_error,
                tell=self._audience.tell,
                verbose=self._audience.verbose,
                recorder=self._recording.recorder,
            )
            self.engine = engine_of(executor, self.run_state)
        except BaseException as error:
            # What was recorded cannot be read back, or Ctrl-C came meanwhile.
            self._recording.abandon(error)
            raise

    # For those who have it carried out

    def drive(self) -> None:
        """Run all tasks, in this thread as far as their strategy says so. Raises nothing of a task."""
        completed = False
        try:
            self._drive()
            completed = self.status == "completed"
        finally:
            self._let_go(completed=completed)
            del self  # what a task raised keeps this frame, and the run keeps what was raised

    async def drive_async(self) -> None:
        """Run all tasks, coroutines in the running loop. Raises nothing of a task."""
        completed = False
        try:
            await self._drive_async()
            completed = self.status == "completed"
        finally:
            self._let_go(completed=completed)
            del self  # as in `drive`

    def start(self) -> None:
        """Run all tasks in a thread of their own. Raises what keeps that from being started."""
        name = f"procession-{shown(self.run_state.process_name, 40)}"
        driver = threading.Thread(target=self.drive, name=name)
        try:
            driver.start()
        except BaseException as error:
            self.run_state.interrupt(error)
            try:
                self._close_books()
            finally:
                self._let_go(completed=False)
            raise

    def take(self) -> list[Any]:
        """Return the results as the caller's alone, or raise what ended the run."""
        try:
            self.check()
        except BaseException:
            del self  # the exception keeps this frame, and the run keeps the exception
            raise
        results = self.results
        assert results is not None
        self.results = None
        ledger = self.run_state.ledger
        values = ledger.release(self.plan.handled)
        return results if ledger.errors else values

    # For those who ask

    @property
    def status(self) -> RunStatus:
        """How the run stands."""
        ledger = self.run_state.ledger
        if not ledger.over:
            return "running"
        if ledger.cancelled and (ledger.failure is None or isinstance(ledger.failure, KeyboardInterrupt)):
            return "cancelled"
        if ledger.failure is not None or (ledger.errors and ledger.on_error != "return"):
            return "failed"
        return "completed"

    @property
    def duration(self) -> float:
        """How long the run took, in seconds; until it ends, how long it has been running."""
        return (self.ended or time.perf_counter()) - self.run_state.began

    @property
    def cpu(self) -> float | None:
        """How many seconds of processor time this process used meanwhile, once the run has ended."""
        return None if self.ended is None else self._cpu

    @property
    def cores_used(self) -> float | None:
        """How many processors this process and its children kept busy on average, once the run has ended."""
        return None if self.ended is None else self._spent / self.duration

    def check(self) -> None:
        """Raise what ended the run, if anything did."""
        run_state, ledger, status = self.run_state, self.run_state.ledger, self.status
        if ledger.failure is not None:
            try:
                raise ledger.failure
            finally:
                # The frame is part of the traceback, and the run holds the error: no cycle may stay.
                del self, run_state, ledger
        process = f"process {shown(run_state.process_name)!r}"
        count = counted(len(ledger.ends), "task")
        if status == "cancelled":
            ended = sum(end is not None for end in ledger.ends)
            raise RunCancelledError(
                f"run {run_state.run_id} of {process} was cancelled when {ended:,} of {count} had ended"
                f"{self._among_them()}; process.last_run.outcomes has them"
            )
        if status == "failed":
            errors = [ledger.errors[index] for index in sorted(ledger.errors)]
            try:
                raise BaseExceptionGroup(f"{len(errors):,} of {count} of {process} failed", errors)
            finally:
                del self, run_state, ledger, errors

    def absent(self, index: int) -> Exception:
        """Return what stands for the value of a task that did not end."""
        run_state = self.run_state
        where = f"task {index} ({shown(run_state.name(index))}) of process {shown(run_state.process_name)!r}"
        if run_state.ledger.cancelled:
            return RunCancelledError(f"{where} did not end: the run was cancelled")
        return TaskSkippedError(f"{where} was skipped, because a task before it failed")

    # Begin, drive, finish

    def _drive(self) -> None:
        try:
            self._begin()
            self.engine.drive()
        except BaseException as error:
            self.run_state.interrupt(error)
            raise
        finally:
            self._finish()

    async def _drive_async(self) -> None:
        from procession._loop.coroutines import drive_async  # asyncio: see `engine_of`

        try:
            self._begin()
            await drive_async(self.engine)
        except GeneratorExit:
            self._finish()  # nothing can be awaited any more
            raise
        except BaseException as error:
            if not self.run_state.cancelled:
                self.run_state.interrupt(error)
            await self._finish_async()
            raise
        await self._finish_async()

    def _begin(self) -> None:
        run_state, parent = self.run_state, self._parent
        if parent is not None:
            # A nested run is cancelled with the run around it.
            parent.children[run_state.run_id] = run_state.cancel
            if parent.cancelled:
                run_state.cancel()
        # What observers set in the context, the tasks see, and the caller does not.
        run_state.context.run(self._audience.begin, run_state, self._event("run_started"))
        self._recording.follow(run_state)

    def _finish(self) -> None:
        """Close the books, and tell how the run ended."""
        self._close_books()
        ends: dict[RunStatus, EventName] = {"completed": "run_completed", "cancelled": "run_cancelled"}
        event = self._event(ends.get(self.status, "run_failed"))
        self.run_state.context.run(self._audience.end, event)

    async def _finish_async(self) -> None:
        """Do the same without holding up the loop: journals and observers may take their time."""
        if self._recording.recorder is None and not self._audience.waits:
            self._finish()
        else:
            from procession._loop.side_threads import in_thread

            await in_thread(self._finish)

    def _close_books(self) -> None:
        """Settle what the run came to, and record it."""
        run_state = self.run_state
        if self._parent is not None:
            self._parent.children.pop(run_state.run_id, None)
            self._parent = None  # or a nested process would keep alive whatever was around it
        try:
            run_state.close()
        except BaseException as error:
            run_state.interrupt(error)
            raise
        finally:
            self._recording.close(run_state, self.status)
            self._keep_results()
            self._cpu = time.process_time() - self._cpu
            self._spent = sum(os.times()[:4]) - self._spent  # with child processes, once they have ended
            self.ended = time.perf_counter()

    def _let_go(self, *, completed: bool) -> None:
        """Say to the process, and to those who wait, that the run is over; empty what only failures would keep."""
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(completed)
        for error in self.run_state.ledger.errors.values():
            let_go(error)
        self.over.open()
        self.run_state.notify(None)

    # Inside

    def _event(self, name: EventName) -> Event:
        run_state, ended = self.run_state, self.ended
        return Event(
            name,
            run_state.process_name,
            run_state.run_id,
            at=run_state.moment(run_state.began if ended is None else ended),
            duration=None if ended is None else ended - run_state.began,
            error=run_state.ledger.failure,
            progress=run_state.progress() if self._audience.observed else None,
        )

    def _keep_results(self) -> None:
        ledger = self.run_state.ledger
        if self.status != "completed":
            return
        assert isinstance(ledger.values, list)
        self.results = ledger.values
        if ledger.on_error == "return" and ledger.errors:
            self.results = [self._in_place(index, value) for index, value in enumerate(ledger.values)]

    def _in_place(self, index: int, value: object) -> object:
        """Return what stands for a task in the results of `on_error="return"`."""
        ledger = self.run_state.ledger
        if index in ledger.errors:
            return ledger.errors[index] if value is None else value  # which is the list of a map
        return self.absent(index) if ledger.ends[index] is None else value

    def _among_them(self) -> str:
        """Return words for what failed in a cancelled run, unless that is only what was cancelled with it."""
        errors = self.run_state.ledger.errors
        indexes = [index for index in sorted(errors) if not isinstance(errors[index], RunCancelledError)]
        if not indexes:
            return ""
        return f", {len(indexes):,} of them with a failure (task {indexes[0]}: {described(errors[indexes[0]])})"
