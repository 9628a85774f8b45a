"""Handles: objects that stand for the values that tasks will have."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Final, NoReturn, Protocol, TypeVar, overload

from procession._model.task import MapFunction, name_of
from procession._model.text import shown, sketch
from procession.errors import HandleError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Owner:
    """The identity of a process, shared by its handles and runs, so that a handle does not keep its process alive."""

    __slots__ = ("process_name",)

    def __init__(self, process_name: str) -> None:
        self.process_name: Final = process_name


class _Refusing(type):
    """A class that `dir()`, and so `help()`, shows without the operators that its instances refuse."""

    def __dir__(cls) -> list[str]:
        return sorted({*super().__dir__()} - _REFUSED)


class Handle(metaclass=_Refusing):
    """Stands for the value that a task will have in a run.

    `Process.task` and `Process.map` return handles. Pass a handle as an argument of a later task of the same process,
    or directly inside a list, tuple or dict argument: that task receives the value. `run[handle]` is the value, too.

    Type checkers see a handle as the value itself, so that they can check the arguments of tasks. At runtime it is
    not: a condition, arithmetic, iteration, a comparison or an attribute raises `HandleError` at that line.

    >>> from procession import Process
    >>> process = Process("sum")
    >>> two = process.task(int, "2")
    >>> two
    <handle of task 0 (int) of process 'sum'>
    >>> process.add_task(pow, two, 3)
    >>> process.execute()
    [2, 8]
    """

    __slots__ = ("_function", "_index", "_owner")

    _made = False

    def __init__(self, owner: Owner, index: int, function: Callable[..., Any]) -> None:
        self._owner = owner
        self._index = index
        self._function = function
        if not Handle._made:
            Handle._made = True

    def __repr__(self) -> str:
        task, process = shown(name_of(self._function)), shown(self._owner.process_name)
        return f"<handle of task {self._index} ({task}) of process {process!r}>"

    def __getattr__(self, name: str) -> NoReturn:
        # Dunders that do not exist must look absent: copy, pickle and isinstance probe for them.
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        raise self._misused(f"has no attribute {name!r}")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Handle):
            return self is other
        raise self._misused("cannot be compared")

    __hash__ = object.__hash__

    def __reduce__(self) -> NoReturn:
        raise self._misused("cannot be pickled or copied")

    def _misused(self, what: str) -> HandleError:
        return HandleError(
            f"{self!r} {what}: its value exists only in a run. "
            "Pass the handle as an argument of a later task, or read run[handle] once the run has ended."
        )


class Elements(Protocol[T_co]):
    """What a task gets for a stream, as type checkers see it: a plain function iterates, a coroutine `async for`."""

    def __iter__(self) -> Iterator[T_co]: ...
    def __next__(self) -> T_co: ...
    def __aiter__(self) -> AsyncIterator[T_co]: ...
    def __anext__(self) -> Awaitable[T_co]: ...


class Stream(Handle):
    """Stands for the elements of a map, as a task will iterate over them: see `stream`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<stream of {super().__repr__()[1:-1]}>"


@overload
def stream(handle: list[T], /) -> Elements[T]: ...
@overload
def stream(handle: Handle, /) -> Any: ...
def stream(handle: object, /) -> Any:
    """Return an argument that gives a task the elements of a map one by one, instead of the list of them.

    The task gets an iterator over the results in order, each as soon as it and those before it have ended, while the
    map goes on. So any function that takes an iterable can be the end of a pipeline, one that writes or one that sums
    up. A coroutine function gets an async iterator, for `async for`. Failed elements are left out.

    While the task waits for the next element, it takes none of the `max_workers` places. It may return early. On
    worker processes, other executors and clusters it is called where the run is, in a thread. In a stage in order, and
    with `allow_changes=True`, it begins when the map has ended.

    Args:
        handle: What `Process.map` returned; to type checkers, the list.

    Returns:
        A stand-in for the iterator, to be passed as an argument of a task of the same process.

    Raises:
        TypeError: `handle` is not the handle of a map.

    Example:
        >>> from procession import Process
        >>> process = Process("total", strategy="parallel")
        >>> lengths = process.map(len, ["one", "three"])
        >>> total = process.task(sum, stream(lengths))
        >>> process.execute()
        [[3, 5], 8]

    """
    if not isinstance(handle, Handle) or isinstance(handle, Stream):
        raise TypeError(f"stream(...) takes the handle that Process.map returned; got {sketch(handle)}")
    if not isinstance(handle._function, MapFunction):
        raise TypeError(
            f"stream(...) takes the handle of a map, whose elements end one by one; got {handle!r}, whose value comes "
            "as a whole"
        )
    return Stream(handle._owner, handle._index, handle._function)


def index_of(handle: Handle) -> int:
    """Return the index of the handle's task in its process."""
    return handle._index


def owner_of(handle: Handle) -> Owner:
    """Return the owner of a handle, which is the same object for all handles of a process."""
    return handle._owner


def any_made() -> bool:
    """Return whether the program has made any handle yet. If not, no argument needs to be searched for handles."""
    return Handle._made


def _refuse(operation: str) -> Any:
    def refused(self: Handle, *_: object) -> NoReturn:
        raise self._misused(f"was used in {operation}")

    return refused


_OPERATIONS: Final = {
    "a condition": "bool",
    "iteration": "iter next reversed",
    "a comparison": "lt le gt ge",
    "an index": "getitem setitem delitem contains len index",
    "a call": "call",
    "a with statement": "enter exit aenter aexit",
    "an await": "await aiter anext",
    "a conversion": "int float complex bytes format fspath",
    "arithmetic": "neg pos abs invert round trunc floor ceil add radd iadd sub rsub isub mul rmul imul matmul rmatmul "
    "imatmul truediv rtruediv itruediv floordiv rfloordiv ifloordiv mod rmod imod divmod rdivmod pow rpow ipow "
    "lshift rlshift ilshift rshift rrshift irshift and rand iand or ror ior xor rxor ixor",
}
_REFUSED: Final = {"__getattr__", "__reduce__"} | {
    f"__{method}__" for methods in _OPERATIONS.values() for method in methods.split()
}

for _operation, _methods in _OPERATIONS.items():
    for _method in _methods.split():
        setattr(Handle, f"__{_method}__", _refuse(_operation))
