"""A `map` task in a run: many workers draw from its iterables, one of them ends it.

iterables ──refill (one worker at a time)──▶ window ──popleft──▶ workers ──▶ results
                                             ≤ 64 elements drawn and not yet begun
"""

import contextvars
import threading
import time
from collections import deque
from collections.abc import Iterator
from itertools import islice
from operator import length_hint
from typing import Any

from procession._engine.attempt import attempted, stripped
from procession._engine.call_context import CURRENT_CALL, CallContext
from procession._engine.decimals import own_decimals
from procession._engine.note import annotate
from procession._engine.run_state import RunState
from procession._model.map_share import MapShare
from procession._model.progress import Progress
from procession._model.record import WHOLE
from procession._model.task import MapFunction, Options, check_iterables
from procession._model.text import counted, shown
from procession._plan.wiring import bound
from procession.errors import PlanChangedError, TaskCancelled

WINDOW = 64
"""Elements drawn from the iterables and not yet begun, at most."""

_QUICK_S = 0.001

_AT_HAND = frozenset({list, tuple, range, str, bytes, dict, set, frozenset})
"""Types of iterables whose elements are there already, so that to draw from them takes no time."""


_REMEDY = "Start under another run id, or with allow_changes=True"


class LeaveMap(Exception):
    """A worker leaves a map to the others that are still on it."""


