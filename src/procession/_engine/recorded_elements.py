"""The elements of one map that an earlier execution of the run has recorded."""

import time
from typing import Any

from procession._engine.commit import Recorder
from procession._engine.run_state import RunState
from procession._model.record import Recorded
from procession.errors import PlanChangedError

_REMEDY = "Start under another run id, or with allow_changes=True"


class RecordedElements:
    """Says which elements need not be called, as their values are recorded. `where` names the map, in words."""

    __slots__ = ("_constants", "_index", "_inside", "_moved", "_recorded", "_recorder", "_run_state", "_where")

    def __init__(
        self, run_state: RunState, recorder: Recorder, index: int, constants: dict[str, Any], where: str
    ) -> None:
        from procession._plan.identity import digest_element  # which the journal has imported

        self._constants = digest_element((), where, constants) if constants else b""
        self._run_state = run_state
        self._recorder = recorder
        self._index = index
        self._where = where
        self._recorded = dict(recorder.elements(index))
        self._inside = recorder.digests_inside(index)
        """The digests of the elements that have made calls, or waited, where that is recorded."""
        self._moved = {one.digest: one for one in self._recorded.values()} if recorder.allow_changes else {}

    def get(self, place: int) -> Recorded | None:
        """Return the record of an element, if there is one and its digest has not changed."""
        return self._recorded.get(place)

    def digest(self, place: int, element: tuple[Any, ...]) -> bytes:
        """Return the digest of an element, and forget what was recorded in its place if that was another.

        Raises `PlanChangedError` for another element where changes are not allowed.
        """
        from procession._plan.digest import combined  # as above
        from procession._plan.identity import digest_element

        digest = digest_element(element, self._where)
        if self._run_state.note_drawn is not None:
            self._run_state.note_drawn(self._index, element)
        if self._constants:
            digest = combined(digest, self._constants)
        recorded = self._recorded.get(place)
        inside = self._inside.pop(place, digest)
        if self._recorder.allow_changes:
            if inside != digest:
                self._recorder.forget_inside(self._index, place)
            if recorded is None or recorded.digest != digest:
                self._recorded.pop(place, None)
                self._find_elsewhere(place, digest)
            return digest
        if inside != digest or (recorded is not None and recorded.digest != digest):
            raise PlanChangedError(
                f"{self._where}: element {place:,} is not the one that was recorded. {_REMEDY}, which calls it again"
            )
        return digest

    def check_length(self, length: int) -> None:
        """Refuse, or forget, recorded elements that the iterables no longer give."""
        last = self._recorder.last_element(self._index)
        if last < length:
            return
        if not self._recorder.allow_changes:
            raise PlanChangedError(
                f"{self._where}: its iterables gave {length:,} elements, and element {last:,} was recorded. {_REMEDY}, "
                "which forgets those that are gone"
            )
        self.note_change()
        self._recorder.forget_elements(self._index, length)

    def note_change(self) -> None:
        """Take note that the map has other elements than were recorded."""
        if self._run_state.recheck is not None:
            self._run_state.recheck.unchanged.discard(self._index)

    def _find_elsewhere(self, place: int, digest: bytes) -> None:
        """Take the value of an element that is recorded at another place, and record it here, too."""
        found, recording = self._moved.get(digest), self._run_state.recording
        if found is not None and recording is not None:
            self.note_change()
            recording.element_returned(self._index, place, digest, found.value, time.perf_counter(), found.attempts)
            self._recorded[place] = found
