"""While a task is in a call that it makes itself: who asks is told so, and its start and end are noted."""

import time
from types import TracebackType

from procession._engine.call_context import CURRENT_CALL, CallContext, InnerCallContext
from procession._engine.calls_of_run import RunCalls
from procession._engine.decimals import OwnDecimals
from procession._model.event import EventName
from procession._model.made_calls import MadeCalls
from procession._model.record import WHOLE


class InsideCall:
    """Has a thread or coroutine be in a call that its task makes itself, and notes and tells of its start and end.

    The call has a decimal context of its own, as a task has: what it sets there would not be set when it is recalled.
    """

    __slots__ = ("_decimals", "_inner", "_made", "_outer", "_run", "_start")

    def __init__(self, shared: RunCalls, inner: InnerCallContext, outer: CallContext, start: float) -> None:
        self._run = shared.run
        self._made = shared.made
        self._inner = inner
        self._outer = outer
        self._start = start
        self._decimals = OwnDecimals()

    def __enter__(self) -> None:
        CURRENT_CALL.set(self._inner)
        self._decimals.__enter__()
        if self._run.verbose:
            self._tell("call_started", None, None)
        self._made.under_way.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._decimals.__exit__()
        self._made.under_way.discard(self)
        took = time.perf_counter() - self._start
        # What was cut off has not ended, and what was given up is none of the task's any more.
        if (error is None or isinstance(error, Exception)) and not self._outer.abandoned:
            self._made.add(self._as_made(took, failed=error is not None))
        if self._run.verbose:
            self._tell("call_completed" if error is None else "call_failed", took, error)
        CURRENT_CALL.set(self._outer)

    def so_far(self) -> MadeCalls:
        """Return the call as if it ended now."""
        return self._as_made(time.perf_counter() - self._start, failed=False)

    def _as_made(self, took: float, *, failed: bool) -> MadeCalls:
        inner, start = self._inner, self._run.moment(self._start)
        # By place, as names would take longer.
        return MadeCalls(
            inner.index,
            inner.element,
            inner.call,
            inner.callee_name,
            inner.attempt,
            start,
            start + took,
            inner.worker,
            int(failed),
            1,
            took,
        )

    def _tell(self, name: EventName, duration: float | None, error: BaseException | None) -> None:
        inner = self._inner
        element = None if inner.element == WHOLE else inner.element
        call = inner.call, inner.callee_name
        self._run.report(name, inner.index, inner.attempt, duration, error, element, call)
