"""The three strategies, as names and as objects: which tasks of a process run in order, and which at once."""

from typing import Literal, NamedTuple

from procession._model.text import sketch

StrategyName = Literal["sequential", "parallel", "hybrid"]
"""The name of a strategy: `"sequential"` is `Sequential()`, `"parallel"` is `Parallel()`, `"hybrid"` is `Hybrid()`."""


class Stage(NamedTuple):
    """A range of tasks that run at once, or one after another."""

    start: int
    """The index of the first task of the stage."""
    stop: int
    """The index after that of the last task."""
    at_once: bool
    """Whether the tasks run at once. If not, each starts after the one before it has completed."""


class Sequential:
    """The strategy that runs tasks one after another, in the order added, in the caller's thread.

    >>> Sequential().stages(5)
    (Stage(start=0, stop=5, at_once=False),)
    """

    __slots__ = ()

    def stages(self, count: int) -> tuple[Stage, ...]:
        """Divide a number of tasks into stages.

        Args:
            count: The number of tasks.

        Returns:
            One stage, whose tasks run one after another; no stage for no tasks.

        """
        return _stages(count, first=count)

    def __repr__(self) -> str:
        return "Sequential()"


class Parallel:
    """The strategy that runs all tasks at once, at most `max_workers` of them at the same time.

    >>> Parallel().stages(5)
    (Stage(start=0, stop=5, at_once=True),)
    """

    __slots__ = ()

    def stages(self, count: int) -> tuple[Stage, ...]:
        """Divide a number of tasks into stages.

        Args:
            count: The number of tasks.

        Returns:
            One stage, whose tasks run at once; no stage for no tasks.

        """
        return _stages(count, first=0)

    def __repr__(self) -> str:
        return "Parallel()"


class Hybrid:
    """The strategy that runs the first tasks one after another, and then all other tasks at once.

    Args:
        first: How many tasks run one after another. `None`, the default, is half of the tasks, rounded down. A number
            above that of the tasks stands for all tasks.

    Raises:
        TypeError: `first` is neither an `int` nor `None`.
        ValueError: `first` is negative.

    Attributes:
        first (int | None): The number that was passed, or `None`.

    Example:
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
        """Divide a number of tasks into stages.

        Args:
            count: The number of tasks.

        Returns:
            A stage of tasks that run one after another, then a stage of tasks that run at once. A stage without tasks
            is left out.

        """
        return _stages(count, first=count // 2 if self.first is None else min(self.first, count))

    def __repr__(self) -> str:
        return "Hybrid()" if self.first is None else f"Hybrid(first={self.first})"


Strategy = Sequential | Parallel | Hybrid
"""A strategy as an object."""

_BY_NAME: dict[object, Strategy] = {"sequential": Sequential(), "parallel": Parallel(), "hybrid": Hybrid()}


def strategy_of(strategy: object) -> Strategy:
    """Return the strategy for a name or a strategy object; the `ValueError` for anything else lists the known ones."""
    if isinstance(strategy, str) and strategy in _BY_NAME:
        return _BY_NAME[strategy]
    if isinstance(strategy, Strategy):
        return strategy
    known = ", ".join(map(repr, _BY_NAME))
    raise ValueError(
        f"unknown strategy {sketch(strategy)}; known are {known}, Sequential(), Parallel(), Hybrid(first=...)"
    )


def _stages(count: int, first: int) -> tuple[Stage, ...]:
    in_order = (Stage(0, first, at_once=False),) if first else ()
    return (*in_order, Stage(first, count, at_once=True)) if first < count else in_order
