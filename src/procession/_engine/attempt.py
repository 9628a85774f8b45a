"""Attempts of one call: with handles bound, under a timeout, again after a failure."""

import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol, cast

from procession._engine.call_context import CURRENT_CALL, CallContext, CallingRun
from procession._engine.decimals import decimals_in, own_decimals
from procession._engine.latch import Latch
from procession._engine.retry_state import RetryState
from procession._engine.unawaited import awaited
from procession._model.event import EventName
from procession._model.record import WHOLE
from procession._model.task import Options
from procession._model.text import shown
from procession.errors import TaskTimeoutError, WorkersUnavailableError


class Scene(CallingRun, Protocol):
    """What attempts need of the engine that runs them."""

    attempts: dict[int | tuple[int, int], int]
    """How many were made for a task, or, while it runs, for an element of a map."""

    def wait_halted(self, seconds: float) -> bool:
        """Wait until nothing new may start, at most this long; return whether that is so."""
        ...

    def report(
        self, name: EventName, index: int, attempt: int, duration: float | None, error: BaseException | None = None
    ) -> None:
        """Tell of something that happened to a task."""
        ...


def attempted(
    scene: Scene,
    index: int,
    options: Options,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    element: int = WHOLE,
) -> Any:
    """Call the function as its options say; return its value, or raise what the last attempt raised."""
    if options.retries == 0 and options.timeout is None:
        return awaited(function(*args, **kwargs))
    one = Attempt(scene, index, options, function, args, kwargs, element)
    return awaited(one() if options.retries == 0 else _retried(scene, one))


def _retried(scene: Scene, one: "Attempt") -> Any:
    """Make attempts as long as the rules say."""
    again = RetryState(one.options, (one.function, one.args, one.kwargs))
    value: Any = None
    try:
        while True:
            hopeless = False
            try:
                returned, value = True, one()
            except BaseException as error:
                returned, value, hopeless = False, error, isinstance(error, GiveUp)
            # Raised outside of the handler, so that the error gets no context that leads back to it.
            if hopeless:
                raise value.error
            seconds, returned, value = again.verdict(returned=returned, value=value)
            if seconds is None and returned:
                return value
            if seconds is None:
                raise value
            one.report_retry()
            if scene.wait_halted(seconds) and one.error is not None:
                raise one.error
            again.begin()
    finally:
        # The frame is part of the traceback: no cycle may stay, which would keep the error until the collector comes.
        again.forget()
        value = one.error = None


def too_long(run: CallingRun, index: int, timeout: float) -> TaskTimeoutError:
    """Return the error of a call that took longer than so many seconds."""
    return TaskTimeoutError(f"task {index} ({shown(run.name(index))}) took longer than its timeout of {timeout:g} s")


class GiveUp(BaseException):
    """There will be no other attempt, whatever the retry rules say. Carries how the last one ended."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Attempts:
    """The attempts of one call: how many were made, and what the last one raised."""

    __slots__ = (
        "_counted",
        "_element",
        "_index",
        "_scene",
        "args",
        "error",
        "function",
        "hung",
        "kwargs",
        "made",
        "options",
    )

    def __init__(
        self,
        scene: Scene,
        index: int,
        options: Options,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        element: int,
    ) -> None:
        self._scene = scene
        self._index = index
        self._counted = index if element == WHOLE else (index, element)
        self._element = element
        self.options = options
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.made = 0
        self.error: BaseException | None = None
        self.hung: threading.Thread | None = None
        """The thread of an attempt that was abandoned."""

    def begin(self) -> tuple[CallContext, contextvars.Context]:
        """Count another attempt; return its call context, and the context to make it in."""
        self.made += 1
        self._scene.attempts[self._counted] = self.made
        call_context = CallContext(self._scene, CURRENT_CALL.get().worker, self._index, self.made, self._element)
        context = contextvars.copy_context()
        context.run(CURRENT_CALL.set, call_context)
        context.run(own_decimals, decimals_in(context))
        return call_context, context

    def too_long(self, timeout: float) -> TaskTimeoutError:
        """Return what to raise for an attempt that took too long."""
        return too_long(self._scene, self._index, timeout)

    def report_retry(self) -> None:
        """Tell that there will be another attempt, after a pause."""
        self._scene.report("task_retrying", self._index, self.made, None, self.error)

    def report_late(self, error: BaseException | None) -> None:
        """Tell that an attempt that was abandoned has ended after all."""
        self._scene.report("task_abandoned_ended", self._index, self.made, None, error)


class Attempt(Attempts):
    """Makes one attempt each time it is called, and never two at the same time."""

    __slots__ = ()

    def __call__(self) -> Any:
        if self.hung is not None and self.hung.is_alive() and self.error is not None:
            raise GiveUp(self.error)
        call_context, context = self.begin()
        try:
            if self.options.timeout is None:
                return context.run(self.function, *self.args, **self.kwargs)
            return self._within(self.options.timeout, call_context, context)
        except BaseException as error:
            self.error = error
            raise
        finally:
            call_context.over = True

    def _within(self, timeout: float, call_context: CallContext, context: contextvars.Context) -> Any:
        box = _Box(context, self.function, self.args, self.kwargs, self.report_late)
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
        if not ended:
            raise self.too_long(timeout)
        thread.join()
        return box.content()


class _Box:
    """Where a thread leaves what its call came to, unless nobody waits for it any more."""

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
        """Make the call and keep what it came to."""
        (context, function, args, kwargs), self._call = self._call, None
        value: Any = None
        failure: BaseException | None = None
        try:
            value = context.run(function, *args, **kwargs)
        except BaseException as error:
            failure = error
        del context, function, args, kwargs
        with self._lock:
            abandoned = self._abandoned
            if not abandoned:
                self._value, self._error = value, failure
                self._filled.open()
        if abandoned:
            self._late(failure)
        failure = None

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


def stripped(traceback: TracebackType | None) -> TracebackType | None:
    """Return a traceback without its leading frames that are not the task's own.

    They hold every argument and value of the run, and would keep them alive for as long as the exception lives.
    """
    while traceback is not None and _is_ours(traceback.tb_frame.f_globals.get("__name__", "")):
        traceback = traceback.tb_next
    return traceback


def let_go(error: BaseException) -> None:
    """Empty the frames of ours that called the task, as far as they have returned.

    The frame of a task keeps its callers (`f_back`), and they would keep the run, and all it holds, as long as the
    exception lives.
    """
    if isinstance(error, BaseExceptionGroup):
        for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            let_go(inner)
    traceback = error.__traceback__
    frame = None if traceback is None else traceback.tb_frame.f_back
    while frame is not None and frame.f_globals.get("__name__", "").startswith(_CALLERS):
        with suppress(RuntimeError):  # it is running still
            frame.clear()
        frame = frame.f_back


_CALLERS = ("procession.", "tenacity", "concurrent.futures", "threading")
_OURS = ("procession._engine.", "procession._remote.", "procession._loop.", "tenacity", "concurrent.futures")


def _is_ours(module: str) -> bool:
    return module.startswith(_OURS)
