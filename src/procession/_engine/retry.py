"""Retries of a call, step by step: which attempt it is at, how the last one ended, and what follows."""

from typing import TYPE_CHECKING, Any, NamedTuple

from procession._engine.watcher import Straggler
from procession._model.outcome import Away
from procession._model.task import Call, Options

if TYPE_CHECKING:
    import threading
    from contextvars import Context

    from tenacity import BaseRetrying, RetryCallState, Retrying


class GiveUp(BaseException):
    """There will be no other attempt, whatever the retry rules say. Carries the error that the call ends with."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Abandoned(BaseException):
    """The call that a worker makes took too long: it was given up, and the worker with it."""


class Late(NamedTuple):
    """A call that was given up at its timeout, until a worker sees to what follows."""

    error: BaseException
    start: float
    """When the attempt began, as a reading of the clock."""
    worker: str
    straggler: Straggler
    digest: bytes = b""
    """Of an element of a map, its digest."""


class Retry:
    """The attempts of one call of which at least one has failed, or whose rules want to see each of them."""

    __slots__ = ("context", "digest", "error", "hung", "made", "start", "state")

    def __init__(self, options: Options, call: Call, start: float, digest: bytes = b"") -> None:
        self.state = RetryState(options, call)
        self.digest = digest
        """Of an element of a map, its digest."""
        self.start = start
        """When the first attempt began, as a reading of the clock."""
        self.context: Context | None = None
        """The context in which each further attempt is made; `None` for that of the worker."""
        self.made = 1
        """How many attempts have begun."""
        self.error: BaseException | None = None
        """What the last one raised; `None` where its rules did not like the value that it returned."""
        self.hung: Straggler | threading.Thread | None = None
        """Where an attempt that took too long may still go on."""

    def begin(self) -> None:
        """Take note that another attempt begins. Raises `GiveUp` where the attempt before still goes on."""
        if self.hung is not None and self.hung.is_alive() and self.error is not None:
            raise GiveUp(self.error)
        self.made += 1
        self.error = None
        self.state.begin()

    def judge(self, *, returned: bool, value: Any) -> tuple[float | None, bool, Any]:
        """Return in how many seconds there is to be another attempt, or `None` and the value or error that stands."""
        seconds, returned, value = self.state.verdict(returned=returned, value=value)
        if seconds is not None and not returned:
            self.error = value
        return seconds, returned, value


class Verdict(NamedTuple):
    """What follows: another attempt in so many seconds, or, with `None`, this end of the call."""

    seconds: float | None
    returned: bool
    value: Any
    """The value, or the exception."""


class RetryState:
    """Applies the retry rules of one call to its attempts, one by one.

    tenacity decides, and neither calls nor waits itself: so its callbacks see the function and the arguments of the
    task, and whoever makes the attempts may make and wait for them as is right there.
    """

    __slots__ = ("_looks", "_rules", "_state", "_statistics")

    def __init__(self, options: Options, call: Call) -> None:
        from tenacity import RetryCallState

        function, args, kwargs = call
        self._rules = retrying(options)
        self._looks = not isinstance(options.retries, int)  # such rules may ask for the value
        self._state = RetryCallState(self._rules, function, args, kwargs)
        self._rules.begin()
        self._statistics: dict[str, Any] = self._rules.statistics
        self.begin()

    def begin(self) -> None:
        """Take note that an attempt begins."""
        self._iterate()

    def _iterate(self) -> object:
        """Have tenacity take the next step. It keeps statistics by thread, and the next attempt may be in another."""
        here = self._rules.statistics
        if here is not self._statistics:
            here.update(self._statistics)
            self._statistics = here
        return self._rules.iter(self._state)

    def verdict(self, *, returned: bool, value: Any) -> Verdict:
        """Return what follows from an attempt that returned the value, or raised it."""
        from tenacity import DoSleep

        if not getattr(self._rules, "enabled", True):
            return Verdict(None, returned, value)
        seen = value
        try:
            if returned:
                seen = value.fetch() if self._looks and isinstance(value, Away) else value
                self._state.set_result(seen)
            else:
                error: BaseException = value
                self._state.set_exception((type(error), error, error.__traceback__))
            what = self._iterate()
        except BaseException as final:
            return Verdict(None, returned=False, value=final)
        if not isinstance(what, DoSleep):
            return Verdict(None, returned=True, value=value if what is seen else what)
        self._state.prepare_for_next_attempt()
        return Verdict(float(what), returned, value)

    def forget(self) -> None:
        """Let go of how the last attempt ended."""
        untie(self._rules, self._state)


def untie(rules: "BaseRetrying", state: "RetryCallState") -> None:
    """Let go of how the last attempt ended: what retries is a knot of references that would keep it."""
    state.outcome = None
    iteration: Any = getattr(rules, "iter_state", None)  # older ones have none
    if iteration is not None:
        iteration.actions.clear()


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
