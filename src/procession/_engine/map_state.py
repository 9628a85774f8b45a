"""All that changes while a map runs, on any engine: its window, how its elements end, and what both come to.

Window ──claim──▶ begin ──▶ a call ──returned──▶ ElementEnds ──conclude──▶ the value of the map
  ▲                            └─────raised, fail──▶ MapState ──▶ ElementEnds, or the end of the map
  └──SuspendedElements ◀── elements that are left, as they wait

A driver owns one of these: the threads (`_engine.map`), the event loop (`_loop.map`), or the coordinator
(`_remote.map`). It says who draws, and where the calls are made. It uses the parts directly where each element counts.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

from procession._engine.element_batches import Element, ElementBatches, in_words
from procession._engine.element_ends import ElementEnds
from procession._engine.map_shares import MapShares
from procession._engine.outlet import Outlet
from procession._engine.recorded_elements import RecordedElements
from procession._engine.run_deadline import ended_early
from procession._engine.run_state import RunState
from procession._engine.streams import WINDOW
from procession._engine.suspended_elements import SuspendedElements
from procession._engine.suspension import suspended_map, suspended_taker
from procession._engine.tracebacks import annotate, stripped
from procession._engine.unawaited import unawaited, unawaited_in
from procession._engine.unfinished import Unfinished, skipped_task
from procession._engine.window import SourceFailed, Window
from procession._model.outcome import Away, NotKept
from procession._model.progress import Progress
from procession._model.task import MapFunction, Options, check_iterables
from procession._model.text import counted, shown
from procession._plan.wiring import bound
from procession.errors import TaskCancelled, TaskSuspended


class MapState:
    """The state of the call of one map task: its parts, and what concerns more than one of them."""

    __slots__ = (
        "_cut_short",
        "_lock",
        "_run_state",
        "batches",
        "began",
        "constants",
        "ends",
        "failure",
        "function",
        "in_order",
        "index",
        "map_function",
        "options",
        "outlet",
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
        self.where = where = f"process {shown(run_state.process_name)!r}, task {index} ({shown(run_state.name(index))})"
        self.began: float | None = None
        """When the first worker came, as a reading of the clock."""
        self.failure: BaseException | None = None
        """What the map as a whole fails with."""
        self._cut_short = False
        """Whether elements that were drawn will not be called, or were stopped."""
        self.batches = None if map_function.batch is None else ElementBatches(map_function.batch)
        """What each call stands for, where calls get several elements."""
        recorder = run_state.recorder
        recorded = None if recorder is None else RecordedElements(run_state, recorder, index, self.constants, where)
        self.shares = MapShares(run_state, index)
        self.ends = ElementEnds(run_state, index, self.shares, self.batches, recorded)
        self.outlet: Outlet | None = self.ends.outlet
        self.window = Window(run_state, index, self.ends, self.shares, self.batches, where)
        self.suspended = SuspendedElements(self.window.elements)
        """The elements that were left, as they wait."""
        self._lock = threading.RLock()

    @property
    def streamed(self) -> bool:
        """Whether elements come from other maps as they end, or go to others."""
        return self.outlet is not None or self.window.feed is not None

    # The beginning

    def wake_by(self, wake: Callable[[], object]) -> None:
        """Set the function to call when the map, which could not continue, has something to draw or call again."""
        if self.outlet is not None:
            self.outlet.wake = wake
        if self._run_state.recorder is not None:
            self.suspended.wake_map = wake
            self._run_state.suspended_elements[self.index] = self.suspended
        if self.window.feed is not None:
            self.window.feed.wake = wake

    def open(self, start: float) -> None:
        """Bind and check the iterables, and begin to iterate over them. Raises for those that cannot be iterated."""
        self.began = start
        if self.window.feed is not None:
            self.window.feed.bind()
        elif self.window.open(self._iterables()):
            self.map_function.consumed = True
        self._report_start()

    def _iterables(self) -> tuple[Any, ...]:
        run_state = self._run_state
        given = bound(run_state.plan.calls[self.index][1], {}, run_state.ledger.values)[0]
        # What is drawn from has to be here; its elements may be kept elsewhere.
        iterables = tuple(value.fetch() if isinstance(value, Away) else value for value in given)
        check_iterables(iterables, self.where)
        if run_state.recorder is not None and self.index in run_state.plan.needs:
            # Of what was given itself, the fingerprint has told already; here are the values of handles, too.
            from procession._plan.digest import check_order  # as in `RecordedElements`

            check_order(iterables, self.where)
        return iterables

    def take_up(self) -> bool:
        """Return, once, whether the map goes on that was left, as elements of it waited."""
        goes_on = self.suspended.take_up()
        if goes_on:
            self._report_start()
        return goes_on

    def _report_start(self) -> None:
        if self._run_state.verbose:
            self._run_state.report("task_started", self.index, 1, None)

    # Elements

    def claim(self) -> Element | None:
        """Return the next element, drawing some if the window is empty; `None` if there is none for now."""
        while not self.window.stopped:
            try:
                return self.window.pop()
            except IndexError:
                if not self.draw():
                    return None
        return None

    def draw(self, most: int = WINDOW, tell: Callable[[], object] | None = None, *, since: int | None = None) -> bool:
        """Draw into the window, as it says; return whether there is something in it. What fails there fails the map."""
        try:
            return self.window.draw(most, tell, since=since)
        except SourceFailed as failed:
            error = ended_early(self._run_state, failed.error)
            if isinstance(error, TaskCancelled) and self._run_state.ledger.halted:
                self.drop()
            else:
                self.fail(error)
        self.window.note_drawn()
        return False

    def begin(self, place: int, element: tuple[Any, ...]) -> bytes | None:
        """Return the digest of an element that is to be called. For a recorded one, take its value and return `None`.

        Raises for an element that has no digest, or is not the recorded one. For several that are called together,
        `batches` keeps the digests.
        """
        run_state = self._run_state
        if self.batches is not None:
            places = self.batches.began(place)
            for each in places if run_state.verbose else ():
                run_state.report("element_started", self.index, 1, None, element=each)
            return b"" if places else None
        digest = self.suspended.begin(place) if self.suspended else None
        if digest is None:
            digest = self.ends.recall(place, element)
        else:
            if self.outlet is not None:
                self.outlet.hold_back(-1)
            run_state.open_elements[self.index, place] = digest
        if digest is not None and run_state.verbose:
            run_state.report("element_started", self.index, 1, None, element=place)
        return digest

    def raised(
        self, place: int, error: BaseException, start: float, attempts: int = 1, args: tuple[Any, ...] = ()
    ) -> int:
        """Settle an element whose call raised. Returns how many have failed with that: none if it was cancelled.

        `args` are the arguments of a call that was made, for another one. Raises the error where it came after the
        call had returned: it is the engine's.
        """
        run_state = self._run_state
        places = self.ends.places_of(place)
        if not places:
            raise error
        digest = run_state.open_elements.get((self.index, place), b"")
        run_state.element_raised(self.index, places)
        error = ended_early(run_state, error)
        BaseException.with_traceback(error, stripped(error.__traceback__))
        if isinstance(error, TaskSuspended) and run_state.recorder is not None:
            self.suspended.suspend((place, args), digest, str(error))
            if self.outlet is not None:
                self.outlet.hold_back(1)
            return 0
        annotate(error, run_state.process_name, self.index, run_state.name(self.index), attempts, in_words(places))
        stopped = isinstance(error, TaskCancelled) and run_state.ledger.halted
        if not stopped:
            self.ends.record_raised(places, error, start, attempts)
        self.ends.note_attempts(attempts)
        if stopped:
            self.drop()
        elif run_state.ledger.on_error == "stop" or not isinstance(error, Exception):
            self.fail(error)
        else:
            self.ends.keep_error(places, error)
        return 0 if stopped else len(places)

    def drop(self) -> None:
        """Count an element that was drawn and will not be called: the map cannot complete."""
        self._cut_short = True

    def fail(self, error: BaseException) -> None:
        """Fail the map as a whole; only the first failure counts."""
        with self._lock:
            if self.failure is not None:
                return
            self.failure = error
        self.window.stop()
        if self.outlet is not None:
            self.outlet.cut()
        self.window.close_feed()
        self._run_state.fail_early(self.index, error, in_order=self.in_order)

    @property
    def progress(self) -> Progress:
        """How far the map has come, in elements."""
        total = self.window.total
        return self.shares.progress(self.window.drawn if total is None else total)

    @property
    def total(self) -> int | None:
        """How many elements there are; `None` as long as nobody knows."""
        return self.window.total

    # The end

    def conclude(self) -> list[Any] | NotKept:
        """Return the results, or raise the failure of the map, or that it is left, as elements of it wait."""
        self._end()
        self.window.let_go()
        run_state, ends = self._run_state, self.ends
        results, errors = ends.take(self.window.called)
        failure, self.failure = self.failure, None
        try:
            if failure is not None:
                raise failure
            self._check_whole(results)
            any_skipped = ends.put_in(results, errors)
            if errors:
                if run_state.ledger.on_error == "return":
                    run_state.ledger.values[self.index] = results
                count = counted(self.window.drawn, "element")
                text = f"{len(errors):,} of {count} of {shown(run_state.name(self.index))} failed"
                raise BaseExceptionGroup(text, _distinct(errors))
            if any_skipped:
                raise Unfinished("skipped", results)
            if run_state.verbose:
                run_state.report("task_completed", self.index, 1, time.perf_counter() - (self.began or 0.0))
            return results
        finally:
            del failure, errors

    def _end(self) -> None:
        """End what the map takes and hands on. Raises if it is left: elements, or some that it takes, wait."""
        if self.outlet is None:
            self._fail_unawaited()
        left = self._left()
        if self.outlet is not None:
            self._end_outlet(self.outlet, waits=left is not None)
        self.window.close_feed()
        if left is not None:
            raise left

    def _fail_unawaited(self) -> None:
        """Fail elements that returned a coroutine. Checked at the end: to check each value would slow calls down."""
        results = self.ends.results
        for place in unawaited_in(results) if isinstance(results, list) else ():
            error, results[place] = unawaited(results[place]), None
            self.raised(place, error, self.began or 0.0)

    def _end_outlet(self, outlet: Outlet, *, waits: bool) -> None:
        """End the map's output, and tell the tasks that take its elements whether they had all of them."""
        self.window.end()
        if self.failure is not None or self._is_partial:
            outlet.cut(waits=waits)
        outlet.note_drawn(self.window.drawn, over=True)

    def _left(self) -> TaskSuspended | None:
        """Return the signal by which the map is left; `None` if it has ended, or a failure outranks that."""
        waiting = self.suspended.leave() if self.suspended else {}
        if not (waiting or self._is_behind) or self.failure is not None:
            return None
        partial, ledger = self._is_partial, self._run_state.ledger
        stopped = partial and (ledger.halted or self._run_state.is_broken)
        if stopped or (self.ends.any_failed and ledger.on_error != "return"):
            return None
        if not partial:
            self.ends.check_length(self.window.drawn)
        return suspended_map(waiting) if waiting else suspended_taker()

    @property
    def _is_behind(self) -> bool:
        """Whether elements that the map takes have not come, as they wait."""
        return self.window.feed is not None and self.window.feed.taker.waits

    @property
    def _is_partial(self) -> bool:
        """Whether there are elements that have not been called, or of which nobody knows how they ended."""
        return self._run_state.is_broken or self._cut_short or self.window.is_cut_short

    def _check_whole(self, results: list[Any] | NotKept) -> None:
        """Raise if there are elements that have not been called."""
        halted, feed = self._run_state.ledger.halted, self.window.feed
        if self.window.is_closed and not halted:
            raise Unfinished("cancelled", results)
        if self._is_partial:
            if feed is not None and feed.taker.cut and not halted:
                if self._is_behind:
                    return  # elements have failed: see `_left`
                raise Unfinished("skipped", skipped_task(self._run_state, self.index))
            raise TaskCancelled(f"a map was stopped after {self.window.drawn} elements")
        self.ends.check_length(self.window.drawn)


def _distinct(errors: dict[int, BaseException]) -> list[BaseException]:
    """Return errors by place, each once: elements that were called together have failed with the same."""
    return list({id(errors[place]): errors[place] for place in sorted(errors)}.values())
