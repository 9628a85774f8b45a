"""Every public exception.

    ProcessionError
    ├── DigestError              an argument without a digest that other interpreters share     TypeError
    ├── ExecutorBrokenError      the executor passed by the caller is broken or shut down       BrokenExecutor
    ├── HandleError              a handle used as if it were the value, or in another process   TypeError
    ├── JournalError             a journal that cannot be opened, read or written               OSError
    ├── NestingError             a process that would contain itself                            ValueError
    ├── PlanChangedError         the definition differs from the one that the run began with    ValueError
    ├── ProcessRunningError      a process changed or executed while it runs                    RuntimeError
    ├── RemoteError              stands for an exception that could not be sent here            RuntimeError
    ├── ResultError              a value that cannot be recorded or read back                   TypeError
    ├── RetryAfter               raised by a task: its service asks for a pause                 RuntimeError
    ├── RunCancelledError        the run was cancelled before it could end                      RuntimeError
    ├── RunInUseError            a run that another process or thread executes                  RuntimeError
    ├── RunSuspendedError        the run has ended for now, as tasks of it wait for something   RuntimeError
    ├── RunTimeoutError          the run took longer than its timeout                           TimeoutError
    ├── RunUnknownError          a run that the journal does not have                           LookupError
    ├── TaskSkippedError         a task that never started, because another one failed          RuntimeError
    ├── TaskTimeoutError         an attempt took longer than the task's timeout                 TimeoutError
    ├── TransferError            a call or value that cannot be sent to another process         TypeError
    ├── ValueUnavailableError    the value of a task that has no value to show                  LookupError
    ├── WorkerDiedError          the worker process ended while it ran the task                 RuntimeError
    └── WorkersUnavailableError  no worker could be started                                     RuntimeError
    TaskCancelled                the signal that reaches a task of a cancelled run              BaseException
    TaskSuspended                the signal by which a task is left that waits                  BaseException

Each is also the built-in exception in the right column, so that `except` for the built-in catches it, too.
An argument that is wrong in itself (an unknown strategy, a task that cannot be called) is a plain `ValueError` or
`TypeError`. The exception of a task is never wrapped: it leaves `execute()` as it was raised.
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
    "RetryAfter",
    "RunCancelledError",
    "RunInUseError",
    "RunSuspendedError",
    "RunTimeoutError",
    "RunUnknownError",
    "TaskCancelled",
    "TaskSkippedError",
    "TaskSuspended",
    "TaskTimeoutError",
    "TransferError",
    "ValueUnavailableError",
    "WorkerDiedError",
    "WorkersUnavailableError",
]


class ProcessionError(Exception):
    """The root of all errors that are Procession's own."""


class DigestError(ProcessionError, TypeError):
    """An argument of a recorded run has no digest that would be the same in another interpreter.

    Without a digest, a resumed run could not tell whether the task still has the arguments that were recorded.
    """


class HandleError(ProcessionError, TypeError):
    """A handle was used as if it were the value of its task, or belongs to another process.

    The value exists only in a run: pass the handle as an argument of a later task, or read `run[handle]`.
    """


class JournalError(ProcessionError, OSError):
    """The journal cannot be opened, read or written; the message has the reason that the system or database gave.

    Everything that was recorded before stays as it is.
    """


class NestingError(ProcessionError, ValueError):
    """The task is the process it is added to, or a process that already contains it."""


class PlanChangedError(ProcessionError, ValueError):
    """The run began with another definition; the message names the first difference.

    Also raised where tasks of the run have changed an object that they share and only some of these tasks are recorded:
    the others would see the object as it was at first.
    """


class ProcessRunningError(ProcessionError, RuntimeError):
    """The process is running: it cannot be changed or executed until its run has ended."""


class RemoteError(ProcessionError, RuntimeError):
    """Stands for the exception of a task in another process, where the class of that exception could not be sent here.

    The message has the type and the message of the original exception, the note has its traceback.
    """


class ResultError(ProcessionError, TypeError):
    """The result of a task cannot be recorded in the journal, or a recorded result cannot be read back."""


