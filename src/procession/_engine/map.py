"""The call of a map task in threads: any number of workers call its elements, and the last to leave ends it."""

import contextvars
import threading
import time
from collections import deque
from functools import partial
from typing import Any

from procession._engine.call_context import CURRENT_CALL, CallContext
from procession._engine.calls import LeaveTask, Worker, Workers, watched
from procession._engine.decimals import own_decimals
from procession._engine.map_state import WINDOW, Element, MapState
from procession._engine.retry import Abandoned, GiveUp, Late, Retry
from procession._engine.run_state import RunState
from procession._engine.timed_call import TimedCall, too_long
from procession._engine.unawaited import awaited
from procession._engine.watcher import Straggler
from procession._model.map_share import MapShare
from procession._model.record import WHOLE
from procession._model.task import PLAIN, Call, MapFunction, Options


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
    ) -> None:
        self.state = MapState(run_state, index, map_function, options, in_order=in_order)
        self._run_state = run_state
        self._workers = workers
        self._lock = threading.Lock()
        self._active = 0
        self._asked = False
        self._ended = False
        self._paused = 0
        self._again: deque[tuple[Element, Late | None]] = deque()
        """Elements that are due again, or whose call was given up."""
        self._retries: dict[int, Retry] = {}
        self._most = max(WINDOW, 4 * run_state.max_workers)
        self._context = contextvars.Context()
        self._plain = not (
            run_state.recorder is not None
            or run_state.verbose
            or run_state.decimals is not None
            or options.timeout is not None
            or not isinstance(options.retries, int)
        )

    def join(self, call_context: CallContext) -> list[Any]:
        """Work on the map; return its results if this is the last worker on it, else raise `LeaveTask`."""
        state = self.state
        self._come()
        share = state.share(call_context.worker)
        # Of the one who began: what was set at the start of the map, all of its elements see.
        base = self._context.copy()
        base.run(CURRENT_CALL.set, call_context)
        while self._run_state.commit():
            context = base.copy()
            draw = self._draw_plain if self._plain and not self._again else self._draw_one
            if not context.run(draw, call_context, share, context, base):
                break
        call_context.element = WHOLE
        state.took_part(share)
        self._leave()
        return state.conclude()

    def _come(self) -> None:
        state = self.state
        with self._lock:
            self._asked = False
            starts = self._run_state.ledger.starts
            if state.began is None:
                start = starts[state.index] or time.perf_counter()
                try:
                    state.open(start)
                except BaseException:
                    self._ended = True
                    raise
                self._context = contextvars.copy_context()
            else:
                starts[state.index] = state.began
            if self._ended or (self._active and self._nothing_left):
                # With everything begun there is nothing to join, and whoever is still on it ends it.
                raise LeaveTask
            self._active += 1
        if state.window:
            self._ask()

    def _leave(self) -> None:
        """Return in the last worker, else raise `LeaveTask`: there are others, or will be."""
        with self._lock:
            self._active -= 1
            if self._active:
                raise LeaveTask
            left = not self._nothing_left
            if not left and self._paused and not self.state.stopped:
                raise LeaveTask
            self._ended = not left
        if left:
            self._ask()
            raise LeaveTask
        self._end_paused()

    @property
    def _nothing_left(self) -> bool:
        """Whether no element is left to begin, now."""
        return self.state.stopped or (self.state.nothing_left and not self._again)

    def _ask(self) -> None:
        """Have one more worker join, if there is one, unless one has been asked and has not come yet."""
        if not self._asked and not self.state.in_order:
            self._asked = True
            self._run_state.ledger.put_back(self.state.index)
            self._run_state.recruit(1)

    def _drew(self) -> bool:
        """Draw, and return whether there is anything in the window."""
        drawn = self.state.drawn  # looked at first: what others draw from now on counts in `limit`
        room = self._most - (self._active - 1) - self._paused - len(self._again)  # this worker makes no call now
        there = self.state.draw(room, self._ask, limit=drawn + room)
        if there:
            self._ask()
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

        The hot path, laid out as in `ThreadEngine`.
        """
        state, clock, ledger = self.state, time.perf_counter, self._run_state.ledger
        claim, function, results = state.window.popleft, state.function, state.results
        longest, place, element = share.longest[1], -1, ()
        began = start = now = clock()
        try:
            while not ledger.halted:
                start = now
                try:
                    place, element = claim()
                except IndexError:
                    share.busy += now - began
                    more = not self._again and self._drew()
                    began = now = clock()
                    if more:
                        continue
                    return bool(self._again)
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
                if isinstance(error, Exception):
                    return True  # comparing what an element put into its context failed: it is not the same
                raise
            now = clock()
            self._failed((place, element), error, share, b"", start)
            return True
        finally:
            share.busy += now - began
            share.end = now

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
            element, late = self._again.popleft()
        except IndexError:
            if not state.window and not self._drew():
                return False
            try:
                element = state.window.popleft()
            except IndexError:
                return True  # another worker was faster
        own = call_context if run_state.recorder is None else call_context.own(state.index, element[0])
        own.element = element[0]
        CURRENT_CALL.set(own)
        if run_state.decimals is not None:
            own_decimals(run_state.decimals)
        try:
            if late is not None:
                self._failed(element, late.error, share, late.digest, late.start, late.straggler)
            elif run_state.ledger.halted:
                self._drop(element[0])
            else:
                self._call(element, own, share)
        finally:
            own.attempt = 1
            own.over = own is not call_context
        return True

    def _call(self, element: Element, own: CallContext, share: MapShare) -> None:
        state, start, digest = self.state, time.perf_counter(), b""
        place, args = element
        retry = self._retries.get(place)
        try:
            if retry is not None:
                digest = retry.digest
                retry.begin()
                own.attempt = retry.made
            else:
                known = state.digest(place, args)
                if known is None:  # it was recorded
                    return
                digest = known
                if not isinstance(state.options.retries, int):  # such rules see each attempt, the first one too
                    retry = self._retry(element, digest, start)
            value = awaited(self._called(element, own, share, digest, start))
            if retry is not None:
                seconds, returned, value = retry.judge(returned=True, value=value)
                if seconds is not None:
                    self._pause(element, retry, seconds)
                    return
                if not returned:
                    raise GiveUp(value)
                start = retry.start
            state.returned(place, digest, value, start, time.perf_counter(), own.attempt)
        except Abandoned:
            raise
        except BaseException as error:
            self._failed(element, error, share, digest, start)
        else:
            self._forget(place)
            share.count(failed=False)

    def _called(self, element: Element, own: CallContext, share: MapShare, digest: bytes, start: float) -> Any:
        """Make the call of an element, within its timeout if it has one."""
        state, args = self.state, element[1]
        seconds, began = state.options.timeout, time.perf_counter()
        try:
            if seconds is None:
                return state.function(*args)
            worker = self._workers.worker
            if worker.deadline is None:
                return self._elsewhere(seconds, element, own, digest, start)
            worker.deadline.begin(seconds, self._give_up, element, seconds, own, share, worker, digest, start)
            return watched(worker.deadline, own, state.function, args, {})
        finally:
            share.note(began, time.perf_counter())

    def _elsewhere(self, seconds: float, element: Element, own: CallContext, digest: bytes, start: float) -> Any:
        """Make a call in a thread of its own, where the calling one cannot be left behind."""
        state, (place, args) = self.state, element
        timed = TimedCall(self._run_state, state.index, own.attempt, place)
        try:
            return timed.make(seconds, state.function, args, {})
        except BaseException:
            if timed.hung is not None and state.options.retries:
                self._retry(element, digest, start).hung = timed.hung
            raise

    def _give_up(
        self,
        element: Element,
        seconds: float,
        own: CallContext,
        share: MapShare,
        worker: Worker,
        digest: bytes,
        start: float,
        straggler: Straggler,
    ) -> None:
        """Give up a call that takes too long. In the watcher's thread, which runs nothing of the user's."""
        own.abandoned = own.over = True
        error = too_long(self._run_state, self.state.index, seconds)
        self._again.append((element, Late(error, start, own.worker, straggler, digest)))
        self.state.took_part(share)
        with self._lock:
            self._active -= 1
        worker.abandon(self._ask)

    # What follows from a failure

    def _failed(
        self,
        element: Element,
        error: BaseException,
        share: MapShare,
        digest: bytes,
        start: float,
        straggler: Straggler | None = None,
    ) -> None:
        state, place = self.state, element[0]
        if isinstance(error, GiveUp):
            error = error.error
        elif state.options.retries:
            retry = self._retry(element, digest, start)
            retry.hung = straggler or retry.hung
            seconds, returned, value = retry.judge(returned=False, value=error)
            if seconds is not None:
                self._pause(element, retry, seconds)
                return
            if returned:
                try:
                    state.returned(place, digest, awaited(value), retry.start, time.perf_counter(), retry.made)
                except BaseException as failure:  # it cannot be recorded
                    returned, value = False, failure
            if returned:
                self._forget(place)
                share.count(failed=False)
                return
            error = value
        made = self._forget(place)
        state.raised(place, error, start, made)
        share.count(failed=True)

    def _retry(self, element: Element, digest: bytes, start: float) -> Retry:
        place, args = element
        retry = self._retries.get(place)
        if retry is None:
            call: Call = self.state.function, args, {}
            retry = self._retries[place] = Retry(self.state.options, call, start, digest)
        return retry

    def _forget(self, place: int) -> int:
        """Let go of the attempts of an element that has ended; return how many there were."""
        retry = self._retries.pop(place, None)
        if retry is None:
            return 1
        retry.state.forget()
        retry.error = None
        return retry.made

    def _pause(self, element: Element, retry: Retry, seconds: float) -> None:
        """Have an element called again in so many seconds."""
        self._run_state.report("task_retrying", self.state.index, retry.made, None, retry.error)
        if seconds <= 0 or self._workers.worker.alone:
            self._run_state.wait_halted(seconds)
            self._again.append((element, None))
            return
        with self._lock:
            self._paused += 1
        self._workers.pause(seconds, partial(self._resume, element))

    def _resume(self, element: Element) -> None:
        """Have a worker call an element whose pause is over. In the watcher's thread."""
        with self._lock:
            self._paused -= 1
            if self._ended:
                return
            self._again.append((element, None))
        self._ask()

    def _drop(self, place: int) -> None:
        """Take note that an element will not be called any more: it ends as its last attempt did, if it had one."""
        retry = self._retries.get(place)
        error = None if retry is None else retry.error
        if retry is None or error is None:
            self.state.drop()
        else:
            self.state.raised(place, error, retry.start, self._forget(place))

    # The end

    def _end_paused(self) -> None:
        """End the elements that pause, or were given up, when nothing new may start."""
        while self._again:
            (place, _), late = self._again.popleft()
            if late is not None:
                self.state.raised(place, late.error, late.start, self._forget(place))
            else:
                self._drop(place)
        for place in list(self._retries):
            self._drop(place)

    def end_left(self) -> None:
        """End the map if it has begun and all workers have left it before its end, as nothing new may start."""
        run_state, index = self._run_state, self.state.index
        if self.state.began is None or self._ended or run_state.ledger.ends[index] is not None:
            return
        self._ended = True
        self._end_paused()
        try:
            run_state.finished(index, self.state.conclude(), time.perf_counter())
        except BaseException as error:
            run_state.raised(index, error, in_order=self.state.in_order)


class ThreadMaps:
    """The map tasks of a run, or of one of its stages, that threads work on."""

    def __init__(self, run_state: RunState) -> None:
        self._run_state = run_state
        self._lock = threading.Lock()
        self._maps: dict[int, ThreadMap] = {}

    def join(self, workers: Workers, index: int, map_function: MapFunction, *, in_order: bool) -> list[Any]:
        """Work on a map; return its results in the last worker on it, else raise `LeaveTask`."""
        run_state = self._run_state
        with self._lock:
            job = self._maps.get(index)
            if job is None:
                options = run_state.plan.options.get(index, PLAIN)
                job = ThreadMap(run_state, workers, index, map_function, options, in_order=in_order)
                self._maps[index] = job
                run_state.maps[index] = job.state
        return job.join(CURRENT_CALL.get())

    def end_left(self) -> None:
        """End the maps that all workers have left before their end."""
        for job in self._maps.values():
            job.end_left()

    def close(self) -> None:
        """Let go of the maps, which hold those who work on them."""
        self._maps = {}
