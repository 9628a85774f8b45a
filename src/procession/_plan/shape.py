"""Shapes: the stages and edges of a process without its calls, for pictures and for the journal.

A journal keeps the shape beside the fingerprint and not as a part of it, so that a run can go on under another
strategy.
"""

import json
import sys
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import islice
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, cast, get_args

from procession._model.handle import Handle, index_of
from procession._model.strategy import Stage
from procession._model.task import Call, MapFunction, is_process, unwrapped
from procession._model.text import shown
from procession._plan.fingerprint import numbers, unpacked

_VERSION = 1
_MASK: Final = 0xFFFFFFFF
_LONGEST: Final = 4_000_000
"""The most numbers that are read of a shape: a shape has somewhat more numbers than edges."""

Kind = Literal["task", "map", "process"]
"""The kind of a task: one call, a call for each element of a map, or another process."""

_KINDS: Final[tuple[Kind, ...]] = get_args(Kind)


class Shape(NamedTuple):
    """Which tasks of a process wait for which, and which tasks are maps or processes."""

    stages: tuple[Stage, ...]
    needs: Mapping[int, tuple[int, ...]]
    """For each task that takes values: the tasks whose values it takes."""
    kinds: Mapping[int, Kind]
    """The kinds of the tasks that are not plain calls."""
    paired: Mapping[int, tuple[int, ...]] = MappingProxyType({})
    """For each map whose elements take those of other maps, each the one at its own place: these other maps."""

    def following(self, tasks: AbstractSet[int]) -> set[int]:
        """Return these tasks and all tasks that take their values, directly or through other tasks.

        >>> sorted(Shape((), {2: (0,), 3: (1,), 4: (1, 2)}, {}).following({0}))
        [0, 2, 4]
        """
        return following(tasks, self.needs)

    def to_bytes(self) -> bytes:
        """Return the shape as bytes that `from_bytes` reads; an edge between neighbours takes hardly any."""
        targets = sorted(self.needs)
        columns = [
            array("I", _steps(targets)),
            array("I", (len(self.needs[target]) for target in targets)),
            array("I", (step for target in targets for step in _steps(self.needs[target], target))),
        ]
        columns += [array("I", _steps(sorted(at for at in self.kinds if self.kinds[at] == kind))) for kind in _KINDS]
        packed = array("I")
        for column in columns:
            packed += column
        if sys.byteorder == "big":  # pragma: no cover  # there is no such machine to test on
            packed.byteswap()
        head: dict[str, Any] = {"version": _VERSION, "stages": self.stages, "lengths": list(map(len, columns))}
        if self.paired:  # among the columns, earlier versions could not read the others any more
            head["paired"] = [[target, *sources] for target, sources in self.paired.items()]
        return json.dumps(head).encode() + b"\n" + zlib.compress(packed.tobytes())

    @classmethod
    def from_bytes(cls, written: bytes) -> "Shape":
        """Read a shape from bytes. Raises `ValueError` if they are no shape, or the shape of a newer version.

        >>> shape = Shape((Stage(0, 3, at_once=True),), {2: (0, 1)}, {1: "map"})
        >>> Shape.from_bytes(shape.to_bytes()) == shape
        True
        """
        line, _, rest = written.partition(b"\n")
        try:
            head = json.loads(line)
            if head["version"] == _VERSION:
                return cls._read(head, rest)
        except (ValueError, LookupError, TypeError, OverflowError, RecursionError, zlib.error) as error:
            raise ValueError(f"not the shape of a process: {shown(str(error))}") from error
        raise ValueError(f"the shape is of version {shown(str(head['version']))}; version {_VERSION} is known")

    @classmethod
    def _read(cls, head: Any, rest: bytes) -> "Shape":
        length = sum(head["lengths"])
        if length > _LONGEST:
            raise ValueError(f"it has {length:,} numbers, and up to {_LONGEST:,} are read")
        packed = numbers(unpacked(rest, length * array("I").itemsize))
        if len(packed) != length:
            raise ValueError("it was cut short")
        rows = iter(packed)
        targets, counts, sources, *places = [list(islice(rows, length)) for length in head["lengths"]]
        steps = iter(sources)
        needs = {
            target: tuple(_sums(islice(steps, count), target))
            for target, count in zip(_sums(targets), counts, strict=True)
        }
        kinds: dict[int, Kind] = {
            place: kind for kind, column in zip(_KINDS, places, strict=True) for place in _sums(column)
        }
        stages = tuple(Stage(int(start), int(stop), bool(at_once)) for start, stop, at_once in head["stages"])
        paired = {int(target): tuple(map(int, sources)) for target, *sources in head.get("paired", ())}
        return cls(stages, needs, kinds, paired)

    def check(self, tasks: int) -> None:
        """Raise `ValueError` unless this can be the shape of a process with this number of tasks."""
        end = 0
        for stage in self.stages:
            if stage.start != end or stage.stop < end:
                raise ValueError("not the shape of a process: its stages do not follow each other")
            end = stage.stop
        if end != tasks or max(self.needs, default=-1) >= tasks or max(self.kinds, default=-1) >= tasks:
            raise ValueError("not the shape of a process: it has other tasks")
        if any(max(sources, default=-1) >= target for target, sources in self.needs.items()):
            raise ValueError("not the shape of a process: a task takes the value of one that is not before it")
        if any(not set(sources).issubset(self.needs.get(target, ())) for target, sources in self.paired.items()):
            raise ValueError("not the shape of a process: a map takes elements of a task whose value it does not take")


