"""A copy of the caller's decimal context for each call.

A copy of a `contextvars` context refers to the same objects, and code changes `decimal.getcontext()` in place. So
without a copy of that object, tasks in copies of the caller's context would change the caller's precision and each
other's.
"""

import sys
from contextvars import Context, ContextVar, copy_context
from typing import Any


def base_context() -> "tuple[Context, ContextVar[Any] | None]":
    """Return a copy of the running context, and the variable in it that holds the caller's decimal context.

    A decimal context with the default settings is left out of the copy, and `None` is returned for the variable: a call
    that uses `decimal` then makes a context itself, and other calls pay nothing. Importing pandas creates such a
    context.
    """
    context = copy_context()
    decimals = decimals_in(context)
    if decimals is not None and _settings(context[decimals]) == _settings(sys.modules["decimal"].DefaultContext):
        others = [(variable, value) for variable, value in context.items() if variable is not decimals]
        context, decimals = Context(), None
        for variable, value in others:
            context.run(variable.set, value)
    if decimals is not None:
        context.run(own_decimals, decimals)  # a copy, since the caller may change its context during the run
    return context, decimals


def decimals_in(context: Context) -> "ContextVar[Any] | None":
    """Return the context variable that holds a decimal context, or `None` if none is set in this context."""
    decimal = sys.modules.get("decimal")
    if decimal is None:
        return None
    for variable, value in context.items():
        if variable.name == "decimal_context" and isinstance(value, decimal.Context):
            return variable
    return None


def own_decimals(decimals: "ContextVar[Any] | None") -> None:
    """Replace the decimal context in the running context by a copy, if the variable that holds it is passed."""
    context = None if decimals is None else decimals.get(None)
    if decimals is not None and context is not None:
        decimals.set(context.copy())


class OwnDecimals:
    """Within it, the running context has a decimal context of its own; after it, the one from before."""

    __slots__ = ("_before",)

    def __init__(self) -> None:
        self._before: Any = None

    def __enter__(self) -> None:
        decimals = decimals_in(copy_context())
        if decimals is not None:
            self._before = decimals.get()
            own_decimals(decimals)

    def __exit__(self, *_: object) -> None:
        decimals = decimals_in(copy_context())
        if decimals is not None:
            # Where there was none before, one with the default settings is as good.
            decimals.set(self._before or sys.modules["decimal"].DefaultContext.copy())


def _settings(context: Any) -> tuple[object, ...]:
    traps = {signal for signal, trapped in context.traps.items() if trapped}
    return context.prec, context.rounding, context.Emin, context.Emax, context.capitals, context.clamp, traps
