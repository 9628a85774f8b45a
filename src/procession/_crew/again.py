"""Retries of a call that somebody else makes: what follows from how an attempt ended."""

from typing import Any, NamedTuple

from procession._engine.attempt import retrying
from procession._model.outcome import Away
from procession._model.task import Call, Options


class Verdict(NamedTuple):
    """What follows: another attempt in so many seconds, or, with `None`, this end of the call."""

    seconds: float | None
    returned: bool
    value: Any
    """The value, or the exception."""


class Again:
    """Applies the retry rules of one call to its attempts, one by one. tenacity decides, and does not wait itself."""

    __slots__ = ("_looks", "_rules", "_state")

    def __init__(self, options: Options, call: Call) -> None:
        from tenacity import RetryCallState

        function, args, kwargs = call
        self._rules = retrying(options)
        self._looks = not isinstance(options.retries, int)  # such rules may ask for the value
        self._state = RetryCallState(self._rules, function, args, kwargs)
        self._rules.begin()
        self.begin()

    def begin(self) -> None:
        """Take note that an attempt begins."""
        self._rules.iter(self._state)

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
            what = self._rules.iter(self._state)
        except BaseException as final:
            return Verdict(None, returned=False, value=final)
        if not isinstance(what, DoSleep):
            return Verdict(None, returned=True, value=value if what is seen else what)
        self._state.prepare_for_next_attempt()
        return Verdict(float(what), returned, value)
