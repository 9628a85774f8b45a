"""A process: a named list of tasks and a strategy, which can be executed."""

import os
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn, ParamSpec, TypeVar, cast, overload

from procession._arguments import (
    check_definition,
    check_execution,
    check_on_end,
    checked_constants,
    observers_in,
    warn_of_workers,
)
from procession._blocking import warn_in_coroutine
from procession._definition import Definition, is_by_halves
from procession._model.batched import checked_batch
from procession._model.handle import Handle, Stream
from procession._model.observer import Observer
from procession._model.strategy import Strategy, StrategyName, strategy_of
from procession._model.task import (
    OPTION_NAMES,
    PLAIN,
    Call,
    MapFunction,
    Options,
    check_iterables,
    name_of,
    options_of,
)
from procession._model.text import counted, shown, sketch
from procession._model.where import usable_cores
from procession.errors import ProcessRunningError

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from procession._model.states import OnError, ProcessStatus
    from procession._model.where import ExecutorLike
    from procession._plan.fingerprint import Fingerprint
    from procession._run import Run
    from procession.journal import Journal
    from procession.pictures.graph import Graph

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")


_UNSAID: Final = cast("StrategyName", str(b"sequential", "ascii"))
"""The strategy that a process has where none was passed: another object than all others that equal it."""


