"""Tasks whose records may hold no longer, although the definition of the process is the same.

The elements that a map draws from a generator are no part of a definition. So where changes are allowed, a map that is
recorded as completed draws them again. A task that follows from it waits for that, and is called only if it has to be.

    a map draws again ──the same elements──▶ its record holds ──▶ and so do the records of tasks that follow from it
                      ──others─────────────▶ these are called; the journal forgets the record of the map, and of all
                                             that follow from it, before it has the first new element
"""

from collections.abc import Container, Mapping

from procession._engine.commit import Recorder
from procession._model.record import Recorded
from procession._plan.plan import Plan


class Recheck:
    """The maps of a run that draw again, processes with such maps, and the recorded tasks that follow from them."""

    def __init__(self, plan: Plan, kept: Mapping[int, Recorded], drawn_again: set[int]) -> None:
        self._plan = plan
        self._drawn_again = drawn_again
        self.kept = kept
        """What is recorded of all these tasks."""
        self.unchanged = set(drawn_again)
        """Those that draw again and have drawn nothing but what is recorded, so far."""

        self.recalled: set[int] = set()
        """Those that follow and have been found to hold."""

    def holds(self, index: int, recorder: Recorder) -> bool:
        """Return whether a task has ended that drew again, and its record holds."""
        return index in self.unchanged and index in recorder.recorded

    def follows_only(self, index: int, ended: Container[int]) -> bool:
        """Return whether a recorded task draws nothing again itself, and takes values of the tasks `ended` only."""
        return index not in self._drawn_again and all(need in ended for need in self._plan.needs[index])


def recheck_of(plan: Plan, recorded: dict[int, Recorded]) -> Recheck | None:
    """Take the tasks whose records must be checked again out of `recorded`; `None` if there are none."""
    from procession._plan.fingerprint import draws_unseen  # which the journal has imported
    from procession._plan.shape import following

    drawn_again = {index for index in recorded if draws_unseen(*plan.calls[index][:2])}
    if not drawn_again:
        return None
    kept = {index: recorded.pop(index) for index in following(drawn_again, plan.needs) if index in recorded}
    return Recheck(plan, kept, drawn_again)
