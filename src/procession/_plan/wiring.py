"""Handles in arguments: finding them, and replacing them by the values of their tasks."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import islice
from types import MappingProxyType
from typing import Any, Final, NamedTuple, cast

from procession._model.handle import Handle, Stream, any_made, index_of
from procession._model.task import look_up
from procession._model.text import shown

HOLDERS: Final = frozenset({Handle, Stream, list, tuple, dict})
"""The exact types of arguments that may be or hold a handle. Subclasses of list, tuple and dict are excluded, since a
copy of such an object with a value in place of a handle may not be possible."""

Values = Sequence[object] | Mapping[int, object]
"""The values of tasks, by index."""

_WORDS: Final[dict[Any, str]] = {
    list: "a list",
    tuple: "a tuple",
    dict: "a dict",
    set: "a set",
    frozenset: "a frozenset",
    partial: "a functools.partial",
    object: "a dataclass",
}
_FITTING: Final = frozenset({"a list", "a tuple", "a dict"})
"""The containers in which a handle is replaced by its value."""
_PATIENCE: Final = 10_000
"""How many items of nested containers are searched for handles, at most, for each argument: about a millisecond."""


class Hidden(NamedTuple):
    """A handle at a place where it is not replaced by a value, so that the task would receive the handle itself."""

    handle: Handle
    argument: int | str
    """The argument that holds the handle: its place, from 1, or its name."""
    holder: str
    """The container in which the handle lies, in words."""


def handles_in(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Handle], Hidden | None]:
    """Return the handles among arguments and directly inside list, tuple and dict arguments, and a misplaced handle.

    A misplaced handle lies elsewhere in containers and dataclasses. The search for it finds common mistakes and proves
    nothing: only the first items of nested containers are searched.

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
        base = searched_as(type(value))
        if base is Handle or base is Stream:
            found.append(value)
        elif base is not None:
            deep = _directly(value, found)
            if deep is not None:
                hidden = Hidden(deep[0], _place(value, args, kwargs), deep[1])
    return found, hidden


def _searched_as(kind: Any) -> Any:
    if kind is Handle or kind is Stream:
        return kind
    base = next(base for base in _WORDS if issubclass(kind, base))
    return base if base is not object or isinstance(look_up(kind, "__dataclass_fields__"), dict) else None


searched_as: Final[Callable[[Any], Any]] = lru_cache(maxsize=256)(_searched_as)
"""Return the base class by which values of a type are searched for handles; `None` if they are not searched."""


def _directly(container: Any, found: list[Handle]) -> tuple[Handle, str] | None:
    """Add the handles directly inside a container to `found`; return a misplaced handle in it, and what holds it."""
    misplaced: tuple[Handle, str] | None = None
    for holder, items in _parts(container):
        kinds = set(map(type, items))  # in C: fast for a million numbers, too
        if Stream in kinds:
            kinds.remove(Stream)
            misplaced = next(item for item in items if type(item) is Stream), holder
        if Handle in kinds:
            kinds.remove(Handle)
            handles = [item for item in items if type(item) is Handle]
            found += handles
            if holder not in _FITTING:
                misplaced = handles[0], holder
        if any(map(searched_as, kinds)):
            containers = {kind for kind in kinds if searched_as(kind)}
            buried = _buried([item for item in islice(items, _PATIENCE) if type(item) in containers])
            if buried is not None:
                misplaced = buried[0], f"{buried[1]} inside it"
    return misplaced


def _buried(containers: list[Any]) -> tuple[Handle, str] | None:
    """Return a handle inside the containers, at any depth, and what holds it; `None` if none is found."""
    patience = _PATIENCE  # also ends the search of a container that contains itself
    while containers and patience > 0:
        for holder, items in _parts(containers.pop()):
            for item in islice(items, max(0, patience)):
                patience -= 1
                base = searched_as(cast("Any", type(item)))
                if base is Handle or base is Stream:
                    return item, holder
                if base is not None:
                    containers.append(item)
    return None


def _parts(container: Any) -> tuple[tuple[str, Iterable[Any]], ...]:
    """Return the items of a container after words for what holds them. Methods of subclasses are not called."""
    kind = cast("Any", type(container))
    base = searched_as(kind)
    words = _WORDS[base] if kind is base else f"{_WORDS[base]} of type {shown(kind.__qualname__)}"
    if issubclass(kind, dict):
        return (f"the keys of {words}", base.keys(container)), (words, base.values(container))
    if base is partial:
        return ((words, (container.func, *container.args, *container.keywords.values())),)
    if base is object:
        return ((words, [look_up(container, name) for name in kind.__dataclass_fields__]),)
    return ((words, container if kind is base else list(base.__iter__(container))),)


def _place(wanted: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | str:
    for place, value in enumerate(args, start=1):
        if value is wanted:
            return place
    return next(name for name, value in kwargs.items() if value is wanted)


class ListedElements:
    """The elements of a map that has ended, for a coroutine function: an async iterator over its list."""

    __slots__ = ("_elements",)

    def __init__(self, elements: Iterable[object]) -> None:
        self._elements = iter(elements)

    def __aiter__(self) -> "ListedElements":
        return self

    async def __anext__(self) -> object:
        for element in self._elements:
            return element
        raise StopAsyncIteration


NO_STREAMS: Final[Mapping[int, Iterator[object]]] = MappingProxyType({})


def bound(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    values: Values,
    streams: Mapping[int, Iterator[object]] = NO_STREAMS,
    *,
    awaited: bool = False,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments with values in place of handles; a container without a handle stays the same object.

    `streams` has what takes the place of streams, one after another, by the index of the map, while that goes on. Where
    the map has ended, it is an iterator over its list; for a coroutine function, whose call is `awaited`, an async one.
    """
    given = [
        value
        if type(value) not in HOLDERS
        else values[index_of(value)]
        if type(value) is Handle
        else _filled(value, values, streams, awaited)
        for value in args
    ]
    if kwargs:
        kwargs = {key: _filled(value, values, streams, awaited) for key, value in kwargs.items()}
    return tuple(given), kwargs


def _filled(value: Any, values: Values, streams: Mapping[int, Iterator[object]], awaited: bool) -> Any:
    def of(item: Any) -> Any:
        return values[index_of(item)] if type(item) is Handle else item

    if type(value) is Stream:
        index = index_of(value)
        if index in streams:
            return next(streams[index])
        elements = cast("list[object]", values[index])
        return ListedElements(elements) if awaited else iter(elements)
    if type(value) is Handle:
        return of(value)
    if type(value) not in HOLDERS or Handle not in map(type, _parts(value)[-1][1]):
        return value
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value)  # type: ignore[redundant-cast]  # pyright sees it as partly unknown
        return {key: of(item) for key, item in items.items()}
    filled = map(of, value)
    return list(filled) if isinstance(value, list) else tuple(filled)
