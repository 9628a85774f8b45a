"""Values that came from workers, as the bytes in which they came, for the calls that take them next.

    worker ──bytes──▶ coordinator ──▶ value, for the results
                           └──the same bytes──▶ worker ──▶ value, for a call that takes it

So the coordinator does not pickle them again, and what lies in memory of its own stays where it is.
"""

import pickle
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from procession._remote.wire.packed import Packed, Place, unpack
from procession._remote.wire.serialize import Call
from procession._remote.wire.snapshots import Snapshots

_WORTH_BYTES = 1 << 10
"""A smaller value is pickled again in less time than it is looked up."""
_MOST_BYTES = 64 << 20
_MOST_FILES = 16


class HandedOn:
    """The values of one run that a task which is not sent yet will take.

    They are found by identity, as they are kept themselves. They go on as they came, whatever is done to them here.
    `streams` are the maps that take elements of others one by one.
    """

    def __init__(self, needs: Mapping[int, Sequence[int]], streams: Mapping[int, Sequence[int]]) -> None:
        self._needs = needs
        self._streams = streams
        self._takers: Counter[int] | None = None
        """How many tasks will take the value of each task as a whole."""
        self._by_element: Counter[int] = Counter()
        """How many maps take each element of a map one by one."""
        self._kept: dict[int, tuple[object, bytes | Packed, int]] = {}
        self._left: dict[int, int] = {}
        """By identity, how many elements of maps will still take a value that nobody takes within a whole list."""
        self._bytes = self._files = 0

    def keep(self, index: int, value: object, data: object) -> None:
        """Keep the value of a task, or of an element of a map, that came as `data`, if that will be worth it."""
        if not self._needs or not isinstance(data, (bytes, Packed)):
            return
        size, files = _sizes(data)
        if (files == 0 and size < _WORTH_BYTES) or id(value) in self._kept:
            return
        if self._takers is None:
            self._by_element.update(source for sources in self._streams.values() for source in sources)
            self._takers = Counter(need for needed in self._needs.values() for need in needed)
            self._takers -= self._by_element
        whole, by_element = self._takers[index], self._by_element[index]
        if (whole or by_element) and self._bytes + size <= _MOST_BYTES and self._files + files <= _MOST_FILES:
            self._kept[id(value)] = value, data, index
            self._bytes += size
            self._files += files
            if not whole:
                self._left[id(value)] = by_element

    def taken(self, taker: int) -> None:
        """Take note that a task was sent: let go of values that no other one will take."""
        if not self._kept or self._takers is None:
            return
        over: set[int] = set()
        for need in self._needs.get(taker, ()):
            self._takers[need] -= 1
            if self._takers[need] <= 0:
                over.add(need)
        self._drop(over)

    def elements_taken(self, values: Iterable[object]) -> None:
        """Take note that a call has ended that took these elements of maps: let go as above.

        It may have been sent more than once.
        """
        for value in values if self._left else ():
            left = self._left.get(id(value), 0) - 1
            if left == 0:
                self._let_go(id(value))
            elif left > 0:
                self._left[id(value)] = left

    def forget(self, taker: int) -> None:
        """Forget the values that a task takes which is called in this process: it may change them."""
        self._drop(set(self._needs.get(taker, ())))

    def close(self) -> None:
        """Let go of all values: the run is over."""
        self._kept.clear()
        self._left.clear()

    def within(self, calls: Sequence[Call], snapshots: Snapshots | None) -> Sequence[Call]:
        """Return calls with what stands for kept values in their places: directly in the arguments, or one level deep.

        A handle can be nowhere else.
        """
        if not self._kept:
            return calls
        return [self._filled(call, snapshots) if call[0] in self._needs else call for call in calls]

    def _drop(self, indexes: set[int]) -> None:
        for key, (_, _, index) in list(self._kept.items()) if indexes else ():
            if index in indexes:
                self._let_go(key)

    def _let_go(self, key: int) -> None:
        _, data, _ = self._kept.pop(key)
        self._left.pop(key, None)
        size, files = _sizes(data)
        self._bytes -= size
        self._files -= files

    def _filled(self, call: Call, snapshots: Snapshots | None) -> Call:
        seen: dict[int, object] = {}  # one object stays one

        def one(value: Any) -> Any:
            kept = self._kept.get(id(value))
            if kept is None:
                return value
            if id(value) not in seen:
                seen[id(value)] = _AsItCame(kept[1], snapshots)
            return seen[id(value)]

        def filled(arg: Any) -> Any:
            key = id(arg)
            if key in self._kept or type(arg) not in (list, tuple, dict):
                return one(arg)
            if key not in seen:
                if type(arg) is dict:
                    items = cast("dict[Any, Any]", arg)  # type: ignore[redundant-cast]  # pyright: partly unknown
                    seen[key] = {name: one(item) for name, item in items.items()}
                else:
                    seen[key] = type(arg)(map(one, arg))
            return seen[key]

        *head, args, kwargs = call
        return cast("Call", (*head, tuple(map(filled, args)), {name: filled(arg) for name, arg in kwargs.items()}))


def _sizes(data: bytes | Packed) -> tuple[int, int]:
    """Return how many bytes and open files something takes."""
    return (len(data), 0) if isinstance(data, bytes) else (data.size, data.count)


class _AsItCame:
    """Stands for a value in a call on its way. Reading it with pickle gives the value."""

    __slots__ = ("_data", "_snapshots")

    def __init__(self, data: bytes | Packed, snapshots: Snapshots | None) -> None:
        self._data = data
        self._snapshots = snapshots

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Any, ...]]:
        data = self._data
        if isinstance(data, bytes):
            return _value, (data,)
        ((parts, buffers),) = data.pickles
        return _value_of, (list(map(self._part, parts)), list(map(self._part, buffers)))

    def _part(self, part: bytes | tuple[int, int, int]) -> Any:
        """Return a part as a buffer that is known to lie in memory already."""
        if isinstance(part, bytes):
            return part
        assert isinstance(self._data, Packed)
        number, start, size = part
        file = self._data.files[number]
        view = file.mapped(start, size)
        if self._snapshots is not None:
            self._snapshots.adopt(view, Place(file, start, size))
        return pickle.PickleBuffer(view)


def _value(data: bytes) -> object:
    """Return the value of a result."""
    return _of_result(unpack(data))


def _value_of(parts: Sequence[Any], buffers: Sequence[Any]) -> object:
    data = parts[0] if len(parts) == 1 else b"".join(parts)
    return _of_result(pickle.loads(data, buffers=buffers))  # noqa: S301


def _of_result(result: tuple[Any, ...]) -> object:
    encoded = result[-1]
    return result[1] if encoded is None else pickle.loads(encoded)  # noqa: S301
