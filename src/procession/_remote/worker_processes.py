"""`WorkerProcesses`: the executor whose worker processes outlive a run, and the workers of a single run.

Both are a `WorkerPool`. A run takes workers of it through a `ProcessBackend`, and calls that are submitted one by one
through `Submissions`.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from itertools import chain, islice
from typing import Any, ParamSpec, TypeVar

from procession._engine.run_state import RunState
from procession._model.record import WHOLE
from procession._model.task import name_of
from procession._model.text import shown, sketch
from procession._model.where import usable_cores
from procession._remote.backends.processes import ProcessBackend
from procession._remote.backends.worker_pool import PoolSetup, WorkerPool
from procession._remote.submissions import SingleCall, Submissions
from procession._remote.wire.call_requests import answer
from procession._remote.wire.serialize import by_value, dumps, unsendable
from procession._remote.worker.process_main import WorkerSetup
from procession.errors import TransferError

P = ParamSpec("P")
T = TypeVar("T")

_NAME = "WorkerProcesses"


def own_workers(run_state: RunState) -> ProcessBackend:
    """Return a backend with worker processes that live as long as the run."""
    name = f"procession-{shown(run_state.process_name, 40)}"
    # Of tasks in order, one runs at a time.
    at_once = run_state.max_workers if any(stage.at_once for stage in run_state.plan.stages) else 1
    setup = PoolSetup(threads_each=_share(at_once))
    return _serving(run_state, WorkerPool(name, run_state.max_workers, setup), own=True)


class WorkerProcesses(Executor):
    """Worker processes that outlive a run: an executor for any number of runs, and for single calls.

    `executor="processes"` starts workers for each run and ends them with it. Where there are many runs, or where each
    worker has something to load first, make one `WorkerProcesses` and pass it as the `executor` of all of them. Several
    runs and threads may use it at once; they take turns.

    Workers start when there are calls for them. A worker that dies, or is ended at a timeout, fails the call that it
    was making and is replaced. It is a `concurrent.futures.Executor` as well, so other libraries can take it.

    Leave the `with` block, or call `shutdown()`, to end the workers. They belong to the process that made them: a
    `WorkerProcesses` cannot be pickled, and a fork must make another one.

    Args:
        max_workers: The greatest number of worker processes, at least 1; `None`, the default, is the number of
            processors that this program may use. A run uses no more of them than its own `max_workers`.
        initializer: A function that each worker calls once before its first call, such as one that loads a model. If it
            raises, the run fails with `WorkersUnavailableError`, whose cause is the exception.
        initargs: The positional arguments of the initializer.
        max_calls: After so many calls, at least 1, a worker ends and is replaced, which bounds memory that calls leak;
            `None`, the default, sets no limit.
        threads_each: How many threads libraries that compute on several cores (BLAS, OpenMP) may start in each worker,
            at least 1, by environment variables such as `OMP_NUM_THREADS`. `None`, the default, gives each worker its
            share of the processors, and leaves variables alone that are set.
        idle_timeout: A worker that has had no call for so many seconds ends; another one starts when it is needed. 300
            by default; `None` keeps workers until the shutdown.
        initializer_timeout: How long the initializer may take in each worker, in seconds: 300 by default, `None` for no
            limit. If it takes longer, the run fails with `WorkersUnavailableError`.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: A number is out of its range.
        TransferError: The initializer or an argument of it cannot be pickled.

    Example:
        >>> from procession import Process, WorkerProcesses
        >>> with WorkerProcesses(2) as workers:
        ...     for numbers in ([1, 2], [3, 4]):
        ...         process = Process("powers", "parallel", executor=workers)
        ...         powers = process.map(pow, numbers, [2, 2])
        ...         print(process.execute())
        ...     print(workers.submit(pow, 2, 10).result())
        [[1, 4]]
        [[9, 16]]
        1024

    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        max_calls: int | None = None,
        threads_each: int | None = None,
        idle_timeout: float | None = 300.0,
        initializer_timeout: float | None = 300.0,
    ) -> None:
        count = usable_cores() if max_workers is None else _count(max_workers, "max_workers")
        name = "" if initializer is None else shown(name_of(initializer))
        worker = WorkerSetup(
            _encoded(initializer, tuple(initargs)),
            None if max_calls is None else _count(max_calls, "max_calls"),
            _seconds(idle_timeout, "idle_timeout"),
        )
        setup = PoolSetup(
            worker,
            name,
            _seconds(initializer_timeout, "initializer_timeout"),
            _share(count) if threads_each is None else _count(threads_each, "threads_each"),
            threads_firm=threads_each is not None,
        )
        self._pool = WorkerPool(_NAME, count, setup)
        self._submissions = Submissions(_NAME, partial(_for_single_calls, self._pool), self._pool.check)

    @property
    def max_workers(self) -> int:
        """The greatest number of worker processes."""
        return self._pool.max_workers

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Call a function in a worker.

        Args:
            fn: The function.
            *args: Its positional arguments.
            **kwargs: Its keyword arguments.

        Returns:
            The future of its return value. A worker that dies gives it a `WorkerDiedError`.

        Raises:
            RuntimeError: The executor was shut down, or belongs to the process that this one is a fork of.

        Example:
            >>> with WorkerProcesses(1) as workers:
            ...     workers.submit(int, "7", base=8).result()
            7

        """
        call = SingleCall([(0, WHOLE, 1, None, fn, args, kwargs)])
        self._submissions.submit(call)
        future: Future[Any] = call.future
        return future

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[T]:
        """Call a function for each element of the iterables, which are read at once.

        Args:
            fn: The function.
            *iterables: Its arguments; the shortest iterable sets the number of calls.
            timeout: The results must be there so many seconds after this call; `None` sets no limit.
            chunksize: How many elements travel together, at least 1. More make short calls quicker.

        Returns:
            An iterator over the results, in the order of the elements. It raises what a call has raised at its place,
            and `TimeoutError` when the time is over.

        Raises:
            ValueError: `chunksize` is below 1.
            RuntimeError: As for `submit`.

        Example:
            >>> with WorkerProcesses(2) as workers:
            ...     list(workers.map(pow, [1, 2, 3], [2, 2, 2]))
            [1, 4, 9]

        """
        elements = zip(*iterables, strict=False)
        size = _count(chunksize, "chunksize")
        chunks = iter(lambda: list(islice(elements, size)), [])
        return chain.from_iterable(super().map(_Chunk(fn), chunks, timeout=timeout))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no other runs and calls, and end the workers when those there are have ended.

        Args:
            wait: Whether to return only when the workers have ended.
            cancel_futures: Whether to cancel futures that do not run yet, and to fail runs as soon as possible, with
                `WorkersUnavailableError`.

        Example:
            >>> workers = WorkerProcesses(1)
            >>> workers.shutdown()
            >>> workers.submit(int)
            Traceback (most recent call last):
            RuntimeError: WorkerProcesses was shut down, and takes no other calls

        """
        if cancel_futures:
            self._submissions.cancel()
        self._submissions.end()
        self._pool.shut_down("was shut down", wait=wait, cancel=cancel_futures)
        if wait:
            self._submissions.join()

    def check(self) -> None:
        """Raise `RuntimeError` if no run can use it, as it was shut down or belongs to another process."""
        self._pool.check()

    def __reduce__(self) -> Any:
        raise RuntimeError(
            "WorkerProcesses cannot be pickled, as it belongs to the process that has made it: make another one there"
        )

    def __repr__(self) -> str:
        return f"WorkerProcesses({self.max_workers})"

    def __del__(self) -> None:
        pool: WorkerPool | None = getattr(self, "_pool", None)  # there is none where an argument was wrong
        if pool is None or not pool.is_used or pool.refused:
            return
        warnings.warn(f"{self!r} was not shut down: use it in a with block", ResourceWarning, source=self, stacklevel=2)
        pool.shut_down("was not kept", wait=False, cancel=False)


