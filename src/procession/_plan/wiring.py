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
    named: list[tuple[int | str, Any]] = [*enumerate(args, start=1), *kwargs.items()]
    for argument, value in named:
        if type(value) is Handle:
            found.append(value)
        elif type(value) in _CONTAINERS:
            for holder, items, may in _parts(value):
                kinds = set(map(type, items))  # in C: of a million numbers, in no more time than to look for handles
                if kinds.isdisjoint(SEARCHED):
                    continue
                if Handle in kinds:
                    handles = [item for item in items if type(item) is Handle]
                    found += handles
                    hidden = hidden if may else Hidden(handles[0], argument, holder)
                buried = _buried([item for item in islice(items, _PATIENCE) if type(item) in _CONTAINERS])
                hidden = hidden if buried is None else Hidden(buried[0], argument, f"{buried[1]} inside it")
    return found, hidden


def _buried(containers: list[Any]) -> tuple[Handle, str] | None:
    """Return a handle inside of the containers, at any depth, and what it lies in."""
    patience = _PATIENCE  # which is also what ends the search of a container that contains itself
    while containers and patience > 0:
        for holder, items, _ in _parts(containers.pop()):
            for item in islice(items, max(0, patience)):
                patience -= 1
                if type(item) is Handle:
                    return item, holder
                if type(item) in _CONTAINERS:
                    containers.append(item)
    return None


def _parts(container: Any) -> tuple[tuple[str, Iterable[Any], bool], ...]:
    """Return what a plain container has: in words, the items, and whether handles may be among them."""
    kind = cast("Any", type(container))
    if kind is dict:
        return ("the keys of a dict", container.keys(), False), ("a dict", container.values(), True)
    if kind is partial:
        held = (container.func, *container.args, *container.keywords.values())
        return (("a functools.partial", held, False),)
    return ((f"a {kind.__name__}", container, kind in HOLDERS),)


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
