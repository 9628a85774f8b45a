"""Which engine an executor takes: the one place that knows all of them."""

from concurrent.futures import Executor
from typing import TYPE_CHECKING, Protocol

from procession._engine.course import Course
from procession._engine.threads import ThreadEngine
from procession._model.where import is_dask

if TYPE_CHECKING:
    from procession._model.where import Where


class Engine(Protocol):
    """Drives the course of one run."""

    course: Course

    def drive(self) -> None:
        """Run every stage. Raises nothing of a task."""
        ...


def engine_of(executor: "Where", course: Course) -> Engine:
    """Return the engine that drives a course where the tasks are to run."""
    if executor == "threads":
        return _own_threads(course)
    # Imported by the first run that needs it: importing the package stays free of multiprocessing.
    from procession._crew.pool import PoolEngine

    if is_dask(executor):
        from procession._crew import dask

        return PoolEngine(course, lambda course: dask.hired(executor, course))
    if executor == "ray":
        from procession._crew import ray

        return PoolEngine(course, ray.hired, aside=not ray.in_task())
    if executor == "processes":
        from procession._crew.processes import ProcessCrew

        return PoolEngine(course, ProcessCrew)
    from procession._crew.chunk import WITHIN
    from procession._crew.given import GivenCrew, settle_in

    assert isinstance(executor, Executor)
    if any(executor is one for one in WITHIN.get()):
        # Its worker waits for this run to end: to wait there for another worker could be to wait for ever.
        return _own_threads(course)
    settle_in(executor)
    return PoolEngine(course, lambda course: GivenCrew(executor, course.max_workers))


def _own_threads(course: Course) -> Engine:
    if not course.plan.coroutines:
        return ThreadEngine(course)
    # Importing asyncio takes longer than importing all the rest, so only those who need it do.
    from procession._loop.coroutines import CoroutineEngine

    return CoroutineEngine(course)
