"""Call contexts: which call a thread or coroutine is making, and what a running task can learn about itself."""

import contextvars
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, ParamSpec, Protocol, TypeVar, overload

from procession._model.log import Logs
from procession._model.record import WHOLE
from procession._model.task import name_of
from procession._model.text import shown
from procession.errors import TaskCancelled

P = ParamSpec("P")
T = TypeVar("T")
E = TypeVar("E")


LONG_S: Final = 60.0
"""How long a task of a recorded run sleeps in its place; longer than that, the run goes on without it."""


class CallingRun(Protocol):
    """The part of a run state that a running task may use."""

    process_name: str
    run_id: str
    logs: Logs | None
    """The logs of calls that have not ended; `None` where no logs are kept."""
    children: dict[object, Callable[[], object]]
    """For each unfinished run that a task of this run has started: a function that cancels it."""

    @property
    def around(self) -> "CallContext | None":
        """The call context of the task that executes this run, if it is executed in a task."""
        ...

    @property
    def is_recorded(self) -> bool:
        """Whether the run has a journal."""
        ...

    @property
    def cancelled(self) -> bool:
        """Whether the run was cancelled."""
        ...

    def name(self, index: int) -> str:
        """Return the name of the task at an index."""
        ...

    def wait_cancelled(self, seconds: float) -> bool:
        """Wait until the run is cancelled, at most `seconds`; return whether it is."""
        ...

    def gets_lists(self, index: int) -> bool:
        """Return whether the calls of a task get several elements each."""
        ...

    def calls_of(self, call_context: "CallContext") -> "CallsWithin":
        """Return the object that makes what a task, or element, calls by `current_task().call` and `map`."""
        ...


