"""The decimal context, the one thing in a context variable that everybody changes in place: a copy for each call.

Copying a context copies what its variables refer to, not the objects themselves. So tasks in copies of the caller's
context would all work with the caller's own `decimal.getcontext()`, and with each other's precision.
"""

import sys
from contextvars import Context, ContextVar, copy_context
from typing import Any


def base_context() -> "tuple[Context, ContextVar[Any] | None]":
    """Return a copy of the running context, and the variable in it of which each call needs a copy of its own, if any.

    A decimal context with the settings that everybody begins with is left out, so that each call makes one if it has
    any use for it, and no other call pays: to import pandas is enough to have such a one.
    """
    context = copy_context()
    decimals = decimals_in(context)
    if decimals is not None and _settings(context[decimals]) == _settings(sys.modules["decimal"].DefaultContext):
        others = [(variable, value) for variable, value in context.items() if variable is not decimals]
        context, decimals = Context(), None
        for variable, value in others:
            context.run(variable.set, value)
    context.run(own_decimals, decimals)  # the caller may change its own while the calls go on
    return context, decimals


def decimals_in(context: Context) -> "ContextVar[Any] | None":
    """Return the variable that holds the decimal context, or `None` where the context has none of its own."""
    decimal = sys.modules.get("decimal")
    if decimal is None:
        return None
    for variable, value in context.items():
        if variable.name == "decimal_context" and isinstance(value, decimal.Context):
            return variable
    return None


def own_decimals(decimals: "ContextVar[Any] | None") -> None:
    """Go on in the running context with a copy of the decimal context, if there is one."""
    context = None if decimals is None else decimals.get(None)
    if decimals is not None and context is not None:
        decimals.set(context.copy())


def _settings(context: Any) -> tuple[object, ...]:
    traps = {signal for signal, trapped in context.traps.items() if trapped}
    return context.prec, context.rounding, context.Emin, context.Emax, context.capitals, context.clamp, traps
