"""Shapes: what a plan is besides its calls. A picture is drawn of one, and a journal keeps it beside the fingerprint.

It is no part of that: a run may go on under another strategy.
"""

import json
import sys
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import Any, Final, Literal, NamedTuple, get_args

from procession._model.strategy import Stage
from procession._model.task import Call, Each, is_process, unwrapped
from procession._model.text import shown

_VERSION = 1
_MASK: Final = 0xFFFFFFFF

Kind = Literal["task", "map", "process"]
"""What a task is: a call, one call for each element, or another process."""

_KINDS: Final[tuple[Kind, ...]] = get_args(Kind)


class Shape(NamedTuple):
    """Which tasks of a process wait for which, and what is special about some."""

    stages: tuple[Stage, ...]
    needs: Mapping[int, tuple[int, ...]]
    """Task → the tasks whose values it takes."""
    kinds: Mapping[int, Kind]
    """What those tasks are that are no plain calls."""

    def following(self, tasks: AbstractSet[int]) -> set[int]:
        """Return these tasks and all that take their values, or values made of those.

        >>> sorted(Shape((), {2: (0,), 3: (1,), 4: (1, 2)}, {}).following({0}))
        [0, 2, 4]
        """
        found = set(tasks)
        for target in sorted(self.needs):  # which only takes values of earlier ones
            if not found.isdisjoint(self.needs[target]):
                found.add(target)
        return found

    def to_bytes(self) -> bytes:
        """Return the shape as bytes that `from_bytes` reads; edges between neighbours take next to none."""
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
        head = {"version": _VERSION, "stages": self.stages, "lengths": list(map(len, columns))}
        return json.dumps(head).encode() + b"\n" + zlib.compress(packed.tobytes())

    @classmethod
    def from_bytes(cls, written: bytes) -> "Shape":
        """Return the shape that was written; `ValueError` if it was none, or one of a newer version.

        >>> shape = Shape((Stage(0, 3, at_once=True),), {2: (0, 1)}, {1: "map"})
        >>> Shape.from_bytes(shape.to_bytes()) == shape
        True
        """
        line, _, rest = written.partition(b"\n")
        try:
            head = json.loads(line)
            if head["version"] == _VERSION:
                return cls._read(head, rest)
        except (ValueError, LookupError, TypeError, zlib.error) as error:
            raise ValueError(f"not the shape of a process: {shown(str(error))}") from error
        raise ValueError(f"the shape is of version {shown(str(head['version']))}; version {_VERSION} is known")

    @classmethod
    def _read(cls, head: Any, rest: bytes) -> "Shape":
        packed = array("I")
        packed.frombytes(zlib.decompress(rest))
        if sys.byteorder == "big":  # pragma: no cover  # there is no such machine to test on
            packed.byteswap()
        if len(packed) != sum(head["lengths"]):
            raise ValueError("it was cut short")
        numbers = iter(packed)
        targets, counts, sources, *places = [list(islice(numbers, length)) for length in head["lengths"]]
        steps = iter(sources)
        needs = {
            target: tuple(_sums(islice(steps, count), target))
            for target, count in zip(_sums(targets), counts, strict=True)
        }
        kinds: dict[int, Kind] = {
            place: kind for kind, column in zip(_KINDS, places, strict=True) for place in _sums(column)
        }
        stages = tuple(Stage(int(start), int(stop), bool(at_once)) for start, stop, at_once in head["stages"])
        return cls(stages, needs, kinds)


def shape_of(calls: Sequence[Call], stages: Sequence[Stage], needs: Mapping[int, tuple[int, ...]]) -> Shape:
    """Return the shape of a process with these calls."""
    return Shape(tuple(stages), dict(needs), dict(_special(calls)))


def _special(calls: Sequence[Call]) -> Iterator[tuple[int, Kind]]:
    last: object = None
    kind: Kind = "task"
    for place, (function, _, _) in enumerate(calls):
        if function is not last:  # the same one over and over is looked at once
            last, kind = function, _kind(function)
        if kind != "task":
            yield place, kind


def _kind(function: Callable[..., Any]) -> Kind:
    if isinstance(unwrapped(function), Each):
        return "map"
    return "process" if is_process(function) else "task"


def _steps(numbers: Iterable[int], last: int = 0) -> Iterator[int]:
    """Yield how far it is from each number to the next, from `last` to the first; steps back are large ones."""
    for number in numbers:
        yield number - last & _MASK
        last = number


def _sums(steps: Iterable[int], last: int = 0) -> Iterator[int]:
    """Yield the numbers that have these steps between them."""
    for step in steps:
        last = last + step & _MASK
        yield last
