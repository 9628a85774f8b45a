"""What a program and the database in which a limit is shared tell each other."""

from typing import NamedTuple, Protocol


class Wish(NamedTuple):
    """What a program tells the database, and wants of it. It says how things stand, so it may be said twice."""

    places: int
    """How many calls are under way, or may begin by what was granted."""
    reserved: float
    """What those cost together that have not begun."""
    begun: list[tuple[int, float, float]]
    """Of calls that began at about the same time: a number, how many seconds ago, and what they cost together."""
    ended: int
    """How many calls have ended since the last time."""
    closed_s: float | None
    """For how many seconds from now the service wants to be left alone; `None` where it has not said so."""
    calls: int
    """How many calls wait for room."""
    cost: float
    """What those cost together."""
    first: float
    """What the first of them costs."""
    ahead: int
    """For how many more calls room is welcome, if there is plenty."""


class Grant(NamedTuple):
    """What the database answers."""

    places: int
    """How many more calls may begin."""
    cost: float
    """What those may cost together."""
    closed_s: float
    """For how many seconds nothing may begin."""
    again_s: float | None
    """In how many seconds it is worth to ask again; `None` where nothing waits any more."""
    contended: bool
    """Whether calls of other programs wait."""


class Count(Protocol):
    """What counts the calls of all programs under one limit."""

    def exchange(self, wish: Wish) -> Grant:
        """Count what a program tells, and grant room for its calls."""
        ...

    def close(self) -> None:
        """Forget the program: nothing of it is under way any more."""
        ...
