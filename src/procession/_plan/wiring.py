"""Handles in arguments: which tasks they stand for, and their replacement by values."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final, NamedTuple, cast

from procession._model.handle import Handle, any_made, index_of

HOLDERS: Final = frozenset({Handle, list, tuple, dict})
"""The types an argument must have to be, or to hold, a handle. Subclasses are values of their own and left alone."""

SEARCHED: Final = HOLDERS | {set, frozenset, partial}
"""The types an argument must have for a handle to be found in it, whether it may lie there or not."""

Values = Sequence[object] | Mapping[int, object]
"""The values of tasks, by index."""

_CONTAINERS: Final = SEARCHED - {Handle}
_WORDS: Final[dict[Any, str]] = {list: "a list", tuple: "a tuple", set: "a set", frozenset: "a frozenset"}
_FITTING: Final = frozenset({"a list", "a tuple", "a dict"})
"""What a handle may lie in."""
_PATIENCE: Final = 10_000
"""How many items of containers inside the containers of one task are looked at: that takes about a millisecond."""


class Hidden(NamedTuple):
    """A handle where no value takes its place: the task would receive the handle itself."""

    handle: Handle
    argument: int | str
    """Its place, from 1, or its name."""
    holder: str
    """What it lies in, in words."""


def handles_in(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Handle], Hidden | None]:
    """Return the handles that stand as an argument, or directly inside a list, tuple or dict argument.

    With them, one that lies anywhere else in plain containers, if there is one. That is to find mistakes and proves
    nothing: of what lies deeper, only the first items are looked at.

    >>> from procession._model.handle import Owner
    >>> one = Handle(Owner("p"), 0, len)
    >>> handles_in((one, [2, one]), {})
    ([<handle of task 0 (len) of process 'p'>, <handle of task 0 (len) of process 'p'>], None)
    >>> handles_in((), {"numbers": [[one]]})[1]
    Hidden(handle=<handle of task 0 (len) of process 'p'>, argument='numbers', holder='a list inside it')
    """
    found: list[Handle] = []
    hidden: Hidden | None = None
    if not any_made():
        return found, hidden
    for value in (*args, *kwargs.values()) if kwargs else args:
        if type(value) is Handle:
            found.append(value)
        elif type(value) in _CONTAINERS:
            deep = _directly(value, found)
            if deep is not None:
                hidden = Hidden(deep[0], _place(value, args, kwargs), deep[1])
    return found, hidden


def _directly(container: Any, found: list[Handle]) -> tuple[Handle, str] | None:
    """Add the handles directly inside a container to those found; return one that may not be in it, and where it is."""
    misplaced: tuple[Handle, str] | None = None
    for holder, items in _parts(container):
        kinds = set(map(type, items))  # in C: of a million numbers, in no more time than to look for handles
        if kinds.isdisjoint(SEARCHED):
            continue
        if Handle in kinds:
            handles = [item for item in items if type(item) is Handle]
            found += handles
            if holder not in _FITTING:
                misplaced = handles[0], holder
        if not kinds.isdisjoint(_CONTAINERS):
            buried = _buried([item for item in islice(items, _PATIENCE) if type(item) in _CONTAINERS])
            if buried is not None:
                misplaced = buried[0], f"{buried[1]} inside it"
    return misplaced


def _buried(containers: list[Any]) -> tuple[Handle, str] | None:
    """Return a handle inside of the containers, at any depth, and what it lies in."""
    patience = _PATIENCE  # which is also what ends the search of a container that contains itself
    while containers and patience > 0:
        for holder, items in _parts(containers.pop()):
            for item in islice(items, max(0, patience)):
                patience -= 1
                if type(item) is Handle:
                    return item, holder
                if type(item) in _CONTAINERS:
                    containers.append(item)
    return None


def _parts(container: Any) -> tuple[tuple[str, Iterable[Any]], ...]:
    """Return what a plain container has: the items, after what they are in, in words."""
    kind = cast("Any", type(container))
    if kind is dict:
        return ("the keys of a dict", container.keys()), ("a dict", container.values())
    if kind is partial:
        return (("a functools.partial", (container.func, *container.args, *container.keywords.values())),)
    return ((_WORDS[kind], container),)


def _place(wanted: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | str:
    for place, value in enumerate(args, start=1):
        if value is wanted:
            return place
    return next(name for name, value in kwargs.items() if value is wanted)


def bound(args: tuple[Any, ...], kwargs: dict[str, Any], values: Values) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments with the values in place of handles; containers without a handle stay the same object."""
    filled = [
        value
        if type(value) not in HOLDERS
        else values[index_of(value)]
        if type(value) is Handle
        else _filled(value, values)
        for value in args
    ]
    return tuple(filled), {key: _filled(value, values) for key, value in kwargs.items()} if kwargs else kwargs


def _filled(value: Any, values: Values) -> Any:
    def of(item: Any) -> Any:
        return values[index_of(item)] if type(item) is Handle else item

    if isinstance(value, Handle):
        return of(value)
    if type(value) not in HOLDERS or Handle not in map(type, _parts(value)[-1][1]):
        return value
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value)  # type: ignore[redundant-cast]  # pyright sees it as partly unknown
        return {key: of(item) for key, item in items.items()}
    filled = map(of, value)
    return list(filled) if isinstance(value, list) else tuple(filled)
