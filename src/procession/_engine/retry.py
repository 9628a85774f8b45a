"""Retries of a call, step by step: which attempt it is at, how the last one ended, and what follows."""

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

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
    """Ends the loop of a worker that was abandoned, as its call took too long."""


class Late(NamedTuple):
    """A call that was abandoned at its timeout and that no worker has settled yet."""

    error: BaseException
    start: float
    """When the attempt began, as a reading of the clock."""
    worker: str
    straggler: Straggler
    digest: bytes = b""
    """Of an element of a map, its digest."""


class Held(NamedTuple):
    """A call that its limits hold back, or that a service has put off, until it is made."""

    digest: bytes = b""
    """Of an element of a map, its digest."""
    error: BaseException | None = None
    """What was raised before."""
    start: float | None = None
    """When the first attempt began, as a reading of the clock."""


class Retry:
    """The attempts of one call, after one has failed, or from the start where rules of the user's own judge each."""

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
        """What the last attempt raised; `None` where it returned a value that the rules do not accept."""
        self.hung: Straggler | threading.Thread | None = None
        """Where an attempt that took too long may still go on."""

    def check(self) -> None:
        """Raise `GiveUp` where no other attempt may begin, as the one before still goes on."""
        if self.hung is not None and self.hung.is_alive() and self.error is not None:
            raise GiveUp(self.error)

    def begin(self) -> None:
        """Count another attempt. Raises as `check` does."""
        self.check()
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


class Pauses:
    """The pauses between attempts, on all engines."""

    pace: ClassVar[float] = 1.0
    """By what they are multiplied: 0 in tests that do without them."""


def pause(seconds: float) -> float:
    """Return how long a pause between two attempts is, in seconds, where the rules of a task say so many."""
    return float(seconds) * Pauses.pace


class RetryState:
    """Applies the retry rules of one call to its attempts, one by one.

    tenacity decides, and neither calls nor waits itself. So its callbacks see the function and the arguments of the
    task, and each engine makes the attempts, and waits between them, in its own way.
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
        """Tell tenacity that an attempt begins."""
        self._iterate()

    def _iterate(self) -> object:
        """Take tenacity's next step, with the statistics of this call: tenacity keeps them by thread."""
        here = self._rules.statistics
        if here is not self._statistics:
            here.update(self._statistics)
            self._statistics = here
        return self._rules.iter(self._state)

    def verdict(self, *, returned: bool, value: Any) -> Verdict:
        """Return whether there is another attempt, and when, after one that returned the value, or raised it."""
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
        return Verdict(pause(what), returned, value)

    def forget(self) -> None:
        """Drop the references to the value or error of the last attempt."""
        untie(self._rules, self._state)


def untie(rules: "BaseRetrying", state: "RetryCallState") -> None:
    """Drop the references to the last value or error: tenacity's objects form cycles, which would keep it."""
    state.outcome = None
    iteration: Any = getattr(rules, "iter_state", None)  # older ones have none
    if iteration is not None:
        iteration.actions.clear()


def retrying(options: Options) -> "Retrying":
    """Return the retry rules of a task. They raise the error of the last attempt as it is."""
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
