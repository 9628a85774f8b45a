"""The calls of the elements of one map in threads: attempt by attempt, within their limits and their timeout.

an element that a worker has claimed ──▶ call ──returns──▶ map state
│ raises
▼
failed ──▶ map state, or paused ──Watcher──▶ `again`
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from procession._engine.admission import Admitted, PutOff, await_admission
from procession._engine.call_context import CallContext
from procession._engine.element_batches import Element
from procession._engine.gate import NotBegun
from procession._engine.map_state import MapState
from procession._engine.retry import Abandoned, GiveUp, Held, Late, Retry
from procession._engine.run_deadline import within
from procession._engine.run_state import RunState
from procession._engine.timed_call import TimedCall, too_long
from procession._engine.unawaited import awaited
from procession._engine.watched_call import watched
from procession._engine.watcher import Straggler
from procession._engine.workers import Worker, Workers
from procession._model.batched import inside
from procession._model.map_share import MapShare
from procession.errors import TaskSuspended

if TYPE_CHECKING:
    from procession._model.task import Call

_HELD_BACK: Final = object()
"""What stands for the value of an element that is called later."""


class WorkersHere(Protocol):
    """The workers that are on the map."""

    ended: bool
    """Whether the map has ended."""

    def ask(self) -> None:
        """Ask for one more worker."""
        ...

    def leave_behind(self) -> None:
        """Count a worker less, as it was abandoned with its call."""
        ...


class ElementCalls:
    """Makes the calls of elements that have more to them than a plain call."""

    def __init__(
        self, run_state: RunState, workers: Workers, state: MapState, workers_here: WorkersHere, lock: threading.Lock
    ) -> None:
        self._run_state = run_state
        self._workers = workers
        self._state = state
        self._workers_here = workers_here
        self._lock = lock
        self.paused = 0
        """How many elements pause, or are held back by their limits."""
        self.again: deque[tuple[Element, Late | None]] = deque()
        """Elements to call again, and elements whose late call is still to be settled."""
        self._retries: dict[int, Retry] = {}
        self._held: dict[int, Held] = {}

    def call_later(self, element: Element, digest: bytes) -> None:
        """Call an element that was to be called, and was not begun."""
        self._held[element[0]] = Held(digest)
        self.again.append((element, None))

    def call(self, element: Element, own: CallContext, share: MapShare) -> None:
        state, start, digest = self._state, time.perf_counter(), b""
        place, retry = element[0], self._retries.get(element[0])
        try:
            held = self._held.pop(place, None) or self._begin(element, retry, start)
            if held is None:  # it was recorded
                return
            digest, retry = held.digest, self._retries.get(place)
            start = start if held.start is None or retry is not None else held.start
            value = self._attempted(element, held, own, share, start)
            if value is _HELD_BACK:
                return
            if retry is not None:
                seconds, returned, value = retry.judge(returned=True, value=value)
                if seconds is not None:
                    self._pause(element, retry, seconds)
                    return
                if not returned:
                    raise GiveUp(value)
                start = retry.start
            try:
                count = state.ends.returned(place, digest, value, start, time.perf_counter(), own.attempt)
            except Exception as error:  # as for a task
                raise GiveUp(error) from None
        except Abandoned:
            raise
        except BaseException as error:
            self.failed(element, error, share, digest, start)
        else:
            self._forget(place)
            share.count(count, failed=False)

    def _begin(self, element: Element, retry: Retry | None, start: float) -> Held | None:
        """Prepare an attempt; return `None` for an element that was recorded."""
        if retry is not None:
            retry.check()
            return Held(retry.digest, start=retry.start)
        digest = self._state.begin(*element)
        if digest is not None and not isinstance(self._state.options.retries, int):
            self._retry(element, digest, start)  # such rules see each attempt, the first one too
        return None if digest is None else Held(digest)

    def _attempted(self, element: Element, held: Held, own: CallContext, share: MapShare, start: float) -> Any:
        """Make an attempt; return the value, or `_HELD_BACK` where limits do not admit it yet."""
        retry = self._retries.get(element[0])
        admitted = self._admitted(element, held)
        if admitted is None:
            return _HELD_BACK
        try:
            if retry is not None:
                own.attempt = retry.made
            return awaited(self._called(element, *admitted, own, share, held.digest, start))
        except BaseException:
            if isinstance(admitted[0], Admitted):
                admitted[0].withdraw()
            raise

    def _admitted(self, element: Element, held: Held) -> tuple[Callable[..., Any], tuple[Any, ...]] | None:
        """Begin an attempt if its limits admit it: return what makes the call, and its arguments, else `None`."""
        state, admission, (place, args) = self._state, self._run_state.admission, element
        where, limits = (state.index, place), state.options.limit
        if not limits or admission is None:
            self._begin_again(place, held)
            return state.function, args

        def hold() -> Callable[[], object]:
            self._held[place] = held
            with self._lock:
                self.paused += 1
            return self._workers.hold(partial(self._resume, element))

        try:
            if self._workers.alone:
                self._held[place] = held  # while it waits, in case nothing may begin any more
                claims = await_admission(admission, where, limits, args, {}, lambda: state.window.stopped)
            else:
                claims = admission.ask(where, limits, args, {}, hold)
        except Exception as error:  # its cost is no number
            self._held.pop(place, None)
            raise GiveUp(error) from None
        if claims is None:
            return None
        try:
            self._held.pop(place, None)
            self._begin_again(place, held)
            return Admitted(admission, limits, claims), (state.function, args, {})
        except BaseException:
            admission.withdraw(claims)
            raise

    def _begin_again(self, place: int, held: Held) -> None:
        """Take note that another attempt begins, unless it is the one that was put off."""
        if held.start is not None and held.error is None:
            self._retries[place].begin()
            self._run_state.failed_attempts.begin(self._state.index, place)

    def _called(
        self,
        element: Element,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        own: CallContext,
        share: MapShare,
        digest: bytes,
        start: float,
    ) -> Any:
        """Make the call of an element, within its timeout if it has one."""
        seconds, began = self._state.options.timeout, time.perf_counter()
        try:
            if seconds is None:
                return function(*args)
            seconds = within(self._run_state, seconds)
            worker = self._workers.worker
            if worker.deadline is None:
                return self._elsewhere(seconds, element, function, args, own, digest, start)
            worker.deadline.begin(seconds, self._give_up, element, seconds, own, share, worker, digest, start)
            return watched(worker.deadline, own, function, args, {})
        finally:
            share.note(began, time.perf_counter())

    def _elsewhere(
        self,
        seconds: float,
        element: Element,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        own: CallContext,
        digest: bytes,
        start: float,
    ) -> Any:
        """Make a call in a thread of its own, where the calling one cannot be left behind."""
        timed = TimedCall(self._run_state, self._state.index, own.attempt, element[0])
        try:
            return timed.make(seconds, function, args, {})
        except BaseException:
            if timed.hung is not None and self._state.options.retries:
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
        error = too_long(self._run_state, self._state.index, seconds)
        self.again.append((element, Late(error, start, own.worker, straggler, digest)))
        self._state.shares.leave(share)
        self._workers_here.leave_behind()
        worker.abandon(self._workers_here.ask)

    # What follows from a failure

    def failed(
        self,
        element: Element,
        error: BaseException,
        share: MapShare,
        digest: bytes,
        start: float,
        straggler: Straggler | None = None,
    ) -> None:
        state, place = self._state, element[0]
        if self._is_put_off(element, error, digest, start):
            return
        if isinstance(error, GiveUp):
            error = error.error
        elif state.options.retries and not isinstance(error, TaskSuspended):
            retry = self._retry(element, digest, start)
            retry.hung = straggler or retry.hung
            seconds, returned, value = retry.judge(returned=False, value=error)
            if seconds is not None:
                self._pause(element, retry, seconds)
                return
            if returned:
                try:
                    value = awaited(value)
                    count = state.ends.returned(place, digest, value, retry.start, time.perf_counter(), retry.made)
                except BaseException as failure:  # it cannot be recorded
                    value = failure
                else:
                    self._forget(place)
                    share.count(count, failed=False)
                    return
            error = value
        if place in self._retries:
            start = self._retries[place].start
        made = self._forget(place)
        share.count(state.raised(place, error, start, made, element[1]), failed=True)

    def _is_put_off(self, element: Element, error: BaseException, digest: bytes, start: float) -> bool:
        """Return whether an element is to be called later, as a limit has it."""
        if isinstance(error, NotBegun):
            self.again.appendleft((element, None))
            return True
        if isinstance(error, PutOff):
            self._held[element[0]] = Held(digest, error.error, start)
            self.again.append((element, None))
            return True
        return False

    def _retry(self, element: Element, digest: bytes, start: float) -> Retry:
        place, args = element
        retry = self._retries.get(place)
        if retry is None:
            call: Call = inside(self._state.function), args, {}
            retry = self._retries[place] = Retry(self._state.options, call, start, digest)
        return retry

    def _forget(self, place: int) -> int:
        """Forget the attempts of an element that has ended; return how many there were."""
        if self._run_state.admission is not None:
            self._run_state.admission.drop((self._state.index, place))  # as for tasks
        self._held.pop(place, None)  # likewise
        retry = self._retries.pop(place, None)
        if retry is None:
            return 1
        retry.state.forget()
        retry.error = None
        return retry.made

    def _pause(self, element: Element, retry: Retry, seconds: float) -> None:
        """Call an element again in so many seconds."""
        self._run_state.retrying(self._state.index, retry.made, retry.error, retry.start, element[0])
        if seconds <= 0 or self._workers.alone:
            self._run_state.wait_halted(seconds)
            self.again.append((element, None))
            return
        with self._lock:
            self.paused += 1
        self._workers.pause(seconds, partial(self._resume, element))

    def _resume(self, element: Element) -> None:
        """Make an element ready whose pause is over. In the watcher's thread."""
        with self._lock:
            self.paused -= 1
            if self._workers_here.ended:
                return
            self.again.append((element, None))
        self._workers_here.ask()

    def drop(self, place: int) -> None:
        """End an element that will not be called any more: as its last attempt did, if it had one."""
        if self._run_state.admission is not None:
            self._run_state.admission.drop((self._state.index, place))
        retry, held = self._retries.get(place), self._held.pop(place, None)
        last = retry if held is None or held.error is None else held
        if last is None or last.error is None or last.start is None:
            self._state.drop()
        else:
            self._state.raised(place, last.error, last.start, self._forget(place))

    def end_paused(self) -> None:
        """End the elements that pause, or whose call was abandoned, when nothing new may start."""
        while self.again:
            (place, _), late = self.again.popleft()
            if late is not None:
                self._state.raised(place, late.error, late.start, self._forget(place))
            else:
                self.drop(place)
        for place in [*self._held, *self._retries]:
            self.drop(place)

    def close(self) -> None:
        """Let go of the map, which refers to its calls."""
        del self._workers_here