class Process:
    """A named list of tasks, and the strategy that says which of them run at the same time.

    Args:
        name: The name of the process in logs, events, journals and errors.
        strategy: `"sequential"` (one task after another, in the caller's thread), `"parallel"` (all at once, on at most
            `max_workers` threads), `"hybrid"` (the first half in order, then the rest at once), or one of
            `Sequential()`, `Parallel()`, `Hybrid(first=...)`.
        max_workers: How many tasks may run at the same time, at least 1. `None` means `min(32, cores + 4)`, and with
            worker processes the number of cores.
        on_error: What happens after a task has failed. `"stop"`: nothing new starts, and the failure is raised.
            `"continue"`: all tasks that do not wait for the failed one still run, then an `ExceptionGroup` of all
            failures is raised. `"return"`: the same tasks run, and exceptions are returned in place of results.
        executor: Where tasks run: `"threads"`, `"processes"` (for work that keeps a core busy; functions, arguments and
            results must be picklable), `"dask"`, a Dask client or the address of its scheduler, `"ray"`, or any
            `concurrent.futures.Executor`, which is not shut down. A task of a parallel stage that takes `stream(...)`
            runs in this program with any of them.
        journal: Where runs are recorded unless `execute` says otherwise: a path for SQLite, a URL for another database,
            or a `procession.journal.Journal`. `None` records nothing.
        observers: Objects whose `on_event` is called with each event of the runs: see `Observer`.
        on_end: A function that is called once with each run when it has completed, failed or been cancelled: before
            `execute` returns or raises, and after `start()` in the thread of the run. What it raises is logged.

    Attributes:
        name: The name that was passed.
        strategy: The strategy that was passed, as a name or an object.
        max_workers: How many tasks may run at the same time, as a number.
        on_error: The policy that was passed.
        executor: The executor that was passed.
        journal: The journal that was passed, or `None`.
        observers: The observers that were passed, in a list.
        on_end: The function that was passed, or `None`.
        tasks: The tasks in the order added, each a tuple `(callable, args, kwargs)`.
        status: `"initialized"`, `"running"`, then `"completed"`, or `"failed"` after any exception or a cancellation.

    Raises:
        ValueError: A strategy, policy or executor is unknown, or `max_workers` is below 1.
        TypeError: An argument has a wrong type.

    Warns:
        RuntimeWarning: `max_workers` is more than 1 and no strategy was passed: `"sequential"` runs one task at a time.

    Example:
        >>> process = Process("squares", strategy="parallel", max_workers=4)
        >>> for number in range(5):
        ...     process.add_task(pow, number, 2)
        >>> process.execute()
        [0, 1, 4, 9, 16]
        >>> process.status
        'completed'

    """

    __slots__ = (
        "__weakref__",
        "_definition",
        "_last_run",
        "_lock",
        "executor",
        "journal",
        "max_workers",
        "name",
        "observers",
        "on_end",
        "on_error",
        "status",
        "strategy",
        "tasks",
    )

    _drives_tasks = True

    def __init__(
        self,
        name: str,
        strategy: "StrategyName | Strategy" = _UNSAID,
        max_workers: int | None = None,
        *,
        on_error: "OnError" = "stop",
        executor: "ExecutorLike" = "threads",
        journal: "Journal | str | os.PathLike[str] | None" = None,
        observers: "Iterable[Observer]" = (),
        on_end: "Callable[[Run], object] | None" = None,
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"a process has a name of type str; got {sketch(name)}")
        where = f"process {shown(name)!r}"
        given = max_workers
        if max_workers is None:
            max_workers = usable_cores() if executor == "processes" else min(32, (os.cpu_count() or 1) + 4)
        check_definition(where, strategy, max_workers, on_error, executor, journal)
        if strategy is _UNSAID:
            strategy = "sequential"
            if given is not None and given > 1:
                warn_of_workers(where, given)
        self.name: str = name
        self.strategy: StrategyName | Strategy = strategy
        self.max_workers: int = max_workers
        self.on_error: OnError = on_error
        self.executor: ExecutorLike = executor
        self.journal = journal
        self.observers: list[Observer] = observers_in(where, observers)
        check_on_end(where, on_end)
        self.on_end = on_end
        self.tasks: list[Call] = []
        self.status: ProcessStatus = "initialized"
        self._definition = Definition(name)
        self._last_run: Run | None = None
        # Guards the definition and the passage from one status to the next.
        self._lock = threading.Lock()

    # Definition

    def add_task(self, callable: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Add a task: a call that `execute` makes later. Every keyword argument is passed on, whatever its name.

        A coroutine function is a task like any other: its call is awaited, under every strategy.

        Args:
            callable: The function to call, by position only.
            *args: Its positional arguments. A handle becomes the value of its task.
            **kwargs: Its keyword arguments, likewise.

        Raises:
            TypeError: The callable cannot be called, is an async generator function, or plainly cannot take a stream
                that is among its arguments.
            HandleError: A handle is of another process, or deeper inside an argument than `task` says.
            NestingError: The process would contain itself.
            ProcessRunningError: The process is running.

        """
        definition = self._definition
        plain = callable is definition.plain or definition.is_plain(len(self.tasks), callable)
        values: tuple[Any, ...] = args
        if kwargs:
            if not OPTION_NAMES.isdisjoint(kwargs):
                definition.check_keywords(len(self.tasks), callable, kwargs)
            values = (*args, *kwargs.values())
        plain_types = definition.plain_types
        for value in values:
            if type(value) not in plain_types:
                plain = definition.is_of_plain_type(value) and plain
        if plain:
            if self.status == "running":
                self._check_not_running("adding a task to it")
            self.tasks.append((callable, args, kwargs))
        else:
            self._add((callable, args, kwargs), options_of(callable), handled=False)

    add_step = add_task

    @overload
    def task(self, callable: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    def task(self, callable: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    def task(self, callable: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Add a task as `add_task` does, and return a handle that stands for its result.

        As an argument of a later task, or directly inside a list, tuple or dict argument, the handle is replaced by
        the result, and the later task waits for this one. Type checkers take the handle for the result, so they check
        what is passed on; used as the result outside of a task, it raises `HandleError`. Raises what `add_task` raises.

        Args:
            callable: The function to call, by position only.
            *args: Its positional arguments.
            **kwargs: Its keyword arguments.

        Returns:
            The handle, typed as the result.

        Example:
            >>> process = Process("sum", strategy="parallel")
            >>> one, two = process.task(int, "1"), process.task(int, "2")
            >>> total = process.task(sum, [one, two])
            >>> run = process.start()
            >>> run[total]
            3

        """
        definition, index = self._definition, len(self.tasks)
        plain = callable is definition.plain or definition.is_plain(index, callable)
        definition.check_keywords(index, callable, kwargs)
        return self._add((callable, args, kwargs), PLAIN if plain else options_of(callable), handled=True)

    @overload
    def map(self, callable: Callable[[A], Coroutine[Any, Any, T]], iterable: Iterable[A], /) -> list[T]: ...
    @overload
    def map(
        self, callable: Callable[[A, B], Coroutine[Any, Any, T]], first: Iterable[A], second: Iterable[B], /
    ) -> list[T]: ...
    @overload
    def map(
        self,
        callable: Callable[..., Coroutine[Any, Any, T]],
        first: Iterable[Any],
        second: Iterable[Any],
        third: Iterable[Any],
        /,
        *more: Iterable[Any],
    ) -> list[T]: ...
    @overload
    def map(self, callable: Callable[[A], T], iterable: Iterable[A], /) -> list[T]: ...
    @overload
    def map(self, callable: Callable[[A, B], T], first: Iterable[A], second: Iterable[B], /) -> list[T]: ...
    @overload
    def map(
        self, callable: Callable[[A, B, C], T], first: Iterable[A], second: Iterable[B], third: Iterable[C], /
    ) -> list[T]: ...
    @overload
    def map(
        self,
        callable: Callable[[A, B, C, D], T],
        first: Iterable[A],
        second: Iterable[B],
        third: Iterable[C],
        fourth: Iterable[D],
        /,
    ) -> list[T]: ...
    @overload
    def map(
        self,
        callable: Callable[[A, B, C, D, E], T],
        first: Iterable[A],
        second: Iterable[B],
        third: Iterable[C],
        fourth: Iterable[D],
        fifth: Iterable[E],
        /,
    ) -> list[T]: ...
    @overload
    def map(
        self,
        callable: Callable[..., T],
        first: Iterable[Any],
        second: Iterable[Any],
        third: Iterable[Any],
        fourth: Iterable[Any],
        fifth: Iterable[Any],
        sixth: Iterable[Any],
        /,
        *more: Iterable[Any],
    ) -> list[T]: ...
    @overload
    def map(
        self,
        callable: Callable[..., Coroutine[Any, Any, T]],
        first: Iterable[Any],
        /,
        *more: Iterable[Any],
        constants: Mapping[str, Any],
    ) -> list[T]: ...
    @overload
    def map(
        self, callable: Callable[..., T], first: Iterable[Any], /, *more: Iterable[Any], constants: Mapping[str, Any]
    ) -> list[T]: ...
    @overload
    def map(
        self,
        callable: Callable[[list[A]], Coroutine[Any, Any, Iterable[T]]],
        iterable: Iterable[A],
        /,
        *,
        batch: int,
    ) -> list[T]: ...
    @overload
    def map(
        self,
        callable: Callable[[list[A], list[B]], Coroutine[Any, Any, Iterable[T]]],
        first: Iterable[A],
        second: Iterable[B],
        /,
        *,
        batch: int,
    ) -> list[T]: ...
    @overload
    def map(self, callable: Callable[[list[A]], Iterable[T]], iterable: Iterable[A], /, *, batch: int) -> list[T]: ...
    @overload
    def map(
        self,
        callable: Callable[[list[A], list[B]], Iterable[T]],
        first: Iterable[A],
        second: Iterable[B],
        /,
        *,
        batch: int,
    ) -> list[T]: ...
    @overload
    def map(
        self,
        callable: Callable[..., Coroutine[Any, Any, Iterable[T]]],
        first: Iterable[Any],
        second: Iterable[Any],
        third: Iterable[Any],
        /,
        *more: Iterable[Any],
        batch: int,
    ) -> list[T]: ...
    @overload
    def map(
        self,
        callable: Callable[..., Iterable[T]],
        first: Iterable[Any],
        second: Iterable[Any],
        third: Iterable[Any],
        /,
        *more: Iterable[Any],
        batch: int,
    ) -> list[T]: ...
    @overload
    def map(
        self,
        callable: Callable[..., Coroutine[Any, Any, Iterable[T]]],
        first: Iterable[Any],
        /,
        *more: Iterable[Any],
        constants: Mapping[str, Any],
        batch: int,
    ) -> list[T]: ...
    @overload
    def map(
        self,
        callable: Callable[..., Iterable[T]],
        first: Iterable[Any],
        /,
        *more: Iterable[Any],
        constants: Mapping[str, Any],
        batch: int,
    ) -> list[T]: ...
    def map(
        self,
        callable: Callable[..., Any],
        /,
        *iterables: Iterable[Any],
        constants: Mapping[str, Any] | None = None,
        batch: int | None = None,
    ) -> list[Any]:
        """Add one task that calls `callable` once for each element, and return the handle of the list of results.

        In a parallel stage the elements run at the same time, and the options of `callable` hold for each of them. An
        iterable may be a handle; its elements are known once its task has ended. A lazy iterable is drawn as workers
        become free, at most 64 elements ahead. Iterables of unequal length are an error, as in `zip(strict=True)`: at
        once for sequences, sets and mappings, else when the shortest ends. After an element has failed, the other
        elements are still called unless `on_error` is `"stop"`, and then the map fails; with `"return"`, its list is
        returned nevertheless, with exceptions in place of results.

        Args:
            callable: The function to call for each element.
            *iterables: One or more iterables, or handles of some; the function gets one argument from each.
            constants: Keyword arguments that are the same for every call. A handle among them stands for the whole
                value of its task, which is waited for.
            batch: The number of elements that a call gets, at most: the function is then called with a list from each
                iterable, and returns an iterable with one result for each element, in order. A batch is retried,
                timed, limited and fails as one call; results, records and counts are by element. A batch may be
                smaller: elements of another map are taken as they end, and if an iterable takes more than 20 ms for
                its next element, a free worker takes what is there.

        Returns:
            The handle of the list of results, typed as the list.

        Raises:
            TypeError: An argument cannot be iterated, the callable is what `add_task` refuses, it does not take one of
                the constants, or `batch` is no `int`.
            ValueError: The iterables are not equally long, or `batch` is below 1.

        Example:
            >>> process = Process("lengths")
            >>> words = process.task(str.split, "one three")
            >>> lengths = process.map(len, words)
            >>> process.execute()
            [['one', 'three'], [3, 5]]
            >>> process = Process("numbers")
            >>> numbers = process.map(int, ["7", "11"], constants={"base": 8})
            >>> process.execute()
            [[7, 9]]
            >>> process = Process("ranks")
            >>> def ranks(words: list[str]) -> list[int]:
            ...     return [sorted(words).index(word) for word in words]
            >>> _ = process.map(ranks, ["pear", "apple", "fig", "plum"], batch=3)
            >>> process.execute()
            [[2, 0, 1, 0]]

        """
        self._definition.is_plain(len(self.tasks), callable)
        where = self._definition.where(len(self.tasks), callable)
        if not iterables:
            raise TypeError(f"{where}: map(callable, *iterables) takes at least one iterable")
        check_iterables(tuple(item for item in iterables if not isinstance(item, Handle)), where)
        constants = checked_constants(where, callable, constants)
        call: Call = (MapFunction(callable, checked_batch(where, batch)), iterables, constants)
        return cast("list[Any]", self._add(call, options_of(callable), handled=True))

    # Execution

    def execute(
        self,
        *,
        run_id: str | None = None,
        journal: "Journal | str | os.PathLike[str] | None" = None,
        allow_changes: bool = False,
        timeout: float | None = None,
        observers: "Iterable[Observer]" = (),
        progress: bool = False,
    ) -> list[Any]:
        """Run all tasks and return the list of their results, in the order added.

        Args:
            run_id: The key of the run in the journal. Executed again under the same id, from any program, the process
                calls only the tasks that have not completed, and returns the recorded results of the others.
            journal: Where the run is recorded, instead of the journal of the process: a path, a URL or a `Journal`.
            allow_changes: What happens if the definition has changed since the run was recorded. `False` refuses it;
                `True` calls the changed tasks again, and what follows from them. Completed maps over a generator are
                then drawn again.
            timeout: How long the run may take, in seconds; `None` means no limit. A run that takes longer is cancelled,
                and calls in threads that do not end are left behind, as at the timeout of a task.
            observers: Objects whose `on_event` is called with each event of this run, besides those of the process.
            progress: Whether to show progress on standard error: bars on a terminal (with the extra `cli`) and in a
                notebook, elsewhere a line every few seconds. A run of less than 0.2 s shows nothing.

        Returns:
            One result for each task, in the order added, whatever order they ended in; `[]` for no tasks.

        Raises:
            Exception: The exception of the first task that failed, with a note that says where. For other policies than
                `"stop"`, see `on_error`.
            RunTimeoutError: The run took longer than `timeout`.
            ProcessRunningError: The process is running already.
            PlanChangedError: The definition has changed since the run was recorded.
            RunInUseError: The run is being executed already.
            JournalError: The journal cannot be read or written.
            DigestError: An argument cannot be compared with the recorded one.
            ResultError: A result cannot be recorded, or not be read back.

        Warns:
            RuntimeWarning: It is called in a coroutine, whose event loop it would block: see `execute_async`.

        """
        warn_in_coroutine(self.name)
        run = self._new_run(run_id, journal, observers, progress=progress, allow_changes=allow_changes, timeout=timeout)
        try:
            run._execution.drive()
            return run._execution.take()
        finally:
            # An exception keeps this frame, and the last run keeps the exception: no cycle may stay.
            del run, self

    def __call__(self) -> list[Any]:
        """Call `execute()`, so that a process can be a task of another one."""
        return self.execute()

    async def execute_async(
        self,
        *,
        run_id: str | None = None,
        journal: "Journal | str | os.PathLike[str] | None" = None,
        allow_changes: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109  # it says what becomes of the run, and not only of the wait
        observers: "Iterable[Observer]" = (),
        progress: bool = False,
    ) -> list[Any]:
        """Run all tasks as `execute` does, without blocking the running event loop, in which coroutines are awaited.

        Plain functions run in threads, those of a sequential stage too. If the caller's asyncio task is cancelled, so
        is the run: nothing new starts, coroutines are cancelled, running plain functions finish, and then
        `CancelledError` is raised; a second cancellation raises it at once. Otherwise it raises what `execute` raises,
        with a `RuntimeError` in place of `StopIteration`, which no coroutine can raise.

        Args:
            run_id: As for `execute`.
            journal: As for `execute`.
            allow_changes: As for `execute`.
            timeout: As for `execute`.
            observers: As for `execute`.
            progress: As for `execute`.

        Returns:
            One result for each task, in the order added.

        Example:
            >>> import asyncio
            >>> process = Process("pauses", "parallel", max_workers=1000)
            >>> process.add_task(asyncio.sleep, 0, "Ada")
            >>> process.add_task(asyncio.sleep, 0, "Grace")
            >>> asyncio.run(process.execute_async())
            ['Ada', 'Grace']

        """
        make = partial(
            self._new_run, run_id, journal, observers, progress=progress, allow_changes=allow_changes, timeout=timeout
        )
        run = await self._made(make, recorded=journal is not None)
        try:
            await run._execution.drive_async()
            return run._execution.take()
        finally:
            # As in execute.
            del run, self

    def start(
        self,
        *,
        run_id: str | None = None,
        journal: "Journal | str | os.PathLike[str] | None" = None,
        allow_changes: bool = False,
        timeout: float | None = None,
        observers: "Iterable[Observer]" = (),
        progress: bool = False,
        streams: Iterable[list[Any]] = (),
    ) -> "Run":
        """Start the tasks in the background, and return the run immediately.

        The run has a thread of its own, in which sequential stages and an event loop for coroutines run. Wait for it by
        `run.result()`, or in a coroutine by `await run`. If a block `with process.start() as run:` is left early, the
        run is cancelled, and the block waits until the running tasks have finished. At exit the interpreter waits for
        the run, but may start no more threads: without a worker yet, the run makes its calls one after another.

        Args:
            run_id: As for `execute`.
            journal: As for `execute`.
            allow_changes: As for `execute`.
            timeout: As for `execute`.
            observers: As for `execute`.
            progress: As for `execute`.
            streams: Handles of the maps whose elements you will take by `run.stream` while the run goes on.

        Returns:
            The run in progress.

        Raises:
            ProcessRunningError: The process is running already.
            HandleError: One of `streams` is not the handle of a map of this process.
            JournalError: The journal cannot be read or written; and the other errors of `execute` about journals.

        """
        run = self._new_run(
            run_id,
            journal,
            observers,
            progress=progress,
            allow_changes=allow_changes,
            timeout=timeout,
            streams=streams,
        )
        run._execution.start()
        return run

    def start_async(
        self,
        *,
        run_id: str | None = None,
        journal: "Journal | str | os.PathLike[str] | None" = None,
        allow_changes: bool = False,
        timeout: float | None = None,
        observers: "Iterable[Observer]" = (),
        progress: bool = False,
        streams: Iterable[list[Any]] = (),
    ) -> "AbstractAsyncContextManager[Run]":
        """Run all tasks in the event loop of the caller for as long as an `async with` block lasts.

        `async with process.start_async() as run:` starts the run. Its coroutines share the event loop with the caller,
        and so can share clients and connections that belong to that loop; `start()` has a loop of its own in another
        thread. In the block, `async for outcome in run` follows the run, and `await run` waits for its results. If the
        block is left early, the run is cancelled and waited for.

        Args:
            run_id: As for `execute`.
            journal: As for `execute`.
            allow_changes: As for `execute`.
            timeout: As for `execute`.
            observers: As for `execute`.
            progress: As for `execute`.
            streams: As for `start`.

        Returns:
            A context manager to be entered once, which gives the run. Entering it raises what `start` raises.

        Example:
            >>> import asyncio
            >>> process = Process("pause", "parallel")
            >>> process.add_task(asyncio.sleep, 0, "Ada")
            >>> async def main() -> None:
            ...     async with process.start_async() as run:
            ...         async for outcome in run:
            ...             print(outcome.value)
            >>> asyncio.run(main())
            Ada

        """
        from procession._started import StartedHere

        make = partial(
            self._new_run,
            run_id,
            journal,
            observers,
            progress=progress,
            allow_changes=allow_changes,
            timeout=timeout,
            streams=streams,
        )
        return StartedHere(partial(self._made, make, recorded=journal is not None))

    @property
    def last_run(self) -> "Run | None":
        """The run that was started last; `None` before the first."""
        return self._last_run

    def graph(self) -> "Graph":
        """Return a picture of the stages and tasks, and of which tasks wait for which.

        Returns:
            The graph. `str()` of it is Mermaid text, `.svg()` an SVG picture, which notebooks show, and `.save(path)`
            writes either to a file.

        Example:
            >>> process = Process("sum", strategy="parallel")
            >>> one, two = process.task(int, "1"), process.task(int, "2")
            >>> total = process.task(sum, [one, two])
            >>> process.graph()
            <Graph of 'sum': 3 tasks in 3 nodes>

        """
        from procession._plan.shape import shape_of  # pictures are drawn by few
        from procession.pictures.graph import graph_of

        tasks = list(self.tasks)
        shape = shape_of(tasks, strategy_of(self.strategy).stages(len(tasks)), self._definition.needs)
        return graph_of(self.name, [name_of(call[0]) for call in tasks], shape)

    def _repr_svg_(self) -> str:
        return self.graph().svg()

    def _repr_html_(self) -> str:
        return self.graph()._repr_html_()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"process {shown(self.name)!r} cannot be copied or pickled: it belongs to its handles and runs; "
            "write a function that builds it, and call that again"
        )

    def __procession_digest__(self) -> "Fingerprint":
        """Return the fingerprint of this process, as part of that of a process that has it as task or argument."""
        from procession._plan.fingerprint import fingerprint_of  # asked for by a fingerprint, which is there then

        return fingerprint_of(self.name, self.tasks)

    def __repr__(self) -> str:
        return f"<Process {shown(self.name)!r}: {counted(len(self.tasks), 'task')}, {self.strategy}, {self.status}>"

    # Inside

    def _add(self, call: Call, options: Options, *, handled: bool) -> Handle | None:
        """Add a task that has, or may have, more to it than a call; return its handle."""
        definition = self._definition
        handles = definition.handles(len(self.tasks), call)
        streams = [handle for handle in handles if type(handle) is Stream]
        if streams:
            definition.check_takers(len(self.tasks), call)
        with self._lock:
            self._check_not_running("adding a task to it")
            definition.check_limits(len(self.tasks), call[0], options)
            if streams:
                definition.check_streams(len(self.tasks), call[0], options, streams[0])
            index = len(self.tasks)
            self.tasks.append(call)
            while self.tasks[index] is not call:  # add_task appends plain calls without the lock
                index += 1
            definition.add(index, call, options, handles, handled=handled)
        if options.timeout is not None and self.executor == "threads" and not is_by_halves(self.strategy):
            definition.warn_of_threads(self.tasks, strategy_of(self.strategy), [index])
        return Handle(definition.owner, index, call[0]) if handled else None

    def _new_run(
        self,
        run_id: str | None,
        journal: "Journal | str | os.PathLike[str] | None",
        observers: Iterable[Observer],
        *,
        progress: bool,
        allow_changes: bool,
        timeout: float | None,
        streams: Iterable[list[Any]] = (),
    ) -> "Run":
        # They bring engines, pools and logging along, which a definition does without.
        from procession._execution import Execution, is_being_called
        from procession._run import Run

        definition, where = self._definition, f"process {shown(self.name)!r}"
        followed = definition.maps_among(self.tasks, streams)
        # Attributes can be assigned, so they are checked again.
        strategy = check_definition(where, self.strategy, self.max_workers, self.on_error, self.executor, self.journal)
        check_execution(where, run_id, journal, allow_changes=allow_changes, progress=progress, timeout=timeout)
        observers = observers_in(where, self.observers) + observers_in(where, observers)
        check_on_end(where, self.on_end)
        if definition.options and self.executor == "threads" and is_by_halves(strategy):
            definition.warn_of_threads(self.tasks, strategy, definition.options)
        if definition.options and self.executor != "threads":
            definition.check_executors(self.tasks, self.executor)
        with self._lock:
            self._check_not_running("another run of it")
            plan = definition.plan(self.tasks, strategy)
            self.status = "running"
        try:
            execution = Execution(
                plan,
                process_name=self.name,
                max_workers=self.max_workers,
                on_error=self.on_error,
                executor=self.executor,
                run_id=run_id,
                journal=self.journal if journal is None else journal,
                allow_changes=allow_changes,
                timeout=timeout,
                nested=is_being_called(self),
                observers=observers,
                progress=progress,
                on_end=self._note_end,
                followed=followed,
            )
        except BaseException:
            self.status = "failed"
            raise
        try:
            self._last_run = run = Run(execution, definition.owner)
            if self.on_end is not None:
                execution.notice = partial(self.on_end, run)
        except BaseException as error:
            execution.give_up(error)
            raise
        return run

    async def _made(self, make: "Callable[[], Run]", *, recorded: bool) -> "Run":
        """Return a new run without holding up the loop, though its journal may."""
        from procession._execution import is_being_called  # as in _new_run
        from procession._started import made_in_thread

        return await made_in_thread(make) if recorded or self.journal is not None or is_being_called(self) else make()

    def _note_end(self, completed: bool) -> None:
        self.status = "completed" if completed else "failed"

    def _check_not_running(self, what: str) -> None:
        if self.status == "running":
            raise ProcessRunningError(
                f"process {shown(self.name)!r} is running; {what} has to wait until it has ended, or takes another "
                "process"
            )