def following(tasks: AbstractSet[int], needs: Mapping[int, tuple[int, ...]]) -> set[int]:
    """Return these tasks and all that follow from them; `needs` has, for each task, those whose values it takes."""
    found = set(tasks)
    for target in sorted(needs):  # in order, since a task takes values of earlier tasks only
        if not found.isdisjoint(needs[target]):
            found.add(target)
    return found


def shape_of(calls: Sequence[Call], stages: Sequence[Stage], needs: Mapping[int, tuple[int, ...]]) -> Shape:
    """Return the shape of a process with these calls."""
    kinds = dict(_special(calls))
    maps = {task for task, kind in kinds.items() if kind == "map"}
    paired = {task: sources for task in maps.intersection(needs) if (sources := _paired(calls[task], maps))}
    return Shape(tuple(stages), dict(needs), kinds, paired)


def _paired(call: Call, maps: AbstractSet[int]) -> tuple[int, ...]:
    """Return the maps whose elements those of a map take, each the one at its own place, and which it takes only so."""
    whole = {index_of(item) for value in call[1] for item in _within(value)}
    direct = {index_of(value) for value in call[1] if type(value) is Handle}  # a stream leaves out what has failed
    return tuple(sorted(direct & maps - whole))


def _within(value: object) -> Iterator[Handle]:
    """Yield the handles in a list, tuple or dictionary."""
    items: Iterable[object] = ()
    if type(value) in (list, tuple):
        items = cast("Iterable[object]", value)
    elif type(value) is dict:
        items = cast("dict[object, object]", value).values()
    yield from (item for item in items if type(item) is Handle)


def _special(calls: Sequence[Call]) -> Iterator[tuple[int, Kind]]:
    last: object = None
    kind: Kind = "task"
    for place, (function, _, _) in enumerate(calls):
        if function is not last:  # a function that comes many times in a row is examined once
            last, kind = function, _kind(function)
        if kind != "task":
            yield place, kind


def _kind(function: Callable[..., Any]) -> Kind:
    if isinstance(unwrapped(function), MapFunction):
        return "map"
    return "process" if is_process(function) else "task"


def _steps(numbers: Iterable[int], last: int = 0) -> Iterator[int]:
    """Yield the differences between neighbouring numbers, from `last` on, modulo 2**32."""
    for number in numbers:
        yield number - last & _MASK
        last = number


def _sums(steps: Iterable[int], last: int = 0) -> Iterator[int]:
    """Yield the numbers whose differences these are, from `last` on, modulo 2**32."""
    for step in steps:
        last = last + step & _MASK
        yield last
