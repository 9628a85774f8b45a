"""Which engine an executor takes: the one place that knows all of them."""

from concurrent.futures import Executor
from typing import Literal, Protocol

from procession._engine.course import Course
from procession._engine.threads import ThreadEngine
from procession._model.text import sketch

Where = Literal["threads", "processes"] | Executor
"""Where tasks run: the threads of a run's own, worker processes of its own, or any executor of the user's."""


class Engine(Protocol):
    """Drives the course of one run."""

    course: Course

    def drive(self) -> None:
        """Run every stage. Raises nothing of a task."""
        ...


def check_executor(executor: object, where: str) -> None:
    """Raise for what is no executor; the message lists what is."""
    if isinstance(executor, Executor) or (isinstance(executor, str) and executor in ("threads", "processes")):
        return
    known = "known are 'threads', 'processes', and any concurrent.futures.Executor"
    if isinstance(executor, str):
        raise ValueError(f"{where}: unknown executor {sketch(executor)}; {known}")  # noqa: TRY004
    raise TypeError(f"{where}: executor is {sketch(executor)}; {known}")


def engine_of(executor: Where, course: Course) -> Engine:
    """Return the engine that drives a course where the tasks are to run."""
    if executor == "threads":
        return _own_threads(course)
    # Imported by the first run that needs it: importing the package stays free of multiprocessing.
    from procession._engine.pool import PoolEngine

    if executor == "processes":
        from procession._engine.processes import ProcessCrew

        return PoolEngine(course, ProcessCrew)
    from procession._engine.chunk import WITHIN
    from procession._engine.given import GivenCrew

    if executor in WITHIN.get():
        # Its worker waits for this run to end: to wait there for another worker could be to wait for ever.
        return ThreadEngine(course)

    return PoolEngine(course, lambda course: GivenCrew(executor, course.max_workers))


def _own_threads(course: Course) -> Engine:
    if not course.plan.coroutines:
        return ThreadEngine(course)
    # Importing asyncio takes longer than importing all the rest, so only those who need it do.
    from procession._engine.coroutines import CoroutineEngine

    return CoroutineEngine(course)
