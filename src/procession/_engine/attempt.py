"""Attempts of one call: with handles bound, under a timeout, again after a failure."""

import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, cast

from procession._engine.current import SEAT, Conduct, Seat
from procession._engine.decimals import decimals_in, own_decimals
from procession._engine.latch import Latch
from procession._model.event import EventName
from procession._model.record import WHOLE
from procession._model.task import Options
from procession._model.text import shown
from procession.errors import TaskTimeoutError, WorkersUnavailableError

if TYPE_CHECKING:
    from tenacity import RetryCallState, Retrying


class Scene(Conduct, Protocol):
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
        return function(*args, **kwargs)
    one = Attempt(scene, index, options, function, args, kwargs, element)
    if options.retries == 0:
        return one()

    def sleep(seconds: float) -> None:
        one.report_retry()
        if scene.wait_halted(seconds) and one.error is not None:
            raise GiveUp(one.error)

    error: BaseException | None
    rules = retrying(options).copy(sleep=sleep)
    try:
        return rules(one)
    except GiveUp as given_up:
        error = given_up.error
    finally:
        # What retries is a knot of references that would keep the error until the collector comes.
        one.error = None
        state: Any = getattr(rules, "iter_state", None)  # older ones have none, and no knot
        if state is not None:
            state.actions.clear()
    # Outside of the handler, so that the error gets no context that leads back to it.
    try:
        raise error
    finally:
        error = None


class GiveUp(BaseException):
    """There will be no other attempt, whatever the retry rules say. Carries how the last one ended."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def retrying(options: Options) -> "Retrying":
    """Return what says when a task is attempted again. It raises what the last attempt raised, as it is."""
    # Imported by the first run that has a task with retries: importing the package stays free of it.
    import tenacity

    rules = options.retries
    if isinstance(rules, int):
        rules = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(rules + 1),
            wait=tenacity.wait_exponential(multiplier=0.1, max=60) + tenacity.wait_random(0, 0.1),
            retry=tenacity.retry_if_exception_type(options.retry_on),
        )
    again = rules.retry

    def worth_it(state: "RetryCallState") -> bool:
        error = state.outcome.exception() if state.outcome is not None else None
        return (error is None or isinstance(error, Exception)) and bool(again(state))

    return rules.copy(reraise=True, retry=worth_it)


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

    def begin(self) -> tuple[Seat, contextvars.Context]:
        """Count another attempt; return its seat, and the context to make it in."""
        self.made += 1
        self._scene.attempts[self._counted] = self.made
        seat = Seat(self._scene, SEAT.get().worker, self._index, self.made, self._element)
        context = contextvars.copy_context()
        context.run(SEAT.set, seat)
        context.run(own_decimals, decimals_in(context))
        return seat, context

    def too_long(self, timeout: float) -> TaskTimeoutError:
        """Return what to raise for an attempt that took too long."""
        name = shown(self._scene.name(self._index))
        return TaskTimeoutError(f"task {self._index} ({name}) took longer than its timeout of {timeout:g} s")

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
        seat, context = self.begin()
        try:
            if self.options.timeout is None:
                return context.run(self.function, *self.args, **self.kwargs)
            return self._within(self.options.timeout, seat, context)
        except BaseException as error:
            self.error = error
            raise
        finally:
            seat.over = True

    def _within(self, timeout: float, seat: Seat, context: contextvars.Context) -> Any:
        box = _Box(context, self.function, self.args, self.kwargs, self.report_late)
        thread = threading.Thread(target=box.fill, name=f"{seat.worker}-attempt", daemon=True)
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
                seat.abandoned = True
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
_OURS = ("procession._engine.", "procession._crew.", "procession._loop.", "tenacity", "concurrent.futures")


def _is_ours(module: str) -> bool:
    return module.startswith(_OURS)
