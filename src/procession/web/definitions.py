"""What the tasks of a run are called, whether or not they have begun, and which wait for which."""

from array import array
from collections.abc import Collection
from collections.abc import Set as AbstractSet
from typing import Final

from procession._model.label import is_template
from procession._plan.fingerprint import Fingerprint
from procession._plan.identity import called
from procession._plan.shape import Shape
from procession.journal import Reader
from procession.pictures.nodes import Outline, outline_of

KEEP = 8
"""Definitions in memory, at most: of a run of 100,000 tasks, 2 MB."""


QUICK = 5_000
"""Tasks of a run, at most, whose shape is read in a few milliseconds."""


class Definition:
    """The names of a run's tasks, by place."""

    def __init__(self, fingerprint: Fingerprint) -> None:
        self.fingerprint: Final = fingerprint
        self.count: Final = fingerprint.tasks
        self.names: Final = [called(name) for name in fingerprint.names]
        self._which = array("I", fingerprint.which)
        self._outline: tuple[AbstractSet[int], Outline] | None = None
        self._shape: Shape | None = None

    @property
    def maps(self) -> bool:
        """Whether there may be maps among the tasks."""
        return any(name.startswith("map of ") for name in self.fingerprint.names)

    @property
    def labels(self) -> bool:
        """Whether the name of a task may be a template, which gives labels."""
        return any(map(is_template, self.names))

    def has_label(self, place: int) -> bool:
        """Return whether a task, or the elements of a map, may have labels."""
        return is_template(self.name(place))

    def name(self, place: int) -> str:
        """Return the name of a task."""
        return self.names[self._which[place]] if place < self.count else ""

    def origin(self, place: int) -> str:
        """Return the name of a task with the module its callable comes from."""
        return self.fingerprint.name(place) if place < self.count else ""

    def is_map(self, place: int) -> bool:
        """Return whether a task may be a map."""
        return self.origin(place).startswith("map of ")

    def outline(self, reader: Reader, key: int, failed: AbstractSet[int]) -> Outline | None:
        """Return the outline of the graph, in which `failed` tasks share nodes with no others; `None` if there is none.

        Takes a while the first time, and when more tasks have failed.
        """
        self._shape = self._shape or reader.shape(key)
        if self._shape is None:
            return None
        if self._outline is None or self._outline[0] != failed:
            names = [self.names[which] for which in self._which]
            self._outline = failed, outline_of(self.fingerprint.process_name, names, self._shape, failed)
        return self._outline[1]

    def shape(self, reader: Reader, key: int) -> Shape | None:
        """Return which tasks wait for which; `None` if the journal does not know, or it would take long to read."""
        if self._shape is None and self.count <= QUICK:
            self._shape = reader.shape(key)
        return self._shape

    def matching(self, text: str) -> Collection[int]:
        """Return the places of the tasks whose name, or origin, has the text in it, in any case."""
        wanted = {place for place, name in enumerate(self.fingerprint.names) if text.lower() in name.lower()}
        if len(wanted) == len(self.fingerprint.names):
            return range(self.count)
        return [place for place, which in enumerate(self._which) if which in wanted] if wanted else []
