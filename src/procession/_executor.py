"""Which engine an executor takes: the one place that knows all of them."""

from concurrent.futures import Executor
from typing import Protocol

from procession._engine.course import Course
from procession._engine.threads import ThreadEngine
from procession._model.text import sketch


class DaskClient(Protocol):
    """What a `distributed.Client` is known by, without importing it."""

    def get_executor(self) -> Executor:
        """Return an executor that runs what it is given on the cluster."""
        ...


Where = str | Executor | DaskClient
"""Where tasks run: `"threads"`, `"processes"`, `"dask"` or `"ray"`, the address of a Dask scheduler such as
`tcp://host:8786`, or a Dask client or any other executor, which are the caller's and stay open."""

_ADDRESSES = ("tcp://", "tls://", "ws://", "wss://", "ucx://", "inproc://")


class Engine(Protocol):
    """Drives the course of one run."""

    course: Course

    def drive(self) -> None:
        """Run every stage. Raises nothing of a task."""
        ...


def check_executor(executor: object, where: str) -> None:
    """Raise for what is no executor; the message lists what is."""
    named = isinstance(executor, str) and executor in ("threads", "processes", "ray")
    if named or isinstance(executor, Executor) or _is_dask(executor):
        return
    known = (
        "known are 'threads', 'processes', 'dask', 'ray', a Dask client or its scheduler's address (tcp://host:port), "
        "and any concurrent.futures.Executor"
    )
    if isinstance(executor, str):
        raise ValueError(f"{where}: unknown executor {sketch(executor)}; {known}")  # noqa: TRY004
    raise TypeError(f"{where}: executor is {sketch(executor)}; {known}")


def engine_of(executor: Where, course: Course) -> Engine:
    """Return the engine that drives a course where the tasks are to run."""
    if executor == "threads":
        return _own_threads(course)
    # Imported by the first run that needs it: importing the package stays free of multiprocessing.
    from procession._crew.pool import PoolEngine

    if _is_dask(executor):
        from procession._crew import dask

        return PoolEngine(course, lambda course: dask.hired(executor, course))
    if executor == "ray":
        from procession._crew import ray

        return PoolEngine(course, ray.hired, aside=not ray.in_task())
    if executor == "processes":
        from procession._crew.processes import ProcessCrew

        return PoolEngine(course, ProcessCrew)
    from procession._crew.chunk import WITHIN
    from procession._crew.given import GivenCrew

    assert isinstance(executor, Executor)
    if any(executor is one for one in WITHIN.get()):
        # Its worker waits for this run to end: to wait there for another worker could be to wait for ever.
        return _own_threads(course)
    return PoolEngine(course, lambda course: GivenCrew(executor, course.max_workers))


def _is_dask(executor: object) -> bool:
    if isinstance(executor, str):
        return executor == "dask" or executor.startswith(_ADDRESSES)
    return not isinstance(executor, type) and callable(getattr(executor, "get_executor", None))


def _own_threads(course: Course) -> Engine:
    if not course.plan.coroutines:
        return ThreadEngine(course)
    # Importing asyncio takes longer than importing all the rest, so only those who need it do.
    from procession._loop.coroutines import CoroutineEngine

    return CoroutineEngine(course)