def workers_of(executor: WorkerProcesses, run_state: RunState) -> ProcessBackend:
    """Return a backend with workers of an executor."""
    return _serving(run_state, executor._pool, own=False)  # the other half of the class


def _serving(run_state: RunState, pool: WorkerPool, *, own: bool) -> ProcessBackend:
    backend = ProcessBackend(run_state, pool, own=own)
    if run_state.recorder is not None or run_state.admission is not None:
        backend.listen()  # to commits, and to limits that admit calls
    if run_state.recorder is not None:
        backend.answer = partial(answer, run_state)
    return backend


def task_workers(name: str, run_state: RunState) -> WorkerPool:
    """Return worker processes for those tasks of a run that are to be called there; whoever takes them closes them."""
    return WorkerPool(name, run_state.max_workers, PoolSetup(threads_each=_share(run_state.max_workers)))


def opened(pool: WorkerPool, run_state: RunState) -> ProcessBackend:
    """Return a backend that takes calls of a run one by one."""
    backend = ProcessBackend(run_state, pool)
    backend.listen()
    if run_state.recorder is not None:
        backend.answer = partial(answer, run_state)
    return backend


def pool_of(executor: WorkerProcesses) -> WorkerPool:
    """Return the worker processes of an executor."""
    return executor._pool  # the other half of the class


class _SingleCalls:
    """Stands for the run of calls that are submitted one by one."""

    process_name = _NAME
    run_id = ""

    def __init__(self, max_workers: int) -> None:
        self.max_workers = max_workers

    def name(self, index: int) -> str:  # noqa: ARG002
        """Return how a call is named in messages: calls have no names, as they have no timeouts."""
        return "call"


def _for_single_calls(pool: WorkerPool) -> ProcessBackend:
    backend = ProcessBackend(_SingleCalls(pool.max_workers), pool)
    backend.listen()
    return backend


class _Chunk:
    """Calls a function for several elements."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, elements: list[tuple[Any, ...]]) -> list[Any]:
        return [self._function(*element) for element in elements]


def _encoded(initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> Sequence[bytes]:
    if initializer is None:
        if initargs:
            raise ValueError("WorkerProcesses(initargs=...) are the arguments of an initializer, and there is none")
        return ()
    if not callable(initializer):
        raise TypeError(f"WorkerProcesses(initializer=...) takes a callable; got {sketch(initializer)}")
    try:
        named = dumps((initializer, initargs))
        in_main = getattr(initializer, "__module__", None) == "__main__" and by_value() is not None
        return (named, dumps((initializer, initargs), whole=True)) if in_main else (named,)
    except Exception as error:
        raise TransferError(unsendable("the initializer of WorkerProcesses, or an argument of it,", error)) from error


def _share(workers: int) -> int:
    """Return how many processors there are for each of so many workers."""
    return max(usable_cores() // workers, 1)


def _count(value: Any, option: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"WorkerProcesses({option}=...) takes an int; got {sketch(value)}")
    if value < 1:
        raise ValueError(f"WorkerProcesses({option}=...) takes a number of at least 1; got {sketch(value)}")
    return value


def _seconds(value: Any, option: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"WorkerProcesses({option}=...) takes a number of seconds, or None; got {sketch(value)}")
    if not 0 < value < math.inf:
        raise ValueError(f"WorkerProcesses({option}=...) takes a finite number above 0; got {sketch(value)}")
    return float(value)