class MapJob:
    """The call of one map task, which any number of workers make together; the last to leave has its value."""

    __slots__ = (
        "_active",
        "_asked",
        "_at_hand",
        "_began",
        "_context",
        "_cut_short",
        "_done",
        "_drawing",
        "_drawing_s",
        "_drawn",
        "_elements",
        "_ended",
        "_errors",
        "_exhausted",
        "_failed",
        "_failure",
        "_in_order",
        "_index",
        "_length",
        "_lock",
        "_map_function",
        "_moved",
        "_options",
        "_recorded",
        "_refill",
        "_results",
        "_run_state",
        "_where",
        "_window",
    )

    def __init__(
        self,
        run_state: RunState,
        index: int,
        map_function: MapFunction,
        options: Options,
        *,
        in_order: bool,
    ) -> None:
        self._run_state = run_state
        self._in_order = in_order
        self._index = index
        self._where = f"process {shown(run_state.process_name)!r}, task {index} ({shown(run_state.name(index))})"
        self._recorded = {} if run_state.recorder is None else dict(run_state.recorder.elements(index))
        may_move = run_state.recorder is not None and run_state.recorder.allow_changes
        self._moved = {one.digest: one for one in self._recorded.values()} if may_move else {}
        self._map_function = map_function
        self._options = options
        self._lock = threading.Lock()
        self._drawing = threading.Lock()  # held while the iterables are drawn from, which may take long
        self._drawing_s = 0.0
        self._elements: Iterator[tuple[Any, ...]] | None = None
        self._window: deque[tuple[int, tuple[Any, ...]]] = deque()
        self._refill = 1
        self._drawn = 0
        self._length = 0
        self._done = 0
        self._failed = 0
        self._results: list[Any] = []
        self._errors: dict[int, BaseException] = {}
        self._failure: BaseException | None = None
        self._exhausted = False
        self._at_hand = False
        self._cut_short = False
        self._ended = False
        self._active = 0
        self._asked = False
        self._began: float | None = None
        self._context = contextvars.copy_context()

    def join(self) -> list[Any]:
        """Work on the map; return its results if this is the last worker on it, else raise `Left`."""
        self._come()
        call_context = CURRENT_CALL.get()
        # Of the one who began: what was set at the start of the map, all of its elements see.
        context = self._context.copy()
        context.run(CURRENT_CALL.set, call_context)
        map_share = MapShare(self._index, call_context.worker, time.perf_counter())
        while self._run_state.commit() and (drawn := self._next()) is not None:
            one, own = context.copy(), self._own_context(call_context, drawn[0])
            if own is not call_context:
                one.run(CURRENT_CALL.set, own)
            if self._run_state.decimals is not None:
                one.run(own_decimals, self._run_state.decimals)
            self._call(one, map_share, *drawn)
            own.over = own is not call_context
            call_context.element = WHOLE
            del drawn, one
        self._took_part(map_share)
        self._leave()
        return self._concluded()

    @property
    def progress(self) -> Progress:
        """How far the map has come, in elements."""
        with self._lock:
            total = self._drawn if self._exhausted else max(self._drawn, self._length)
            return Progress(self._done, self._failed, total)

    def _own_context(self, call_context: CallContext, place: int) -> CallContext:
        """Return the context of an element's call: the worker's or, where what it leaves behind could tell, its own."""
        if self._run_state.recorder is not None:
            return call_context.own(self._index, place)
        call_context.element = place
        return call_context

    def _come(self) -> None:
        with self._lock:
            self._asked = False
            self._enter()
        if self._window:
            self._ask()

    def _ask(self) -> None:
        """Have one more worker join, if there is one, unless one has been asked and has not come yet."""
        if not self._asked and not self._in_order:
            self._asked = True
            self._run_state.ledger.put_back(self._index)
            self._run_state.recruit(1)

    def _took_part(self, map_share: MapShare) -> None:
        with self._lock:
            map_share.drawn, self._drawing_s = self._drawing_s, 0.0
        self._run_state.took_part(map_share)

    def _leave(self) -> None:
        """Return in the last worker, else raise `Left`: there are others, or will be."""
        with self._lock:
            self._active -= 1
            if self._active:
                raise LeaveMap
            left = not self._nothing_left
            self._ended = not left
        if left:
            self._ask()
            raise LeaveMap

    @property
    def _nothing_left(self) -> bool:
        """Whether no element is left to begin."""
        halted = self._run_state.ledger.halted or self._failure is not None
        return halted or (self._exhausted and not self._window)

    def _enter(self) -> None:
        starts = self._run_state.ledger.starts
        if self._began is None:
            self._began = starts[self._index]
            try:
                self._elements = self._opened()
            except BaseException:
                self._ended = True
                raise
            if self._run_state.verbose:
                self._run_state.report("task_started", self._index, 1, None)
            self._context = contextvars.copy_context()
            self._context.run(own_decimals, self._run_state.decimals)
        starts[self._index] = self._began
        if self._ended or (self._exhausted and not self._window):
            # With everything begun there is nothing to join, and whoever is still on it ends it.
            raise LeaveMap
        self._active += 1

    def _opened(self) -> Iterator[tuple[Any, ...]]:
        iterables = self._iterables()
        check_iterables(iterables, self._where)
        if self._run_state.recorder is not None and self._index in self._run_state.plan.needs:
            # Of what was given itself, the fingerprint has told already; here are the values of handles, too.
            from procession._plan.digest import check_order  # as in `_checked`

            check_order(iterables, self._where)
        self._length = max(map(_about, iterables))
        self._at_hand = all(type(iterable) in _AT_HAND for iterable in iterables)
        iterators = [iter(iterable) for iterable in iterables]
        if any(iterator is iterable for iterator, iterable in zip(iterators, iterables, strict=True)):
            self._map_function.spent = True
        return zip(*iterators, strict=True)

    def _iterables(self) -> tuple[Any, ...]:
        return bound(self._run_state.plan.calls[self._index][1], {}, self._run_state.ledger.values)[0]

    def _next(self) -> tuple[int, tuple[Any, ...]] | None:
        """Return the next element with its place, or `None` when there is none or none may start."""
        while not self._run_state.ledger.halted and self._failure is None:
            try:
                return self._window.popleft()
            except IndexError:
                if not self._refilled():
                    return None
        return None

    def _refilled(self) -> bool:
        """Draw, and return whether there was anything.

        Nobody waits long for somebody else who draws from a slow source: there may be other tasks, and what comes may
        depend on them. Who draws an element asks for a worker again.
        """
        if not self._drawing.acquire(timeout=_QUICK_S):
            return bool(self._window)
        try:
            if self._window:
                return True
            if self._exhausted or self._elements is None:
                return False
            return self._drew(self._elements)
        finally:
            self._drawing.release()

    def _drew(self, elements: Iterator[tuple[Any, ...]]) -> bool:
        start, before = time.perf_counter(), self._drawn
        quick = True
        try:
            # One at a time, so that what came before an error of the iterable is not lost with it.
            for element in islice(elements, self._refill):
                self._results.append(None)
                self._window.append((self._drawn, element))
                self._drawn += 1
                self._ask()
                quick = time.perf_counter() - start < _QUICK_S
                if not quick:
                    break
            else:
                self._exhausted = self._drawn - before < self._refill
        except BaseException as error:
            self._exhausted = True
            with self._lock:
                self._fail(self._clear(error))
            return False
        finally:
            self._drawing_s += time.perf_counter() - start
        # A slow source gets to hand out each element as soon as there is one.
        self._refill = min(WINDOW, self._refill * 2) if quick else 1
        return self._drawn > before

    def _clear(self, error: BaseException) -> BaseException:
        if isinstance(error, ValueError) and str(error).startswith("zip() argument"):
            return ValueError(
                f"{self._where}: the iterables of a map must be equally long; "
                f"after {self._drawn} elements, {str(error)[6:]}"
            )
        return error

    def _call(self, context: contextvars.Context, map_share: MapShare, place: int, element: tuple[Any, ...]) -> None:
        start, recalled, failed = time.perf_counter(), False, False
        try:
            digest = self._recall(place, element)
            recalled = digest is None
            if digest is not None:
                value = context.run(
                    attempted,
                    self._run_state,
                    self._index,
                    self._options,
                    self._map_function.function,
                    element,
                    {},
                    place,
                )
                self._keep(place, digest, value, start)
        except BaseException as error:
            failed = True
            self._raised(place, error, start)
        if not recalled:
            map_share.note(start, time.perf_counter())
            map_share.count(failed=failed)
        self._count(place)

    def _recall(self, place: int, element: tuple[Any, ...]) -> bytes | None:
        """Return the digest of an element that is to be called; of another, take what was recorded."""
        run_state = self._run_state
        digest = b"" if run_state.recorder is None else self._checked(place, element)
        if place in self._recorded:
            self._results[place] = self._recorded[place].value
            return None
        if run_state.verbose:
            run_state.report("element_started", self._index, 1, None, element=place)
        return digest

    def _keep(self, place: int, digest: bytes, value: Any, start: float) -> None:
        run_state = self._run_state
        attempts = run_state.attempts.get((self._index, place), 1)
        run_state.element_finished(self._index, place, digest, value, start, attempts)
        self._results[place] = value
        if run_state.verbose:
            took = time.perf_counter() - start
            run_state.report("element_completed", self._index, attempts, took, element=place)

    def _raised(self, place: int, error: BaseException, start: float) -> None:
        run_state = self._run_state
        BaseException.with_traceback(error, stripped(error.__traceback__))
        attempt = run_state.attempts.get((self._index, place), 1)
        annotate(error, run_state.process_name, self._index, run_state.name(self._index), attempt, place)
        if place not in self._recorded:
            run_state.element_raised(self._index, place, error, start, attempt)
        if isinstance(error, TaskCancelled) and run_state.ledger.halted:
            self._cut_short = True
        elif run_state.ledger.on_error == "stop" or not isinstance(error, Exception):
            with self._lock:
                self._fail(error)
        else:
            self._errors[place] = error
        with self._lock:
            self._failed += 1

    def _count(self, place: int) -> None:
        run_state = self._run_state
        made = run_state.attempts.pop((self._index, place), 1)
        with self._lock:
            self._done += 1
            if made > run_state.attempts.get(self._index, 1):
                run_state.attempts[self._index] = made

    def _checked(self, place: int, element: tuple[Any, ...]) -> bytes:
        """Return the digest of an element, and forget what was recorded in its place if that was another."""
        from procession._plan.identity import digest_element  # which the journal has imported

        digest = digest_element(element, self._where)
        recorded = self._recorded.get(place)
        if self._run_state.recorder is not None and self._run_state.recorder.allow_changes:
            if recorded is None or recorded.digest != digest:
                self._recorded.pop(place, None)
                self._find_elsewhere(place, digest)
            return digest
        if recorded is not None and recorded.digest != digest:
            raise PlanChangedError(
                f"{self._where}: element {place:,} is not the one that was recorded. {_REMEDY}, which calls it again"
            )
        return digest

    def _find_elsewhere(self, place: int, digest: bytes) -> None:
        """Take for an element what is recorded of the same one at another place, and record it here, too."""
        found = self._moved.get(digest)
        if found is not None:
            self._run_state.element_finished(
                self._index, place, digest, found.value, time.perf_counter(), found.attempts
            )
            self._recorded[place] = found

    def _check_length(self, length: int) -> None:
        """Refuse, or forget, what was recorded of elements that there are no more."""
        recorder = self._run_state.recorder
        last = WHOLE if recorder is None else recorder.last_element(self._index)
        if recorder is None or last < length:
            return
        if not recorder.allow_changes:
            raise PlanChangedError(
                f"{self._where}: its iterables gave {length:,} elements, and element {last:,} was recorded. {_REMEDY}, "
                "which forgets those that are gone"
            )
        recorder.forget_elements(self._index, length)

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
            self._window.clear()
            self._run_state.fail_early(self._index, error, in_order=self._in_order)

    def _concluded(self) -> list[Any]:
        results, self._results = self._results, []
        errors, self._errors = self._errors, {}
        failure, self._failure = self._failure, None
        self._elements = None
        try:
            if failure is not None:
                raise failure
            if self._cut_short or self._window or not self._exhausted:
                raise TaskCancelled(f"a map was stopped after {self._drawn} elements")
            self._check_length(len(results))
            if errors:
                for place, error in errors.items():
                    results[place] = error
                if self._run_state.ledger.on_error == "return":
                    self._run_state.ledger.values[self._index] = results
                count = counted(len(results), "element")
                text = f"{len(errors):,} of {count} of {shown(self._run_state.name(self._index))} failed"
                raise BaseExceptionGroup(text, [errors[place] for place in sorted(errors)])
            if self._run_state.verbose:
                began = self._began or 0.0
                self._run_state.report("task_completed", self._index, 1, time.perf_counter() - began)
            return results
        finally:
            del failure, errors


def _about(iterable: object) -> int:
    """Return about how many elements there are; 0 where nothing is known."""
    try:
        return length_hint(iterable)
    except Exception:
        return 0
