"""Run a list of callables as one process: in order, all at once, or the first half in order and the rest at once.

How the rooms lie, each importing only from those below it:

    cli, web                the command line and the page; use public names only
    _process                what users define
    _run, _recording        one execution of it: where the rooms meet
    _executor               which engine an executor takes
    _remote, _loop          the engines for tasks elsewhere, and for coroutines
    observe                 those who are told
    pictures                graphs and timelines
    journal                 the durable record of runs; needs an extra
    _engine                 the ledger, the state of a run, and the engine for threads
    _plan                   stages and edges, digests (pure)
    _model                  what is said: tasks, handles, strategies, events, outcomes
    errors                  every public exception
"""

from importlib import import_module
from typing import TYPE_CHECKING

from procession._engine.call_context import CurrentTask, current_task
from procession._model.event import Event
from procession._model.handle import Handle
from procession._model.observer import Observer
from procession._model.outcome import Outcome
from procession._model.progress import Progress
from procession._model.states import OnError, ProcessStatus, RunStatus, TaskState
from procession._model.strategy import Hybrid, Parallel, Sequential
from procession._model.task import task
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
    RunCancelledError,
    RunInUseError,
    RunUnknownError,
    TaskCancelled,
    TaskSkippedError,
    TaskTimeoutError,
    TransferError,
    ValueUnavailableError,
    WorkerDiedError,
    WorkersUnavailableError,
)

__version__ = "0.1.0"

if TYPE_CHECKING:
    from procession._engine.task_logs import TaskLogHandler
    from procession._run import Run
    from procession.errors import ExecutorBrokenError
else:
    # Only runs need what these bring along.
    _LATER = {"ExecutorBrokenError": "errors", "Run": "_run", "TaskLogHandler": "_engine.task_logs"}

    def __getattr__(name: str) -> object:
        if name in _LATER:
            return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LATER})


__all__ = [
    "CurrentTask",
    "DigestError",
    "Event",
    "ExecutorBrokenError",
    "Handle",
    "HandleError",
    "Hybrid",
    "JournalError",
    "NestingError",
    "Observer",
    "OnError",
    "Outcome",
    "Parallel",
    "PlanChangedError",
    "Process",
    "ProcessRunningError",
    "ProcessStatus",
    "ProcessionError",
    "Progress",
    "RemoteError",
    "ResultError",
    "Run",
    "RunCancelledError",
    "RunInUseError",
    "RunStatus",
    "RunUnknownError",
    "Sequential",
    "TaskCancelled",
    "TaskLogHandler",
    "TaskSkippedError",
    "TaskState",
    "TaskTimeoutError",
    "TransferError",
    "ValueUnavailableError",
    "WorkerDiedError",
    "WorkersUnavailableError",
    "current_task",
    "task",
]
