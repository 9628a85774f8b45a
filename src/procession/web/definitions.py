"""What the tasks of a run are called, whether or not they have begun, and which wait for which."""

from array import array
from collections.abc import Collection
from typing import Final

from procession._plan.fingerprint import Fingerprint
from procession._plan.identity import called
from procession.journal import Reader
from procession.pictures.nodes import Outline, outline_of

KEEP = 8
"""Definitions in memory, at most: of a run of 100,000 tasks, 2 MB."""


class Definition:
    """The names of a run's tasks, by place."""

    def __init__(self, fingerprint: Fingerprint) -> None:
        self.fingerprint: Final = fingerprint
        self.count: Final = fingerprint.tasks
        self.names: Final = [called(name) for name in fingerprint.names]
        self._which = array("I", fingerprint.which)
        self._outline: Outline | None = None

    @property
    def maps(self) -> bool:
        """Whether there may be maps among the tasks."""
        return any(name.startswith("map of ") for name in self.fingerprint.names)

    def name(self, place: int) -> str:
        """Return the name of a task."""
        return self.names[self._which[place]] if place < self.count else ""

    def origin(self, place: int) -> str:
        """Return the name of a task with the module its callable comes from."""
        return self.fingerprint.name(place) if place < self.count else ""

    def is_map(self, place: int) -> bool:
        """Return whether a task may be a map."""
        return self.origin(place).startswith("map of ")

    def outline(self, reader: Reader, key: int) -> Outline | None:
        """Return the outline of the graph, `None` if the journal has none. Takes a while the first time."""
        if self._outline is None:
            shape = reader.shape(key)
            if shape is not None:
                names = [self.names[which] for which in self._which]
                self._outline = outline_of(self.fingerprint.process_name, names, shape)
        return self._outline

    def matching(self, text: str) -> Collection[int]:
        """Return the places of the tasks whose name, or origin, has the text in it, in any case."""
        wanted = {place for place, name in enumerate(self.fingerprint.names) if text.lower() in name.lower()}
        if len(wanted) == len(self.fingerprint.names):
            return range(self.count)
        return [place for place, which in enumerate(self._which) if which in wanted] if wanted else []
