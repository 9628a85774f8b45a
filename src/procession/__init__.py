"""Run a list of callables as one process: in order, all at once, or the first half in order and the rest at once.

The packages and modules, each of which imports only from those below it:

    cli, web                the command line and the page; they use public names only
    _process                the definition of a process
    _run                    one execution of a process, as users see it
    _execution, _recording  how it is carried out and recorded
    _executor               the engine for each kind of executor
    _remote, _loop          the engines for worker processes, executors and clusters, and for coroutines
    observe                 observers: log, progress, OpenTelemetry
    _engine                 the ledger, the run state, and the engine for threads
    pictures                graphs and timelines
    journal                 the durable record of runs; needs the extra `journal`
    _plan                   stages and edges of a process, digests of arguments; without side effects
    _model                  tasks, handles, strategies, events, outcomes
    errors                  every public exception
"""

from importlib import import_module
from typing import TYPE_CHECKING

from procession._engine.call_context import CurrentTask, current_task
from procession._model.event import Event, EventName
from procession._model.handle import Handle
from procession._model.observer import Observer
from procession._model.outcome import Outcome, Outcomes
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
    from procession._model.where import ExecutorLike
    from procession._run import Run
    from procession.errors import ExecutorBrokenError
    from procession.pictures.graph import Graph
    from procession.pictures.timeline import Timeline
else:
    # These names import modules that only runs and pictures need: they are loaded at their first use.
    _LATER = {
        "ExecutorBrokenError": "errors",
        "ExecutorLike": "_model.where",
        "Graph": "pictures.graph",
        "Run": "_run",
        "TaskLogHandler": "_engine.task_logs",
        "Timeline": "pictures.timeline",
    }

    def __getattr__(name: str) -> object:
        if name in _LATER:
            return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LATER})


__all__ = [
    "Call",
    "CurrentTask",
    "DaskClient",
    "DigestError",
    "Event",
    "EventName",
    "ExecutorBrokenError",
    "ExecutorLike",
    "Graph",
    "Handle",
    "HandleError",
    "Hybrid",
    "JournalError",
    "NestingError",
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
    "Run",
    "RunCancelledError",
    "RunInUseError",
    "RunStatus",
    "RunUnknownError",
    "Sequential",
    "Stage",
    "Strategy",
    "StrategyName",
    "TaskCancelled",
    "TaskLogHandler",
    "TaskSkippedError",
    "TaskState",
    "TaskTimeoutError",
    "Timeline",
    "TransferError",
    "ValueUnavailableError",
    "WorkerDiedError",
    "WorkersUnavailableError",
    "current_task",
    "task",
]
