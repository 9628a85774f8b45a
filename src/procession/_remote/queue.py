"""The calls that wait to be sent, in the order in which they will be.

given back, or due to be retried ─┐
the elements of open maps ────────┼──▶ take ──▶ calls that travel together
what is ready in the ledger ──────┘
"""

import heapq
import threading
import time
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import count, islice

from procession._engine.run_state import RunState
from procession._model.task import PLAIN, Call, MapFunction, is_process
from procession._plan.pipelines import streams_in
from procession._plan.wiring import bound
from procession._remote.map import RemoteMap
from procession._remote.pending_call import PendingCall, PlainCalls
from procession._remote.wire.previous_value import PREVIOUS_VALUE
from procession._remote.wire.wrapped import Awaited


class CallQueue:
    """Claims calls from the ledger and from maps, and keeps those that are not sent yet. For one thread only."""

    def __init__(self, run_state: RunState) -> None:
        self._run_state = run_state
        self._back: deque[PendingCall] = deque()
        self._later: list[tuple[float, int, PendingCall]] = []
        self._number = count()
        self._maps: list[RemoteMap] = []
        """Open maps that have elements to draw, as they are asked for these: by `_ranks`."""
        self._ranks: dict[int, tuple[int, int]] = {}
        """For each map that was opened: in order, but of maps that hand elements on to others, the last is first."""
        self._takers: set[int] = set()
        """Maps that take elements of open ones, and have not begun."""
        self._takers_of: dict[int, list[int]] = {}
        for taker, sources in run_state.plan.streams.items():
            for source in sources:
                self._takers_of.setdefault(source, []).append(taker)
        self.open: set[RemoteMap] = set()
        self._left: dict[int, RemoteMap] = {}
        """Maps that were left, as elements of them wait."""
        self._risen: deque[RemoteMap] = deque()
        """Maps that have elements to draw again."""
        self.in_order = True
        self.idle = True
        """Whether there is a worker that has nothing to do: others are not given calls that have a limit."""
        self.on_wake: Callable[[], object] = _nobody
        """Is called, in any thread, when a call that was held back may begin."""
        self._held: set[PendingCall] = set()
        self._woken: deque[PendingCall] = deque()
        self.failed: list[tuple[PendingCall, Exception]] = []
        """Calls that could not be admitted, as their cost is no number or can never be paid."""
        self._plain = _is_plain(run_state)
        self._last: object = None
        self._last_stays = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits to be sent, and no map or retry will bring any more."""
        return not (self._back or self._later or self._held or self.open or self._run_state.ledger.ready)

    @property
    def rests(self) -> bool:
        """Whether nothing can be sent unless what waits is answered: open maps, if any, have nothing to draw."""
        if self._back or self._later or self._held or self._run_state.ledger.ready:
            return False
        return not self.open or (not self._risen and all(job.sleeps and not job.out for job in self.open))

    @property
    def waits(self) -> bool:
        """Whether a call pauses, or is held back by its limits."""
        return bool(self._later or self._held)

    @property
    def pause(self) -> float | None:
        """In how many seconds a call is due that pauses or is held back; `None` if that is not known of any."""
        pauses = [] if self._run_state.admission is None else [self._run_state.admission.pause]
        if self._later:
            pauses.append(max(self._later[0][0] - time.perf_counter(), 0.0))
        return min((pause for pause in pauses if pause is not None), default=None)

    @property
    def is_hungry(self) -> bool:
        """Whether there is a map whose next element may come at any moment, or take a while."""
        return any(job.lazy and not job.state.window.asleep for job in self._maps)

    def count(self) -> int:
        """Return about how many calls there are to send, elements that are not drawn yet included."""
        workers = self._run_state.max_workers
        return len(self._back) + len(self._run_state.ledger.ready) + sum(job.left(workers) for job in self._maps)

    @property
    def near(self) -> int:
        """About how many calls could be sent now."""
        return len(self._back) + len(self._run_state.ledger.ready) + sum(job.near for job in self._maps)

    @property
    def next_stays(self) -> bool:
        """Whether the next call is made in this process, because its callable is a `Process`."""
        ready = self._run_state.ledger.ready
        try:
            return self._back[0].stays if self._back else self._stays(self._run_state.plan.calls[ready[0]][0])
        except IndexError:
            return False

    def take(self, limit: int) -> Sequence[PendingCall]:
        """Claim calls that can travel together, up to `limit`."""
        if self._plain and not self._back and (plain := self._take_plain(limit)):
            return plain
        pending_calls: list[PendingCall] = []
        while len(pending_calls) < limit and (pending_call := self._next(pending_calls)) is not None:
            # Where observers are told of each start, a task travels alone: it starts when that is said.
            single = pending_call.alone or pending_call.stays or (self._run_state.verbose and pending_call.job is None)
            if single and pending_calls:
                self._back.appendleft(pending_call)
                break
            pending_calls.append(pending_call)
            if single:
                break
            if len(pending_calls) == 1 and not self.in_order and self._run_state.recorder is None:
                pending_calls += self._followers(pending_call, limit - 1)
                if len(pending_calls) > 1:
                    break
        return pending_calls

    def claim(self, pending_call: PendingCall) -> None:
        """Claim a call that travelled behind the call that it waits for, now that this has ended and made it ready."""
        with suppress(ValueError):  # in a run that was halted, nothing is ready any more
            self._run_state.ledger.ready.remove(pending_call.index)

    def give_back(self, pending_calls: Sequence[PendingCall]) -> None:
        """Take back calls that were sent and not begun: they are the first to be sent again."""
        for pending_call in pending_calls if self._run_state.admission is not None else ():
            self.end(pending_call)
        self._back.extendleft(reversed(pending_calls))

    def open_streams(self, pending_call: PendingCall) -> None:
        """Give another attempt the streams among the arguments of its task from their beginning."""
        index = pending_call.index
        if pending_call.job is None and streams_in(self._run_state.plan.calls[index]):
            pending_call.call = self._called(index, self._run_state.call(index)[0])

    def retry(self, pending_call: PendingCall, seconds: float) -> None:
        """Keep a call until its next attempt is due."""
        if pending_call.job is not None:
            pending_call.job.pausing += 1
        heapq.heappush(self._later, (time.perf_counter() + seconds, next(self._number), pending_call))

    def wake(self) -> None:
        """See which maps have elements again, and which of the calls that are held back are the first to be sent."""
        while self._risen:
            job = self._risen.popleft()
            job.state.window.rise()
            self._draw_from(job)
        if self._run_state.admission is None:
            return
        self._run_state.admission.look()
        while self._woken:
            pending_call = self._woken.popleft()
            if pending_call in self._held:
                self._held.discard(pending_call)
                self._back.append(self._resumed(pending_call))

    def end(self, pending_call: PendingCall, error: BaseException | None = None) -> BaseException | None:
        """Give back what a call has taken of its limits, as it has ended; return the error that stands."""
        claims, pending_call.claims = pending_call.claims, None
        if claims is None or self._run_state.admission is None:
            return error
        return self._run_state.admission.end(pending_call.limits, claims, error)

    def end_after(self, hung: threading.Thread, pending_call: PendingCall) -> None:
        """Give back what a call has taken of its limits once the thread has ended in which it goes on."""
        admission, claims, pending_call.claims = self._run_state.admission, pending_call.claims, None
        if admission is None or claims is None:
            return

        def wait() -> None:
            hung.join()
            admission.end(pending_call.limits, claims)

        with suppress(RuntimeError):  # out of threads: then nobody will know when it has ended
            threading.Thread(target=wait, name=f"{hung.name}-limits", daemon=True).start()

    def due(self) -> Iterator[PendingCall]:
        """Hand out the calls whose next attempt is due."""
        while self._later and self._later[0][0] <= time.perf_counter():
            yield self._resumed(heapq.heappop(self._later)[2])

    def drop(self) -> Iterator[PendingCall]:
        """Hand out every call that waits, as nothing will be sent any more."""
        self._maps.clear()
        while self._back:
            yield self._back.popleft()
        while self._later:
            yield self._resumed(self._later.pop()[2])
        if self._run_state.admission is not None:
            self._run_state.admission.drop_all()
        while self._held:
            yield self._resumed(self._held.pop())

    def close(self) -> None:
        """Wake nobody any more: no cycle may stay."""
        self.on_wake = _nobody

    # Inside

    def _is_admitted(self, pending_call: PendingCall) -> bool:
        """Return whether a call may begin; else it is held back, or has failed."""
        if not pending_call.limits:
            return True
        assert self._run_state.admission is not None

        def hold() -> Callable[[], object]:
            self._held.add(pending_call)
            if pending_call.job is not None:
                pending_call.job.pausing += 1
            return partial(self._admit, pending_call)

        place, (_, args, kwargs) = (pending_call.index, pending_call.element), pending_call.call
        try:
            claims = self._run_state.admission.ask(place, pending_call.limits, args, kwargs, hold)
        except Exception as error:
            if pending_call in self._held:
                self._held.discard(pending_call)
                self._resumed(pending_call)
            self.failed.append((pending_call, error))
            return False
        if claims is None:
            return False
        pending_call.claims = claims
        pending_call.beginnings = self._run_state.admission.begin(claims)
        return True

    def _admit(self, pending_call: PendingCall) -> None:
        self._woken.append(pending_call)
        self.on_wake()

    def _resumed(self, pending_call: PendingCall) -> PendingCall:
        if pending_call.job is not None:
            pending_call.job.pausing -= 1
        return pending_call

    def _take_plain(self, limit: int) -> PlainCalls | None:
        """Claim tasks of a run whose tasks are all plain.

        Measured: to claim, send and settle one of many takes the coordinator 1.3 µs; with a `PendingCall` each, 4.2.
        """
        indexes = list[int]()
        with suppress(IndexError):  # what was claimed until then stays
            indexes.extend(islice(iter(self._run_state.ledger.ready.popleft, None), limit))
        return PlainCalls(self._run_state.plan.calls, indexes) if indexes else None

    def _followers(self, first: PendingCall, limit: int) -> list[PendingCall]:
        """Return the chain of calls that begins at the first: each waits for the one before it and for nothing else.

        They travel together, so that their values stay on one worker and nothing comes back at each link.
        """
        run_state, plan = self._run_state, self._run_state.plan
        pending_calls: list[PendingCall] = []
        index = first.index
        while first.job is None and len(pending_calls) < limit:
            after = run_state.ledger.sole_dependent(index)
            if after is None or after in plan.options or after in plan.coroutines:
                break
            function, args, kwargs = plan.calls[after]
            # Whatever else it takes has ended before.
            values = {
                need: PREVIOUS_VALUE if need == index else run_state.ledger.values[need] for need in plan.needs[after]
            }
            pending_call = PendingCall(
                after, (function, *bound(args, kwargs, values)), PLAIN, stays=self._stays(function)
            )
            if pending_call.stays:
                break
            pending_call.follows = True
            pending_calls.append(pending_call)
            index = after
        return pending_calls

    def _next(self, before: Sequence[PendingCall]) -> PendingCall | None:
        """Claim the next call to send, in the batch in which the calls `before` are already."""
        while (pending_call := self._next_ready(before)) is not None:
            if pending_call.limits and (before or not self.idle):
                self._back.appendleft(pending_call)
                return None
            if self._is_admitted(pending_call):
                return pending_call
            if self.in_order:
                return None
        return None

    def _next_ready(self, before: Sequence[PendingCall]) -> PendingCall | None:
        """Claim the next call, whether its limits admit it or not."""
        if self._back:
            return self._back.popleft()
        while True:
            if not (self._takers and self._bring_forward()):
                pending_call = self._from_maps()
                if pending_call is not None or (self.in_order and self.open):
                    return pending_call
            try:
                index = self._run_state.ledger.ready.popleft()
            except IndexError:
                return None
            function = self._run_state.plan.calls[index][0]
            if self.in_order and before and (isinstance(function, MapFunction) or index in self._run_state.plan.needs):
                # It may take the value of a call in this very batch, which has not even been sent.
                self._run_state.ledger.put_back(index)
                return None
            if not isinstance(function, MapFunction):
                call, options = self._run_state.call(index)
                return PendingCall(index, self._called(index, call), options, stays=self._stays(function))
            self._open(index, function)

    def _bring_forward(self) -> bool:
        """Put maps first in line that take elements of open ones; return whether there were any to begin."""
        ledger, edges = self._run_state.ledger, self._run_state.plan.edges
        self._takers -= ledger.skipped
        found = False
        for index in list(self._takers):
            if all(ledger.ends[need] is not None for need in edges.get(index, ())):
                with suppress(ValueError):  # what it waits for is not committed yet
                    ledger.ready.remove(index)
                    ledger.put_back(index)
                    self._takers.discard(index)
                    found = True
        return found

    def _from_maps(self) -> PendingCall | None:
        for job in list(self._maps):
            drawn = job.draw()
            if drawn is not None:
                place, element, digest = drawn
                function = job.state.map_function.called
                call = self._called(job.index, (function, element, job.state.constants))
                return PendingCall.of(job, place, call, digest, stays=self._stays(function))
            if job.state.window.nothing_left or job.sleeps:
                self._maps.remove(job)
        return None

    def leave(self, job: RemoteMap) -> None:
        """Keep a map that was left, as elements of it wait."""
        self._left[job.index] = job

    def _rise(self, job: RemoteMap) -> None:
        """Note that elements can be drawn from a map again. May be called in any thread."""
        self._risen.append(job)
        self.on_wake()

    def _draw_from(self, job: RemoteMap) -> None:
        if job in self.open and job not in self._maps:
            insort(self._maps, job, key=lambda job: self._ranks[job.index])

    def _open(self, index: int, map_function: MapFunction) -> None:
        run_state = self._run_state
        left = self._left.pop(index, None)
        if left is not None:
            left.state.take_up()
            self.open.add(left)
            self._draw_from(left)
            return
        run_state.ledger.starts[index] = time.perf_counter()
        run_state.workers[index] = threading.current_thread().name
        try:
            job = RemoteMap(
                run_state, index, map_function, run_state.plan.options.get(index, PLAIN), in_order=self.in_order
            )
        except BaseException as error:
            run_state.raised(index, error, in_order=self.in_order)
            return
        run_state.maps[index] = job
        sources = [self._ranks[source] for source in run_state.plan.streams.get(index, ()) if source in self._ranks]
        self._ranks[index] = min(sources)[0] if sources else len(self._ranks), -index
        self._takers.discard(index)
        self._takers.update(taker for taker in self._takers_of.get(index, ()) if taker not in self._ranks)
        job.state.wake_by(partial(self._rise, job))
        self.open.add(job)
        self._draw_from(job)

    def _stays(self, function: Callable[..., object]) -> bool:
        if function is not self._last:  # the same function over and over is looked at once
            self._last, self._last_stays = function, is_process(function)
        return self._last_stays

    def _called(self, index: int, call: Call) -> Call:
        if index not in self._run_state.plan.coroutines:
            return call
        function: Callable[..., object] = call[0]
        return (Awaited(function), *call[1:])


def _is_plain(run_state: RunState) -> bool:
    """Return whether no task is a process, has options, takes a handle or is told of when it starts."""
    plan = run_state.plan
    if plan.options or plan.needs or plan.coroutines or run_state.verbose:
        return False
    last: object = None
    for function, _, _ in plan.calls:
        if function is not last and is_process(function):
            return False
        last = function
    return True


def _nobody() -> None:
    pass
