"""All that changes while a map runs, on any engine: which elements are drawn, have ended, and have failed.

iterables ──draw (one at a time)──▶ window ──claim──▶ a call ──returned, raised──▶ results ──conclude──▶ the value
                                    ≤ WINDOW elements drawn and not yet begun

A driver owns one of these: the threads (`_engine.map`), the event loop (`_loop.map`), or the coordinator
(`_remote.map`). It says who draws, and where the calls are made.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from operator import length_hint
from typing import Any

from procession._engine.element_batches import Element, ElementBatches, in_words, spans_of
from procession._engine.map_shares import MapShares
from procession._engine.outlets import Feed, Outlet, Results
from procession._engine.recorded_elements import RecordedElements
from procession._engine.recording import CallRecording
from procession._engine.run_deadline import ended_early
from procession._engine.run_state import RunState
from procession._engine.streams import WINDOW, window_of
from procession._engine.suspended_elements import SuspendedElements
from procession._engine.suspension import suspended_map
from procession._engine.tracebacks import annotate, stripped
from procession._engine.unawaited import unawaited, unawaited_in
from procession._engine.unfinished import Unfinished, skipped_element, skipped_task
from procession._model.outcome import Away, NotKept
from procession._model.progress import Progress
from procession._model.task import MapFunction, Options, check_iterables
from procession._model.text import counted, shown
from procession._plan.pipelines import AT_HAND
from procession._plan.wiring import bound
from procession.errors import TaskCancelled, TaskSuspended

QUICK_S = 0.001
"""A source that takes longer than this for an element is slow: each element is handed out as soon as it is there."""

__all__ = ["QUICK_S", "Element", "MapState"]


class MapState:
    """The state of the call of one map task.

    Its `window` holds the elements that are drawn and not begun. The worker that pops one owns it: popping is atomic.
    Only the owner of an element writes its place in the results; what several workers may change is guarded by a lock.

    Where calls get several elements each (`batches`), the window holds such calls, and what a driver knows as an
    element is one of them: that of its first element, with lists of arguments.
    """

    __slots__ = (
        "_closed",
        "_cut_short",
        "_drawing",
        "_dropped",
        "_elements",
        "_errors",
        "_feed",
        "_lock",
        "_recorded",
        "_refill",
        "_run_state",
        "_settling",
        "_skipped",
        "asleep",
        "at_hand",
        "batches",
        "began",
        "constants",
        "drawn",
        "exhausted",
        "failure",
        "function",
        "in_order",
        "index",
        "length",
        "map_function",
        "options",
        "outlet",
        "results",
        "shares",
        "suspended",
        "where",
        "window",
    )

    def __init__(
        self, run_state: RunState, index: int, map_function: MapFunction, options: Options, *, in_order: bool
    ) -> None:
        self._run_state = run_state
        self.index = index
        self.map_function = map_function
        self.constants = bound((), run_state.plan.calls[index][2], run_state.ledger.values)[1]
        """The keyword arguments of each call."""
        self.function = map_function.with_constants(self.constants)
        self.options = options
        self.in_order = in_order
        self.where = f"process {shown(run_state.process_name)!r}, task {index} ({shown(run_state.name(index))})"
        self.batches = None if map_function.batch is None else ElementBatches(map_function.batch)
        """What each call stands for, where calls get several elements."""
        self.window: deque[Element] = deque()
        self.drawn = 0
        """How many elements were drawn."""
        self.length = 0
        """About how many elements there are; 0 where nothing is known."""
        self.exhausted = False
        """Whether all elements are drawn. Set after the last of them is in the window."""
        self.at_hand = False
        """Whether drawing takes no time."""
        self.began: float | None = None
        """When the first worker came, as a reading of the clock."""
        self.failure: BaseException | None = None
        """What the map as a whole fails with."""
        self.shares = MapShares(run_state, index)
        recorder = run_state.recorder
        self._recorded = (
            None if recorder is None else RecordedElements(run_state, recorder, index, self.constants, self.where)
        )
        streams = run_state.streams
        self.outlet: Outlet | None = None if streams is None else streams.outlets.get(index)
        """Where the elements go as they end, if others take them."""
        self._feed: Feed | None = None if streams is None else streams.feed_of(index)
        self.results: Results = [] if self.outlet is None else self.outlet.results
        """The value of each element that was drawn, `None` until it has succeeded."""
        self.asleep = False
        """Whether nothing can be drawn until the driver is woken up."""
        self._skipped: list[int] = []
        """Elements that are not called, as one that they take has failed."""
        self.suspended = SuspendedElements(self.window)
        """The elements that were left, as they wait."""
        self._closed = False
        """Whether nobody takes the elements any more, nor are they kept."""
        self._dropped: list[int] = []
        """How many elements were drawn and not called, as nobody took them any more, a number for each call."""
        self._errors: dict[int, BaseException] = {}
        self._settling: set[int] = set()  # elements that are just being settled as returned
        self._cut_short = False
        self._elements: Iterator[tuple[Any, ...]] | None = None
        self._refill = 1
        self._lock = threading.RLock()  # of the same thread, as a signal handler may ask for the progress
        self._drawing = threading.Lock()  # held while the iterables are drawn from, which may take long

    @property
    def size(self) -> int:
        """How many elements a call has, at most."""
        return 1 if self.batches is None else self.batches.size

    @property
    def most(self) -> int:
        """How many calls may be drawn and not ended."""
        return window_of(self._run_state.max_workers, self.size) // self.size

    # Elements

    @property
    def streamed(self) -> bool:
        """Whether elements come from other maps as they end, or go to others."""
        return self.outlet is not None or self._feed is not None

    def wake_by(self, wake: Callable[[], object]) -> None:
        """Set the function to call when the map, which could not continue, has something to draw or call again."""
        if self.outlet is not None:
            self.outlet.wake = wake
        elif self._run_state.recorder is not None:
            self.suspended.wake_map = wake
            self._run_state.suspended_elements[self.index] = self.suspended
        if self._feed is not None:
            self._feed.wake = wake

    def rise(self) -> None:
        """Take note that the driver was woken up."""
        self.asleep = False
        if self.outlet is not None and not self.outlet.source.wanted and not self.exhausted:
            self._close()

    def open(self, start: float) -> None:
        """Bind and check the iterables, and begin to iterate over them. Raises for those that cannot be iterated."""
        self.began = start
        if self._feed is not None:
            self._feed.bind()
            self.at_hand = True
            if self._run_state.verbose:
                self._run_state.report("task_started", self.index, 1, None)
            return
        given = bound(self._run_state.plan.calls[self.index][1], {}, self._run_state.ledger.values)[0]
        # What is drawn from has to be here; its elements may be kept elsewhere.
        iterables = tuple(value.fetch() if isinstance(value, Away) else value for value in given)
        check_iterables(iterables, self.where)
        if self._run_state.recorder is not None and self.index in self._run_state.plan.needs:
            # Of what was given itself, the fingerprint has told already; here are the values of handles, too.
            from procession._plan.digest import check_order  # as in `_digest`

            check_order(iterables, self.where)
        self.length = max(map(_about, iterables))
        self.at_hand = all(type(iterable) in AT_HAND for iterable in iterables)
        iterators = [iter(iterable) for iterable in iterables]
        if any(iterator is iterable for iterator, iterable in zip(iterators, iterables, strict=True)):
            self.map_function.consumed = True
        self._elements = zip(*iterators, strict=True)
        if self._run_state.verbose:
            self._run_state.report("task_started", self.index, 1, None)

    def take_up(self) -> bool:
        """Return, once, whether the map goes on that was left, as elements of it waited."""
        goes_on = self.suspended.take_up()
        if goes_on and self._run_state.verbose:
            self._run_state.report("task_started", self.index, 1, None)
        return goes_on

    def claim(self) -> Element | None:
        """Return the next element, drawing some if the window is empty; `None` if there is none for now."""
        while not self.stopped:
            try:
                return self.pop()
            except IndexError:
                if not self.draw():
                    return None
        return None

    def pop(self) -> Element:
        """Return the next element in the window. Raises `IndexError` if there is none."""
        element = self.window.popleft()
        return element if self.batches is None else self.batches.opened(element, self._recall)

    def peek(self) -> bool:
        """Return whether there is something in the window.

        What a slow iterable has given of a batch gets there once the next element is a while in coming.
        """
        if self.batches is not None and not self.window and self.batches.is_late:
            self.batches.hand_out(self.window)
        return bool(self.window)

    def draw(self, most: int = WINDOW, tell: Callable[[], object] | None = None, *, since: int | None = None) -> bool:
        """Draw elements for up to `most` calls into the window; return whether there is something in it.

        `since` is the number of elements that had been drawn when there was room for so many calls.

        Nobody waits long for somebody else who draws from a slow source: there may be other tasks, and what comes may
        depend on them. `tell` is called after each element that is drawn, as the next one may be long in coming.
        """
        if not self._drawing.acquire(timeout=QUICK_S):
            return self.peek()
        try:
            if self.window:
                return True
            size = self.size
            most = most * size - (0 if since is None else self.drawn - since)  # others may have drawn meanwhile
            if self.outlet is not None and not self.exhausted:
                most = self._bounded(self.outlet, most)
            if self.exhausted or most <= 0:
                return False
            if self._feed is not None:
                return self._draw_fed(self._feed, min(WINDOW if self.batches is None else size, most))
            most -= most % size  # only the last batch may have fewer
            return bool(most) and self._elements is not None and self._draw(self._elements, most, tell)
        finally:
            self._drawing.release()

    @property
    def keeps_waiting(self) -> bool:
        """Whether somebody draws from a source that may be slow."""
        return not self.at_hand and self._drawing.locked()

    def _draw(self, elements: Iterator[tuple[Any, ...]], most: int, tell: Callable[[], object] | None) -> bool:
        """Draw from the iterables; return whether they gave anything."""
        start, before = time.perf_counter(), self.drawn
        try:
            if self.at_hand:
                self._draw_all(elements, min(max(WINDOW // self.size, 1) * self.size, most))
            elif self.batches is not None:
                self._draw_batch(elements, self.batches, most, tell)
            else:
                self._draw_each(elements, min(self._refill, most), tell)
        except BaseException as error:
            self.exhausted = True
            self.fail(self._clear(error))
            return False
        finally:
            self.shares.drawing_s += time.perf_counter() - start
            if self.outlet is not None:
                self.outlet.note_drawn(self.drawn, over=self.exhausted)
        return self.drawn > before

    def _draw_all(self, elements: Iterator[tuple[Any, ...]], wanted: int) -> None:
        drawn: deque[Element] = deque()
        try:
            drawn.extend(enumerate(islice(elements, wanted), self.drawn))
        finally:  # what came before an error is not lost with it
            self._make_room(self.drawn + len(drawn))
            self.drawn += len(drawn)
            self._put(drawn)
        self.exhausted = len(drawn) < wanted

    def _draw_each(self, elements: Iterator[tuple[Any, ...]], wanted: int, tell: Callable[[], object] | None) -> None:
        start, before = time.perf_counter(), self.drawn
        quick = True
        for element in islice(elements, wanted):
            self._make_room(self.drawn + 1)
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

    def _draw_batch(
        self,
        elements: Iterator[tuple[Any, ...]],
        batches: ElementBatches,
        most: int,
        tell: Callable[[], object] | None,
    ) -> None:
        """Draw a full batch, however long that takes. Meanwhile others may `peek`, and take what is there."""
        before, over = self.drawn, False
        try:
            for element in islice(elements, most):
                self._make_room(self.drawn + 1)
                gathered = batches.gather((self.drawn, element))
                self.drawn += 1
                if gathered == 1 and tell is not None:
                    tell()
                if gathered >= batches.size or self.stopped:
                    break
            else:
                over = self.drawn - before < most
        finally:
            batches.hand_out(self.window)
        if over:
            self.exhausted = True  # not before the last is in the window

    def _put(self, elements: Iterable[Element]) -> None:
        self.window.extend(elements if self.batches is None else self.batches.packed(elements))

    def _draw_fed(self, feed: Feed, wanted: int) -> bool:
        """Draw what other maps have handed on, until there is something in the window."""
        while not (self.window or self.exhausted) and wanted > 0:
            self.asleep = True  # before it is looked: the driver may be woken up right after that
            elements, taker = feed.take(wanted), feed.taker
            if elements:
                self.asleep = False
                self._take(elements)
            elif taker.uneven:
                self.exhausted = True
                self.fail(ValueError(f"{self.where}: the iterables of a map must be equally long"))
            elif taker.over or taker.cut or taker.closed:
                self.asleep, self.exhausted, self._cut_short = False, True, taker.cut or not taker.over
            else:
                break
            if self.outlet is not None:
                if self._cut_short:
                    self.outlet.cut()
                self.outlet.note_drawn(self.drawn, over=self.exhausted)
                wanted = 0 if self.exhausted else self._bounded(self.outlet, wanted)
        return bool(self.window)

    def _take(self, elements: list[Element]) -> None:
        """Put elements into the window that were handed on; those that failed have complemented places."""
        if isinstance(self.results, list):
            self._make_room(max(max(place, ~place) for place, _ in elements) + 1)
        self.drawn += len(elements)
        failed = [~place for place, _ in elements if place < 0]
        self._put([element for element in elements if element[0] >= 0] if failed else elements)
        for place in failed:
            self._skip(place)

    def _bounded(self, outlet: Outlet, most: int) -> int:
        """Return how many elements may be drawn, of those that would be, so that those who take them keep up."""
        if not outlet.source.wanted:
            self._close()
            return 0
        self.asleep = True  # as in `_draw_fed`
        room = outlet.room(self.drawn)
        if room is None or room > 0:
            self.asleep = False
            return most if room is None else min(most, room)
        return 0

    def _close(self) -> None:
        """Draw nothing more, and begin nothing more: nobody takes it."""
        self._closed = True
        self.exhausted = True
        self._drop_window()
        self._close_feed()

    def _drop_window(self) -> None:
        """Take out of the window what nobody will call. Others may claim from it meanwhile, and draw."""
        with suppress(IndexError):
            while True:
                _, args = self.window.popleft()
                self._dropped.append(1 if self.batches is None else len(args[0]))

    def _make_room(self, length: int) -> None:
        results = self.results
        if isinstance(results, list) and len(results) < length:
            results += [None] * (length - len(results))

    def _skip(self, place: int) -> None:
        """Leave an element out: one that it takes has failed."""
        self._skipped.append(place)
        self.shares.count_uncalled()
        if self.outlet is not None:
            self.outlet.hand_on(~place)

    def _close_feed(self) -> None:
        if self._feed is not None:
            self._feed.close()

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

    # Their ends

    def digest(self, place: int, element: tuple[Any, ...]) -> bytes | None:
        """Return the digest of an element that is to be called. For a recorded one, take its value and return `None`.

        Raises for an element that has no digest, or is not the recorded one. For several that are called together,
        `batches` keeps the digests.
        """
        if self.batches is not None:
            return self._begun(self.batches, place)
        digest = self.suspended.begin(place) if self.suspended else None
        if digest is None:
            digest = self._recall(place, element)
        else:
            self._run_state.open_elements[self.index, place] = digest
        if digest is not None and self._run_state.verbose:
            self._run_state.report("element_started", self.index, 1, None, element=place)
        return digest

    def _begun(self, batches: ElementBatches, place: int) -> bytes | None:
        places = batches.began(place)
        for each in places if self._run_state.verbose else ():
            self._run_state.report("element_started", self.index, 1, None, element=each)
        return b"" if places else None

    def _recall(self, place: int, element: tuple[Any, ...]) -> bytes | None:
        run_state, digest = self._run_state, b""
        if self._recorded is not None:
            labels = run_state.labels
            if labels is not None:
                labels.note(self.index, place, element)
            digest = self._recorded.digest(place, element)
            recorded = self._recorded.get(place)
            if recorded is None:
                run_state.open_elements[self.index, place] = digest
            if recorded is not None:
                if labels is not None:
                    labels.take(self.index, place)
                self.shares.count_uncalled()
                self.results[place] = recorded.value
                if self.outlet is not None:
                    self.outlet.hand_on(place)
                return None
            self._recorded.note_change()
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
        *,
        alone: bool = True,
    ) -> int:
        """Settle an element whose call returned. Raises for a value that cannot be recorded.

        `encoded` is the value as the journal keeps it, where that is there already. An element that is `alone` in its
        call is recorded as ended now. Returns how many elements the call had.
        """
        if alone and self.batches is not None:
            return self._returned(self.batches, place, value, start, end, attempts)
        run_state, recording, outlet = self._run_state, self._run_state.recording, self.outlet
        self.results[place] = value  # first, as whoever commits the record hands it on
        self._settling.add(place)
        if recording is not None:
            then = None if outlet is None else partial(outlet.hand_on, place)
            ended = None if alone else end
            try:
                recording.element_returned(self.index, place, digest, value, start, attempts, encoded, then, ended)
            except (Exception, TaskSuspended):
                self._settling.discard(place)
                raise
            run_state.open_elements.pop((self.index, place), None)
        elif outlet is not None:
            outlet.hand_on(place)
        self._attempted(attempts)
        if run_state.verbose:
            run_state.report("element_completed", self.index, attempts, end - start, element=place)
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

    def raised(
        self, place: int, error: BaseException, start: float, attempts: int = 1, args: tuple[Any, ...] = ()
    ) -> int:
        """Settle an element whose call raised. Returns how many elements have failed with that.

        `args` are the arguments of a call that was made, for another one. Raises the error where it came after the
        call had returned, and its value may be recorded, or handed on: it is the engine's.
        """
        run_state = self._run_state
        places = (place,) if self.batches is None else self.batches.ended(place)
        if not self._settling.isdisjoint(places):
            raise error
        digest = run_state.open_elements.get((self.index, place), b"")
        run_state.element_raised(self.index, places)
        error = ended_early(run_state, error)
        BaseException.with_traceback(error, stripped(error.__traceback__))
        if isinstance(error, TaskSuspended) and run_state.recorder is not None:
            self.suspended.suspend((place, args), digest, str(error))
            if self.outlet is not None:  # those who take the elements would go on without this one
                self.outlet.cut()
            return 0
        annotate(error, run_state.process_name, self.index, run_state.name(self.index), attempts, in_words(places))
        stopped = isinstance(error, TaskCancelled) and run_state.ledger.halted
        if run_state.recording is not None and not stopped:
            self._record_raised(run_state.recording, places, error, start, attempts)
        self._attempted(attempts)
        if stopped:
            self._cut_short = True
        elif run_state.ledger.on_error == "stop" or not isinstance(error, Exception):
            self.fail(error)
        else:
            for each in places:
                self._errors[each] = error
                if self.outlet is not None:
                    self.outlet.hand_on(~each)
        return len(places)

    def _record_raised(
        self, recording: CallRecording, places: Sequence[int], error: BaseException, start: float, attempts: int
    ) -> None:
        for place, begun, end in spans_of(places, start, time.perf_counter()):
            if self._recorded is None or self._recorded.get(place) is None:
                recording.element_raised(self.index, place, error, begun, attempts, end)

    def drop(self) -> None:
        """Count an element that was drawn and will not be called: the map cannot complete."""
        self._cut_short = True

    def _attempted(self, attempts: int) -> None:
        """Keep the most attempts that any element took as those of the task."""
        counted = self._run_state.attempts
        if attempts > 1:
            with self._lock:
                counted[self.index] = max(attempts, counted.get(self.index, 1))

    def fail(self, error: BaseException) -> None:
        """Fail the map as a whole; only the first failure counts."""
        with self._lock:
            if self.failure is not None:
                return
            self.failure = error
        self.window.clear()
        if self.outlet is not None:
            self.outlet.cut()
        self._close_feed()
        self._run_state.fail_early(self.index, error, in_order=self.in_order)

    @property
    def progress(self) -> Progress:
        """How far the map has come, in elements."""
        total = self.total
        return self.shares.progress(self.drawn if total is None else total)

    @property
    def total(self) -> int | None:
        """How many elements there are; `None` as long as nobody knows."""
        if self.exhausted:
            return self.drawn - sum(self._dropped)
        return self.length if self.drawn <= self.length > 0 else None

    # The end

    def conclude(self) -> list[Any] | NotKept:
        """Return the results, or raise the failure of the map, or that it is left, as elements of it wait."""
        if self.outlet is None:
            self._fail_unawaited()
        else:
            self._end_outlet(self.outlet)
        self._close_feed()
        self._check_left()
        results: list[Any] | NotKept = self._whole()
        errors, self._errors = self._errors, {}
        failure, self.failure = self.failure, None
        self._elements = None
        run_state = self._run_state
        try:
            if failure is not None:
                raise failure
            self._check_whole(results)
            if isinstance(results, list):
                for place in self._skipped:
                    results[place] = skipped_element(run_state, self.index, place)
                for place, error in errors.items():
                    results[place] = error
            if errors:
                if run_state.ledger.on_error == "return":
                    run_state.ledger.values[self.index] = results
                count = counted(self.drawn, "element")
                text = f"{len(errors):,} of {count} of {shown(run_state.name(self.index))} failed"
                raise BaseExceptionGroup(text, _distinct(errors))
            if self._skipped:
                raise Unfinished("skipped", results)
            if run_state.verbose:
                run_state.report("task_completed", self.index, 1, time.perf_counter() - (self.began or 0.0))
            return results
        finally:
            del failure, errors

    def _check_left(self) -> None:
        """Raise if the map is left, as elements of it wait and the others have ended."""
        waiting = self.suspended.leave() if self.suspended else None
        if not waiting or self.failure is not None or self._is_partial:
            return
        if not self._errors or self._run_state.ledger.on_error == "return":
            if self._recorded is not None:
                self._recorded.check_length(self.drawn)
            raise suspended_map(waiting)

    def _end_outlet(self, outlet: Outlet) -> None:
        """End the map's output, and tell the tasks that take its elements whether they had all of them."""
        if self._closed:
            self._drop_window()  # which somebody was about to fill as it was closed
        if self.failure is not None or self._is_partial:
            outlet.cut()
        outlet.note_drawn(self.drawn, over=True)

    @property
    def _is_partial(self) -> bool:
        """Whether there are elements that have not been called, or of which nobody knows how they ended."""
        broken = self._run_state.is_broken
        return broken or self._cut_short or self._closed or bool(self.window) or not self.exhausted

    def _check_whole(self, results: list[Any] | NotKept) -> None:
        """Raise if there are elements that have not been called."""
        halted = self._run_state.ledger.halted
        if self._closed and not halted:
            raise Unfinished("cancelled", results)
        if self._is_partial:
            if self._feed is not None and self._feed.taker.cut and not halted:
                raise Unfinished("skipped", skipped_task(self._run_state, self.index))
            raise TaskCancelled(f"a map was stopped after {self.drawn} elements")
        if self._recorded is not None:
            self._recorded.check_length(self.drawn)

    def _whole(self) -> list[Any] | NotKept:
        """Return the value of the map in the results."""
        results, self.results = self.results, []
        if isinstance(results, list):
            return results
        return NotKept(self.drawn - sum(self._dropped) - len(self._skipped) - len(self._errors))

    def _fail_unawaited(self) -> None:
        """Fail elements that returned a coroutine. Checked at the end: to check each value would slow calls down."""
        for place in unawaited_in(self.results) if isinstance(self.results, list) else ():
            error, self.results[place] = unawaited(self.results[place]), None
            self.raised(place, error, self.began or 0.0)


def _distinct(errors: dict[int, BaseException]) -> list[BaseException]:
    """Return errors by place, each once: elements that were called together have failed with the same."""
    return list({id(errors[place]): errors[place] for place in sorted(errors)}.values())


def _about(iterable: object) -> int:
    """Return about how many elements there are; 0 where nothing is known."""
    try:
        return length_hint(iterable)
    except Exception:
        return 0
