"""What a journal keeps of how calls ended."""

from typing import Literal, NamedTuple

WHOLE = -1
"""The `element` of a record that is of a task itself, and not of an element of a map."""


class Record(NamedTuple):
    """How one call ended, as a journal keeps it."""

    task: int
    """Its place in its process."""
    element: int
    """The element's place in a map, or `WHOLE`. The value of a map's own record is the number of its elements."""
    state: Literal["completed", "failed"]
    name: str
    digest: bytes
    """Of an element's arguments; empty for a task, whose digest stands in the fingerprint."""
    value: bytes | None
    """What was returned, encoded."""
    error: str | None
    """What was raised, as text for people, of bounded length: a line, and its traceback below it."""
    attempts: int
    started_at: float
    """Seconds since the epoch, UTC."""
    duration: float
    """Seconds."""
    worker: str
    log: str | None = None
    """What it logged, as lines for people, of bounded length."""


class Recorded(NamedTuple):
    """What an earlier execution of a run recorded of a call that ended well."""

    value: object
    attempts: int
    duration: float
    worker: str
    digest: bytes
