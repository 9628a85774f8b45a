"""Which engine an executor takes, and what a task with one of its own takes: the one place that knows all of them."""

import sys
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, Protocol

from procession._engine.run_state import RunState
from procession._engine.threads import ThreadEngine
from procession._model.task import PLAIN, Call, MapFunction, is_process
from procession._model.where import is_dask
from procession._plan.pipelines import streams_in
from procession._plan.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from procession._model.where import ExecutorLike
    from procession._remote.task_executors import TaskExecutors


class Engine(Protocol):
    """Drives the run state of one run."""

    run_state: RunState

    def drive(self) -> None:
        """Run every stage. Raises nothing of a task."""
        ...

    def leave_behind(self) -> None:
        """Keep the interpreter's exit from waiting for what runs: nobody waits for this run any more."""
        ...


def engine_of(executor: "ExecutorLike", run_state: RunState) -> Engine:
    """Return the engine that drives a run state where the tasks are to run."""
    if executor == "threads":
        return _own_threads(run_state)
    # Imported by the first run that needs it: importing the package stays free of multiprocessing.
    from procession._remote.coordinator import Coordinator

    if is_dask(executor):
        from procession._remote.backends import dask

        return Coordinator(run_state, lambda run_state: dask.open_backend(executor, run_state))
    if executor == "ray":
        from procession._remote.backends import ray

        return Coordinator(run_state, ray.open_backend, own_thread=not ray.in_task())
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


def placed(plan: Plan, executor: "ExecutorLike" = "threads") -> "tuple[Plan, TaskExecutors | None]":
    """Return a plan whose calls go to the executors that tasks have of their own, and these; `None` for none.

    Those of other tasks go to `executor`, unless they take streams, whose elements come only here, or are processes.
    A plan with coroutines is driven by an event loop, which awaits these calls, too. Raises `RuntimeError` for an
    executor that takes no calls any more.
    """
    chosen: dict[int, ExecutorLike] = {
        index: options.executor for index, options in plan.options.items() if options.executor is not None
    }
    if executor != "threads":
        chosen |= {
            index: executor
            for index, call in enumerate(plan.calls)
            if index not in chosen and not (is_process(_function_of(call)) or streams_in(call))
        }
    if not chosen:
        return plan, None
    from procession._engine.placed import PlacedCall, PlacedMap
    from procession._remote.task_executors import FunctionPlace, TaskExecutors
    from procession._remote.wire.wrapped import Awaited

    executors, calls, options = TaskExecutors(), list(plan.calls), dict(plan.options)
    there = {index: place for index in chosen if (place := executors.get(chosen[index])) is not None}
    coroutines, call_type = plan.coroutines - there.keys(), PlacedCall
    if coroutines:
        from procession._loop.placed import AwaitedPlacedCall

        coroutines, call_type = plan.coroutines | there.keys(), AwaitedPlacedCall
    made: dict[tuple[int, int, float | None], PlacedCall] = {}
    for index, place in there.items():
        function, args, kwargs = calls[index]
        own, callee = options.get(index, PLAIN), _function_of(calls[index])
        key = id(callee), id(place), own.timeout
        if key not in made:
            called = Awaited(callee) if index in plan.coroutines else callee
            made[key] = call_type(FunctionPlace(place), called, own.timeout)
        calls[index] = PlacedMap(function, made[key]) if isinstance(function, MapFunction) else made[key], args, kwargs
        if own.timeout is not None:
            options[index] = own._replace(timeout=None)
    return plan._replace(calls=calls, options=options, coroutines=coroutines), executors


def _function_of(call: Call) -> "Callable[..., Any]":
    """Return the function of a task, or what a map calls."""
    function: Callable[..., Any] = call[0]
    return function.called if isinstance(function, MapFunction) else function
