"""Which engine an executor takes: the one place that knows all of them."""

from concurrent.futures import Executor
from typing import TYPE_CHECKING, Protocol

from procession._engine.run_state import RunState
from procession._engine.threads import ThreadEngine
from procession._model.where import is_dask

if TYPE_CHECKING:
    from procession._model.where import ExecutorLike


class Engine(Protocol):
    """Drives the run state of one run."""

    run_state: RunState

    def drive(self) -> None:
        """Run every stage. Raises nothing of a task."""
        ...


def engine_of(executor: "ExecutorLike", run_state: RunState) -> Engine:
    """Return the engine that drives a run state where the tasks are to run."""
    if executor == "threads":
        return _own_threads(run_state)
    # Imported by the first run that needs it: importing the package stays free of multiprocessing.
    from procession._remote.coordinator import Coordinator

    if is_dask(executor):
        from procession._remote.backends import dask

        return Coordinator(run_state, lambda run_state: dask.hired(executor, run_state))
    if executor == "ray":
        from procession._remote.backends import ray

        return Coordinator(run_state, ray.hired, aside=not ray.in_task())
    if executor == "processes":
        from procession._remote.backends.processes import ProcessBackend

        return Coordinator(run_state, ProcessBackend)
    from procession._remote.backends.executor import ExecutorBackend, settle_in
    from procession._remote.worker.run_calls import WITHIN

    assert isinstance(executor, Executor)
    if any(executor is one for one in WITHIN.get()):
        # Its worker waits for this run to end: to wait there for another worker could be to wait for ever.
        return _own_threads(run_state)
    settle_in(executor)
    return Coordinator(run_state, lambda run_state: ExecutorBackend(executor, run_state.max_workers))


def _own_threads(run_state: RunState) -> Engine:
    if not run_state.plan.coroutines:
        return ThreadEngine(run_state)
    # Importing asyncio takes longer than importing all the rest, so only those who need it do.
    from procession._loop.coroutines import CoroutineEngine

    return CoroutineEngine(run_state)