class RetryAfter(ProcessionError, RuntimeError):
    """Raised by a task whose service asks for a pause, as with an HTTP 429 and its header `Retry-After`.

    All calls under the limits of the task pause for that time, and then the task is tried again, without using up one
    of its attempts. Where the service asks for more than the `patience` of a limit, the task fails with this exception.
    In a task without a limit, it is an exception like any other.

    Args:
        seconds: In how many seconds the service may be asked again, at least 0.

    Raises:
        TypeError: That is no number.
        ValueError: That is below 0, or not finite.

    Example:
        >>> raise RetryAfter(2.5)
        Traceback (most recent call last):
        ...
        procession.errors.RetryAfter: the service asks for a pause of 2.5 s

    """

    def __init__(self, seconds: float) -> None:
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise TypeError(f"RetryAfter(seconds) takes a number; got an object of type {type(seconds).__name__}")
        if not (0 <= seconds < float("inf")):
            raise ValueError(f"RetryAfter(seconds) takes a finite number of at least 0; got {seconds:g}")
        super().__init__(seconds)
        self.seconds = seconds

    def __str__(self) -> str:
        return f"the service asks for a pause of {self.seconds:g} s"


class RunCancelledError(ProcessionError, RuntimeError):
    """The run was cancelled; its outcomes say which tasks had ended by then."""


class RunInUseError(ProcessionError, RuntimeError):
    """Another process or thread executes the run, or has taken it over from this process."""


class RunSuspendedError(ProcessionError, RuntimeError):
    """Tasks of the run wait for an answer or until a time, and all others have ended; the message names the waits.

    Execute the run again once there is an answer, or the time has come: it goes on from there.
    """


class RunTimeoutError(ProcessionError, TimeoutError):
    """The run took longer than its timeout, and was cancelled; its outcomes say which tasks had ended by then."""


class RunUnknownError(ProcessionError, LookupError):
    """The journal has no run with that id."""


class TaskSkippedError(ProcessionError, RuntimeError):
    """The task never started, because a task before it failed; `on_error="return"` returns it in place of a result."""


class TaskTimeoutError(ProcessionError, TimeoutError):
    """An attempt took longer than the timeout of its task; the message has the timeout in seconds.

    A coroutine was cancelled, a worker process was ended, and a thread was abandoned: it goes on until its code ends.
    """


class TransferError(ProcessionError, TypeError):
    """The task's callable, an argument or the result cannot be pickled, and so cannot be sent to another process."""


class ValueUnavailableError(ProcessionError, LookupError):
    """The task has no value to show: it did not complete, or its value was handed to the caller of `execute()`."""


class WorkerDiedError(ProcessionError, RuntimeError):
    """The worker process ended while it ran the task: it was killed, it crashed, or the task made it exit."""


class WorkersUnavailableError(ProcessionError, RuntimeError):
    """No worker could be started: the system has no more threads or processes, or the interpreter is shutting down."""


class TaskCancelled(BaseException):
    """Raised inside a task whose run was cancelled, by `current_task().sleep()`.

    It is a `BaseException` and no `Exception`, so that an `except Exception` in the task does not swallow it.
    """


class TaskSuspended(BaseException):
    """Leaves a task that waits, raised by `current_task().wait_for()` and by a long `current_task().sleep()`.

    The task is called again later. It is a `BaseException` and no `Exception`, so that an `except Exception` in the
    task does not swallow it; `finally` blocks run.
    """


if TYPE_CHECKING:
    from concurrent.futures import BrokenExecutor

    class ExecutorBrokenError(ProcessionError, BrokenExecutor):
        """The executor of the process is shut down, or broke while the process ran."""

else:

    def __getattr__(name: str) -> object:
        if name != "ExecutorBrokenError":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from concurrent.futures import BrokenExecutor  # takes long to import, for it imports logging

        text = "The executor that was given to the process is shut down, or broke while the process ran."
        made = type(name, (ProcessionError, BrokenExecutor), {"__module__": __name__, "__doc__": text})
        return globals().setdefault(name, made)  # in one step, so that two threads get the same class

    def __dir__() -> list[str]:
        return sorted({*globals(), "ExecutorBrokenError"})
