"""Reading what was pickled by value, without a change to the classes that are here already.

A class of a session travels by value. When an instance of it comes back, so does the class, as it was in the worker;
and where cloudpickle finds that the class is here, it gives that all attributes which the other one has. What was
redefined or assigned here in the meantime would be undone, and what a task has assigned there would be done here.
"""

import io
import pickle
import sys
from collections.abc import Callable
from functools import partial
from typing import Any


class AsInWorker:
    """A value on its way from a worker, pickled by value. Reading it with pickle gives the value."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __reduce__(self) -> tuple[Callable[[bytes], object], tuple[bytes]]:
        return loads, (self._data,)


def loads(data: bytes) -> Any:
    """Return the object that was pickled by value."""
    return _Unpickler(io.BytesIO(data)).load()


class _Unpickler(pickle.Unpickler):
    """Fills the classes that it makes, and no others.

    These are private names of cloudpickle, for want of public ones; without them, classes are read as ever.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self._here: set[int] = set()

    def find_class(self, module: str, name: str, /) -> Any:
        found = super().find_class(module, name)
        if module.startswith("cloudpickle"):
            if name in ("_make_skeleton_class", "_make_skeleton_enum"):
                return partial(self._skeleton, found)
            if name == "_class_setstate":
                return partial(self._fill, found)
        return found

    def _fill(self, fill: Callable[[type, object], type], made: type, state: object) -> type:
        return made if id(made) in self._here else fill(made, state)

    def _skeleton(self, make: Callable[..., type], *args: Any) -> type:
        classes: dict[str, type] = getattr(sys.modules["cloudpickle.cloudpickle"], "_DYNAMIC_CLASS_TRACKER_BY_ID", {})
        here = any(isinstance(arg, str) and arg in classes for arg in args)
        made = make(*args)
        if here:
            self._here.add(id(made))
        return made
