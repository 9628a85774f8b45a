"""The calls that wait to be sent, in the order in which they will be.

given back, or due to be retried ─┐
the elements of open maps ────────┼──▶ take ──▶ calls that travel together
what is ready in the ledger ──────┘
"""

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import count

from procession._engine.run_state import RunState
from procession._model.task import PLAIN, Call, MapFunction, is_process
from procession._plan.wiring import bound
from procession._remote.map import RemoteMap
from procession._remote.pending_call import Awaited, PendingCall, PlainCalls
from procession._remote.wire.previous_value import PREVIOUS_VALUE


class CallQueue:
    """Claims calls from the ledger and from maps, and keeps those that are not sent yet. For one thread only."""

    def __init__(self, run_state: RunState) -> None:
        self._run_state = run_state
        self._back: deque[PendingCall] = deque()
        self._later: list[tuple[float, int, PendingCall]] = []
        self._number = count()
        self._maps: deque[RemoteMap] = deque()
        self.open: set[RemoteMap] = set()
        self.in_order = True
        plan = run_state.plan
        self._plain = not (plan.options or plan.needs or plan.coroutines or run_state.verbose)
        self._last: object = None
        self._last_stays = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits to be sent, and no map or retry will bring any more."""
        return not (self._back or self._later or self.open or self._run_state.ledger.ready)

    @property
    def pause(self) -> float | None:
        """In how many seconds the next retry is due; `None` if there is none."""
        return max(self._later[0][0] - time.perf_counter(), 0.0) if self._later else None

    @property
    def is_hungry(self) -> bool:
        """Whether there is a map whose next element may come at any moment, or take a while."""
        return any(job.lazy for job in self._maps)

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
        self._back.extendleft(reversed(pending_calls))

    def retry(self, pending_call: PendingCall, seconds: float) -> None:
        """Keep a call until its next attempt is due."""
        if pending_call.job is not None:
            pending_call.job.pausing += 1
        heapq.heappush(self._later, (time.perf_counter() + seconds, next(self._number), pending_call))

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

    # Inside

    def _resumed(self, pending_call: PendingCall) -> PendingCall:
        if pending_call.job is not None:
            pending_call.job.pausing -= 1
        return pending_call

    def _take_plain(self, limit: int) -> PlainCalls | None:
        """Claim tasks of a run in which no task has options, takes a handle or is told of when it starts.

        Measured: to claim, send and settle one of many takes the coordinator 1.7 µs; with a `PendingCall` each, 3.3.
        """
        calls, ready, indexes = self._run_state.plan.calls, self._run_state.ledger.ready, list[int]()
        try:
            while len(indexes) < limit:
                index = ready.popleft()
                if self._stays(calls[index][0]):
                    self._run_state.ledger.put_back(index)
                    break
                indexes.append(index)
        except IndexError:
            pass
        return PlainCalls(calls, indexes) if indexes else None

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
        if self._back:
            return self._back.popleft()
        while True:
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

    def _from_maps(self) -> PendingCall | None:
        for job in list(self._maps):
            drawn = job.draw()
            if drawn is not None:
                place, element, digest = drawn
                call = self._called(job.index, (job.state.function, element, {}))
                return PendingCall.of(job, place, call, digest, stays=self._stays(job.state.function))
            if job.state.nothing_left:
                self._maps.remove(job)
        return None

    def _open(self, index: int, map_function: MapFunction) -> None:
        run_state = self._run_state
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
        self._maps.append(job)
        self.open.add(job)

    def _stays(self, function: Callable[..., object]) -> bool:
        if function is not self._last:  # the same function over and over is looked at once
            self._last, self._last_stays = function, is_process(function)
        return self._last_stays

    def _called(self, index: int, call: Call) -> Call:
        if index not in self._run_state.plan.coroutines:
            return call
        function: Callable[..., object] = call[0]
        return (Awaited(function), *call[1:])
