"""A cache of the values that were used last: they take a while to read, and memory to keep."""

import threading
from collections import OrderedDict
from typing import Final, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Latest(Generic[K, V]):
    """The values of the keys that were used last, at most `size` of them. Safe to use from any thread.

    >>> latest = Latest[str, int](2)
    >>> for number, key in enumerate("abac"):
    ...     if latest.get(key) is None:
    ...         latest.put(key, number)
    >>> latest.get("a"), latest.get("b"), latest.get("c")
    (0, None, 3)
    """

    def __init__(self, size: int) -> None:
        self._size: Final = size
        self._kept: Final[OrderedDict[K, V]] = OrderedDict()
        self._lock: Final = threading.Lock()

    def get(self, key: K) -> V | None:
        """Return the value of a key, `None` if there is none any more."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: K, value: V) -> None:
        """Keep the value of a key; if there are too many, drop the value that was unused for longest."""
        with self._lock:
            self._kept[key] = value
            self._kept.move_to_end(key)
            if len(self._kept) > self._size:
                self._kept.popitem(last=False)
