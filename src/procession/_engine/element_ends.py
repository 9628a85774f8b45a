"""How the elements of one map have ended, on any engine: what each returned, raised, or had recorded.

a call ──returned──▶ results, CallRecording ──▶ Outlet, once it is recorded
       ──raised────▶ record_raised, keep_error ──▶ Outlet
       ──recall────▶ the recorded value ──▶ results, Outlet

Only the owner of an element writes its place in the results.
"""

import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from procession._engine.element_batches import Element, ElementBatches, spans_of
from procession._engine.map_shares import MapShares
from procession._engine.recorded_elements import RecordedElements
from procession._engine.run_state import RunState
from procession._engine.unfinished import skipped_element
from procession._model.outcome import NotKept
from procession.errors import TaskSuspended

if TYPE_CHECKING:
    from procession._engine.outlet import Outlet, Results


class ElementEnds:
    """The results of one map, the errors of its elements, and what is recorded of both."""

    __slots__ = (
        "_batches",
        "_errors",
        "_index",
        "_lock",
        "_recorded",
        "_run_state",
        "_settling",
        "_shares",
        "_skipped",
        "outlet",
        "results",
    )

    def __init__(
        self,
        run_state: RunState,
        index: int,
        shares: MapShares,
        batches: ElementBatches | None,
        recorded: RecordedElements | None,
    ) -> None:
        self._run_state = run_state
        self._index = index
        self._shares = shares
        self._batches = batches
        self._recorded = recorded
        """What an earlier execution has recorded; `None` in a run without a journal."""
        streams = run_state.streams
        self.outlet: Outlet | None = None if streams is None else streams.outlets.get(index)
        """Where the elements go as they end, if others take them."""
        self.results: Results = [] if self.outlet is None else self.outlet.results
        """The value of each element that was drawn, `None` until it has succeeded."""
        self._errors: dict[int, BaseException] = {}
        self._skipped: list[int] = []
        """Elements that are not called, as one that they take has failed."""
        self._settling: set[int] = set()  # elements that are just being settled as returned
        self._lock = threading.Lock()  # of the attempts

    def make_room(self, length: int) -> None:
        """Have a place in the results for each of so many elements, before any of them can be called."""
        results = self.results
        if isinstance(results, list) and len(results) < length:
            results += [None] * (length - len(results))

    def make_room_for(self, elements: Sequence[Element]) -> None:
        """Do the same for elements that came in any order; those that failed have complemented places."""
        if isinstance(self.results, list):
            self.make_room(max(max(place, ~place) for place, _ in elements) + 1)

    # Without a call

    def skip(self, place: int) -> None:
        """Leave an element out: one that it takes has failed."""
        self._skipped.append(place)
        self._shares.count_uncalled()
        if self.outlet is not None:
            self.outlet.hand_on(~place)

    def recall(self, place: int, element: tuple[Any, ...]) -> bytes | None:
        """Return the digest of an element that is to be called. For a recorded one, take its value and return `None`.

        Raises for an element that has no digest, or is not the recorded one.
        """
        run_state, digest = self._run_state, b""
        if self._recorded is not None:
            labels = run_state.labels
            if labels is not None:
                labels.note(self._index, place, element)
            digest = self._recorded.digest(place, element)
            recorded = self._recorded.get(place)
            if recorded is None:
                run_state.open_elements[self._index, place] = digest
            if recorded is not None:
                if labels is not None:
                    labels.take(self._index, place)
                self._shares.count_uncalled()
                self.results[place] = recorded.value
                if self.outlet is not None:
                    self.outlet.hand_on(place)
                return None
            self._recorded.note_change()
        return digest

    # With one

    def returned(
        self,
        place: int,
        digest: bytes,
        value: object,
        start: float,
        end: float,
        attempts: int = 1,
        encoded: bytes | None = None,
        *,
        alone: bool = True,
    ) -> int:
        """Settle an element whose call returned. Raises for a value that cannot be recorded.

        `encoded` is the value as the journal keeps it, where that is there already. An element that is `alone` in its
        call is recorded as ended now. Returns how many elements the call had.
        """
        if alone and self._batches is not None:
            return self._returned(self._batches, place, value, start, end, attempts)
        run_state, recording, outlet = self._run_state, self._run_state.recording, self.outlet
        self.results[place] = value  # first, as whoever commits the record hands it on
        self._settling.add(place)
        if recording is not None:
            then = None if outlet is None else partial(outlet.hand_on, place)
            ended = None if alone else end
            try:
                recording.element_returned(self._index, place, digest, value, start, attempts, encoded, then, ended)
            except (Exception, TaskSuspended):
                self._settling.discard(place)
                raise
            run_state.open_elements.pop((self._index, place), None)
        elif outlet is not None:
            outlet.hand_on(place)
        self.note_attempts(attempts)
        if run_state.verbose:
            run_state.report("element_completed", self._index, attempts, end - start, element=place)
        if alone:
            self._settling.discard(place)
        return 1

    def _returned(
        self, batches: ElementBatches, place: int, value: object, start: float, end: float, attempts: int
    ) -> int:
        """Settle the elements of a call that returned a list of results."""
        recorder = self._run_state.recorder
        encode, end = (None, end) if recorder is None else (recorder.encode, time.perf_counter())
        parts = list(batches.returned(place, value, start, end, encode))
        for part in parts:
            self.returned(
                part.place, part.digest, part.value, part.start, part.end, attempts, part.encoded, alone=False
            )
        self._settling.difference_update(part.place for part in parts)
        return len(parts)

    def places_of(self, place: int) -> Sequence[int]:
        """Return the elements of a call that raised; none where that came after the call had returned.

        Its values may be recorded by then, or handed on.
        """
        places = (place,) if self._batches is None else self._batches.ended(place)
        return places if self._settling.isdisjoint(places) else ()

    def record_raised(self, places: Sequence[int], error: BaseException, start: float, attempts: int) -> None:
        """Record elements whose call raised, unless their values are recorded."""
        recording = self._run_state.recording
        if recording is None:
            return
        for place, begun, end in spans_of(places, start, time.perf_counter()):
            if self._recorded is None or self._recorded.get(place) is None:
                recording.element_raised(self._index, place, error, begun, attempts, end)

    def note_attempts(self, attempts: int) -> None:
        """Keep the most attempts that any element took as those of the task."""
        counted = self._run_state.attempts
        if attempts > 1:
            with self._lock:
                counted[self._index] = max(attempts, counted.get(self._index, 1))

    def keep_error(self, places: Sequence[int], error: BaseException) -> None:
        """Keep what elements have failed with, while the map goes on."""
        for place in places:
            self._errors[place] = error
            if self.outlet is not None:
                self.outlet.hand_on(~place)

    @property
    def any_failed(self) -> bool:
        """Whether any element has failed."""
        return bool(self._errors)

    # The end of the map

    def take(self, called: int) -> tuple[list[Any] | NotKept, dict[int, BaseException]]:
        """Return the value of a map of which so many elements were called, or skipped, and the errors by element.

        Both are let go of here.
        """
        results, self.results = self.results, []
        errors, self._errors = self._errors, {}
        if isinstance(results, list):
            return results, errors
        return NotKept(called - len(self._skipped) - len(errors)), errors

    def put_in(self, results: list[Any] | NotKept, errors: dict[int, BaseException]) -> bool:
        """Put into results what stands for elements that have none; return whether any was skipped."""
        if isinstance(results, list):
            for place in self._skipped:
                results[place] = skipped_element(self._run_state, self._index, place)
            for place, error in errors.items():
                results[place] = error
        return bool(self._skipped)

    def check_length(self, drawn: int) -> None:
        """Refuse, or forget, recorded elements that the iterables no longer give."""
        if self._recorded is not None:
            self._recorded.check_length(drawn)
