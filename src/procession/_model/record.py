"""The records of ended calls that a journal keeps."""

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


class Recorded(NamedTuple):
    """A completed call, as an earlier execution of the run has recorded it."""

    value: object
    attempts: int
    duration: float
    worker: str
    digest: bytes
