"""Retries of a call, step by step: what follows from how an attempt ended."""

from typing import TYPE_CHECKING, Any, NamedTuple

from procession._model.outcome import Away
from procession._model.task import Call, Options

if TYPE_CHECKING:
    from tenacity import BaseRetrying, RetryCallState, Retrying


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
