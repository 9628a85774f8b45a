"""Which tasks and elements are called again when some are: these, and all that follows from them.

What takes a value follows from it. An element of a map whose elements take those of another map, one by one, follows
from the element at its own place. In a stage in order, a task without any handle among its arguments follows from all
tasks before it, as it can depend on them only by what they have left behind: files, rows of a database. So do those of
the stages behind it. Tasks that take handles do not: their handles say what they depend on.
"""

from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from typing import Literal

from procession._plan.shape import Shape

Reason = Literal["named", "failed", "takes", "in order", "shares"]
"""Why something is called again: it was named; it failed; it takes a value of what is called again; it comes after that
in order; it takes an object that another task, which is called again, takes as well and has changed."""

Part = AbstractSet[int] | None
"""What of a task is called again: `None` for all of it, or some elements of a map, which then is no longer whole."""


class Rerun:
    """What of one run is called again: the parts of tasks, by their places, and the reason for each."""

    def __init__(self, shape: Shape, shared: Sequence[Collection[int]]) -> None:
        """`shared` has the tasks that take an object which some of them have changed, for each such object."""
        self._shape = shape
        self._shared = shared
        self.parts: dict[int, Part] = {}
        self.reasons: dict[int, Reason] = {}

    def add(self, task: int, part: Part, reason: Reason) -> bool:
        """Add a task, or elements of it; return whether that changes anything."""
        if task not in self.parts:
            self.parts[task] = part
            self.reasons[task] = reason
            return True
        known = self.parts[task]
        if known is None or (part is not None and part <= known):
            return False
        self.parts[task] = None if part is None else known | part
        return True

    def follow(self) -> None:
        """Add all that follows from what is there."""
        changes = bool(self.parts)
        while changes:
            before = False
            for stage in self._shape.stages:
                found = before
                for task in range(stage.start, stage.stop):
                    self._follow(task, in_order=before if stage.at_once else found)
                    found = found or task in self.parts
                before = found
            changes = any(
                self.add(task, None, "shares")
                for tasks in self._shared
                if not self.parts.keys().isdisjoint(tasks)
                for task in tasks
            )

    def _follow(self, task: int, *, in_order: bool) -> None:
        needs = self._shape.needs.get(task, ())
        if not needs and in_order:
            self.add(task, None, "in order")
        for source in needs:
            if source in self.parts:
                is_paired = source in self._shape.paired.get(task, ())
                self.add(task, self.parts[source] if is_paired else None, "takes")
