"""A stand-in for the value that a task will have."""

from collections.abc import Callable
from typing import Any, ClassVar, Final, NoReturn

from procession._model.task import name_of
from procession._model.text import shown
from procession.errors import HandleError


class Owner:
    """Whom handles belong to. Only a process, its handles and its runs hold it: handles keep no process alive."""

    __slots__ = ("process_name",)

    def __init__(self, process_name: str) -> None:
        self.process_name: Final = process_name


class Handle:
    """Stands for the value of one task until a run gives it.

    `Process.task` and `Process.map` return it. Pass it as an argument of a later task of the same process,
    or directly inside a list, tuple or dict argument, and that task receives the value; `run[handle]` is the value.

    Type checkers see a handle as the value itself, which is what lets them check the wiring; so whatever else is done
    with it (a condition, arithmetic, iteration, an attribute) is refused here, with `HandleError`, at that line.
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
    """Return the place of the handle's task in its process."""
    return handle._index


def owner_of(handle: Handle) -> Owner:
    """Return whom the handle belongs to."""
    return handle._owner


def any_made() -> bool:
    """Return whether any process has given out a handle yet: if not, no argument needs to be searched for one."""
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
