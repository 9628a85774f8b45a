"""A run: one execution of a process, as users meet it. How it is carried out stands in `_execution`."""

import threading
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import aclosing
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from procession._engine.ends import Ends, next_end, wait_for_end
from procession._engine.followed import FollowedElements, followed, good_elements
from procession._engine.task_outcomes import TaskOutcomes
from procession._execution import Execution
from procession._model.handle import Elements, Handle, Owner, index_of, owner_of
from procession._model.outcome import Outcome, Outcomes
from procession._model.progress import Progress
from procession._model.states import RunStatus, TaskState
from procession._model.task import PLAIN
from procession._model.text import counted, shown, sketch
from procession._model.where import usable_cores
from procession.errors import HandleError

if TYPE_CHECKING:
    from typing import Self

    from procession._engine.feed import Feed
    from procession._model.stack import Stacks
    from procession.observe.summary import Summary
    from procession.pictures.timeline import Timeline

T = TypeVar("T")


class Run:
    """One execution of a process, obtained from `Process.start()` or `Process.last_run`.

    It can be waited for with `result()`, iterated as tasks end, asked for `outcomes`, and cancelled, from any thread.

    Attributes:
        id: The id of the run: the `run_id` that was passed, else 16 hexadecimal digits.
        process_name: The name of its process.

    """

    __slots__ = ("__weakref__", "_execution", "_owner", "_plan", "_run_state", "_tasks", "id", "process_name")

    def __init__(self, execution: Execution, owner: Owner) -> None:
        self._execution = execution
        self._owner = owner
        self._plan = execution.plan
        self._run_state = execution.run_state
        self._tasks = TaskOutcomes(execution.run_state)
        self.id: Final = self._run_state.run_id
        self.process_name: Final = self._run_state.process_name

    @property
    def status(self) -> RunStatus:
        """How the run stands: `"running"`, `"completed"`, `"failed"`, `"cancelled"` or `"suspended"`."""
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
        """How many tasks have ended, how many of these failed, and how many tasks there are. Cheap enough to poll."""
        return self._run_state.progress()

    @property
    def outcomes(self) -> Outcomes:
        """How each task ended, or how it stands, in the order added. Each access shows the run as it is then."""
        return Outcomes(self._tasks.of, len(self._plan.calls), self._tasks.rows)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return a row for each task and element: see `Outcomes.to_dicts`."""
        return self.outcomes.to_dicts()

    def to_frame(self) -> Any:
        """Return a data frame of the tasks and elements: see `Outcomes.to_frame`."""
        return self.outcomes.to_frame()

    def result(self, timeout: float | None = None) -> list[Any]:
        """Wait for the run to end; return the results in the order added, or raise the failure that ended it.

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

        Example:
            >>> from procession import Process
            >>> process = Process("sum")
            >>> process.add_task(sum, [1, 2])
            >>> process.start().result(timeout=10)
            [3]

        """
        try:
            ended = self.wait(timeout)
        except KeyboardInterrupt:
            self._execution.stop_by_key()
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
        """Wait for the run to end, at most `timeout` seconds; return whether it has. Raises no failure of the run.

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
        """Wait for the run in a coroutine, as `result()` does elsewhere: `results = await run`."""
        return self._awaited().__await__()

    def cancel(self) -> None:
        """Start no other task, and ask running tasks to stop. Returns at once.

        Coroutines are cancelled. Other tasks may look at `current_task().cancelled`, and are waited for. Does nothing
        if the run has ended or was cancelled before.

        Example:
            >>> import threading
            >>> from procession import Process, current_task
            >>> begun = threading.Event()
            >>> def wait():
            ...     begun.set()
            ...     current_task().sleep(60)
            >>> process = Process("waiting")
            >>> process.add_task(wait)
            >>> run = process.start()
            >>> begun.wait(10)
            True
            >>> run.cancel()
            >>> run.wait(10), run.status
            (True, 'cancelled')

        """
        self._run_state.cancel()

    def __enter__(self) -> "Self":
        """Enter a block at whose end the run is over: `with process.start() as run:`."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Cancel the run unless it has ended, and wait until its running tasks have.

        Example:
            >>> from procession import Process, current_task
            >>> process = Process("first", "parallel", max_workers=2)
            >>> process.add_task(abs, -1)
            >>> process.add_task(lambda: current_task().sleep(60))
            >>> with process.start() as run:
            ...     for outcome in run:
            ...         break
            >>> outcome.value, run.status
            (1, 'cancelled')

        """
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._execution.stop_by_key()
        self.cancel()
        self.wait()

    def __iter__(self) -> Iterator[Outcome]:
        """Yield the outcome of each task once, as the tasks end; tasks that never started come last.

        Example:
            >>> from procession import Process
            >>> process = Process("two", strategy="parallel")
            >>> for number in 1, 2:
            ...     process.add_task(abs, number)
            >>> sorted(outcome.value for outcome in process.start())
            [1, 2]

        """
        ended: SimpleQueue[int | None] = SimpleQueue()
        with Ends(self._run_state, ended.put) as ends:
            if self._execution.over.is_open:
                ended.put(None)
            yield from map(self._tasks.of, ends.before)
            while (index := next_end(ended, self._check_loop)) is not None:
                if ends.first(index):
                    yield self._tasks.of(index)
            yield from map(self._tasks.of, ends.missing())

    async def __aiter__(self) -> AsyncIterator[Outcome]:
        """Yield the outcomes in a coroutine, without blocking its event loop: `async for outcome in run`."""
        from procession._loop.side_threads import Mailbox  # asyncio: see `engine_of`

        ended: Mailbox[int | None] = Mailbox()
        with Ends(self._run_state, ended.put) as ends:
            if self._execution.over.is_open:
                ended.put(None)
            for index in ends.before:
                yield self._tasks.of(index)
            while (now := await ended.get()) is not None:
                if ends.first(now):
                    yield self._tasks.of(now)
            for index in ends.missing():
                yield self._tasks.of(index)

    @overload
    def __getitem__(self, handle: Handle, /) -> Any: ...
    @overload
    def __getitem__(self, handle: T, /) -> T: ...
    def __getitem__(self, handle: object, /) -> object:
        """Return the value of a task, for its handle. Waits for the task to end.

        Args:
            handle: What `Process.task` or `Process.map` returned.

        Returns:
            The value.

        Raises:
            HandleError: `handle` is not a handle of this run's process, was added after the run began, or stands for
                values that are not kept.
            RunCancelledError: The task did not end, as the run was cancelled.
            TaskSkippedError: The task never started, as another one failed.
            Exception: The exception that the task raised.

        Example:
            >>> from procession import Process
            >>> process = Process("sum")
            >>> total = process.task(sum, [1, 2])
            >>> process.start()[total]
            3

        """
        index = self._index_of(handle, "run[...]")
        if not self._plan.options.get(index, PLAIN).keep:
            raise HandleError(f"{handle!r} has no value to ask for: the values of the task are not kept (keep=False)")
        wait_for_end(self._run_state, index, self._execution.over, self._check_loop)
        outcome = self._tasks.of(index)
        if outcome.error is not None:
            error = outcome.error
            try:
                raise error
            finally:
                del self, outcome, error
        if outcome.state in ("skipped", "cancelled", "suspended", "waiting"):
            raise self._execution.absent(index)
        return outcome.value

    def stream(self, handle: list[T], /, *, ordered: bool = True) -> Elements[T]:
        """Return an iterator over the results of a map while the run goes on; in a coroutine, take them by `async for`.

        Each comes as soon as it and those before it have ended. Failed elements are left out; when there are no others,
        what `result()` raises is raised. Leaving the iterator ends only the iteration.

        Name a map whose elements no task takes one by one in `start(streams=[...])`. Otherwise its elements come when
        it has ended, as they do in stages in order and with `allow_changes=True`.

        Args:
            handle: What `Process.map` returned.
            ordered: Whether the elements come in order. With `False` they come as they end.

        Returns:
            The iterator, which is an async iterator as well: `async for element in run.stream(handle)` blocks no loop.

        Raises:
            HandleError: `handle` is not the handle of a map of this run's process, or stands for values that are not
                kept and that were not asked for in `start(streams=[...])`.
            Exception: What `result()` raises.

        Example:
            >>> from procession import Process
            >>> process = Process("lengths", strategy="parallel")
            >>> lengths = process.map(len, ["one", "three"])
            >>> run = process.start(streams=[lengths])
            >>> list(run.stream(lengths))
            [3, 5]

        """
        index = self._index_of(handle, "run.stream(...)")
        if not self._plan.is_map(index):
            raise HandleError(f"run.stream(...) takes the handle of a map; got {handle!r}")
        streams = self._run_state.streams
        feed: Feed | None = None
        if streams is not None and index in streams.outlets:
            feed = streams.follow(index, ordered=ordered)
        if not self._plan.options.get(index, PLAIN).keep and (feed is None or not feed.reserved):
            raise HandleError(
                f"{handle!r} has values that are not kept (keep=False): name it in start(streams=[...]), so that the "
                "run hands them out"
            )
        return FollowedElements(self._streamed(index, feed), self._streamed_in_loop(index, feed))

    def summary(self, limit: int = 20) -> str:
        """Return a table of how the run went and of its tasks: the failed ones first, then the slowest.

        Characters that standard output cannot show are replaced.

        Args:
            limit: How many tasks are listed, at most.

        Returns:
            The table, as text of several lines.

        Example:
            >>> from procession import Process
            >>> process = Process("sum")
            >>> process.add_task(sum, [1, 2])
            >>> run = process.start()
            >>> run.wait()
            True
            >>> run.summary().partition(" in ")[0]
            'sum: completed'

        """
        return self._summary(limit).text()

    def timeline(self) -> "Timeline":
        """Return the timeline of the run: a picture, a trace for Perfetto, and words on why the run is not faster.

        Returns:
            The timeline; of a run that has not ended, the timeline so far.

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
        from procession.pictures.timeline import Timeline, spans_of, spans_of_calls  # pictures are drawn by few

        run_state, cores = self._run_state, self._execution.cores_used
        made = None if run_state.calls is None else run_state.calls.made
        return Timeline(
            self.process_name,
            self.status,
            self.duration,
            spans_of(self.outcomes, list(run_state.map_shares), run_state.began, run_state.failed_attempts.of_task),
            max_workers=run_state.max_workers,
            stages=self._plan.stages,
            needs=self._plan.needs,
            cpu=self._execution.cpu,
            cores=None if cores is None else (cores, usable_cores()),
            held_back=() if run_state.admission is None else run_state.admission.held_back,
            calls=() if made is None else spans_of_calls(made.read(), made.read_under_way(), run_state.epoch),
        )

    def stacks(self) -> "Stacks":
        """Return where the code of each running task stands: what hangs, and at which line.

        Known are the threads and coroutines of this process, and in worker processes the process alone. Cheap enough
        to be called at any time, and from any thread. Of a run inside a task ask that run.

        Returns:
            One entry for each running task, and for each running element of a map. `print` shows them.

        Example:
            >>> import threading
            >>> from procession import Process
            >>> begun, gate = threading.Event(), threading.Event()
            >>> def hang():
            ...     begun.set()
            ...     gate.wait()
            >>> process = Process("hanging", "parallel")
            >>> process.add_task(hang)
            >>> run = process.start()
            >>> begun.wait(10)
            True
            >>> [(one.name, one.frames[0].name) for one in run.stacks()]
            [('hang', 'hang')]
            >>> gate.set()
            >>> run.wait(10)
            True

        """
        from procession._engine.stacks import stacks_of  # asked for by few

        return stacks_of(self._run_state)

    def __repr__(self) -> str:
        ended, _, total = self.progress
        progress = f"{ended:,} of {counted(total, 'task')} ended"
        return f"<Run {self.id} of {shown(self.process_name)!r}: {self.status}, {progress}>"

    def _repr_html_(self) -> str:
        return self._summary().html()

    # Inside

    def _summary(self, limit: int = 20) -> "Summary":
        from procession.observe.summary import Summary  # asked for by few

        ledger = self._run_state.ledger
        states: list[TaskState] = [ledger.state(index) for index in range(len(self._plan.calls))]
        for index in list(self._run_state.failed_attempts.pausing):
            states[index] = "waiting" if states[index] == "running" else states[index]

        def weight(index: int) -> tuple[bool, float]:
            start, end = ledger.starts[index], ledger.ends[index]
            return states[index] != "failed", -(end - start) if start is not None and end is not None else 1.0

        worst = [self._tasks.of(index) for index in sorted(range(len(states)), key=weight)[:limit]]
        return Summary(self.process_name, self.id, self.status, self.duration, states, ledger.failure, worst)

    def _index_of(self, handle: object, where: str) -> int:
        """Return the index of a task of this run. Raises `HandleError` for what is no handle of such a task."""
        if not isinstance(handle, Handle) or owner_of(handle) is not self._owner:
            given = f"{handle!r}, another process" if isinstance(handle, Handle) else sketch(handle)
            raise HandleError(f"{where} takes a handle of process {shown(self.process_name)!r}; got {given}")
        index = index_of(handle)
        if index >= len(self._plan.calls):
            raise HandleError(f"{handle!r} was added after this run of process {shown(self.process_name)!r} began")
        return index

    def _streamed(self, index: int, feed: "Feed | None") -> Generator[Any]:
        if feed is not None:
            yield from followed(self._run_state, feed, self._execution.over, self._check_loop)
        wait_for_end(self._run_state, index, self._execution.over, self._check_loop)
        if self._run_state.ledger.state(index) == "completed":
            if feed is None:
                yield from self._tasks.of(index).value
            return
        if feed is None:
            yield from good_elements(self._run_state.ledger, index)
        self.result()  # raises, unless failures are among the results

    async def _streamed_in_loop(self, index: int, feed: "Feed | None") -> AsyncGenerator[Any]:
        if feed is not None:
            from procession._loop.followed import followed_in_loop  # asyncio: see `engine_of`

            async with aclosing(followed_in_loop(self._run_state, feed, self._execution.over)) as elements:
                async for element in elements:
                    yield element
        async for outcome in self:
            if outcome.index == index:
                break
        if self._run_state.ledger.state(index) == "completed":
            for element in self._tasks.of(index).value if feed is None else ():
                yield element
            return
        for element in good_elements(self._run_state.ledger, index) if feed is None else ():
            yield element
        await self  # raises, unless failures are among the results

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
                "would never end; in a coroutine: `await run`, `async for outcome in run`, or "
                "`async for element in run.stream(handle)`"
            )
