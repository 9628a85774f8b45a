"""Handles: objects that stand for the values that tasks will have."""

from collections.abc import Callable
from typing import Any, ClassVar, Final, NoReturn

from procession._model.task import name_of
from procession._model.text import shown
from procession.errors import HandleError


class Owner:
    """The identity of a process, shared by its handles and runs, so that a handle does not keep its process alive."""

    __slots__ = ("process_name",)

    def __init__(self, process_name: str) -> None:
        self.process_name: Final = process_name


class Handle:
    """Stands for the value that a task will have in a run.

    `Process.task` and `Process.map` return handles. Pass a handle as an argument of a later task of the same process,
    or directly inside a list, tuple or dict argument: that task receives the value. `run[handle]` is the value, too.

    Type checkers see a handle as the value itself, so that they can check the arguments of tasks. At runtime a handle
    is not the value: a condition, arithmetic, iteration, a comparison or an attribute raises `HandleError` at that
    line.

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

    _made: ClassVar[bool] = False

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

    __hash__: ClassVar[Callable[[Any], int]] = object.__hash__

    def __reduce__(self) -> NoReturn:
        raise self._misused("cannot be pickled or copied")

    def _misused(self, what: str) -> HandleError:
        return HandleError(
            f"{self!r} {what}: its value exists only in a run. "
            "Pass the handle as an argument of a later task, or read run[handle] once the run has ended."
        )


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


for _operation, _methods in {
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
}.items():
    for _method in _methods.split():
        setattr(Handle, f"__{_method}__", _refuse(_operation))
