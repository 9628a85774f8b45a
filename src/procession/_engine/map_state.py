"""All that changes while a map is made, whoever makes its calls: what is drawn, what has ended, what failed.

iterables ──draw (one at a time)──▶ window ──claim──▶ a call ──returned, raised──▶ results ──conclude──▶ the value
                                    ≤ WINDOW elements drawn and not yet begun

A driver owns one of these: the threads (`_engine.map`), the event loop (`_loop.map`), or the coordinator
(`_remote.map`). It says who draws, and where the calls are made.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from operator import length_hint
from typing import Any

from procession._engine.run_state import RunState
from procession._engine.tracebacks import annotate, stripped
from procession._engine.unawaited import unawaited, unawaited_in
from procession._model.map_share import MapShare
from procession._model.outcome import Away
from procession._model.progress import Progress
from procession._model.record import WHOLE
from procession._model.task import MapFunction, Options, check_iterables
from procession._model.text import counted, shown
from procession._plan.wiring import bound
from procession.errors import PlanChangedError, TaskCancelled

WINDOW = 64
"""Elements drawn from the iterables and not yet begun, at most."""

QUICK_S = 0.001
"""A source that takes longer than this for an element is slow: each element is handed out as soon as it is there."""

_AT_HAND = frozenset({list, tuple, range, str, bytes, dict, set, frozenset})
"""Types of iterables whose elements are there already, so that to draw from them takes no time."""

_REMEDY = "Start under another run id, or with allow_changes=True"

Element = tuple[int, tuple[Any, ...]]
"""The place of an element, and the arguments of its call."""


class MapState:
    """The state of the call of one map task.

    Its `window` holds the elements that are drawn and not begun: whoever pops one owns it, as popping is atomic. The
    place of each element in the results is written by its owner alone; what several may change is guarded by a lock.
    """

    __slots__ = (
        "_cut_short",
        "_drawing",
        "_elements",
        "_errors",
        "_lock",
        "_moved",
        "_recalled",
        "_recorded",
        "_refill",
        "_run_state",
        "at_hand",
        "began",
        "drawing_s",
        "drawn",
        "exhausted",
        "failure",
        "function",
        "in_order",
        "index",
        "length",
        "map_function",
        "options",
        "results",
        "shares",
        "where",
        "window",
    )

    def __init__(
        self, run_state: RunState, index: int, map_function: MapFunction, options: Options, *, in_order: bool
    ) -> None:
        self._run_state = run_state
        self.index = index
        self.map_function = map_function
        self.function = map_function.function
        self.options = options
        self.in_order = in_order
        self.where = f"process {shown(run_state.process_name)!r}, task {index} ({shown(run_state.name(index))})"
        self.window: deque[Element] = deque()
        self.drawn = 0
        """How many elements were drawn."""
        self.length = 0
        """About how many elements there are; 0 where nothing is known."""
        self.exhausted = False
        """Whether all elements are drawn. Set after the last of them is in the window."""
        self.at_hand = False
        """Whether drawing takes no time."""
        self.drawing_s = 0.0
        """How many seconds were spent in drawing since `took_part` asked last."""
        self.began: float | None = None
        """When the first worker came, as a reading of the clock."""
        self.failure: BaseException | None = None
        """What the map as a whole fails with."""
        self.shares: list[MapShare] = []
        """The parts that workers have had in the map."""
        self._recorded = {} if run_state.recorder is None else dict(run_state.recorder.elements(index))
        may_move = run_state.recorder is not None and run_state.recorder.allow_changes
        self._moved = {one.digest: one for one in self._recorded.values()} if may_move else {}
        self._recalled = 0
        self.results: list[Any] = []
        """The value of each element that was drawn, `None` until it has ended well."""
        self._errors: dict[int, BaseException] = {}
        self._cut_short = False
        self._elements: Iterator[tuple[Any, ...]] | None = None
        self._refill = 1
        self._lock = threading.Lock()
        self._drawing = threading.Lock()  # held while the iterables are drawn from, which may take long

    # Elements

    def open(self, start: float) -> None:
        """Bind and check the iterables, and begin to iterate over them. Raises for those that cannot be iterated."""
        self.began = start
        given = bound(self._run_state.plan.calls[self.index][1], {}, self._run_state.ledger.values)[0]
        # What is drawn from has to be here; its elements may be kept elsewhere.
        iterables = tuple(value.fetch() if isinstance(value, Away) else value for value in given)
        check_iterables(iterables, self.where)
        if self._run_state.recorder is not None and self.index in self._run_state.plan.needs:
            # Of what was given itself, the fingerprint has told already; here are the values of handles, too.
            from procession._plan.digest import check_order  # as in `_digest`

            check_order(iterables, self.where)
        self.length = max(map(_about, iterables))
        self.at_hand = all(type(iterable) in _AT_HAND for iterable in iterables)
        iterators = [iter(iterable) for iterable in iterables]
        if any(iterator is iterable for iterator, iterable in zip(iterators, iterables, strict=True)):
            self.map_function.spent = True
        self._elements = zip(*iterators, strict=True)
        if self._run_state.verbose:
            self._run_state.report("task_started", self.index, 1, None)

    def claim(self) -> Element | None:
        """Return the next element, drawing some if the window is empty; `None` if there is none for now."""
        while not self.stopped:
            try:
                return self.window.popleft()
            except IndexError:
                if not self.draw():
                    return None
        return None

    def draw(
        self, most: int = WINDOW, tell: Callable[[], object] | None = None, *, limit: float = float("inf")
    ) -> bool:
        """Draw up to `most` elements into the window; return whether there is something in it.

        `limit` is the number of elements that may have been drawn after that, in all.

        Nobody waits long for somebody else who draws from a slow source: there may be other tasks, and what comes may
        depend on them. `tell` is called after each element that is drawn, as the next one may be long in coming.
        """
        if not self._drawing.acquire(timeout=QUICK_S):
            return bool(self.window)
        try:
            if self.window:
                return True
            most = int(min(limit - self.drawn, most))  # others may have drawn meanwhile
            if self.exhausted or self._elements is None or most <= 0:
                return False
            start, before = time.perf_counter(), self.drawn
            try:
                if self.at_hand:
                    self._draw_all(self._elements, min(WINDOW, most))
                else:
                    self._draw_each(self._elements, min(self._refill, most), tell)
            except BaseException as error:
                self.exhausted = True
                self.fail(self._clear(error))
                return False
            finally:
                self.drawing_s += time.perf_counter() - start
            return self.drawn > before
        finally:
            self._drawing.release()

    def _draw_all(self, elements: Iterator[tuple[Any, ...]], wanted: int) -> None:
        drawn: deque[Element] = deque()
        try:
            drawn.extend(enumerate(islice(elements, wanted), self.drawn))
        finally:  # what came before an error is not lost with it
            self.results += [None] * len(drawn)
            self.drawn += len(drawn)
            self.window.extend(drawn)
        self.exhausted = len(drawn) < wanted

    def _draw_each(self, elements: Iterator[tuple[Any, ...]], wanted: int, tell: Callable[[], object] | None) -> None:
        start, before = time.perf_counter(), self.drawn
        quick = True
        for element in islice(elements, wanted):
            self.results.append(None)
            self.window.append((self.drawn, element))
            self.drawn += 1
            if tell is not None:
                tell()
            quick = time.perf_counter() - start < QUICK_S
            if not quick:
                break
        else:
            self.exhausted = self.drawn - before < wanted
        # A slow source gets to hand out each element as soon as there is one.
        self._refill = min(WINDOW, self._refill * 2) if quick else 1

    def _clear(self, error: BaseException) -> BaseException:
        if isinstance(error, ValueError) and str(error).startswith("zip() argument"):
            return ValueError(
                f"{self.where}: the iterables of a map must be equally long; "
                f"after {self.drawn} elements, {str(error)[6:]}"
            )
        return error

    @property
    def stopped(self) -> bool:
        """Whether no other element may begin: the run is halted, or the map has failed."""
        return self._run_state.ledger.halted or self.failure is not None

    @property
    def nothing_left(self) -> bool:
        """Whether no element is left to begin."""
        exhausted = self.exhausted  # asked first: another thread fills the window, and says so after that
        return self.stopped or (exhausted and not self.window)

    # What became of them

    def digest(self, place: int, element: tuple[Any, ...]) -> bytes | None:
        """Return the digest of an element that is to be called; of another, take what was recorded and return `None`.

        Raises for an element that has none, or is not the one that was recorded.
        """
        run_state = self._run_state
        digest = b"" if run_state.recorder is None else self._checked(place, element)
        if place in self._recorded:
            self.results[place] = self._recorded[place].value
            with self._lock:
                self._recalled += 1
            return None
        if run_state.verbose:
            run_state.report("element_started", self.index, 1, None, element=place)
        return digest

    def returned(
        self,
        place: int,
        digest: bytes,
        value: object,
        start: float,
        end: float,
        attempts: int = 1,
        encoded: bytes | None = None,
    ) -> None:
        """Take note of what an element's call returned. Raises for a value that cannot be recorded.

        `encoded` is the value as the journal keeps it, where that is there already.
        """
        run_state = self._run_state
        run_state.element_finished(self.index, place, digest, value, start, attempts, encoded)
        self.results[place] = value
        self._attempted(attempts)
        if run_state.verbose:
            run_state.report("element_completed", self.index, attempts, end - start, element=place)

    def raised(self, place: int, error: BaseException, start: float, attempts: int = 1) -> None:
        """Take note of what an element's call raised."""
        run_state = self._run_state
        BaseException.with_traceback(error, stripped(error.__traceback__))
        annotate(error, run_state.process_name, self.index, run_state.name(self.index), attempts, place)
        if place not in self._recorded:
            run_state.element_raised(self.index, place, error, start, attempts)
        self._attempted(attempts)
        if isinstance(error, TaskCancelled) and run_state.ledger.halted:
            self._cut_short = True
        elif run_state.ledger.on_error == "stop" or not isinstance(error, Exception):
            self.fail(error)
        else:
            self._errors[place] = error

    def drop(self) -> None:
        """Take note that an element that was drawn will not be called."""
        self._cut_short = True

    def _attempted(self, attempts: int) -> None:
        """Keep the most attempts that any element took as those of the task."""
        counted = self._run_state.attempts
        if attempts > 1:
            with self._lock:
                counted[self.index] = max(attempts, counted.get(self.index, 1))

    def fail(self, error: BaseException) -> None:
        """Take note of what ends the map as a whole, the first time."""
        with self._lock:
            if self.failure is not None:
                return
            self.failure = error
        self.window.clear()
        self._run_state.fail_early(self.index, error, in_order=self.in_order)

    def share(self, worker: str) -> MapShare:
        """Return the part of a worker that comes to the map now."""
        share = MapShare(self.index, worker, time.perf_counter())
        self.shares.append(share)
        return share

    def took_part(self, share: MapShare) -> None:
        """Take note that a worker leaves."""
        with self._lock:
            share.drawn, self.drawing_s = self.drawing_s, 0.0
        self._run_state.took_part(share)

    @property
    def ended(self) -> int:
        """How many elements have ended."""
        return self._recalled + sum(share.elements for share in list(self.shares))

    @property
    def progress(self) -> Progress:
        """How far the map has come, in elements."""
        total = self.drawn if self.exhausted else max(self.drawn, self.length)
        return Progress(self.ended, sum(share.failed for share in list(self.shares)), total)

    # The end

    def conclude(self) -> list[Any]:
        """Return the results, or raise what the map came to."""
        self._fail_unawaited()
        results, self.results = self.results, []
        errors, self._errors = self._errors, {}
        failure, self.failure = self.failure, None
        self._elements = None
        run_state = self._run_state
        try:
            if failure is not None:
                raise failure
            if self._cut_short or self.window or not self.exhausted:
                raise TaskCancelled(f"a map was stopped after {self.drawn} elements")
            self._check_length(len(results))
            if errors:
                for place, error in errors.items():
                    results[place] = error
                if run_state.ledger.on_error == "return":
                    run_state.ledger.values[self.index] = results
                count = counted(len(results), "element")
                text = f"{len(errors):,} of {count} of {shown(run_state.name(self.index))} failed"
                raise BaseExceptionGroup(text, [errors[place] for place in sorted(errors)])
            if run_state.verbose:
                run_state.report("task_completed", self.index, 1, time.perf_counter() - (self.began or 0.0))
            return results
        finally:
            del failure, errors

    def _fail_unawaited(self) -> None:
        """Fail elements that returned a coroutine: a look at each value as it comes would cost plain calls too much."""
        for place in unawaited_in(self.results):
            error, self.results[place] = unawaited(self.results[place]), None
            self.raised(place, error, self.began or 0.0)

    def _check_length(self, length: int) -> None:
        """Refuse, or forget, what was recorded of elements that there are no more."""
        recorder = self._run_state.recorder
        last = WHOLE if recorder is None else recorder.last_element(self.index)
        if recorder is None or last < length:
            return
        if not recorder.allow_changes:
            raise PlanChangedError(
                f"{self.where}: its iterables gave {length:,} elements, and element {last:,} was recorded. {_REMEDY}, "
                "which forgets those that are gone"
            )
        recorder.forget_elements(self.index, length)

    # Recorded elements

    def _checked(self, place: int, element: tuple[Any, ...]) -> bytes:
        """Return the digest of an element, and forget what was recorded in its place if that was another."""
        from procession._plan.identity import digest_element  # which the journal has imported

        digest = digest_element(element, self.where)
        recorded = self._recorded.get(place)
        if self._run_state.recorder is not None and self._run_state.recorder.allow_changes:
            if recorded is None or recorded.digest != digest:
                self._recorded.pop(place, None)
                self._find_elsewhere(place, digest)
            return digest
        if recorded is not None and recorded.digest != digest:
            raise PlanChangedError(
                f"{self.where}: element {place:,} is not the one that was recorded. {_REMEDY}, which calls it again"
            )
        return digest

    def _find_elsewhere(self, place: int, digest: bytes) -> None:
        """Take for an element what is recorded of the same one at another place, and record it here, too."""
        found = self._moved.get(digest)
        if found is not None:
            self._run_state.element_finished(
                self.index, place, digest, found.value, time.perf_counter(), found.attempts
            )
            self._recorded[place] = found


def _about(iterable: object) -> int:
    """Return about how many elements there are; 0 where nothing is known."""
    try:
        return length_hint(iterable)
    except Exception:
        return 0
