"""How long a limit has held calls of a run back."""

from collections.abc import Iterable
from typing import NamedTuple

from procession._model.text import shown


class HeldBack(NamedTuple):
    """What one limit has held back in one run."""

    limit: str
    """Its name."""
    waiting: int
    """How many calls it holds back now."""
    calls: int
    """How many it has held back so far."""
    seconds: float
    """For how long it has held any of them back."""
    tasks: tuple[range, ...] = ()
    """The places of the tasks that it holds back now, as far as the run has told: of many, those that waited longest. A
    map is among them if it has such elements."""


def in_ranges(places: Iterable[int]) -> tuple[range, ...]:
    """Return places as ranges.

    >>> in_ranges([5, 0, 2, 1])
    (range(0, 3), range(5, 6))
    """
    ranges: list[range] = []
    begin = end = -1
    for place in sorted(places):
        if place != end:
            ranges.append(range(begin, end))
            begin = place
        end = place + 1
    return (*ranges[1:], range(begin, end)) if ranges else ()


def held_back_by(held: list[HeldBack]) -> str:
    """Return which limits hold calls back now, in words; "" if none does.

    >>> held_back_by([HeldBack("api", 1200, 3000, 2.5), HeldBack("gpu", 0, 1, 0.5)])
    '1,200 held back by api'
    """
    return ", ".join(f"{one.waiting:,} held back by {shown(one.limit, 40)}" for one in held if one.waiting)
