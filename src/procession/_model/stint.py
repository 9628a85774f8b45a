"""The part that one worker had in a map."""

from typing import NamedTuple


class Stint(NamedTuple):
    """A stretch of time that one worker was on a map. Of all elements together there may be too many to note each."""

    task: int
    """The place of the map in its process."""
    worker: str
    start: float
    """A reading of the clock, in seconds."""
    duration: float
    """Seconds."""
    elements: int
    """How many it called."""
