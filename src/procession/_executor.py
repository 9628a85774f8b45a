"""Which engine an executor takes, and what a task with one of its own takes: the one place that knows all of them."""

import sys
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Protocol

from procession._engine.run_state import RunState
from procession._engine.threads import ThreadEngine
from procession._model.task import MapFunction
from procession._model.where import is_dask
from procession._plan.plan import Plan

if TYPE_CHECKING:
    from procession._model.where import ExecutorLike
    from procession._remote.task_executors import TaskExecutors


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
        from procession._remote.worker_processes import own_workers

        return Coordinator(run_state, own_workers)
    from procession._remote.backends.executor import ExecutorBackend, settle_in
    from procession._remote.worker.run_calls import WITHIN

    assert isinstance(executor, Executor)
    if any(executor is one for one in WITHIN.get()):
        # Its worker waits for this run to end: to wait there for another worker could be to wait for ever.
        return _own_threads(run_state)
    from procession._remote.worker_processes import WorkerProcesses, workers_of

    if isinstance(executor, WorkerProcesses):
        executor.check()
        return Coordinator(run_state, lambda run_state: workers_of(executor, run_state))
    settle_in(executor)
    return Coordinator(run_state, lambda run_state: ExecutorBackend(executor, run_state.max_workers))


def ends_workers(executor: "ExecutorLike") -> bool:
    """Return whether calls are ended with their workers, so that none needs a timeout to be ended."""
    made = sys.modules.get("procession._remote.worker_processes")  # imported already by a caller who has some
    return executor == "processes" or (made is not None and isinstance(executor, made.WorkerProcesses))


def _own_threads(run_state: RunState) -> Engine:
    if not run_state.plan.coroutines:
        return ThreadEngine(run_state)
    # Importing asyncio takes longer than importing all the rest, so only those who need it do.
    from procession._loop.coroutines import CoroutineEngine

    return CoroutineEngine(run_state)


def placed(plan: Plan) -> "tuple[Plan, TaskExecutors | None]":
    """Return a plan whose calls go to the executors that tasks have of their own, and these; `None` for none.

    A plan with coroutines is driven by an event loop, which awaits these calls, too. Raises `RuntimeError` for an
    executor that takes no calls any more.
    """
    chosen = {index: options for index, options in plan.options.items() if options.executor is not None}
    if not chosen:
        return plan, None
    from procession._engine.placed import PlacedCall, PlacedMap
    from procession._remote.task_executors import FunctionPlace, TaskExecutors

    call_type = PlacedCall
    if plan.coroutines:
        from procession._loop.placed import AwaitedPlacedCall

        call_type = AwaitedPlacedCall
    executors, calls, options, there = TaskExecutors(), list(plan.calls), dict(plan.options), set[int]()
    made: dict[tuple[int, int, float | None], PlacedCall] = {}
    for index, own in chosen.items():
        assert own.executor is not None
        executor = executors.get(own.executor)
        if executor is None:
            continue
        function, args, kwargs = calls[index]
        callee = function.function if isinstance(function, MapFunction) else function
        key = id(callee), id(executor), own.timeout
        if key not in made:
            made[key] = call_type(FunctionPlace(executor), callee, own.timeout)
        calls[index] = PlacedMap(function, made[key]) if isinstance(function, MapFunction) else made[key], args, kwargs
        options[index] = own._replace(timeout=None)
        there.add(index)
    coroutines = plan.coroutines | there if plan.coroutines else plan.coroutines
    return plan._replace(calls=calls, options=options, coroutines=coroutines), executors
