"""How far a run has come."""

from typing import NamedTuple


class Progress(NamedTuple):
    """How far a run has come, in tasks. From the moment a `map` begins, each of its elements counts as one."""

    ended: int
    """How many have ended, well or not."""
    failed: int
    """How many of those have failed for good."""
    total: int
    """How many there are, as far as is known: it grows while a `map` draws from an iterable of unknown length."""
