"""Objects that several tasks take as arguments: finding out which of them the tasks of a run have changed.

A change of such an object is in no record. A resumed run would call the remaining tasks with the object as it was at
first, so each changed object is noted in the journal.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any, Final, NamedTuple, cast

from procession._model.handle import Handle
from procession._model.task import Call, MapFunction, is_process, known_length
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
        self._watched: Final[list[tuple[object, Shared, bytes]]] = []
        digester = Digester()
        for value, tasks in takers.of_several():
            self._watch(value, tasks, digester)
        self._lazy: Final = frozenset(
            place
            for place, (function, args, _) in enumerate(calls)
            if isinstance(function, MapFunction) and any(map(_is_lazy, args))
        )
        """The maps whose elements are not known before they are drawn."""
        self._takers: Final = takers if self._lazy else None
        self._drawn: Final[set[tuple[int, int]]] = set()
        """The objects, by their ids, that elements of maps were found to hold and other tasks to take."""

    def note_drawn(self, task: int, element: tuple[Any, ...]) -> None:
        """Watch what a map has just drawn and other tasks take, too. The call of the element has not begun."""
        if self._takers is None or task not in self._lazy:
            return
        for value, tasks in self._takers.among(task, element):
            if (task, id(value)) not in self._drawn:
                self._drawn.add((task, id(value)))
                self._watch(value, sorted({*tasks, task}), Digester())

    def _watch(self, value: object, tasks: Iterable[int], digester: Digester) -> None:
        digest = _digest(value, digester)
        if digest:
            self._watched.append((value, Shared(place_of(type(value)), tuple(tasks)), digest))

    def changed(self) -> list[Shared]:
        """Return the objects that have changed since the watch was made."""
        digester = Digester()
        return [shared for value, shared, digest in self._watched if _digest(value, digester) != digest]


def _is_lazy(iterable: object) -> bool:
    return not isinstance(iterable, Handle) and known_length(iterable) is None


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
            if _is_passed_over(value):
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

    def among(self, task: int, values: Iterable[Any]) -> Iterator[tuple[object, Sequence[int]]]:
        """Return those of these values, and of what they hold, that tasks other than this one take, and these tasks."""
        left, seen = list(values), set[int]()
        while left:
            value = left.pop()
            if type(value) in SIMPLE or id(value) in seen or _is_passed_over(value):
                continue
            seen.add(id(value))
            first = self._first.get(id(value))
            if first is None:
                left += _held(value)
                continue
            tasks = self._several[id(value)][1] if id(value) in self._several else [first]
            if tasks != [task]:
                yield value, tasks

    def of_several(self) -> list[tuple[object, list[int]]]:
        """Return the objects that several tasks take, in the order in which they were found, and these tasks."""
        return [self._several[key] for key in self._first if key in self._several] if self._several else []


def _is_passed_over(value: Any) -> bool:
    if type(value) in _PLAIN:
        return False
    return isinstance(value, type | ModuleType | Handle) or is_unrecorded(value) or named(value)


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
