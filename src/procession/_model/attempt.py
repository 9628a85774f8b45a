"""What is kept of the attempts of a call that failed and were followed by another one."""

from typing import Final, NamedTuple

ATTEMPTS: Final = 20
"""Failed attempts of a call that are kept, at most: the first ones."""


class FailedAttempt(NamedTuple):
    """An attempt of a call that failed and was followed by another one."""

    start: float
    """When it began, in seconds since the first attempt of the call began."""
    duration: float
    """How long it took, in seconds."""
    pause: float
    """How long it was until the next attempt began, in seconds."""
    error: str
    """What it raised, in a line; empty if it returned a value that the retry rules refuse."""
