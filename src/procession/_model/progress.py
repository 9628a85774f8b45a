"""How far a run has come."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple


class Progress(NamedTuple):
    """How far a run has come, in tasks. From the moment a `map` begins, each of its elements counts as a task.

    >>> Progress(ended=3, failed=1, total=10)
    Progress(ended=3, failed=1, total=10)
    """

    ended: int
    """How many tasks have ended, failed tasks included."""
    failed: int
    """How many tasks have failed with no further attempt to come."""
    total: int
    """How many tasks the run has, as far as is known: the number grows while a `map` draws from an iterable of unknown
    length."""


class Snapshot(NamedTuple):
    """What a run tells of itself while it goes on."""

    progress: Progress
    running: Sequence[tuple[int, str, str, float]]
    """What runs now: task, name, worker, start in seconds since the epoch."""
    labels: Mapping[int, str] = MappingProxyType({})
    """The labels of these, of those whose name is a template."""
    pausing: Sequence[tuple[int, str, str, float]] = ()
    """What waits for its next attempt, as `running`."""
