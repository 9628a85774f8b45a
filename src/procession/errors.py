"""Every public exception.

    ProcessionError
    ├── DigestError              arguments that cannot be told apart from others                TypeError
    ├── ExecutorBrokenError      the executor that was given cannot go on                       BrokenExecutor
    ├── HandleError              a handle used as if it were the value, or in another process   TypeError
    ├── JournalError             a journal that cannot be opened, read or written               OSError
    ├── NestingError             a process that would contain itself                            ValueError
    ├── PlanChangedError         a definition that is not the one the run began with            ValueError
    ├── ProcessRunningError      a process changed or executed while it runs                    RuntimeError
    ├── RemoteError              stands for an exception that could not be sent here            RuntimeError
    ├── ResultError              a value that cannot be recorded or read back                   TypeError
    ├── RunCancelledError        the run was cancelled before it could end                      RuntimeError
    ├── RunInUseError            a run that somebody else executes                              RuntimeError
    ├── RunUnknownError          a run that the journal does not have                           LookupError
    ├── TaskSkippedError         a task that never started, because another one failed          RuntimeError
    ├── TaskTimeoutError         an attempt took longer than the task's timeout                 TimeoutError
    ├── TransferError            a call or value that cannot be sent to another process         TypeError
    ├── ValueUnavailableError    the value of a task that has none to show                      LookupError
    ├── WorkerDiedError          the worker process ended while it ran the task                 RuntimeError
    └── WorkersUnavailableError  not one worker could be started                                RuntimeError
    TaskCancelled                the signal that reaches a task of a cancelled run              BaseException

Each is also the built-in that a reader would catch. An argument that is wrong in itself (an unknown
strategy, a task that cannot be called) is a plain `ValueError` or `TypeError`. What a task raises is
never wrapped: it leaves as itself.
"""

from typing import TYPE_CHECKING

__all__ = [
    "DigestError",
    "ExecutorBrokenError",
    "HandleError",
    "JournalError",
    "NestingError",
    "PlanChangedError",
    "ProcessRunningError",
    "ProcessionError",
    "RemoteError",
    "ResultError",
    "RunCancelledError",
    "RunInUseError",
    "RunUnknownError",
    "TaskCancelled",
    "TaskSkippedError",
    "TaskTimeoutError",
    "TransferError",
    "ValueUnavailableError",
    "WorkerDiedError",
    "WorkersUnavailableError",
]


class ProcessionError(Exception):
    """The root of all errors that are Procession's own."""


class DigestError(ProcessionError, TypeError):
    """An argument has no digest that would be the same in another interpreter.

    Without one, a run that goes on could not tell whether a task is still the one that was recorded.
    """


class HandleError(ProcessionError, TypeError):
    """A handle stands for a value that is not there yet, and was used where only the value would do.

    Also raised for a handle that belongs to another process.
    """


class JournalError(ProcessionError, OSError):
    """The journal cannot be opened, read or written: what the system or the database said stands in the message.

    What was recorded before is not touched.
    """


class NestingError(ProcessionError, ValueError):
    """The task is the process it is added to, or a process that already contains it."""


class PlanChangedError(ProcessionError, ValueError):
    """The run was begun with another definition; the first difference stands in the message.

    Also: its tasks have changed an object that they share, which is in no record, and only some of them are recorded.
    """


class ProcessRunningError(ProcessionError, RuntimeError):
    """The process is running, and what was asked of it can only be done when it is not."""


class RemoteError(ProcessionError, RuntimeError):
    """Stands for an exception of a task in another process whose class could not be sent here.

    Its message has the type and the message of that one, its note the traceback.
    """


class ResultError(ProcessionError, TypeError):
    """A value cannot be recorded in the journal, or what was recorded cannot be read back."""


class RunCancelledError(ProcessionError, RuntimeError):
    """The run was cancelled; its outcomes say what had ended by then."""


class RunInUseError(ProcessionError, RuntimeError):
    """Somebody else executes the run, here or elsewhere; or has taken it over from this process."""


class RunUnknownError(ProcessionError, LookupError):
    """The journal has no run of that id."""


class TaskSkippedError(ProcessionError, RuntimeError):
    """The task never started, because a task before it failed. Stands in the results of `on_error="return"`."""


class TaskTimeoutError(ProcessionError, TimeoutError):
    """An attempt took longer than the task's timeout, in seconds.

    The thread it ran in was abandoned; a worker process was ended.
    """


class TransferError(ProcessionError, TypeError):
    """The task's callable, an argument or the result cannot be pickled, and so cannot be sent to another process."""


class ValueUnavailableError(ProcessionError, LookupError):
    """The task has no value to show: it did not end well, or its value belongs to the caller of `execute()`."""


class WorkerDiedError(ProcessionError, RuntimeError):
    """The worker process ended while it ran the task: it was killed, crashed, or the task made it exit."""


class WorkersUnavailableError(ProcessionError, RuntimeError):
    """Not one worker could be started: the system has no more, or the interpreter is shutting down."""


class TaskCancelled(BaseException):
    """Raised inside a task whose run was cancelled, by `current_task().sleep()`.

    It is no `Exception`, so that an `except Exception` in the task cannot swallow it.
    """


if TYPE_CHECKING:
    from procession._executor_broken import ExecutorBrokenError
else:

    def __getattr__(name: str) -> object:
        if name == "ExecutorBrokenError":
            from procession._executor_broken import ExecutorBrokenError

            return ExecutorBrokenError
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), "ExecutorBrokenError"})
