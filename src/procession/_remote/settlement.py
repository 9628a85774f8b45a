"""What follows from how calls ended: for the ledger, the maps, the next attempts, and those who watch.

results of a batch ──▶ Settlement ──▶ RunState: finished, raised
                           ├──▶ RemoteMap: returned, raised, conclude
                           └──▶ CallQueue: the next attempt
"""

import threading
import time
from collections.abc import Sequence
from itertools import chain

from procession._engine.admission import PutOff
from procession._engine.run_state import RunState
from procession._model.map_share import MapShare
from procession._model.record import WHOLE
from procession._model.remote_setup import REMOTE_SETUP
from procession._remote.pending_call import PendingCall, PlainCalls
from procession._remote.queue import CallQueue
from procession._remote.wire.handed_on import HandedOn
from procession._remote.wire.packed import Packed
from procession._remote.wire.result import Result, fields_of, result_of
from procession.errors import TaskCancelled, TaskSuspended, TaskTimeoutError, TransferError


class Settlement:
    """Settles the calls of one run. For the coordinator's thread only."""

    def __init__(self, run_state: RunState, queue: CallQueue) -> None:
        self._run_state = run_state
        self._queue = queue
        self.handed_on = HandedOn(run_state.plan.needs, run_state.plan.streams)
        self._map_shares: dict[str, MapShare] = {}
        """By worker: the stretch of time that it is on a map, until it does something else."""

    # How calls ended

    def settle_batch(
        self,
        pending_calls: Sequence[PendingCall],
        ended: Sequence[Result | bytes | Packed],
        worker: str,
        shift: float = 0.0,
    ) -> None:
        """Settle the first calls of a batch, of which it is known how they ended."""
        if isinstance(pending_calls, PlainCalls):
            self._settle_plain(pending_calls, ended, worker, shift)
            return
        for pending_call, data in zip(pending_calls, ended, strict=False):
            self.follow(pending_call)
            result = result_of(data, worker, shift)
            if result.returned and not _stands_for_several(pending_call):
                self.handed_on.keep(pending_call.index, result.value, data)
            self.settle(pending_call, result)

    def _settle_plain(
        self, calls: PlainCalls, ended: Sequence[Result | bytes | Packed], worker: str, shift: float
    ) -> None:
        run_state = self._run_state
        starts, workers, finished = run_state.ledger.starts, run_state.workers, run_state.finished
        self._map_shares.pop(worker, None)
        for place, (index, data) in enumerate(zip(calls.indexes, ended, strict=False)):
            returned, value, start, end, _, log, encoded = fields_of(data, shift)
            start, end, error = start + shift, end + shift, None if returned else value
            if log is not None:
                run_state.logged((index, WHOLE), log)
            if returned:
                starts[index] = start
                workers[index] = worker
                try:
                    finished(index, value, end, encoded)
                except BaseException as failure:  # it cannot be recorded
                    error = failure
            if error is not None:
                self.settle(calls[place], Result(False, error, start, end, worker))

    def settle(self, pending_call: PendingCall, result: Result) -> None:
        """Go on from an attempt that has ended."""
        if result.log is not None:
            self._run_state.logged((pending_call.index, pending_call.element), result.log)
        if pending_call.start is None:
            pending_call.start = result.start
        self.tell_start(pending_call)
        self._note_busy(pending_call, result)
        if pending_call.claims is not None:
            standing = self._out_of_limits(pending_call, result)
            if standing is None:
                return
            result = standing
        if pending_call.again is None or isinstance(result.error, TransferError | TaskSuspended):
            self._end(pending_call, result)
        else:
            self._judge(pending_call, result)

    def _out_of_limits(self, pending_call: PendingCall, result: Result) -> Result | None:
        """Give back what an attempt has taken of its limits; return `None` where a service has put it off."""
        for beginning in pending_call.beginnings:
            beginning[0] = max(beginning[0], result.start)
        hung = pending_call.hung
        if isinstance(hung, threading.Thread) and isinstance(result.error, TaskTimeoutError):
            self._queue.end_after(hung, pending_call)
            return result
        error = self._queue.end(pending_call, result.error)
        if isinstance(error, PutOff):
            pending_call.last = result._replace(value=error.error, encoded=None, attempt=pending_call.attempt)
            self._queue.open_streams(pending_call)
            self._queue.give_back([pending_call])
            return None
        return result if error is result.error else result._replace(value=error)

    def refuse_failed(self) -> None:
        """Fail the calls that could not be admitted."""
        failed, self._queue.failed = self._queue.failed, []
        for pending_call, error in failed:
            now = time.perf_counter()
            self.tell_start(pending_call)
            self._fail(pending_call, Result(False, error, now, now, threading.current_thread().name))

    def follow(self, pending_call: PendingCall) -> None:
        """Claim a call that was begun right after the one that it waits for, now that that one has ended."""
        if pending_call.follows:
            pending_call.follows = False
            self._queue.claim(pending_call)

    def _judge(self, pending_call: PendingCall, result: Result) -> None:
        """Go on from an attempt of a call with retries, as its rules say."""
        assert pending_call.again is not None
        seconds, returned, value = pending_call.again.verdict(returned=result.returned, value=result.value)
        if pending_call.job is None and (pending_call.attempt > 1 or seconds is not None):
            # Nobody is busy with it from one attempt to the next.
            self._run_state.map_shares.append(MapShare(pending_call.index, result.worker, result.start, result.end))
        if seconds is None:
            if value is not result.value:  # the rules have put another value in its place
                result = result._replace(returned=returned, value=value, encoded=None)
            self._end(pending_call, result)
            return
        # What it returned is of no use any more.
        pending_call.last = result._replace(value=result.error, encoded=None, attempt=pending_call.attempt)
        attempt, where = pending_call.attempt, (pending_call.element, result.end)
        self._run_state.retrying(pending_call.index, attempt, result.error, result.start, *where)
        self._queue.retry(pending_call, seconds)

    def begin_retry(self, pending_call: PendingCall) -> None:
        """Begin another attempt, unless the one before still goes on in a thread that was abandoned."""
        assert pending_call.again is not None
        assert pending_call.last is not None
        if pending_call.hangs and pending_call.last.error is not None:
            self._end(pending_call, pending_call.last)
            return
        pending_call.again.begin()
        pending_call.attempt += 1
        self._run_state.failed_attempts.begin(pending_call.index, pending_call.element)
        pending_call.alone = True
        self._queue.open_streams(pending_call)
        self._queue.give_back([pending_call])

    def _end(self, pending_call: PendingCall, result: Result) -> None:
        """Take note of how a call ended after its last attempt."""
        failure: BaseException | None = None
        count = 0
        if result.error is None:
            try:
                count = self._record(pending_call, result)
            except BaseException as error:
                job, ends = pending_call.job, self._run_state.ledger.ends
                if job is None and ends[pending_call.index] is not None:
                    raise  # not from the call
                failure = error  # it cannot be recorded
        if failure is not None:
            result = result._replace(returned=False, value=failure)
        if result.error is not None:
            self._fail(pending_call, result)
        elif pending_call.job is not None:
            self._element_ended(pending_call, pending_call.start, result, count, failed=False)

    def _record(self, pending_call: PendingCall, result: Result) -> int:
        """Take note of what a call returned; return how many elements it had. Raises if that cannot be recorded."""
        run_state, index, start = self._run_state, pending_call.index, pending_call.start
        assert start is not None
        if pending_call.job is not None:
            return pending_call.job.state.ends.returned(
                pending_call.element,
                pending_call.digest,
                result.value,
                start,
                result.end,
                pending_call.attempt,
                result.encoded,
            )
        run_state.ledger.starts[index] = start
        run_state.workers[index] = result.worker
        if run_state.verbose:
            run_state.report("task_completed", index, pending_call.attempt, result.end - start)
        run_state.finished(index, result.value, result.end, result.encoded)
        return 0

    def _fail(self, pending_call: PendingCall, result: Result) -> None:
        run_state, index, error = self._run_state, pending_call.index, result.error
        assert error is not None
        if pending_call.job is not None:
            start = result.end if pending_call.start is None else pending_call.start
            place, args = pending_call.element, pending_call.call[1]
            count = pending_call.job.state.raised(place, error, start, pending_call.attempt, args)
            self._element_ended(pending_call, start, result, count, failed=True)
            return
        run_state.ledger.starts[index] = pending_call.start
        run_state.workers[index] = result.worker
        run_state.raised(index, error, in_order=self._queue.in_order, end=result.end)

    # Calls that will not be made, or not be heard of

    def drop(self, pending_call: PendingCall) -> None:
        """Forget a call that was not begun. A call of which the next attempt was not begun ends as the last one did."""
        run_state, last = self._run_state, pending_call.last
        if last is not None:
            pending_call.attempt = last.attempt  # another one was sent, perhaps, and not made
            if pending_call.job is None:
                run_state.attempts[pending_call.index] = last.attempt
            error = last.error or ended_before(pending_call.index)
            self._fail(pending_call, last._replace(returned=False, value=error))
        elif pending_call.job is not None:
            pending_call.job.drop()
        else:
            run_state.ledger.starts[pending_call.index] = None
            run_state.attempts.pop(pending_call.index, None)

    def abandon(self, pending_call: PendingCall, sent_at: float, worker: str) -> None:
        """Fail a call that was sent and of which nobody will hear any more, unless it has ended."""
        self._queue.end(pending_call)
        if pending_call.follows:
            return
        if pending_call.job is None and self._run_state.ledger.ends[pending_call.index] is not None:
            return
        if pending_call.start is None:
            pending_call.start = sent_at
        error = ended_before(pending_call.index)
        self._fail(pending_call, Result(False, error, pending_call.start, time.perf_counter(), worker))

    # Maps

    def conclude_maps(self) -> bool:
        """End the maps whose calls have all ended; return whether there were any."""
        run_state = self._run_state
        done = [job for job in self._queue.open if not job.out and job.state.window.nothing_left]
        for job in done:
            self._queue.open.discard(job)
            if job.start is not None:  # as its first call did, and not when it was opened
                run_state.ledger.starts[job.index] = job.start
            try:
                run_state.finished(job.index, job.conclude(), job.end)
            except BaseException as error:
                if isinstance(error, TaskSuspended):
                    self._queue.leave(job)
                run_state.raised(job.index, error, in_order=self._queue.in_order, end=job.end)
            finally:
                job.close()
        return bool(done)

    def abandon_maps(self) -> None:
        """Close the maps that are still open when the run is over."""
        for job in self._queue.open:
            job.close()
            self._run_state.raised(job.index, ended_before(job.index), in_order=self._queue.in_order)

    def _element_ended(
        self, pending_call: PendingCall, start: float | None, result: Result, count: int, *, failed: bool
    ) -> None:
        job = pending_call.job
        assert job is not None
        if job.index in self._run_state.plan.streams:
            args = pending_call.call[1]
            self.handed_on.elements_taken(chain.from_iterable(args) if _stands_for_several(pending_call) else args)
        share = self._map_shares.get(result.worker)
        if share is None or share.task != job.index:
            self._map_shares[result.worker] = share = job.share(result.worker, result.end, result.end)
        share.count(count, failed=failed)
        job.ended(result.end if start is None else start, result.end)

    def _note_busy(self, pending_call: PendingCall, result: Result) -> None:
        """Add an element's call to the share of its worker in the map, or close the share of a worker that has left."""
        share = self._map_shares.get(result.worker)
        if pending_call.job is None:
            self._map_shares.pop(result.worker, None)
        elif share is not None and share.task == pending_call.index:
            share.note(result.start, result.end)
        else:
            self._map_shares[result.worker] = pending_call.job.share(result.worker, result.start, result.end)

    # Events

    def tell_start(self, pending_call: PendingCall) -> None:
        """Tell of the start of a task, once, and keep what observers send along with it."""
        run_state = self._run_state
        if run_state.verbose and pending_call.job is None and not pending_call.told:
            pending_call.told = True
            context = run_state.context.copy()
            context.run(run_state.report, "task_started", pending_call.index, 1, None)
            pending_call.remote_setup = context.get(REMOTE_SETUP)


def _stands_for_several(pending_call: PendingCall) -> bool:
    """Return whether a call is that of several elements, whose values are in the list that it returns."""
    return pending_call.job is not None and pending_call.job.state.batches is not None


def ended_before(index: int) -> TaskCancelled:
    """Return the error of a call that the run did not wait for."""
    return TaskCancelled(f"the run ended before task {index} did")
