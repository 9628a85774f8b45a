"""Calls as bytes, for workers in other processes.

A call that cannot be pickled fails alone, and says what was in the way. Pickle goes first, since it is quick and takes
what stands in modules by name; what it refuses goes by value, through cloudpickle, where that is installed.
"""

import pickle
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from typing import Any, cast

from procession._model.text import described, shown, sketch
from procession._remote.wire.classes import AsInWorker
from procession.errors import TransferError

Call = tuple[int, int, int, float | None, Callable[..., Any], tuple[Any, ...], dict[str, Any]]
"""A call on its way: task, element, attempt, timeout in seconds, callable, arguments."""


@cache
def by_value() -> Callable[[object], bytes] | None:
    """Return what pickles functions and classes by value, or `None` where cloudpickle is not installed."""
    try:
        cloudpickle = import_module("cloudpickle")
    except ImportError:
        return None
    return cast("Callable[[object], bytes]", cloudpickle.dumps)


def dumps(value: object, *, whole: bool = False) -> bytes:
    """Return a value pickled; `whole` says that functions and classes are to go by value from the start."""
    dumps_by_value = by_value()
    if not whole or dumps_by_value is None:
        try:
            return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        except Exception:
            if dumps_by_value is None:
                raise
    return dumps_by_value(value)


# Calls


def encode_calls(calls: Sequence[Call], *, whole: bool) -> bytes:
    """Return calls as bytes. One that cannot be pickled is replaced by one that says so."""
    try:
        return dumps(calls, whole=whole)
    except Exception:
        return dumps([_sound(call, whole=whole) for call in calls], whole=whole)


def _sound(call: Call, *, whole: bool) -> Call:
    try:
        dumps(call, whole=whole)
    except Exception as error:
        return (*call[:4], refuse, (_refusal(call, error, whole=whole),), {})
    return call


def refuse(why: str) -> None:
    """Stand for a call that could not travel."""
    raise TransferError(why)


def _refusal(call: Call, error: Exception, *, whole: bool) -> str:
    parts: list[tuple[str, object]] = [("the callable", call[4])]
    parts += [(f"argument {place}", value) for place, value in enumerate(call[5])]
    parts += [(f"argument {shown(name)}", value) for name, value in call[6].items()]
    for what, value in parts:
        try:
            dumps(value, whole=whole)
        except Exception as reason:
            return unsendable(f"{what}, {sketch(value)},", reason)
    return unsendable("the call", error)


def unsendable(what: str, error: Exception) -> str:
    """Return why something cannot be sent, and what can be done."""
    mend = "send what it is made from, and make it in the task"
    if by_value() is None:
        mend += '; functions that are not at the top of a module take pip install "procession[processes]"'
    return f"{what} cannot be pickled, and so cannot be sent to another process: {described(error)}; {mend}"


def dumps_home(value: object) -> bytes:
    """Return a value pickled, by value if it has to be; where it is read, it changes no class that is there."""
    try:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception:
        if by_value() is None:
            raise
    return pickle.dumps(AsInWorker(dumps(value, whole=True)), pickle.HIGHEST_PROTOCOL)
