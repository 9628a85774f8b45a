"""A process: a named list of tasks and a strategy, which can be executed."""

import os
import threading
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn, ParamSpec, TypeVar, cast, overload

from procession._arguments import check_definition, check_execution, observers_in, warn_of_thread
from procession._blocking import warn_in_coroutine
from procession._engine.call_context import CURRENT_CALL
from procession._model.handle import Handle, Owner, index_of, owner_of
from procession._model.observer import Observer
from procession._model.states import OnError, ProcessStatus
from procession._model.strategy import Hybrid, Strategy, StrategyName, strategy_of
from procession._model.task import (
    OPTION_NAMES,
    PLAIN,
    Call,
    MapFunction,
    Options,
    check_iterables,
    is_async_generator_function,
    is_coroutine_function,
    look_up,
    name_of,
    options_of,
    takes,
    unwrapped,
)
from procession._model.text import counted, shown, sketch
from procession._plan.plan import plan_of
from procession._plan.wiring import Hidden, handles_in, searched_as
from procession.errors import HandleError, NestingError, ProcessRunningError

if TYPE_CHECKING:
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

_UNSEEN: Final = object()  # and not None, which print("too soon") returns


class Process:
    """A named list of tasks and the strategy that says which of them wait for which.

    Args:
        name: What logs, events, journals and errors call the process.
        strategy: `"sequential"` (one task after another, in the caller's thread), `"parallel"` (all at once, on at most
            `max_workers` threads) or `"hybrid"` (the first half in order, then the rest at once); or one of
            `Sequential()`, `Parallel()`, `Hybrid(first=...)`.
        max_workers: How many tasks run at the same time, at most: an `int` of at least 1. `None` is
            `min(32, cores + 4)`.
        on_error: What a failed task means for the others. `"stop"` starts nothing new and raises the failure.
            `"continue"` runs whatever does not wait for the failed task, and raises an `ExceptionGroup` of all
            failures. `"return"` does the same, and puts the exceptions into the results, at their places.
        executor: Where tasks run: `"threads"`; `"processes"` (worker processes, for work that keeps a core busy;
            functions, arguments and results must be picklable); `"dask"`, a Dask client or the address of its
            scheduler; `"ray"`; or any `concurrent.futures.Executor`, which stays the caller's. With any but
            `"threads"`, tasks in order run there, too.
        journal: Where runs are recorded unless `execute` says otherwise: a path for SQLite, a URL for another database,
            or a `procession.journal.Journal`. `None` records nothing.
        observers: Who is told of each event of its runs: see `Observer`.

    Attributes:
        name: The name, as given.
        strategy: The strategy, as given.
        max_workers: The number of workers; where `None` was given, the number that this means.
        on_error: The policy, as given.
        executor: Where tasks run, as given.
        journal: Where runs are recorded, as given.
        observers: The observers, in a list.
        tasks: The tasks in the order added. Each is a tuple `(callable, args, kwargs)`.
        status: `"initialized"`, then `"running"`, then `"completed"`, or `"failed"` after an exception or a cancelled
            run.

    Raises:
        ValueError: A strategy, policy or executor is unknown, or `max_workers` is below 1.
        TypeError: An argument has a type that cannot be meant.

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
        "_awaits",
        "_handled",
        "_last_run",
        "_lock",
        "_needs",
        "_nested",
        "_options",
        "_owner",
        "_pinned",
        "_plain",
        "_plain_kinds",
        "executor",
        "journal",
        "max_workers",
        "name",
        "observers",
        "on_error",
        "status",
        "strategy",
        "tasks",
    )

    _drives_tasks: ClassVar = True

    def __init__(
        self,
        name: str,
        strategy: StrategyName | Strategy = "sequential",
        max_workers: int | None = None,
        *,
        on_error: OnError = "stop",
        executor: "ExecutorLike" = "threads",
        journal: "Journal | str | os.PathLike[str] | None" = None,
        observers: Iterable[Observer] = (),
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"a process has a name of type str; got {sketch(name)}")
        where = f"process {shown(name)!r}"
        if max_workers is None:
            max_workers = min(32, (os.cpu_count() or 1) + 4)
        check_definition(where, strategy, max_workers, on_error, executor, journal)
        self.name: str = name
        self.strategy: StrategyName | Strategy = strategy
        self.max_workers: int = max_workers
        self.on_error: OnError = on_error
        self.executor: ExecutorLike = executor
        self.journal = journal
        self.observers: list[Observer] = observers_in(where, observers)
        self.tasks: list[Call] = []
        self.status: ProcessStatus = "initialized"
        self._owner = Owner(name)
        # What is said of some tasks only, by index.
        self._options: dict[int, Options] = {}
        self._needs: dict[int, tuple[int, ...]] = {}
        self._handled: set[int] = set()
        self._pinned: dict[int, Call] = {}
        self._nested: list[Process] = []
        # Whether a coroutine function was ever added: a plan without any need not look for them.
        self._awaits = False
        # The callable that was looked at last and has nothing to it: adding it again needs no second look.
        self._plain: object = _UNSEEN
        # The types of arguments that were looked at and hold no handle.
        self._plain_kinds: set[type] = set()
        self._last_run: Run | None = None
        # Guards the definition and the passage from one status to the next.
        self._lock = threading.Lock()

    # Definition

    def add_task(self, callable: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Add a call to make later. Every keyword reaches the callable, whatever its name.

        A coroutine function is a task like any other: its call is awaited, under every strategy.

        Args:
            callable: The function to call, by position only.
            *args: Its positional arguments. A handle becomes the value of its task.
            **kwargs: Its keyword arguments, likewise.

        Raises:
            TypeError: The callable cannot be called, or is an async generator function.
            HandleError: A handle is of another process, or deeper inside an argument than `task` says.
            NestingError: The process would contain itself.
            ProcessRunningError: The process is running.

        """
        plain = callable is self._plain or self._is_plain(callable)
        values: tuple[Any, ...] = args
        if kwargs:
            if not OPTION_NAMES.isdisjoint(kwargs):
                self._check_options(callable, kwargs)
            values = (*args, *kwargs.values())
        plain_kinds = self._plain_kinds
        for value in values:
            if type(value) not in plain_kinds:
                plain = self._is_of_plain_kind(value) and plain
        if not plain:
            self._add(callable, args, kwargs, options_of(callable), handled=False)
        elif self.status == "running":
            raise self._running("adding a task to it")
        else:
            self.tasks.append((callable, args, kwargs))

    add_step = add_task

    @overload
    def task(self, callable: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    def task(self, callable: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    def task(self, callable: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Add the same task as `add_task`, and return a handle that stands for the value it will have.

        As an argument of a later task, or directly inside a list, tuple or dict argument, the handle becomes that
        value, and the later task waits for this one. To type checkers it is the value already, so that they check
        the wiring; used as the value before a run, it raises `HandleError`. Raises what `add_task` raises.

        Args:
            callable: The function to call, by position only.
            *args: Its positional arguments.
            **kwargs: Its keyword arguments.

        Returns:
            The handle, typed as the value.

        Example:
            >>> process = Process("sum", strategy="parallel")
            >>> one, two = process.task(int, "1"), process.task(int, "2")
            >>> total = process.task(sum, [one, two])
            >>> run = process.start()
            >>> run[total]
            3

        """
        options = PLAIN if callable is self._plain or self._is_plain(callable) else options_of(callable)
        self._check_options(callable, kwargs)
        return self._add(callable, args, kwargs, options, handled=True)

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
    def map(self, callable: Callable[..., Any], /, *iterables: Iterable[Any]) -> list[Any]:
        """Add one task that calls `callable` once for each element, and return the handle of the list of results.

        Where tasks run at once, so do the elements, and the options of `callable` hold for each of them. An iterable
        may be a handle, whose elements are known only when its task has ended. A lazy iterable is drawn by the
        workers as they go, at most 64 elements ahead. Iterables of unequal length are an error, as in
        `zip(strict=True)`: at once for sequences, sets and mappings, else when the shortest ends. With an `on_error`
        other than `"stop"`, the other elements are called after one has failed, too, and then the map has failed; with
        `"return"`, its list stands in the results, with the exceptions at their places.

        Args:
            callable: The function to call for each element.
            *iterables: At least one iterable, or handle of one; the function takes an argument from each.

        Returns:
            The handle of the list of results, typed as the list.

        Raises:
            TypeError: An argument cannot be iterated, or the callable is what `add_task` refuses.
            ValueError: The iterables are not equally long.

        Example:
            >>> process = Process("lengths")
            >>> words = process.task(str.split, "one three")
            >>> lengths = process.map(len, words)
            >>> process.execute()
            [['one', 'three'], [3, 5]]

        """
        self._is_plain(callable)
        where = self._where(callable)
        if not iterables:
            raise TypeError(f"{where}: map(callable, *iterables) takes at least one iterable")
        check_iterables(tuple(item for item in iterables if not isinstance(item, Handle)), where)
        map_function = MapFunction(callable)
        return cast("list[Any]", self._add(map_function, iterables, {}, options_of(callable), handled=True))

    # Execution

    def execute(
        self,
        *,
        run_id: str | None = None,
        journal: "Journal | str | os.PathLike[str] | None" = None,
        allow_changes: bool = False,
        observers: Iterable[Observer] = (),
        progress: bool = False,
    ) -> list[Any]:
        """Run all tasks and return the list of their results, in the order added.

        Args:
            run_id: The key of the run in the journal. Executed again under the same id, in this interpreter or any
                other, the process calls only what has not ended well before, and returns what was recorded of the rest.
            journal: Where the run is recorded, in place of the journal of the process: a path, a URL or a `Journal`.
            allow_changes: Whether to call again what has changed in the definition since the run was recorded, and what
                follows from it, instead of refusing it.
            observers: Who is told of each event of this run, besides the observers of the process.
            progress: Whether to show how far the run has come on the standard error stream: bars on a terminal (with
                rich, the extra `cli`) and in a notebook, elsewhere a line every few seconds. A run of less than 0.2 s
                shows nothing.

        Returns:
            One result for each task, in the order added, whatever order they ended in; `[]` for no tasks.

        Raises:
            Exception: What the first failing task raised, as it raised it, with a note that says where. With another
                `on_error` than `"stop"`, see there.
            ProcessRunningError: The process is running already.
            PlanChangedError: The definition has changed since the run was recorded.
            RunInUseError: Another execution of the run goes on.
            JournalError: The journal cannot be read or written.
            DigestError: An argument cannot be compared with the recorded one.
            ResultError: A result cannot be recorded, or not be read back.

        Warns:
            RuntimeWarning: It is called in a coroutine, whose loop it would hold up: see `execute_async`.

        """
        warn_in_coroutine(f"process {shown(self.name)!r}")
        run = self._new_run(
            "executing it again", run_id, journal, observers, progress=progress, allow_changes=allow_changes
        )
        try:
            run._execution.drive()
            return run._execution.take()
        finally:
            # An exception keeps this frame, and the last run keeps the exception: no cycle may stay.
            del run, self

    def __call__(self) -> list[Any]:
        """Do what `execute()` does, so that a process can be a task of another one."""
        return self.execute()

    async def execute_async(
        self,
        *,
        run_id: str | None = None,
        journal: "Journal | str | os.PathLike[str] | None" = None,
        allow_changes: bool = False,
        observers: Iterable[Observer] = (),
        progress: bool = False,
    ) -> list[Any]:
        """Do what `execute` does in the running event loop, which nothing of the run but its coroutines holds up.

        Plain functions run in threads, those of a sequential stage too. Where the caller's task is cancelled, so is
        the run: nothing new starts, coroutines are cancelled, plain functions in flight are waited for, and
        `CancelledError` leaves when all have ended; a second cancellation leaves at once. Raises what `execute` raises,
        but `StopIteration`, which Python lets no coroutine raise: there it is the cause of a `RuntimeError`.

        Args:
            run_id: As for `execute`.
            journal: As for `execute`.
            allow_changes: As for `execute`.
            observers: As for `execute`.
            progress: As for `execute`.

        Returns:
            One result for each task, in the order added.

        Example:
            >>> import asyncio
            >>> async def greeting(name: str) -> str:
            ...     await asyncio.sleep(0)
            ...     return f"hello {name}"
            >>> process = Process("greetings", "parallel", max_workers=1000)
            >>> for name in "Ada", "Grace":
            ...     process.add_task(greeting, name)
            >>> asyncio.run(process.execute_async())
            ['hello Ada', 'hello Grace']

        """
        begin = partial(
            self._new_run,
            "executing it again",
            run_id,
            journal,
            observers,
            progress=progress,
            allow_changes=allow_changes,
        )
        if journal is None and self.journal is None and not _is_task(self):
            run = begin()
        else:
            run = await _begun_aside(begin)  # a journal may take its time
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
        observers: Iterable[Observer] = (),
        progress: bool = False,
    ) -> "Run":
        """Start to run all tasks in a thread of their own, and return the run at once.

        Sequential stages run in that thread, and so does an event loop for coroutines. Call `result()` on the run to
        wait for its end, or in a coroutine `await` it. An interpreter that exits waits for the run, but starts no
        threads any more: where the run has no worker yet, its own thread makes all calls, one after another.

        Args:
            run_id: As for `execute`.
            journal: As for `execute`.
            allow_changes: As for `execute`.
            observers: As for `execute`.
            progress: As for `execute`.

        Returns:
            The run, which goes on.

        Raises:
            ProcessRunningError: The process is running already.
            JournalError: The journal cannot be read or written; also what else `execute` raises of a journal.

        """
        run = self._new_run(
            "starting it again", run_id, journal, observers, progress=progress, allow_changes=allow_changes
        )
        run._execution.start()
        return run

    @property
    def last_run(self) -> "Run | None":
        """The run that was begun last, or `None`."""
        return self._last_run

    def graph(self) -> "Graph":
        """Return a picture of the stages and tasks, and of which wait for which. `str()` of it is Mermaid text.

        A notebook shows it as SVG; `.svg()` is that text, and `.save(path)` writes either to a file.

        >>> process = Process("sum", strategy="parallel")
        >>> one, two = process.task(int, "1"), process.task(int, "2")
        >>> total = process.task(sum, [one, two])
        >>> process.graph()
        <Graph of 'sum': 3 tasks in 3 nodes>
        """
        from procession._plan.shape import shape_of  # pictures are drawn by few
        from procession.pictures.graph import graph_of

        tasks = list(self.tasks)
        shape = shape_of(tasks, strategy_of(self.strategy).stages(len(tasks)), self._needs)
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
        """Return what another process's fingerprint has of this one where it is a task or an argument."""
        from procession._plan.fingerprint import fingerprint_of  # asked for by a fingerprint, which is there then

        return fingerprint_of(self.name, self.tasks)

    def __repr__(self) -> str:
        return f"<Process {shown(self.name)!r}: {counted(len(self.tasks), 'task')}, {self.strategy}, {self.status}>"

    # Inside

    def _new_run(
        self,
        what: str,
        run_id: str | None,
        journal: "Journal | str | os.PathLike[str] | None",
        observers: Iterable[Observer],
        *,
        progress: bool,
        allow_changes: bool,
    ) -> "Run":
        # They bring engines, pools and logging along, which a definition does without.
        from procession._execution import Execution
        from procession._run import Run

        # Attributes can be assigned, so they are looked at again.
        where = f"process {shown(self.name)!r}"
        strategy = check_definition(where, self.strategy, self.max_workers, self.on_error, self.executor, self.journal)
        check_execution(where, run_id, journal, allow_changes=allow_changes, progress=progress)
        observers = observers_in(where, self.observers) + observers_in(where, observers)
        if self._options and _is_half(strategy):  # of which nobody knew before which tasks are in order
            self._warn_of_threads(strategy, self._options)
        with self._lock:
            if self.status == "running":
                raise self._running(what)
            for index, call in self._pinned.items():
                if index >= len(self.tasks) or self.tasks[index] is not call:
                    raise HandleError(
                        f"process {shown(self.name)!r}: task {index} is no longer where it was added; handles and "
                        "options go by place, so leave `tasks` as it is, or make a new process"
                    )
                function = call[0]
                if isinstance(function, MapFunction) and function.spent:
                    raise ValueError(
                        f"process {shown(self.name)!r}, task {index} ({shown(name_of(function))}): the run before has "
                        "drawn from an iterator that can be drawn only once; give map a list, or an iterable that "
                        "starts afresh"
                    )
            plan = plan_of(
                self.tasks,
                strategy,
                options=self._options,
                needs=self._needs,
                handled=self._handled,
                awaits=self._awaits,
            )
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
                nested=_is_task(self),
                observers=observers,
                progress=progress,
                on_end=self._note_end,
            )
        except BaseException:
            self.status = "failed"
            raise
        self._last_run = run = Run(execution, self._owner)
        return run

    def _note_end(self, completed: bool) -> None:
        self.status = "completed" if completed else "failed"

    def _is_plain(self, function: Callable[..., Any]) -> bool:
        """Return whether there is nothing to the callable but the call; raise for what cannot be a task."""
        if not callable(function):
            raise TypeError(f"{self._where()}: a task is something to call; got {sketch(function)}")
        if isinstance(function, Handle):
            raise HandleError(
                f"{self._where()}: {function!r} stands for a value and cannot be called here; pass it to a function as "
                "an argument"
            )
        if searched_as(type(function)) is not None and (hidden := handles_in((function,), {})[1]) is not None:
            raise self._hidden(function, "the callable", hidden)
        if is_async_generator_function(function):
            raise TypeError(
                f"{self._where(function)}: it is an async generator function, and nobody here would iterate over what "
                "it gives; make it a coroutine function that does"
            )
        if is_coroutine_function(function):
            self._awaits = True
        inside = _process_in(unwrapped(function))
        if inside is not None and inside._contains(self):
            raise NestingError(f"{self._where(function)}: the process would contain itself")
        if inside is not None or options_of(function) is not PLAIN:
            return False
        self._plain = function
        return True

    def _is_of_plain_kind(self, value: object) -> bool:
        """Return whether an argument needs no search for handles."""
        if searched_as(type(value)) is not None:
            return False
        self._plain_kinds.add(type(value))
        return True

    def _check_options(self, function: Callable[..., Any], kwargs: dict[str, Any]) -> None:
        """Refuse an option of a task that is given as an argument, where the function does not take it."""
        for name in OPTION_NAMES.intersection(kwargs):
            if not takes(function, name):
                raise TypeError(
                    f"{self._where(function)}: the function takes no argument {name!r}. As an option of the task it "
                    f"goes with the function: add_task(task({name}=...)(function), ...), or @task({name}=...) above it"
                )

    def _contains(self, wanted: "Process") -> bool:
        """Return whether the process is the wanted one, or has it among its tasks at any depth."""
        pending, seen = [self], {id(self)}
        while pending:
            process = pending.pop()
            if process is wanted:
                return True
            new = [nested for nested in process._nested if id(nested) not in seen]
            seen.update(map(id, new))
            pending += new
        return False

    def _add(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
        *,
        handled: bool,
    ) -> Handle | None:
        """Add a task that has, or may have, more to it than a call; return its handle."""
        handles = self._handles(function, args, kwargs)
        call: Call = (function, args, kwargs)
        inside = _process_in(unwrapped(function))
        with self._lock:
            if self.status == "running":
                raise self._running("adding a task to it")
            index = len(self.tasks)
            self.tasks.append(call)
            while self.tasks[index] is not call:  # add_task appends plain calls without the lock
                index += 1
            if inside is not None:
                self._nested.append(inside)
            if handles:
                self._needs[index] = tuple(dict.fromkeys(map(index_of, handles)))
            if options is not PLAIN or isinstance(function, MapFunction):
                self._options[index] = options
            if handled:
                self._handled.add(index)
            if handled or handles or options is not PLAIN:
                self._pinned[index] = call
        if options.timeout is not None and not _is_half(self.strategy):
            self._warn_of_threads(strategy_of(self.strategy), [index])
        return Handle(self._owner, index, function) if handled else None

    def _warn_of_threads(self, strategy: Strategy, indexes: Iterable[int]) -> None:
        """Warn of those tasks that the strategy has called in the caller's thread, and their timeout in another."""
        in_order = [stage.stop for stage in strategy.stages(len(self.tasks)) if not stage.at_once]
        for index in indexes if in_order and self.executor == "threads" else ():
            if self._options[index].timeout is not None and index < in_order[0]:
                function = self.tasks[index][0]
                if not is_coroutine_function(function):
                    warn_of_thread(f"process {shown(self.name)!r}, task {index} ({shown(name_of(function))})")

    def _handles(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Handle]:
        """Return the handles among the arguments; raise for one whose value could not take its place."""
        handles, hidden = handles_in(args, kwargs)
        if hidden is not None:
            raise self._hidden(function, f"argument {hidden.argument!r}", hidden)
        for handle in handles:
            if owner_of(handle) is not self._owner:
                raise HandleError(
                    f"{self._where(function)}: {handle!r} is of another process; its value can be no argument here"
                )
        return handles

    def _hidden(self, function: Callable[..., Any], what: str, hidden: Hidden) -> HandleError:
        return HandleError(
            f"{self._where(function)}: {what} has {hidden.handle!r} in {hidden.holder}, where it would stay a handle; "
            "it becomes the value only as an argument of the task, or directly inside a list, tuple or dict argument"
        )

    def _where(self, function: Callable[..., Any] | None = None) -> str:
        name = "" if function is None else f" ({shown(name_of(function))})"
        return f"process {shown(self.name)!r}, task {len(self.tasks)}{name}"

    def _running(self, what: str) -> ProcessRunningError:
        return ProcessRunningError(
            f"process {shown(self.name)!r} is running; {what} has to wait until it has ended, or takes another process"
        )


def _is_half(strategy: object) -> bool:
    """Return whether it is known only when all tasks are there which of them are in order."""
    return strategy == "hybrid" or (isinstance(strategy, Hybrid) and strategy.first is None)


def _is_task(process: Process) -> bool:
    """Return whether what is being called right now is a process as a task of another."""
    call_context = CURRENT_CALL.get(None)
    if call_context is None or call_context.index < 0:
        return False
    from procession._engine.run_state import RunState  # which the run around it has imported

    if not isinstance(call_context.run, RunState):
        return False
    return _process_in(unwrapped(call_context.run.plan.calls[call_context.index][0])) is process


async def _begun_aside(begin: "Callable[[], Run]") -> "Run":
    """Return a run that is made in a thread, where its journal holds up no event loop."""
    from procession._loop.side_threads import in_thread  # asyncio takes longer to import than all the rest

    def end(run: "Run") -> None:  # for which nobody waits any more
        run.cancel()
        run._execution.drive()

    return await in_thread(begin, forsaken=end)


def _process_in(inner: Callable[..., Any]) -> Process | None:
    inside = look_up(inner, "__self__")
    inside = inner if inside is None else inside
    return inside if isinstance(inside, Process) else None