class CallsWithin(Protocol):
    """Makes the calls of one attempt of a task, or of an element of a map, and records them in a recorded run."""

    @property
    def attempt(self) -> tuple[int, int, int]:
        """Whose calls they are: the task, the element and the number of the attempt."""
        ...

    def call(
        self,
        call_context: "CallContext",
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Make a call, or return what is recorded of it; of a coroutine function, return an awaitable of that."""
        ...

    def map(self, call_context: "CallContext", function: Callable[..., Any], items: Iterable[Any]) -> Any:
        """Make a call for each item, several at once."""
        ...

    def wait_for(self, call_context: "CallContext", name: str, timeout: float | None) -> Any:
        """Return the answer of a name. Raises `TaskSuspended` where it is not there."""
        ...

    def slept(self, call_context: "CallContext", seconds: float) -> float:
        """Return how long the task still has to sleep here, of so many seconds. Raises `TaskSuspended` if for long."""
        ...


class CallContext:
    """Says which call a worker is making: run, task, element and attempt.

    A worker has one context and moves it from call to call. In a recorded run, and for each attempt with options, a
    call has a context of its own: a thread or coroutine that the call leaves behind keeps it and is not taken for a
    part of the worker's next call.
    """

    __slots__ = ("abandoned", "attempt", "calls", "element", "index", "over", "run", "worker")

    call = WHOLE
    """Which of the calls that a task makes itself this is, from 0; `WHOLE` for that of the task or element."""
    callee: Callable[..., Any] | None = None
    """What such a call calls."""
    digest = b""
    """The digest of its arguments; empty in a run without a journal."""

    def __init__(self, run: CallingRun, worker: str, index: int = -1, attempt: int = 1, element: int = -1) -> None:
        self.run: CallingRun = run
        self.worker: str = worker
        self.index: int = index
        self.attempt: int = attempt
        self.element: int = element
        self.abandoned: bool = False
        self.over: bool = False
        self.calls: CallsWithin | None = None

    @property
    def callee_name(self) -> str:
        """The name of what such a call calls; empty for the call of a task or element."""
        return "" if self.callee is None else name_of(self.callee)

    def own(self, index: int, element: int = -1, attempt: int = 1) -> "CallContext":
        """Return a call context of its own for one call of this worker; `over` is set when the call has ended."""
        return CallContext(self.run, self.worker, index, attempt, element)


class InnerCallContext(CallContext):
    """Says which call a task makes itself, by `current_task().call`."""

    __slots__ = ("call", "callee", "digest")

    def __init__(self, outer: CallContext, call: int, callee: Callable[..., Any], digest: bytes) -> None:
        super().__init__(outer.run, outer.worker, outer.index, 1, outer.element)
        self.call = call
        self.callee = callee
        self.digest = digest


CURRENT_CALL: contextvars.ContextVar[CallContext] = contextvars.ContextVar("procession_call_context")
"""The call that this thread or coroutine is making, if it is making one."""


def comparable(context: contextvars.Context, other: contextvars.Context) -> bool:
    """Return whether contexts can be compared. Where what a call has put into one refuses to be, they are not equal."""
    try:
        _ = context == other
    except Exception:
        return False
    return True


class CurrentTask:
    """The task that the calling code is part of, as `current_task()` returns it.

    Attributes:
        index (int): The place of the task in its process, from 0.
        attempt (int): The number of the attempt, from 1.
        name (str): The name of the task.
        process_name (str): The name of its process.
        run_id (str): The id of the run.
        element (int | None): The place of the element in its map, from 0, where the task is a map; else `None`. In a
            map with `batch`, that of the first element of the call.

    """

    __slots__ = ("_call_context", "attempt", "element", "index", "name", "process_name", "run_id")

    def __init__(self, call_context: CallContext) -> None:
        self._call_context: Final[CallContext] = call_context
        self.index: Final[int] = call_context.index
        self.attempt: Final[int] = call_context.attempt
        self.name: Final[str] = call_context.run.name(call_context.index)
        self.process_name: Final[str] = call_context.run.process_name
        self.run_id: Final[str] = call_context.run.run_id
        self.element: Final[int | None] = None if call_context.element == WHOLE else call_context.element

    @property
    def key(self) -> str:
        """An idempotency key for services that take one: 32 characters, the same whenever the call is made again.

        Each task of a run, each element of a map, and each call of `call` and `map` has its own. That of a call depends
        on its arguments; those of tasks and elements depend on their places. A call of a map with `batch` has none:
        when it is made again, it may have other elements.

        Raises:
            RuntimeError: The call is one of a map with `batch`.

        """
        from hashlib import blake2b  # few tasks ask for it

        context = self._for_one_element("has no key")
        task = self.process_name, self.run_id, self.index, self.name, context.element
        place = *task, context.call, context.callee_name, context.digest
        return blake2b(repr(place).encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Make a call that is recorded by itself, so that it is not made again when the task is.

        In a run with a journal, the call is recorded below its task once it has returned, by its place among the calls
        that the task makes in this way. When the task is called again, after a crash or a failure, calls that are
        recorded return what they returned then. So a task that decides as it goes what to call, such as an agent,
        loses and repeats nothing. All else that the task does is done again. A call that failed is made again, unless
        the task has made other calls since it knew of the failure: then the failure is raised again.

        The options of the function hold: `retries`, `timeout` and `limit` of `@task`. Without a journal, the call is
        made and not recorded.

        Args:
            function: The function to call. A coroutine function gives an awaitable. A process is executed, and its
                tasks are recorded, too.
            *args: Its positional arguments.
            **kwargs: Its keyword arguments.

        Returns:
            What the function returns.

        Raises:
            PlanChangedError: Another call is recorded in this place. With `allow_changes=True`, that and all that
                follow it are forgotten instead.
            ResultError: The value cannot be recorded.
            RuntimeError: It is called from another thread or coroutine than that of the task, in a recorded call, or in
                a map with `batch`.
            TaskCancelled: The run was cancelled.

        Example:
            >>> from procession import Process
            >>> def agent(goal: str) -> int:
            ...     me = current_task()
            ...     words = me.call(str.split, goal)
            ...     return me.call(len, words)
            >>> process = Process("agents")
            >>> process.add_task(agent, "buy some milk")
            >>> process.execute()
            [3]

        """
        context = self._for_one_element("makes no recorded calls")
        made: T = context.run.calls_of(context).call(context, function, args, kwargs)
        return made

    @overload
    def map(  # type: ignore[overload-overlap]  # the first is for coroutine functions
        self, function: Callable[[E], Coroutine[Any, Any, T]], items: Iterable[E], /
    ) -> Coroutine[Any, Any, list[T]]: ...
    @overload
    def map(self, function: Callable[[E], T], items: Iterable[E], /) -> list[T]: ...
    def map(self, function: Callable[..., Any], items: Iterable[Any], /) -> Any:
        """Make a call for each item, several at once, each recorded by itself, as `call` does.

        Plain functions are called in threads. At most `max_workers` of the calls are made at the same time. After one
        has failed, no other begins.

        Args:
            function: The function to call, with one item each time. A coroutine function gives an awaitable.
            items: The items.

        Returns:
            What the calls return, in the order of the items.

        Raises:
            PlanChangedError: As for `call`, like the other exceptions there. The first failure is raised as it is.

        Example:
            >>> from procession import Process
            >>> process = Process("lengths")
            >>> process.add_task(lambda: current_task().map(len, ["a", "bc"]))
            >>> process.execute()
            [[1, 2]]

        """
        context = self._for_one_element("makes no recorded calls")
        return context.run.calls_of(context).map(context, function, items)

    def wait_for(self, name: str, *, timeout: float | None = None) -> Any:
        """Return the answer that a person, or another program, gives to this run, once it is there.

        In a run with a journal. Where the answer is not there, the task is left with `TaskSuspended`, which must not
        be caught, and `finally` blocks run. Other tasks go on as far as they can; then the run ends as `"suspended"`,
        and nothing waits in memory. The answer is given by `journal.answer(run_id, name, value)`, by `procession answer
        RUN NAME VALUE`, or on the page. Then execute the run again, and the task is called again: its recorded
        calls return at once, and so does this. All else that it does is done again. A run that still goes on
        when the answer comes calls the task, or the element of a map, again by itself.

        It never blocks: in a coroutine, call it without `await`.

        Args:
            name: The name of the answer, of 200 characters at most. A task, or an element of a map, that waits several
                times gives each answer a name of its own.
            timeout: For how many seconds it waits at most, from when it first waited; `None` for without end.

        Returns:
            The answer.

        Raises:
            TaskTimeoutError: The answer was not there in time. Raised when the task is called again after that.
            RuntimeError: The run has no journal, or it is called from another thread or coroutine than that of the
                task, in a recorded call, or in a map with `batch`.
            TaskSuspended: The answer is not there.

        Example:
            >>> from procession import Process, RunSuspendedError
            >>> from procession.testing import memory_journal
            >>> def publish(text: str) -> str:
            ...     return text if current_task().wait_for("approval", timeout=3600) else "nothing"
            >>> process = Process("news")
            >>> process.add_task(publish, "rain tomorrow")
            >>> with memory_journal() as journal:
            ...     try:
            ...         process.execute(run_id="today", journal=journal)
            ...     except RunSuspendedError:
            ...         journal.answer("today", "approval", True)
            ...     process.execute(run_id="today", journal=journal)
            ['rain tomorrow']

        """
        context = self._for_one_element("waits for no answer")
        return context.run.calls_of(context).wait_for(context, name, timeout)

    def _for_one_element(self, what: str) -> CallContext:
        """Return the call context. Raises in a call of several elements, which may be others when it is made again."""
        context = self._call_context
        if context.element != WHOLE and context.run.gets_lists(context.index):
            raise RuntimeError(
                f"process {shown(self.process_name)!r}, task {self.index} ({shown(self.name)}): a call of a map with "
                f"batch=... {what}, as it may have other elements when the run is resumed; leave batch=... out, "
                "or do it in a task beside the map"
            )
        return context

    @property
    def cancelled(self) -> bool:
        """Whether the task should stop: its run was cancelled, or this attempt was abandoned at its timeout."""
        return self._call_context.abandoned or self._call_context.run.cancelled

    def sleep(self, seconds: float) -> None:
        """Sleep, but no longer than until the task should stop.

        In a run with a journal, a task that sleeps for more than a minute waits as with `wait_for`: it is left with
        `TaskSuspended`, and called again when the time has come. A run that has ended as `"suspended"` until then has
        to be executed again, for example by `procession resume --due`. The sleep counts by its place among the long
        sleeps of the task, and from when it first began. In a recorded call, or another thread, it is a sleep like any
        other.

        In a coroutine, await `asyncio.sleep` instead for up to a minute, which ends when the run is cancelled and does
        not block the loop. For longer in a run with a journal, call this: it does not block the loop, either.

        Args:
            seconds: How long to sleep.

        Raises:
            TaskCancelled: The run was cancelled, or this attempt was abandoned at its timeout. It is raised about 0.1 s
                afterwards, at most.
            TaskSuspended: The task sleeps for long, in a run with a journal.
            RuntimeError: So does a call of a map with `batch`.

        """
        context = self._call_context
        if seconds > LONG_S and context.run.is_recorded and context.call == WHOLE:
            self._for_one_element("does not sleep for more than a minute in a run with a journal")
            seconds = context.run.calls_of(context).slept(context, seconds)
        deadline = time.monotonic() + seconds
        while True:
            if self.cancelled:
                raise TaskCancelled(
                    f"task {self.index} ({shown(self.name)}) of process {shown(self.process_name)!r} was cancelled"
                )
            left = deadline - time.monotonic()
            if left <= 0:
                return
            # A timeout abandons this attempt without waking its thread, so look at `cancelled` every 0.1 s.
            self._call_context.run.wait_cancelled(min(left, 0.1))

    def __repr__(self) -> str:
        name, process = shown(self.name), shown(self.process_name)
        return f"<current task {self.index} ({name}) of process {process!r}, attempt {self.attempt}>"


def current_task() -> CurrentTask:
    """Return the task that the calling code is part of.

    Returns:
        The task: its name, its attempt, whether it should stop, and what it can call, wait for and record.

    Raises:
        RuntimeError: The calling code is not part of a task.

    Example:
        >>> from procession import Process
        >>> process = Process("names")
        >>> process.add_task(lambda: current_task().index)
        >>> process.execute()
        [0]

    """
    call_context = CURRENT_CALL.get(None)
    if call_context is None or call_context.index < 0:
        raise RuntimeError("current_task() was called outside of a task")
    return CurrentTask(call_context)
