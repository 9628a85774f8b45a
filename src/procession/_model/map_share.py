"""The time that one worker spent on a map, or on one attempt of a task."""


class MapShare:
    """A stretch of time that one worker spent on a map, or on one attempt of a task.

    A map may have too many elements to note each of them, so a share has sums over the elements of one worker.
    """

    __slots__ = ("busy", "drawn", "elements", "end", "failed", "longest", "start", "task", "worker")

    def __init__(self, task: int, worker: str, start: float, end: float | None = None) -> None:
        self.task = task
        """The index of the task in its process."""
        self.worker = worker
        self.start = start
        """When the stretch began, as a reading of `time.perf_counter` in seconds."""
        self.end = start if end is None else end
        self.busy = self.end - start
        """How many seconds of the stretch the worker was making calls."""
        self.elements = 0
        """How many elements the worker called."""
        self.failed = 0
        """How many of these elements failed."""
        self.drawn = 0.0
        """How many seconds all workers together spent on drawing elements since the last worker left the map."""
        self.longest = start, self.busy
        """The longest call: the reading of the clock when it began, and how many seconds it took."""

    def note(self, start: float, end: float) -> None:
        """Add a call to the sums, from two readings of the clock in seconds."""
        took = end - start
        self.busy += took
        self.end = end
        if took > self.longest[1]:
            self.longest = start, took

    def extend(self, later: "MapShare") -> None:
        """Add a later stretch of the same worker."""
        self.end = later.end
        self.busy += later.busy
        self.elements += later.elements
        self.failed += later.failed
        self.drawn += later.drawn
        if later.longest[1] > self.longest[1]:
            self.longest = later.longest

    def count(self, elements: int = 1, *, failed: bool) -> None:
        """Count the element, or elements, of a call that has ended."""
        self.elements += elements
        if failed:
            self.failed += elements
