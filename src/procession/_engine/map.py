"""The call of a map task in threads: any number of workers call its elements, and the last to leave ends it."""

import contextvars
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from procession._engine.call_context import CURRENT_CALL, CallContext, comparable
from procession._engine.decimals import own_decimals
from procession._engine.element_calls import ElementCalls
from procession._engine.gate import gated, passes_gate
from procession._engine.map_state import MapState
from procession._engine.placed import ElementGroup, group_size, grouped
from procession._engine.retry import GiveUp, Late
from procession._engine.run_state import RunState
from procession._engine.unawaited import awaited
from procession._engine.workers import LeaveTask, Workers
from procession._model.map_share import MapShare
from procession._model.record import WHOLE
from procession._model.task import MapFunction, Options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from procession._model.outcome import NotKept

TURN_S = 0.005
"""How long a worker stays on a map of a pipeline before it looks whether it is wanted elsewhere.

To leave one and join another takes some 30 µs. With a turn of 1 ms, calls of 1 ms took twice as much processor time.
"""


class ThreadMap:
    """One map task of a run. `join` has the calling worker work on it.

    A worker that draws elements has another one asked to join, by making the task ready again: so as many come as are
    free, and none waits for another that draws from a slow source.
    """

    def __init__(
        self,
        run_state: RunState,
        workers: Workers,
        index: int,
        map_function: MapFunction,
        options: Options,
        *,
        in_order: bool,
        others: "Mapping[int, ThreadMap]",
    ) -> None:
        self.state = MapState(run_state, index, map_function, options, in_order=in_order)
        self._window = self.state.window
        self._others = others
        self._run_state = run_state
        self._workers = workers
        self._lock = threading.Lock()
        self._active = 0
        self._asked = False
        self.ended = False
        """Whether the map has ended, or its last worker is about to end it."""
        self._calls = ElementCalls(run_state, workers, self.state, self, self._lock)
        self._context = contextvars.Context()
        closely = run_state.recorder is not None or run_state.verbose or run_state.decimals is not None
        self._plain = passes_gate(options) and not (closely or self.state.batches is not None)
        limits = options.limit if self._plain else ()
        self._function = gated(self.state.function, limits, run_state.admission)
        self._placed = grouped(self.state, recorded=run_state.recorder is not None)
        self._travelling = 0
        """How many elements are out, beside one for each worker, as they travel together."""

    def join(self, call_context: CallContext) -> "list[Any] | NotKept":
        """Work on the map; return its results if this is the last worker on it, else raise `LeaveTask`.

        Raises `GiveUp` for a map that has failed. Any other error is not from a call: the map is not known to be whole
        then, and others may be at it.
        """
        if self._sleeps:
            self._run_state.ledger.starts[self.state.index] = self.state.began  # not when this worker came
            raise LeaveTask
        if self._come():
            self._work(call_context)
            self._leave()
        try:
            return self.state.conclude()
        except BaseException as error:
            raise GiveUp(error) from None

    def _work(self, call_context: CallContext) -> None:
        """Call elements until there are none for this worker."""
        state = self.state
        share = state.shares.join(call_context.worker)
        # The context of the worker that began the map, so that all elements see what was set at its start.
        base = self._context.copy()
        base.run(CURRENT_CALL.set, call_context)
        most = self._draw_one
        if self._placed is not None:
            most = self._draw_group
        elif self._plain:
            most = self._draw_streamed if state.streamed else self._draw_plain
        until = time.perf_counter() + TURN_S
        while self._run_state.commit():
            context = base.copy()
            draw = self._draw_one if self._calls.again else most
            if not context.run(draw, call_context, share, context, base):
                break
            if state.streamed and time.perf_counter() > until:
                if self._is_wanted_elsewhere:
                    break
                until = time.perf_counter() + TURN_S
        call_context.element = WHOLE
        state.shares.leave(share)

    @property
    def _sleeps(self) -> bool:
        """Whether there is nothing to join for: as often, where a worker that was asked to was not needed any more."""
        if not self._window.asleep:
            return False
        self._asked = False  # before it is looked again: who wakes the map asks for a worker after that
        return self._window.asleep and not (self._goes_on or self._calls.paused)

    @property
    def _goes_on(self) -> bool:
        """Whether there is something to do though nothing can be drawn: elements to call, or a map to end."""
        return bool(self._window.stopped or self._calls.again or self._window.elements)

    def _come(self) -> bool:
        """Return whether the map could be begun. Raises `LeaveTask` where there is nothing to join."""
        state = self.state
        with self._lock:
            self._asked = False
            if self.ended and state.take_up():
                self.ended = False
            starts = self._run_state.ledger.starts
            if state.began is None:
                start = starts[state.index] or time.perf_counter()
                try:
                    state.wake_by(self.wake)
                    state.open(start)
                except BaseException as error:
                    self.ended = True
                    state.fail(error)
                    return False
                self._context = contextvars.copy_context()
            else:
                starts[state.index] = state.began
            if self.ended or (self._active and self._nothing_left):
                # All elements have begun, so there is nothing to join: the workers that are still here end the map.
                raise LeaveTask
            self._active += 1
        if self._window.elements:
            self.ask()
        return True

    def _leave(self) -> None:
        """Return in the last worker, else raise `LeaveTask`: there are others, or will be."""
        with self._lock:
            self._active -= 1
            if self._active:
                left = bool(self.state.streamed and self._window.elements)
            elif self._window.asleep and not self._goes_on:
                raise LeaveTask  # whoever hands elements on, or takes them, has the map go on
            else:
                left = not self._nothing_left
            if self._active and not left:
                raise LeaveTask
            if not left and self._calls.paused and not self._window.stopped:
                raise LeaveTask
            self.ended = not left
        if left:
            self.ask()
            raise LeaveTask
        self._calls.end_paused()

    def leave_behind(self) -> None:
        """Count a worker less, as it was abandoned with its call."""
        with self._lock:
            self._active -= 1

    @property
    def _is_wanted_elsewhere(self) -> bool:
        """Whether something else is ready, or waits, that is more in need of a worker than this map of a pipeline is.

        The others of the pipeline are where they have none, or two less: to change places with each other helps nobody.
        """
        if self._workers.others_wait:
            return True
        ready, callers = self._run_state.ledger.ready, self._callers
        try:
            for number in range(len(ready)):
                other = self._others.get(ready[number])
                if other is None or not other.state.streamed or not other._callers or other._callers + 1 < callers:
                    return True
        except IndexError:  # others have claimed them
            pass
        return False

    @property
    def _callers(self) -> int:
        """How many workers are here, but for one whom a source keeps waiting."""
        return self._active - self._window.keeps_waiting

    @property
    def _nothing_left(self) -> bool:
        """Whether no element is left to begin, now."""
        return self._window.stopped or (self._window.nothing_left and not self._calls.again)

    def ask(self) -> None:
        """Ask for one more worker, unless another that was asked has not come yet.

        Elsewhere the map is first in line. In a pipeline it is last, so that others get on that take its elements.
        """
        self._ask(first=not self.state.streamed)

    def _ask(self, *, first: bool) -> None:
        if not self._asked and not self.state.in_order:
            self._asked = True
            ledger = self._run_state.ledger
            (ledger.put_back if first else ledger.put_last)(self.state.index)
            self._run_state.recruit(1)

    def wake(self) -> None:
        """Continue a map that was asleep: there is something to draw, or room for it."""
        self._window.rise()
        if not self.ended:
            self._ask(first=True)

    def _drew(self) -> bool:
        """Draw, and return whether there is anything in the window."""
        if self._window.stopped:
            return False  # of a source without an end there would always be something
        drawn = self._window.drawn  # looked at first: what others draw from now on counts
        # This worker makes no call now.
        out = self._active - 1 + self._travelling + self._calls.paused + len(self._calls.again)
        there = self.state.draw(self._window.most - out, self.ask, since=drawn)
        if there:
            self.ask()
        elif self.state.batches is not None and self.state.batches.gathering:
            self._ask(first=False)  # to see whether the next element keeps them waiting, but after what else is ready
        return there

    # Calls

    def _draw_plain(
        self,
        call_context: CallContext,
        share: MapShare,
        context: contextvars.Context,
        base: contextvars.Context,
    ) -> bool:
        """Call elements until there are none; return early, with True, when the context is used up.

        The hot path, laid out as in `CallLoop`.
        """
        state, clock, ledger = self.state, time.perf_counter, self._run_state.ledger
        claim, function, results = self._window.elements.popleft, self._function, state.ends.results
        longest, place, element = share.longest[1], -1, ()
        began = start = now = clock()
        try:
            while not ledger.halted:
                start = now
                try:
                    place, element = claim()
                except IndexError:
                    share.busy += now - began
                    more = not self._calls.again and self._drew()
                    began = now = clock()
                    if more:
                        continue
                    return bool(self._calls.again)
                call_context.element = place
                results[place] = function(*element)
                place = -1
                now = clock()
                share.elements += 1
                if now - start > longest:
                    longest = now - start
                    share.longest = start, longest
                if context != base:
                    return True
            return False
        except BaseException as error:
            if place < 0:
                if isinstance(error, Exception) and not comparable(context, base):
                    return True
                raise
            now = clock()
            self._calls.failed((place, element), error, share, b"", start)
            return True
        finally:
            share.busy += now - began
            share.end = now

    def _draw_streamed(  # noqa: C901, PLR0912, PLR0915 - the hot path
        self,
        call_context: CallContext,
        share: MapShare,
        context: contextvars.Context,
        base: contextvars.Context,
    ) -> bool:
        """Do the same for a map that takes elements of others, or whose elements others take, as they end.

        Every `TURN_S`, a worker looks whether it is wanted elsewhere. So the maps of a pipeline get on together, also
        where there is one worker for all.
        """
        state, clock, ledger, outlet = self.state, time.perf_counter, self._run_state.ledger, self.state.outlet
        claim, function, results = self._window.elements.popleft, self._function, state.ends.results
        arrive = None if outlet is None else outlet.arrivals.append
        longest, place, last = share.longest[1], -1, type(None)
        element: tuple[Any, ...] = ()
        began = start = now = clock()
        until = began + TURN_S
        try:
            while not ledger.halted:
                start = now
                try:
                    place, element = claim()
                except IndexError:
                    share.busy += now - began
                    more = not self._calls.again and self._drew()
                    began = now = clock()
                    if more:
                        continue
                    return bool(self._calls.again)
                call_context.element = place
                value = function(*element)
                if outlet is None or arrive is None:
                    results[place] = value
                    place = -1
                else:
                    if type(value) is not last:
                        last = awaited(value).__class__
                    results[place] = value
                    done, place = place, -1
                    arrive(done)
                    if outlet.asleep and done < outlet.below:
                        outlet.rouse()
                element, value = (), None
                now = clock()
                share.elements += 1
                if now - start > longest:
                    longest = now - start
                    share.longest = start, longest
                if context != base:
                    return True
                if now > until:
                    if self._is_wanted_elsewhere:
                        return False
                    until = now + TURN_S
            return False
        except BaseException as error:
            if place < 0:
                if isinstance(error, Exception) and not comparable(context, base):
                    return True
                raise
            now = clock()
            self._calls.failed((place, element), error, share, b"", start)
            return True
        finally:
            share.busy += now - began
            share.end = now

    def _draw_group(
        self,
        call_context: CallContext,  # noqa: ARG002 - as for `_draw_plain`
        share: MapShare,
        context: contextvars.Context,  # noqa: ARG002
        base: contextvars.Context,  # noqa: ARG002
    ) -> bool:
        """Submit the next batch of elements to their executor; return whether to continue."""
        state, window, placed = self.state, self._window, self._placed
        assert placed is not None
        if window.stopped or not (window.elements or self._drew()):
            return bool(self._calls.again)
        group = ElementGroup(state, group_size(placed.place, state))
        more = max(len(group) - 1, 0)
        with self._lock:
            self._travelling += more
        try:
            submitted = group.submit(placed)
            self._settle_failed(group, share)
            while submitted is not None:
                made = placed.wait(submitted)
                submitted = group.settle(made, partial(_note, share))
                self._settle_failed(group, share)
                if group.back:
                    for element, digest in group.back:
                        self._calls.call_later(element, digest)
                    group.back.clear()
                    self.ask()
        finally:
            with self._lock:
                self._travelling -= more
        return True

    def _settle_failed(self, group: ElementGroup, share: MapShare) -> None:
        for element, error, digest, start, _ in group.failed:
            self._calls.failed(element, error, share, digest, start)
        group.failed.clear()

    def _draw_one(
        self,
        call_context: CallContext,
        share: MapShare,
        context: contextvars.Context,  # noqa: ARG002 - as for `_draw_plain`
        base: contextvars.Context,  # noqa: ARG002
    ) -> bool:
        """Call the next element, with all that there is to its call; return whether to go on."""
        state, run_state = self.state, self._run_state
        late: Late | None = None
        try:
            element, late = self._calls.again.popleft()
        except IndexError:
            if not self._window.elements and not self._drew():
                return False
            try:
                element = self._window.pop()
            except IndexError:
                return True  # another worker was faster
        own = call_context if run_state.recorder is None else call_context.own(state.index, element[0])
        own.element = element[0]
        run_state.whereabouts.elements[own.worker] = state.index, element[0]
        CURRENT_CALL.set(own)
        if run_state.decimals is not None:
            own_decimals(run_state.decimals)
        try:
            if late is not None:
                self._calls.failed(element, late.error, share, late.digest, late.start, late.straggler)
            elif run_state.ledger.halted:
                self._calls.drop(element[0])
            else:
                self._calls.call(element, own, share)
        finally:
            own.attempt = 1
            own.over = own is not call_context
        return True

    # The end

    def end_left(self) -> None:
        """End the map if it has begun and all workers have left it before its end, as nothing new may start."""
        run_state, index = self._run_state, self.state.index
        if self.state.began is None or self.ended or run_state.ledger.ends[index] is not None:
            return
        self.ended = True
        self._calls.end_paused()
        try:
            run_state.finished(index, self.state.conclude(), time.perf_counter())
        except BaseException as error:
            run_state.raised(index, error, in_order=self.state.in_order)

    def close(self) -> None:
        """Let go of what refers to the map: no cycle may stay."""
        self._calls.close()


def _note(share: MapShare, start: float, end: float, count: int) -> None:
    share.note(start, end)
    share.count(count, failed=False)
