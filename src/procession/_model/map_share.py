"""The part that one worker had in a task that several had a part in, or that one had at several times."""


class MapShare:
    """A stretch of time that one worker was on a map, or on one attempt of a task.

    Of all elements of a map together there may be too many to note each.
    """

    __slots__ = ("busy", "drawn", "elements", "end", "failed", "longest", "start", "task", "worker")

    def __init__(self, task: int, worker: str, start: float, end: float | None = None) -> None:
        self.task = task
        """The place of the task in its process."""
        self.worker = worker
        self.start = start
        """A reading of the clock, in seconds."""
        self.end = start if end is None else end
        self.busy = self.end - start
        """How many seconds of that it was making calls."""
        self.elements = 0
        """How many elements it called."""
        self.failed = 0
        """How many of them raised."""
        self.drawn = 0.0
        """How many seconds went into drawing elements, whoever drew them, since a worker left the map before."""
        self.longest = start, self.busy
        """Its longest call: when that began, and how many seconds it took."""

    def note(self, start: float, end: float) -> None:
        """Take note of a call."""
        took = end - start
        self.busy += took
        self.end = end
        if took > self.longest[1]:
            self.longest = start, took

    def count(self, *, failed: bool) -> None:
        """Take note that an element has ended."""
        self.elements += 1
        self.failed += failed
