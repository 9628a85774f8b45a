"""Run a list of callables as one process: in order, all at once, or the first half in order and the rest at once.

    >>> from procession import Process
    >>> process = Process("lengths", "parallel", max_workers=8)
    >>> for word in "one", "three":
    ...     process.add_task(len, word)
    >>> process.execute()
    [3, 5]

Begin with `Process`, `task` (retries, timeout, limits of a function), `Run` and `Outcome` (how it went), and
`procession.journal.Journal` (runs that can be resumed): `help(procession.Process)`. From a shell: `procession --help`.
"""

import importlib
import typing

from procession._engine.call_context import CurrentTask, current_task
from procession._model.event import Event, EventName
from procession._model.handle import Elements, Handle, stream
from procession._model.limit import Limit
from procession._model.observer import Observer
from procession._model.outcome import NotKept, Outcome, Outcomes
from procession._model.progress import Progress
from procession._model.states import OnError, ProcessStatus, RunStatus, TaskState
from procession._model.strategy import Hybrid, Parallel, Sequential, Stage, Strategy, StrategyName
from procession._model.task import Call, task
from procession._model.where import DaskClient
from procession._process import Process
from procession.errors import (
    DigestError,
    HandleError,
    JournalError,
    NestingError,
    PlanChangedError,
    ProcessionError,
    ProcessRunningError,
    RemoteError,
    ResultError,
    RetryAfter,
    RunCancelledError,
    RunInUseError,
    RunSuspendedError,
    RunTimeoutError,
    RunUnknownError,
    TaskCancelled,
    TaskSkippedError,
    TaskSuspended,
    TaskTimeoutError,
    TransferError,
    ValueUnavailableError,
    WorkerDiedError,
    WorkersUnavailableError,
)

__version__ = "0.1.0"

if typing.TYPE_CHECKING:
    from procession._engine.task_logs import TaskLogHandler
    from procession._model.stack import Stacks, TaskStack
    from procession._model.unrecorded import unrecorded
    from procession._model.where import ExecutorLike
    from procession._remote.worker_processes import WorkerProcesses
    from procession._run import Run
    from procession.errors import ExecutorBrokenError
    from procession.pictures.graph import Graph
    from procession.pictures.timeline import Timeline

    # For readers of the source. Were it there at runtime, help(procession) would write out every class: 4,600 lines.
    __all__ = [
        "Call",
        "CurrentTask",
        "DaskClient",
        "DigestError",
        "Elements",
        "Event",
        "EventName",
        "ExecutorBrokenError",
        "ExecutorLike",
        "Graph",
        "Handle",
        "HandleError",
        "Hybrid",
        "JournalError",
        "Limit",
        "NestingError",
        "NotKept",
        "Observer",
        "OnError",
        "Outcome",
        "Outcomes",
        "Parallel",
        "PlanChangedError",
        "Process",
        "ProcessRunningError",
        "ProcessStatus",
        "ProcessionError",
        "Progress",
        "RemoteError",
        "ResultError",
        "RetryAfter",
        "Run",
        "RunCancelledError",
        "RunInUseError",
        "RunStatus",
        "RunSuspendedError",
        "RunTimeoutError",
        "RunUnknownError",
        "Sequential",
        "Stacks",
        "Stage",
        "Strategy",
        "StrategyName",
        "TaskCancelled",
        "TaskLogHandler",
        "TaskSkippedError",
        "TaskStack",
        "TaskState",
        "TaskSuspended",
        "TaskTimeoutError",
        "Timeline",
        "TransferError",
        "ValueUnavailableError",
        "WorkerDiedError",
        "WorkerProcesses",
        "WorkersUnavailableError",
        "current_task",
        "stream",
        "task",
        "unrecorded",
    ]
else:
    # These names import modules that only runs and pictures need: they are loaded at their first use.
    _LATER = {
        "ExecutorBrokenError": "errors",
        "ExecutorLike": "_model.where",
        "Graph": "pictures.graph",
        "Run": "_run",
        "Stacks": "_model.stack",
        "TaskLogHandler": "_engine.task_logs",
        "TaskStack": "_model.stack",
        "Timeline": "pictures.timeline",
        "WorkerProcesses": "_remote.worker_processes",
        "unrecorded": "_model.unrecorded",
    }

    def __getattr__(name: str) -> object:
        if name in _LATER:
            return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LATER} - {"__dir__", "__getattr__"})  # which help() would list as functions
