"""Which tasks wait for which: the three strategies, as names and as objects."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from procession._model.text import sketch

StrategyName = Literal["sequential", "parallel", "hybrid"]


class Stage(NamedTuple):
    """The tasks from `start` up to and without `stop`, which run at once or one after another."""

    start: int
    stop: int
    at_once: bool


class Sequential:
    """One after another, in the order added, in the caller's thread."""

    __slots__ = ()

    def stages(self, count: int) -> tuple[Stage, ...]:
        """Return the stages of `count` tasks."""
        return _stages(count, first=count)

    def __repr__(self) -> str:
        return "Sequential()"


class Parallel:
    """All at once, as far as `max_workers` allows."""

    __slots__ = ()

    def stages(self, count: int) -> tuple[Stage, ...]:
        """Return the stages of `count` tasks."""
        return _stages(count, first=0)

    def __repr__(self) -> str:
        return "Parallel()"


class Hybrid:
    """The first tasks one after another, then all the rest at once.

    `first` says how many run in order, at least 0; `None` is half of them, rounded down. A number above
    the count of tasks means all of them.

    Raises `TypeError` where `first` is not an `int` or `None`, `ValueError` where it is negative.

    >>> Hybrid(first=2).stages(5)
    (Stage(start=0, stop=2, at_once=False), Stage(start=2, stop=5, at_once=True))
    """

    __slots__ = ("first",)

    def __init__(self, first: int | None = None) -> None:
        if first is not None and (not isinstance(first, int) or isinstance(first, bool)):
            raise TypeError(f"Hybrid(first=...) takes a number of tasks as an int, or None; got {sketch(first)}")
        if first is not None and first < 0:
            raise ValueError(f"Hybrid(first=...) takes a number of tasks of at least 0; got {sketch(first)}")
        self.first: int | None = first

    def stages(self, count: int) -> tuple[Stage, ...]:
        """Return the stages of `count` tasks."""
        return _stages(count, first=count // 2 if self.first is None else min(self.first, count))

    def __repr__(self) -> str:
        return "Hybrid()" if self.first is None else f"Hybrid(first={self.first})"


Strategy = Sequential | Parallel | Hybrid

_BY_NAME: dict[str, Callable[[], Strategy]] = {"sequential": Sequential, "parallel": Parallel, "hybrid": Hybrid}


def strategy_of(strategy: object) -> Strategy:
    """Return the strategy that a name or an object stands for; `ValueError` lists the known ones."""
    if isinstance(strategy, Strategy):
        return strategy
    if isinstance(strategy, str) and strategy in _BY_NAME:
        return _BY_NAME[strategy]()
    known = ", ".join(map(repr, _BY_NAME))
    raise ValueError(
        f"unknown strategy {sketch(strategy)}; known are {known}, Sequential(), Parallel(), Hybrid(first=...)"
    )


def _stages(count: int, first: int) -> tuple[Stage, ...]:
    both = Stage(0, first, at_once=False), Stage(first, count, at_once=True)
    return tuple(stage for stage in both if stage.start < stage.stop)
