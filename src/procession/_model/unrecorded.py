"""Objects that are no part of what a recorded run is defined by: clients, connections, locks."""

from typing import Final, TypeVar
from weakref import ref

from procession._model.text import sketch

T = TypeVar("T")

_MARKED: Final[dict[int, "ref[object]"]] = {}
"""By their ids; an object that is gone takes its mark along."""


def unrecorded(value: T) -> T:
    """Leave an object, such as a client, a connection or a lock, out of what a recorded run compares, and return it.

    The run of a process that takes it as an argument can be recorded, though nobody could tell whether the object is
    the same when the run goes on: its fingerprint leaves the object out. Tasks get the object itself. It stays marked
    for as long as it lives.

    Args:
        value: The object.

    Returns:
        The same object.

    Raises:
        TypeError: It is plain data (a text, a number, a list), which is what tasks are defined by.

    Example:
        >>> import threading
        >>> from procession import Process, unrecorded
        >>> lock = unrecorded(threading.Lock())
        >>> process = Process("writers", "parallel")
        >>> for number in range(2):
        ...     process.add_task(lambda number, lock: number, number, lock)

    """
    place = id(value)
    try:
        if issubclass(type(value), set | frozenset):  # data, though it can be referred to weakly
            raise TypeError
        _MARKED[place] = ref(value, lambda _: _MARKED.pop(place, None))
    except TypeError:
        raise TypeError(
            f"unrecorded(...) takes an object such as a client, a connection or a lock; {sketch(value)} is data, by "
            "which a task is known: pass it as it is"
        ) from None
    return value


def is_unrecorded(value: object) -> bool:
    """Return whether an object is marked."""
    return id(value) in _MARKED
