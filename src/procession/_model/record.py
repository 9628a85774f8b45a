"""The records of ended calls that a journal keeps: of tasks and elements, and of calls that tasks make themselves."""

from typing import Literal, NamedTuple

WHOLE = -1
"""The `element` of a record that belongs to a whole task and not to an element of a map."""


class Record(NamedTuple):
    """How one call ended, as a journal keeps it."""

    index: int  # type: ignore[assignment]  # in place of the method of tuples, which says nothing here
    """The index of the task in its process."""
    element: int
    """The element's place in its map, or `WHOLE`. The value in the record of a whole map is its number of elements."""
    state: Literal["completed", "failed"]
    name: str
    digest: bytes
    """The digest of an element's arguments; empty for a task, whose digest stands in the fingerprint of the process."""
    value: bytes | None
    """The return value as bytes, as the codec of the journal encoded it; `None` for a call that failed."""
    error: str | None
    """The exception as text for people, of bounded length: a line, and the traceback below it."""
    attempts: int
    """How many times the call was made, the last attempt included."""
    started_at: float
    """When the first attempt began, in seconds since the epoch (UTC)."""
    duration: float
    """How long the call took, in seconds, pauses between attempts included."""
    worker: str
    """The name of the thread, asyncio task or process that made the call."""
    log: str | None = None
    """The log of the call, as lines for people, of bounded length; `None` where no log is kept."""


class CallRecord(NamedTuple):
    """How a call ended that a task made by `current_task().call`, as a journal keeps it."""

    index: int  # type: ignore[assignment]  # as above
    """The index of the task in its process."""
    element: int
    """The element's place in its map, if an element of a map made the call, or `WHOLE`."""
    call: int
    """The call's place among the recorded calls of the task or element."""
    seen: int
    """How many of these calls, from the first, had ended when this one was begun: the task knew how they had ended."""
    state: Literal["completed", "failed"]
    name: str
    """The full name of the function."""
    digest: bytes
    """The digest of the function's arguments, and of what the function itself holds."""
    value: bytes | None
    """The return value, or the exception of a failed call if the codec takes it, as bytes."""
    error: str | None
    """As in `Record`, like all that follows."""
    attempts: int
    started_at: float
    duration: float
    worker: str
    element_digest: bytes | None = None
    """The digest of the element's arguments, if an element of a map made the call, once that is recorded."""
    replaces: bool = False
    """Whether there may be a record of this call already, of an earlier time that it was made."""


WaitKind = Literal["answer", "sleep"]
"""What a task waits for: an answer, or the end of a sleep."""


class WaitRecord(NamedTuple):
    """How it stands with what a task waits for."""

    value: bytes | None
    """The answer, as the codec of the journal encoded it; `None` where there is none."""
    left: float
    """For how many seconds the task still has to wait, at most; 0 where it has to wait no longer."""


class Recorded(NamedTuple):
    """A completed call, as an earlier execution of the run has recorded it."""

    value: object
    attempts: int
    duration: float
    worker: str
    digest: bytes


def place_of(name: str) -> tuple[int, int]:
    """Return the task and the element, or `WHOLE`, of the name of a place; of a recorded call, those that make it.

    Raises `ValueError` for what is no name of a place.

    >>> place_of("3"), place_of("3.4"), place_of("3#2"), place_of("3.4#2")
    ((3, -1), (3, 4), (3, -1), (3, 4))
    """
    index, dot, element = name.partition("#")[0].partition(".")
    return int(index), int(element) if dot else WHOLE


def place_name(index: int, element: int, call: int = WHOLE) -> str:
    """Return the name of a place in a run, as the run that is nested there is called.

    >>> place_name(3, WHOLE), place_name(3, 4), place_name(3, WHOLE, 2), place_name(3, 4, 2)
    ('3', '3.4', '3#2', '3.4#2')
    """
    return f"{index}{'' if element == WHOLE else f'.{element}'}{'' if call == WHOLE else f'#{call}'}"
