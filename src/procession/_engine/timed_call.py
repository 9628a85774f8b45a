"""A call with a timeout in a thread of its own, where the calling thread cannot be left behind with a late call."""

import contextvars
import threading
from collections.abc import Callable
from typing import Any, Protocol

from procession._engine.call_context import CURRENT_CALL, CallContext, CallingRun
from procession._engine.decimals import decimals_in, own_decimals
from procession._engine.latch import Latch
from procession._model.event import EventName
from procession._model.record import WHOLE
from procession._model.text import shown
from procession.errors import TaskTimeoutError, WorkersUnavailableError


class TellingRun(CallingRun, Protocol):
    """The run that makes the call, and tells of what happens to it."""

    def report(
        self, name: EventName, index: int, attempt: int, duration: float | None, error: BaseException | None = None
    ) -> None:
        """Tell of something that happened to a task."""
        ...


def too_long(run: CallingRun, index: int, timeout: float) -> TaskTimeoutError:
    """Return the error of a call that took longer than so many seconds."""
    return TaskTimeoutError(f"task {index} ({shown(run.name(index))}) took longer than its timeout of {timeout:g} s")


class TimedCall:
    """One attempt of a task, of an element of a map, or of the call that has a context of its own."""

    __slots__ = ("_call_context", "_run", "hung")

    def __init__(
        self,
        run: TellingRun,
        index: int,
        attempt: int,
        element: int = WHOLE,
        *,
        call_context: CallContext | None = None,
    ) -> None:
        self._run = run
        if call_context is None:
            call_context = CallContext(run, CURRENT_CALL.get().worker, index, attempt, element)
        self._call_context = call_context
        self.hung: threading.Thread | None = None
        """The thread in which the call goes on, if it took too long."""

    def make(self, timeout: float, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make the call; return its value, or raise its error.

        Raises `TaskTimeoutError` for a call that takes longer than so many seconds, and `WorkersUnavailableError` where
        no thread can be started for it.
        """
        call_context = self._call_context
        context = contextvars.copy_context()
        context.run(CURRENT_CALL.set, call_context)
        context.run(own_decimals, decimals_in(context))
        box = _Box(context, function, args, kwargs, self._report_late)
        thread = threading.Thread(target=box.fill, name=f"{call_context.worker}-attempt", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise WorkersUnavailableError(
                f"no thread could be started for an attempt with a timeout: {error}"
            ) from None
        ended = False
        try:
            ended = box.wait(timeout)
        finally:
            if not ended and not (ended := not box.abandon()):
                call_context.abandoned = True
                self.hung = thread
            call_context.over = True
        if not ended:
            raise too_long(self._run, call_context.index, timeout)
        thread.join()
        return box.content()

    def _report_late(self, error: BaseException | None) -> None:
        self._run.report("task_abandoned_ended", self._call_context.index, self._call_context.attempt, None, error)


class _Box:
    """Holds how a call in another thread ended, unless the caller has stopped waiting."""

    __slots__ = ("_abandoned", "_call", "_error", "_filled", "_late", "_lock", "_value")

    def __init__(
        self,
        context: contextvars.Context,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        late: Callable[[BaseException | None], None],
    ) -> None:
        self._call: Any = context, function, args, kwargs
        self._late = late
        self._lock = threading.Lock()
        self._filled = Latch()
        self._abandoned = False
        self._value: Any = None
        self._error: BaseException | None = None

    def fill(self) -> None:
        """Make the call, and keep its value or error."""
        try:
            (context, function, args, kwargs), self._call = self._call, None
            value: Any = None
            failure: BaseException | None = None
            try:
                value = context.run(function, *args, **kwargs)
            except BaseException as error:
                failure = error
            del context, function, args, kwargs
            if not self._take(value, failure):
                self._late(failure)
            failure = None
        except BaseException as error:  # not from the call, and somebody waits
            self._take(None, error)

    def _take(self, value: Any, error: BaseException | None) -> bool:
        """Keep a value or an error; return whether somebody still waits for it."""
        with self._lock:
            if not self._abandoned:
                self._value, self._error = value, error
                self._filled.open()
            return not self._abandoned

    def wait(self, timeout: float) -> bool:
        """Wait for the content, at most `timeout` seconds; return whether it is there."""
        return self._filled.wait(timeout)

    def abandon(self) -> bool:
        """Give up waiting; return whether that came first."""
        with self._lock:
            self._abandoned = not self._filled.is_open
            return self._abandoned

    def content(self) -> Any:
        """Return the value, or raise the error."""
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                error = None
        value, self._value = self._value, None
        return value
