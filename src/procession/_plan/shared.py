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
from procession._model.unrecorded import is_unrecorded
from procession._plan.digest import SIMPLE, Digester, Refused
from procession._plan.parts import named, place_of, state_of

_PLAIN: Final = frozenset({dict, list, tuple, set, frozenset})


class Shared(NamedTuple):
    """An object that several tasks take."""

    kind: str
    """The module and name of its type."""
    tasks: tuple[int, ...]
    """The indexes of the tasks that take it."""


class Watch:
    """Keeps digests of the objects that several calls take, and says later which of the objects have changed."""

    def __init__(self, calls: Sequence[Call]) -> None:
        takers = _Takers()
        for place, (function, args, kwargs) in enumerate(calls):
            takers.add(place, [function, *args, *kwargs.values()])
        digester = Digester()
        self._watched: Final = [
            (value, Shared(place_of(type(value)), tuple(tasks)), digest)
            for value, tasks in takers.of_several()
            if (digest := _digest(value, digester))
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


class _Takers:
    """Which tasks take which objects. Most objects have one taker, and then no container of their own here."""

    def __init__(self) -> None:
        self._first: dict[int, int] = {}
        self._several: dict[int, tuple[object, list[int]]] = {}
        self._kept: list[object] = []  # so that no other object gets an id that is a key

    def add(self, place: int, values: list[Any]) -> None:
        """Add the task at a place to the takers of these values and of all values that they hold."""
        while values:
            value = values.pop()
            if type(value) in SIMPLE:
                continue
            is_plain = type(value) in _PLAIN
            if not is_plain and (isinstance(value, type | ModuleType | Handle) or is_unrecorded(value) or named(value)):
                continue
            first = self._first.setdefault(id(value), place)
            if first != place:
                found = self._several.setdefault(id(value), (value, [first]))[1]
                if found[-1] != place:
                    found.append(place)
            elif len(self._first) > len(self._kept):
                # A later taker of the value needs no look inside: the digest of the value covers it.
                self._kept.append(value)
                held = _held(value)
                if not SIMPLE.issuperset(map(type, held)):
                    values += held

    def of_several(self) -> list[tuple[object, list[int]]]:
        """Return the objects that several tasks take, in the order in which they were found, and these tasks."""
        return [self._several[key] for key in self._first if key in self._several] if self._several else []


def _held(value: Any) -> list[Any]:
    """Return the objects that are parts of a value: the objects themselves, not copies."""
    if type(value) in _PLAIN:  # most arguments are plain ones, which have no attributes
        return [*value, *value.values()] if isinstance(value, dict) else [*value]
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
