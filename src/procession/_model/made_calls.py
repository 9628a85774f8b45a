"""The time that one worker spent on calls that tasks made themselves."""

from typing import NamedTuple


class MadeCalls(NamedTuple):
    """A call that a task made by `current_task().call`, or several of one worker that followed each other."""

    task: int
    """The index of the task in its process; of several calls, that of the first, like all that follows."""
    element: int
    """The element's place in its map, if an element of a map made the call, or `WHOLE`."""
    call: int
    """The call's place among the calls of the task or element."""
    name: str
    attempts: int
    start: float
    """When it began, in seconds since the epoch (UTC)."""
    end: float
    """When it ended; of several calls, when the last one did."""
    worker: str
    failed: int
    """How many of the calls failed."""
    calls: int
    """How many calls these are."""
    busy: float
    """How many seconds they took together."""
