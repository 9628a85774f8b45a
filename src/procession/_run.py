"""A run: one execution of a process, as users meet it. How it is carried out stands in `_execution`."""

import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from procession._engine.ends import Ends
from procession._engine.latch import SLICE_S, Latch
from procession._execution import Execution
from procession._model.handle import Handle, Owner, index_of, owner_of
from procession._model.outcome import HANDED_OVER, NO_VALUE, Outcome, Outcomes
from procession._model.progress import Progress
from procession._model.states import RunStatus, TaskState
from procession._model.text import counted, shown, sketch
from procession._model.where import usable_cores
from procession._plan.wiring import bound
from procession.errors import HandleError
from procession.observe.summary import summary_of

if TYPE_CHECKING:
    from procession.pictures.timeline import Timeline

T = TypeVar("T")


class Run:
    """One execution of a process, obtained from `Process.start()` or `Process.last_run`.

    It can be waited for with `result()`, iterated as tasks end, asked for `outcomes`, and cancelled, from any thread.

    Attributes:
        id: What names the run: the `run_id` that was given, else 16 hexadecimal digits.
        process_name: The name of its process.

    """

    __slots__ = ("__weakref__", "_execution", "_owner", "_plan", "_run_state", "id", "process_name")

    def __init__(self, execution: Execution, owner: Owner) -> None:
        self._execution = execution
        self._owner = owner
        self._plan = execution.plan
        self._run_state = execution.run_state
        self.id: Final = self._run_state.run_id
        self.process_name: Final = self._run_state.process_name

    @property
    def status(self) -> RunStatus:
        """How the run stands: `"running"`, `"completed"`, `"failed"` or `"cancelled"`."""
        return self._execution.status

    @property
    def started_at(self) -> datetime:
        """When the run began: aware, in UTC."""
        return datetime.fromtimestamp(self._run_state.epoch, UTC)

    @property
    def duration(self) -> float:
        """How long the run took, in seconds; until it ends, how long it has been running."""
        return self._execution.duration

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

        Ctrl-C while waiting cancels the run and is raised when the tasks in flight have ended; a second Ctrl-C is
        raised at once.

        Args:
            timeout: How long to wait, in seconds; `None` is without limit.

        Returns:
            One result for each task, in the order added.

        Raises:
            TimeoutError: The run goes on after `timeout` seconds.
            RunCancelledError: The run was cancelled.
            Exception: What a task raised: see `Process.execute`.

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
            self._execution.check()
        except BaseException:
            del self  # as in `Execution.take`
            raise
        results = self._execution.results
        assert results is not None
        return list(results)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the run to end, at most `timeout` seconds; return whether it has. Raises nothing of the run.

        Args:
            timeout: How long to wait, in seconds; `None` is without limit, 0 does not wait.

        Returns:
            Whether the run has ended.

        Raises:
            RuntimeError: It is called in the event loop that the run needs to go on: see `await run`.
            TypeError: `timeout` is no number.

        """
        if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float)):
            where = f"run {self.id} of process {shown(self.process_name)!r}"
            raise TypeError(f"{where}: timeout is a number of seconds, or None; got {sketch(timeout)}")
        if timeout != 0:
            self._check_loop()
        return self._execution.over.wait(timeout)

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
            if self._execution.over.is_open:
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
            if self._execution.over.is_open:
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
            raise self._execution.absent(index)
        return outcome.value

    def summary(self, limit: int = 20) -> str:
        """Return a table for people: how the run went, then its tasks, failed ones first, then the slowest.

        Characters that standard output cannot show are replaced.

        Args:
            limit: How many tasks are listed, at most.

        Returns:
            The table, as text of several lines.

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

        Example:
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

        run_state, cores = self._run_state, self._execution.cores_used
        return Timeline(
            self.process_name,
            self.status,
            self.duration,
            spans_of(self.outcomes, list(run_state.map_shares), run_state.began),
            max_workers=run_state.max_workers,
            stages=self._plan.stages,
            needs=self._plan.needs,
            cpu=self._execution.cpu,
            cores=None if cores is None else (cores, usable_cores()),
        )

    def __repr__(self) -> str:
        ended, _, total = self.progress
        progress = f"{ended:,} of {counted(total, 'task')} ended"
        return f"<Run {self.id} of {shown(self.process_name)!r}: {self.status}, {progress}>"

    # Inside

    def _wait_for(self, index: int) -> None:
        """Wait until a task has ended, or the run has."""
        ended = Latch()

        def watch(other: int | None) -> None:
            if other == index or other is None:
                ended.open()

        self._run_state.watch(watch)
        try:
            # Watching began before this look, so that neither can end unseen between the two.
            if self._run_state.ledger.ends[index] is None and not self._execution.over.is_open:
                self._check_loop()
                ended.wait()
        finally:
            self._run_state.unwatch(watch)

    async def _awaited(self) -> list[Any]:
        async for _ in self:
            pass
        self._execution.check()
        results = self._execution.results
        assert results is not None
        return list(results)

    def _check_loop(self) -> None:
        """Refuse to wait where that would hold up the very run that is waited for."""
        if self._run_state.loop_thread == threading.get_ident() and not self._execution.over.is_open:
            raise RuntimeError(
                f"run {self.id} of process {self.process_name!r} needs the event loop of this thread, so waiting here "
                "would never end; in a coroutine: `await run`, or `async for outcome in run`"
            )

    def _outcome(self, index: int) -> Outcome:
        """Return how a task stands. There may be many: what most tasks do not have is not looked up."""
        run_state, ledger = self._run_state, self._run_state.ledger
        start, end, values = ledger.starts[index], ledger.ends[index], ledger.values
        recorded = run_state.recorded.get(index) if run_state.recorded else None
        state: TaskState = ledger.state(index) if end is None or ledger.errors or ledger.stopped else "completed"
        duration = recorded.duration if recorded is not None else None
        if start is not None and end is not None:
            duration = end - start
        value: object = NO_VALUE
        if state == "completed":
            value = values.get(index, HANDED_OVER) if isinstance(values, dict) else values[index]
        attempts = 0 if start is None else 1
        return Outcome(
            index=index,
            name=run_state.name(index),
            state=state,
            value=value,
            error=ledger.errors.get(index),
            attempts=run_state.attempts.get(index, attempts) if run_state.attempts else attempts,
            start=None if start is None else start - run_state.began,
            duration=duration,
            recorded=recorded is not None,
            worker=run_state.workers[index],
            again=self._again,
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
