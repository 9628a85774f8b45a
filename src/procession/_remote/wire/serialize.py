"""Calls as bytes, for workers in other processes.

A call that cannot be pickled fails alone, and says what was in the way. Pickle goes first, since it is quick and takes
what stands in modules by name; what it refuses goes as `functions` says.
"""

import io
import pickle
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from itertools import chain
from operator import itemgetter
from types import BuiltinFunctionType, FunctionType, NoneType
from typing import Any, Final, cast

from procession._model.text import described, shown, sketch
from procession._remote.wire.classes import AsInWorker
from procession._remote.wire.functions import dump_functions, named_in_main
from procession._remote.wire.packed import Packed, Writer
from procession._remote.wire.previous_value import PreviousValue
from procession._remote.wire.snapshots import Snapshots
from procession.errors import TransferError

Call = tuple[int, int, int, float | None, Callable[..., Any], tuple[Any, ...], dict[str, Any]]
"""A call on its way: task, element, attempt, timeout in seconds, callable, arguments."""

_FUNCTION, _ARGUMENTS, _KEYWORD_ARGUMENTS = map(itemgetter, (4, 5, 6))
"""Parts of a call."""


@cache
def by_value() -> Callable[[object], bytes] | None:
    """Return the function that pickles functions and classes by value; `None` where cloudpickle is not installed."""
    try:
        cloudpickle = import_module("cloudpickle")
    except ImportError:
        return None
    return cast("Callable[[object], bytes]", cloudpickle.dumps)


def dumps(value: object, *, whole: bool = False) -> bytes:
    """Return a value pickled; `whole` says that functions and classes are to go by value from the start."""
    if not whole or by_value() is None:
        try:
            return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        except Exception:  # noqa: S110  # it is tried in the other way
            pass
    return _dumps_functions(value)


def _dumps_functions(value: object, named: Sequence[object] = ()) -> bytes:
    file = io.BytesIO()
    dump_functions(value, file, named=named, by_value=by_value() is not None)
    return file.getvalue()


# Calls


_UNCHANGING: Final[frozenset[type]] = frozenset(
    (int, float, complex, bool, str, bytes, NoneType, FunctionType, BuiltinFunctionType, type, PreviousValue)
)
"""Types of objects that calls cannot change, or that go by name."""


def may_share(calls: Sequence[Call]) -> bool:
    """Return whether two calls may take the same object, which one of them could change for the other.

    In the bytes of both it would be one object for the worker, too, as long as they happen to travel together. So such
    calls are pickled one by one.
    """
    if len(calls) == 1:
        return False
    if not any(map(_KEYWORD_ARGUMENTS, calls)) and _UNCHANGING.issuperset(
        map(type, chain(map(_FUNCTION, calls), chain.from_iterable(map(_ARGUMENTS, calls))))
    ):
        return False
    takers = (call for call in calls if not _UNCHANGING.issuperset(map(type, (call[4], *call[5], *call[6].values()))))
    return next(takers, None) is not None and next(takers, None) is not None


class _Apart:
    """Calls of which each was pickled by itself; unpickled, it is a list of calls."""

    def __init__(self, parts: Sequence[bytes]) -> None:
        self._parts = parts

    def __reduce__(self) -> tuple[Callable[[Sequence[bytes]], list[Call]], tuple[Sequence[bytes]]]:
        return _joined, (self._parts,)


def _joined(parts: Sequence[bytes]) -> list[Call]:
    return [call for part in parts for call in pickle.loads(part)]  # noqa: S301  # from our coordinator


def encode_calls(calls: Sequence[Call], *, whole: bool) -> bytes:
    """Return calls as bytes. One that cannot be pickled is replaced by one that says so."""
    if may_share(calls):
        parts = [_encoded([call], whole=whole) for call in calls]
        return pickle.dumps(_Apart(parts), pickle.HIGHEST_PROTOCOL)
    return _encoded(calls, whole=whole)


def _encoded(calls: Sequence[Call], *, whole: bool) -> bytes:
    try:
        if not whole or by_value() is None:
            return pickle.dumps(calls, pickle.HIGHEST_PROTOCOL)
    except Exception:  # noqa: S110  # it is tried in the other way
        pass
    try:
        return _dumps_functions(calls, _named(calls, whole=whole))
    except Exception:
        return dumps([_sound(call, whole=whole) for call in calls], whole=whole)


def pack_calls(calls: Sequence[Call], snapshots: Snapshots, *, whole: bool) -> tuple[bytes | Packed, int]:
    """Return calls as `encode_calls` does, with large parts of their arguments in memory, and how many bytes that took.

    Each call gets objects and arrays of its own, as it may change them: then the calls are pickled one by one.
    """
    snapshots.begin()
    try:
        apart = may_share(calls)
        try:
            writer = _written(calls, snapshots, apart=apart, whole=whole)
        except Exception:
            calls = [_sound(call, whole=whole) for call in calls]
            writer = _written(calls, snapshots, apart=apart, whole=whole)
        return writer.packed(apart=apart), snapshots.copied
    finally:
        snapshots.end()


def _written(calls: Sequence[Call], snapshots: Snapshots, *, apart: bool, whole: bool) -> Writer:
    """Return the written calls: one pickle, or one for each of them."""
    writer = Writer(snapshots)
    for value in calls if apart else (calls,):
        _write(value, calls, writer, whole=whole)
        snapshots.end_pickle()
        writer.end()
    return writer


def _write(value: object, calls: Sequence[Call], writer: Writer, *, whole: bool) -> None:
    """Pickle calls, or one, as `encode_calls` does, with their large parts put aside."""
    if not whole or by_value() is None:
        try:
            pickle.Pickler(writer, pickle.HIGHEST_PROTOCOL, buffer_callback=writer.take).dump(value)
            return
        except Exception:
            writer.clear()
    named = _named(calls, whole=whole)
    dump_functions(value, writer, named=named, by_value=by_value() is not None, buffer_callback=writer.take)


def _named(calls: Sequence[Call], *, whole: bool) -> Sequence[object]:
    """Return the names in a main module that go by name."""
    return () if whole else named_in_main(call[4] for call in calls)


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
