"""Objects that several tasks take as arguments: finding out which of them the tasks of a run have changed.

A change of such an object is in no record. A resumed run would call the remaining tasks with the object as it was at
first, so each changed object is noted in the journal.
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any, Final, NamedTuple, cast

from procession._model.handle import Handle
from procession._model.task import Call, MapFunction, is_process
from procession._plan.digest import SIMPLE, Digester, Refused
from procession._plan.parts import named, place_of, state_of


class Shared(NamedTuple):
    """An object that several tasks take."""

    kind: str
    """The module and name of its type."""
    tasks: tuple[int, ...]
    """The indexes of the tasks that take it."""


class Watch:
    """Keeps digests of the objects that several calls take, and says later which of the objects have changed."""

    def __init__(self, calls: Sequence[Call]) -> None:
        takers: dict[int, tuple[object, list[int]]] = {}
        for place, (function, args, kwargs) in enumerate(calls):
            _take(place, [function, *args, *kwargs.values()], takers)
        digester = Digester()
        self._watched: Final = [
            (value, Shared(place_of(type(value)), tuple(tasks)), digest)
            for value, tasks in takers.values()
            if len(tasks) > 1 and (digest := _digest(value, digester))
        ]

    def changed(self) -> list[Shared]:
        """Return the objects that have changed since the watch was made."""
        digester = Digester()
        return [shared for value, shared, digest in self._watched if _digest(value, digester) != digest]


def _digest(value: object, digester: Digester) -> bytes:
    try:
        return digester.value(value)
    except Refused:  # such a value is in no digest of arguments, either
        return b""


def _take(place: int, values: list[Any], takers: dict[int, tuple[object, list[int]]]) -> None:
    """Add the task at a place to the takers of these values and of all values that they hold."""
    while values:
        value = values.pop()
        if type(value) in SIMPLE or isinstance(value, type | ModuleType | Handle) or named(value):
            continue
        found = takers.setdefault(id(value), (value, []))[1]
        if place in found[-1:]:
            continue
        found.append(place)
        if len(found) == 1:  # a later taker of the value needs no look inside: the digest of the value covers it
            values += _held(value)


def _held(value: Any) -> list[Any]:
    """Return the objects that are parts of a value: the objects themselves, not copies."""
    if isinstance(value, partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, FunctionType | MapFunction):
        return [value.function] if isinstance(value, MapFunction) else _closed_over(value)
    if is_process(value):
        return [part for function, args, kwargs in value.tasks for part in (function, *args, *kwargs.values())]
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value)  # type: ignore[redundant-cast]  # as in `parts`
        return [*items, *items.values(), *_attributes(value)]
    if isinstance(value, list | tuple | set | frozenset):
        return [*value, *_attributes(value)]
    return _attributes(value)


def _closed_over(function: FunctionType) -> list[Any]:
    held = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # not assigned yet
            held.append(cell.cell_contents)
    return held


def _attributes(value: Any) -> list[Any]:
    """Return the values of an object's attributes; none if its class defines `__getstate__`."""
    told_by: Any = type(value).__getstate__
    if told_by is not object.__getstate__:
        return []
    try:
        state = state_of(value, value.__getstate__())
    except TypeError:  # it cannot be pickled
        return []
    halves = cast("tuple[Any, ...]", state) if isinstance(state, tuple) else (state,)  # type: ignore[redundant-cast]  # as in `parts`
    found = [cast("dict[str, Any]", half) for half in halves if isinstance(half, dict)]
    return [attribute for half in found for attribute in half.values()]
