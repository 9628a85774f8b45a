"""Which threads and asyncio tasks the workers of a run are, for those who look where calls stand."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import Task
    from collections.abc import Mapping


class Whereabouts:
    """Where the workers of one run are, by their names."""

    __slots__ = ("coroutines", "elements", "threads")

    def __init__(self) -> None:
        self.threads: dict[str, int] = {}
        """The numbers of the threads that are, or were, workers."""
        self.elements: dict[str, tuple[int, int]] = {}
        """The map and element that each thread was at last; those of plain maps stand in their call contexts."""
        self.coroutines: Mapping[str, Task[None]] = {}
        """The asyncio tasks that make calls now."""
