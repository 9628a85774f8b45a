"""A run: one execution of a process. The one place where plan, engine and observers meet."""

import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar, overload

from procession._engine.attempt import let_go
from procession._engine.call_context import CURRENT_CALL
from procession._engine.ends import Ends
from procession._engine.latch import SLICE_S, Latch
from procession._engine.run_state import RunState
from procession._executor import engine_of
from procession._model.event import Event, EventName
from procession._model.handle import Handle, Owner, index_of, owner_of
from procession._model.observer import Observer
from procession._model.outcome import HANDED_OVER, NO_VALUE, Outcome, Outcomes
from procession._model.progress import Progress
from procession._model.states import OnError, RunStatus, TaskState
from procession._model.text import counted, described, shown, sketch
from procession._model.where import usable_cores
from procession._plan.plan import Plan
from procession._plan.wiring import bound
from procession._recording import recording_of
from procession.errors import HandleError, RunCancelledError, TaskSkippedError
from procession.observe.audience import audience_of
from procession.observe.summary import summary_of

if TYPE_CHECKING:
    from procession._model.where import ExecutorLike
    from procession.journal import Journal
    from procession.pictures.timeline import Timeline

T = TypeVar("T")


class Run:
    """One execution of a process, obtained from `Process.start()` or `Process.last_run`.

    `id` names it, `started_at` is the moment it began (aware, UTC), `status` one of `RunStatus`. It can be waited
    for with `result()`, iterated as tasks end, asked for `outcomes`, and cancelled, from any thread.
    """

    id: str
    process_name: str
    started_at: datetime

    __slots__ = (
        "__weakref__",
        "_audience",
        "_cpu",
        "_ended",
        "_engine",
        "_names",
        "_over",
        "_owner",
        "_parent",
        "_plan",
        "_recording",
        "_results",
        "_run_state",
        "_spent",
        "id",
        "process_name",
        "started_at",
    )

    def __init__(
        self,
        plan: Plan,
        *,
        process_name: str,
        owner: Owner,
        max_workers: int,
        on_error: OnError,
        observers: Sequence[Observer] = (),
        progress: bool = False,
        executor: "ExecutorLike",
        run_id: str | None = None,
        journal: "Journal | str | os.PathLike[str] | None" = None,
        allow_changes: bool = False,
        nested: bool = False,
    ) -> None:
        call_context = CURRENT_CALL.get(None)
        self._parent = None if call_context is None else call_context.run
        self._audience = audience_of(observers, progress=progress)
        self._recording = recording_of(
            plan, process_name, run_id, journal, task=call_context if nested else None, allow_changes=allow_changes
        )
        self.id = self._recording.run_id
        self.process_name = process_name
        self.started_at = datetime.now(UTC)
        self._owner = owner
        self._plan = plan
        self._results: list[Any] | None = None
        self._over = Latch()
        self._ended: float | None = None
        self._cpu = time.process_time()
        self._spent = sum(os.times()[:4])
        try:
            self._run_state = RunState(
                plan,
                process_name=process_name,
                run_id=self.id,
                max_workers=max_workers,
                on_error=on_error,
                tell=self._audience.tell,
                verbose=self._audience.verbose,
                recorder=self._recording.recorder,
            )
            self._engine = engine_of(executor, self._run_state)
        except BaseException as error:
            # What was recorded cannot be read back, or Ctrl-C came meanwhile.
            self._recording.abandon(error)
            raise

    # For Process

    def _drive(self) -> None:
        """Run all tasks, in this thread as far as their strategy says so. Raises nothing of a task."""
        try:
            self._set_out()
            self._engine.drive()
        except BaseException as error:
            self._run_state.interrupt(error)
            raise
        finally:
            self._arrive()

    async def _drive_async(self) -> None:
        """Run all tasks, coroutines in the running loop. Raises nothing of a task."""
        from procession._loop.coroutines import drive_async  # asyncio: see `engine_of`

        try:
            self._set_out()
            await drive_async(self._engine)
        except GeneratorExit:
            self._arrive()  # nothing can be awaited any more
            raise
        except BaseException as error:
            if not self._run_state.cancelled:
                self._run_state.interrupt(error)
            await self._arrive_async()
            raise
        await self._arrive_async()

    async def _arrive_async(self) -> None:
        if self._recording.recorder is None and not self._audience.waits:
            self._arrive()
        else:
            from procession._loop.side_threads import in_thread

            await in_thread(self._arrive)

    def _set_out(self) -> None:
        run_state = self._run_state
        parent = self._parent
        if parent is not None:
            # A nested run is cancelled with the one around it.
            parent.children[self.id] = run_state.cancel
            if parent.cancelled:
                run_state.cancel()
        # What observers set in the context, the tasks see, and the caller does not.
        run_state.context.run(self._audience.begin, run_state, self._event("run_started"))
        self._recording.follow(run_state)

    def _arrive(self) -> None:
        run_state = self._run_state
        if self._parent is not None:
            self._parent.children.pop(self.id, None)
            self._parent = None  # or a nested process would keep alive whatever was around it
        run_state.close()
        self._recording.close(run_state, self.status)
        self._conclude()
        self._cpu = time.process_time() - self._cpu
        self._spent = sum(os.times()[:4]) - self._spent  # with child processes, once they have ended
        self._ended = time.perf_counter()
        ends: dict[RunStatus, EventName] = {"completed": "run_completed", "cancelled": "run_cancelled"}
        run_state.context.run(self._audience.end, self._event(ends.get(self.status, "run_failed")))

    def _take(self) -> list[Any]:
        """Return the results as the caller's alone, or raise what `result()` raises."""
        try:
            self._raise()
        except BaseException:
            del self  # the exception keeps this frame, and the run keeps the exception
            raise
        results = self._results
        assert results is not None
        self._results = None
        ledger = self._run_state.ledger
        values = ledger.release(self._plan.handled)
        return results if ledger.errors else values

    def _abort(self, error: BaseException) -> None:
        """End a run that could not begin."""
        self._run_state.interrupt(error)
        self._run_state.close()
        self._recording.close(self._run_state, self.status)
        self._close()

    def _close(self) -> None:
        """Let go whoever waits for the end, and what only failures would keep."""
        for error in self._run_state.ledger.errors.values():
            let_go(error)
        self._over.open()
        self._run_state.notify(None)

    # For users

    @property
    def status(self) -> RunStatus:
        """How the run stands: `"running"`, `"completed"`, `"failed"` or `"cancelled"`."""
        ledger = self._run_state.ledger
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
        return (self._ended or time.perf_counter()) - self._run_state.began

    @property
    def progress(self) -> Progress:
        """How far the run has come: how many tasks ended, failed, and how many there are. Cheap enough to poll."""
        return self._run_state.progress()

    @property
    def outcomes(self) -> Outcomes:
        """How each task ended or stands, in the order added."""
        return Outcomes(self._outcome, len(self._plan.calls))

    def result(self, timeout: float | None = None) -> list[Any]:
        """Wait for the run to end; return the results in the order added, or raise what ended it.

        Raises `TimeoutError` after `timeout` seconds, and the run goes on; `RunCancelledError` where it was
        cancelled. Ctrl-C while waiting cancels the run and is raised when the tasks in flight have ended; a second
        one is raised at once.
        """
        try:
            ended = self.wait(timeout)
        except KeyboardInterrupt:
            self.cancel()
            self.wait()
            raise
        if not ended:
            raise TimeoutError(f"run {self.id} of process {shown(self.process_name)!r} goes on after {timeout:g} s")
        try:
            self._raise()
        except BaseException:
            del self  # as in `_take`
            raise
        assert self._results is not None
        return list(self._results)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the run to end, at most `timeout` seconds; return whether it has. Raises nothing of the run.

        Raises `RuntimeError` in the event loop that the run needs to go on: see `await run`.
        """
        if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float)):
            where = f"run {self.id} of process {shown(self.process_name)!r}"
            raise TypeError(f"{where}: timeout is a number of seconds, or None; got {sketch(timeout)}")
        if timeout != 0:
            self._check_loop()
        return self._over.wait(timeout)

    def __await__(self) -> Generator[Any, None, list[Any]]:
        """Do what `result()` does in a coroutine, without holding up its event loop."""
        return self._awaited().__await__()

    def cancel(self) -> None:
        """Let nothing new start. Tasks in flight are asked to stop: see `current_task().cancelled`. Returns at once.

        Does nothing when the run has ended or was cancelled before.
        """
        self._run_state.cancel()

    def __iter__(self) -> Iterator[Outcome]:
        """Yield the outcome of each task once, as they end; those that never started come last."""
        ended: SimpleQueue[int | None] = SimpleQueue()
        with Ends(self._run_state, ended.put) as ends:
            if self._over.is_open:
                ended.put(None)
            yield from map(self._outcome, ends.before)
            while (index := _get(ended, self._check_loop)) is not None:
                if ends.first(index):
                    yield self._outcome(index)
            yield from map(self._outcome, ends.missing())

    async def __aiter__(self) -> AsyncIterator[Outcome]:
        """Yield the same in a coroutine, without holding up its event loop."""
        from procession._loop.side_threads import Mailbox  # asyncio: see `engine_of`

        ended: Mailbox[int | None] = Mailbox()
        with Ends(self._run_state, ended.put) as ends:
            if self._over.is_open:
                ended.put(None)
            for index in ends.before:
                yield self._outcome(index)
            while (now := await ended.get()) is not None:
                if ends.first(now):
                    yield self._outcome(now)
            for index in ends.missing():
                yield self._outcome(index)

    @overload
    def __getitem__(self, handle: Handle, /) -> Any: ...
    @overload
    def __getitem__(self, handle: T, /) -> T: ...
    def __getitem__(self, handle: object, /) -> object:
        """Return the value of a handle's task, waiting for it to end if it has not; raise what it raised instead.

        Raises `HandleError` for what is no handle of this run's process.
        """
        if not isinstance(handle, Handle) or owner_of(handle) is not self._owner:
            given = f"{handle!r}, another process" if isinstance(handle, Handle) else sketch(handle)
            raise HandleError(f"run[...] takes a handle of process {shown(self.process_name)!r}; got {given}")
        index = index_of(handle)
        if index >= len(self._plan.calls):
            raise HandleError(f"{handle!r} was added after this run of process {shown(self.process_name)!r} began")
        self._wait_for(index)
        outcome = self._outcome(index)
        if outcome.error is not None:
            error = outcome.error
            try:
                raise error
            finally:
                del self, outcome, error
        if outcome.state in ("skipped", "cancelled"):
            raise self._absent(index)
        return outcome.value

    def summary(self, limit: int = 20) -> str:
        """Return a table for people: how the run went, then its tasks, failed ones first, then the slowest.

        At most `limit` tasks are listed. Characters that standard output cannot show are replaced.
        """
        ledger = self._run_state.ledger
        states: list[TaskState] = [ledger.state(index) for index in range(len(self._plan.calls))]

        def weight(index: int) -> tuple[bool, float]:
            start, end = ledger.starts[index], ledger.ends[index]
            return states[index] != "failed", -(end - start) if start is not None and end is not None else 1.0

        worst = [self._outcome(index) for index in sorted(range(len(states)), key=weight)[:limit]]
        return summary_of(self.process_name, self.id, self.status, self.duration, states, ledger.failure, worst)

    def timeline(self) -> "Timeline":
        """Return who did what when, as a picture, as a trace for Perfetto, and in words: why the run is not faster.

        Of a run that goes on, it is the timeline so far.

        >>> from procession import Process
        >>> process = Process("sum", strategy="parallel")
        >>> process.add_task(sum, [1, 2])
        >>> run = process.start()
        >>> run.result()
        [3]
        >>> [span.name for span in run.timeline().critical_path]
        ['sum']
        """
        from procession.pictures.timeline import Timeline, spans_of  # pictures are drawn by few

        run_state, ended = self._run_state, self._ended is not None
        return Timeline(
            self.process_name,
            self.status,
            self.duration,
            spans_of(self.outcomes, list(run_state.map_shares), run_state.began),
            max_workers=run_state.max_workers,
            stages=self._plan.stages,
            needs=self._plan.needs,
            cpu=self._cpu if ended else None,
            cores=(self._spent / self.duration, usable_cores()) if ended else None,
        )

    def __repr__(self) -> str:
        ended, _, total = self.progress
        progress = f"{ended:,} of {counted(total, 'task')} ended"
        return f"<Run {self.id} of {shown(self.process_name)!r}: {self.status}, {progress}>"

    # Inside

    def _event(self, name: EventName) -> Event:
        run_state, ended = self._run_state, self._ended
        return Event(
            name,
            self.process_name,
            self.id,
            at=run_state.moment(run_state.began if ended is None else ended),
            duration=None if ended is None else ended - run_state.began,
            error=run_state.ledger.failure,
            progress=run_state.progress() if self._audience.observed else None,
        )

    def _wait_for(self, index: int) -> None:
        """Wait until a task has ended, or the run has."""
        ended = Latch()

        def watch(other: int | None) -> None:
            if other == index or other is None:
                ended.open()

        self._run_state.watch(watch)
        try:
            # Watching began before this look, so that neither can end unseen between the two.
            if self._run_state.ledger.ends[index] is None and not self._over.is_open:
                self._check_loop()
                ended.wait()
        finally:
            self._run_state.unwatch(watch)

    async def _awaited(self) -> list[Any]:
        async for _ in self:
            pass
        self._raise()
        assert self._results is not None
        return list(self._results)

    def _check_loop(self) -> None:
        """Refuse to wait where that would hold up the very run that is waited for."""
        if self._run_state.loop_thread == threading.get_ident() and not self._over.is_open:
            raise RuntimeError(
                f"run {self.id} of process {self.process_name!r} needs the event loop of this thread, so waiting here "
                "would never end; in a coroutine: `await run`, or `async for outcome in run`"
            )

    def _conclude(self) -> None:
        ledger = self._run_state.ledger
        if self.status != "completed":
            return
        assert isinstance(ledger.values, list)
        self._results = ledger.values
        if ledger.on_error == "return" and ledger.errors:
            self._results = [self._in_place(index, value) for index, value in enumerate(ledger.values)]

    def _in_place(self, index: int, value: object) -> object:
        """Return what stands for a task in the results of `on_error="return"`."""
        ledger = self._run_state.ledger
        if index in ledger.errors:
            return ledger.errors[index] if value is None else value  # which is the list of a map
        return self._absent(index) if ledger.ends[index] is None else value

    def _absent(self, index: int) -> Exception:
        where = f"task {index} ({shown(self._run_state.name(index))}) of process {shown(self.process_name)!r}"
        if self._run_state.ledger.cancelled:
            return RunCancelledError(f"{where} did not end: the run was cancelled")
        return TaskSkippedError(f"{where} was skipped, because a task before it failed")

    def _raise(self) -> None:
        """Raise what ended the run, if anything did."""
        ledger = self._run_state.ledger
        status = self.status
        if ledger.failure is not None:
            try:
                raise ledger.failure
            finally:
                # The frame is part of the traceback, and the run holds the error: no cycle may stay.
                del self, ledger
        if status == "cancelled":
            ended = sum(end is not None for end in ledger.ends)
            raise RunCancelledError(
                f"run {self.id} of process {shown(self.process_name)!r} was cancelled when {ended:,} of "
                f"{counted(len(ledger.ends), 'task')} had ended{self._among_them()}; process.last_run.outcomes has them"
            )
        if status == "failed":
            errors = [ledger.errors[index] for index in sorted(ledger.errors)]
            text = (
                f"{len(errors):,} of {counted(len(ledger.ends), 'task')} of process {shown(self.process_name)!r} failed"
            )
            try:
                raise BaseExceptionGroup(text, errors)
            finally:
                del self, ledger, errors

    def _among_them(self) -> str:
        """Return words for what failed in a cancelled run, unless that is only what was cancelled with it."""
        errors = self._run_state.ledger.errors
        indexes = [index for index in sorted(errors) if not isinstance(errors[index], RunCancelledError)]
        if not indexes:
            return ""
        return f", {len(indexes):,} of them with a failure (task {indexes[0]}: {described(errors[indexes[0]])})"

    def _outcome(self, index: int) -> Outcome:
        run_state, ledger = self._run_state, self._run_state.ledger
        state = ledger.state(index)
        start, end, worker = ledger.starts[index], ledger.ends[index], run_state.workers[index]
        recorded = run_state.recorded.get(index)
        duration = recorded.duration if recorded is not None else None
        if start is not None and end is not None:
            duration = end - start
        value: object = NO_VALUE
        if state == "completed":
            values = ledger.values
            value = values.get(index, HANDED_OVER) if isinstance(values, dict) else values[index]
        return Outcome(
            index=index,
            name=run_state.name(index),
            state=state,
            value=value,
            error=ledger.errors.get(index),
            attempts=run_state.attempts.get(index, 0 if start is None else 1),
            start=None if start is None else start - self._run_state.began,
            duration=duration,
            recorded=recorded is not None,
            worker=worker,
            again=lambda: self._again(index),
        )

    def _again(self, index: int) -> object:
        function, args, kwargs = self._plan.calls[index]
        if index in self._plan.needs:
            args, kwargs = bound(args, kwargs, {need: self._outcome(need).value for need in self._plan.needs[index]})
        return function(*args, **kwargs)


def _get(queue: "SimpleQueue[int | None]", check: Callable[[], None]) -> int | None:
    while True:
        with suppress(Empty):
            return queue.get_nowait()
        check()
        with suppress(Empty):
            return queue.get(timeout=SLICE_S)
