"""The decimal context, the one thing in a context variable that everybody changes in place: a copy for each call.

Copying a context copies what its variables refer to, not the objects themselves. So tasks in copies of the caller's
context would all work with the caller's own `decimal.getcontext()`, and with each other's precision.
"""

import sys
from contextvars import Context, ContextVar
from typing import Any


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
