"""Calls and what came of them as bytes, for workers in other processes.

Everything that may fail here fails one task, and says which type was in the way: a call or a value that cannot be
pickled, a value that cannot be unpickled. Pickle goes first, since it is quick and takes what stands in modules by
name; what it refuses goes by value, through cloudpickle, where that is installed.
"""

import pickle
import re
import traceback
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple, cast

from procession._engine.attempt import stripped
from procession._model.log import Log
from procession._model.text import described, shown, sketch
from procession._remote.wire.classes import AsInWorker
from procession._remote.wire.recipe import Recipe, recipe_of
from procession.errors import RemoteError, TransferError

Call = tuple[int, int, int, float | None, Callable[..., Any], tuple[Any, ...], dict[str, Any]]
"""A call on its way: task, element, attempt, timeout in seconds, callable, arguments."""

Ended = tuple[bool, float, float, Any, Log | None]
"""How a call ended: whether it returned, start and end by the worker's clock, the value or the exception, its log."""

_TEXT_LIMIT = 20_000
_ADDRESS = re.compile("0x[0-9a-fA-F]+")


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


# What came of them


class _Carried(NamedTuple):
    """An exception on its way."""

    data: bytes | None
    """The exception, or the recipe for it, pickled."""
    told: str
    """Its type and message."""
    text: str
    """Its traceback, and those of its causes."""


def encode_ended(ended: Ended) -> bytes:
    """Return how a call ended as bytes. A value that cannot be pickled makes it a failure that says so."""
    returned, start, end, value, log = ended
    if returned:
        try:
            return _dumps_home(ended)
        except Exception as error:
            value = TransferError(unsendable(f"the result, {sketch(value)},", error))
    return pickle.dumps((False, start, end, _carried(value), log), pickle.HIGHEST_PROTOCOL)


def _dumps_home(value: object) -> bytes:
    """Return a value pickled, by value if it has to be; where it is read, it changes no class that is there."""
    try:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception:
        if by_value() is None:
            raise
    return pickle.dumps(AsInWorker(dumps(value, whole=True)), pickle.HIGHEST_PROTOCOL)


def ended_of(data: Ended | bytes) -> Ended:
    """Return how a call ended, as bytes or not. A value that cannot be unpickled makes it a failure that says so."""
    if not isinstance(data, bytes):
        return data
    try:
        ended: Ended = pickle.loads(data)  # noqa: S301  # from a worker of ours
    except Exception as error:
        why = f"the result could be pickled, but not be unpickled again: {described(error)}"
        return False, 0.0, 0.0, TransferError(why), None
    return ended if ended[0] else (*ended[:3], _arrived(ended[3]), ended[4])


def _carried(error: BaseException) -> _Carried:
    try:
        text = "".join(traceback.format_exception(type(error), error, stripped(error.__traceback__)))
    except Exception as failure:
        text = f"<no traceback: {type(failure).__name__}>"
    if len(text) > _TEXT_LIMIT:
        text = f"{text[: _TEXT_LIMIT // 2]}\n…\n{text[-_TEXT_LIMIT // 2 :]}"
    return _Carried(_packed(error), described(error), "" if isinstance(error, TransferError) else text)


def _packed(error: BaseException) -> bytes | None:
    """Return an exception, or the recipe for it, pickled; `None` where not even its type can be sent."""
    if isinstance(error, BaseExceptionGroup):
        return _checked(cast("BaseException", error), _group_recipe)
    # A constructor that makes its message of other arguments would make another message of that one.
    return _checked(error, lambda error: error, worded=True) or _checked(error, _recipe)


def _checked(error: BaseException, prepared: Callable[[Any], object], *, worded: bool = False) -> bytes | None:
    """Return what makes a copy of an exception of the same type, and, if asked for, with the same message."""
    try:
        data = _dumps_home(prepared(error))
        copy = _made(data)
        return data if type(copy) is type(error) and (not worded or _same_text(copy, error)) else None
    except Exception:
        return None


def _recipe(error: BaseException) -> Recipe:
    return recipe_of(error, _can_be_sent)


def _same_text(copy: object, error: BaseException) -> bool:
    """Return whether two exceptions say the same, but for the addresses of objects without a text of their own."""
    try:
        said = str(error)
    except Exception:
        return True  # so whatever the copy says is no worse
    return _ADDRESS.sub("", str(copy)) == _ADDRESS.sub("", said)


def _group_recipe(group: "BaseExceptionGroup[BaseException]") -> Recipe:
    carried = [_Carried(_packed(error), described(error), "") for error in group.exceptions]
    return _recipe(group)._replace(args=(group.message, carried))


def _can_be_sent(value: object) -> bool:
    try:
        pickle.loads(_dumps_home(value))  # noqa: S301
    except Exception:
        return False
    return True


def _made(data: bytes) -> object:
    value: object = pickle.loads(data)  # noqa: S301
    if not isinstance(value, Recipe):
        return value
    if issubclass(value.type, BaseExceptionGroup):
        message, carried = value.args
        value = value._replace(args=(message, [_arrived(one) for one in carried]))
    return value.made()


def _arrived(carried: _Carried) -> BaseException:
    try:
        error = None if carried.data is None else _made(carried.data)
    except Exception:
        error = None
    if not isinstance(error, BaseException):
        error = RemoteError(carried.told)
    if carried.text:
        error.add_note(f"where it was raised, in the worker:\n{carried.text.rstrip()}")
    return error
