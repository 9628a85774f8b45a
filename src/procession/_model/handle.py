"""A stand-in for the value that a task will have."""

from typing import Any, NoReturn

from procession.errors import HandleError


class Handle:
    """Stands for the value of one task until a run gives it.

    `Process.task` and `Process.map` return it. Pass it as an argument of a later task of the same process,
    or directly inside a list, tuple or dict argument, and that task receives the value; `run[handle]` is the value.

    Type checkers see a handle as the value itself, which is what lets them check the wiring; so whatever else is done
    with it (a condition, arithmetic, iteration, an attribute) is refused here, with `HandleError`, at that line.
    """

    __slots__ = ("_index", "_name", "_owner")

    def __init__(self, owner: object, process: str, index: int, task: str) -> None:
        # The owner is a token that only the process and its handles hold: handles keep no process alive.
        self._owner = owner
        self._index = index
        self._name = f"task {index} ({task}) of process {process!r}"

    def __repr__(self) -> str:
        return f"<handle of {self._name}>"

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


def index_of(handle: Handle) -> int:
    """Return the place of the handle's task in its process."""
    return handle._index  # pyright: ignore[reportPrivateUsage]


def owner_of(handle: Handle) -> object:
    """Return the token of the process that made the handle."""
    return handle._owner  # pyright: ignore[reportPrivateUsage]


def _refuse(operation: str) -> Any:
    def refused(self: Handle, *_: object) -> NoReturn:
        raise self._misused(f"was used in {operation}")  # pyright: ignore[reportPrivateUsage]

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
