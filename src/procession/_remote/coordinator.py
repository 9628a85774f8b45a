"""The engine for worker processes, Executors, Dask and Ray: one coordinator, which sends calls and takes them back.

    ledger ──claim──▶ queue ──batch──▶ backend ┄┄▶ worker
       ▲                ▲                 ┊
       │           not begun, or          ┊
       │           to be retried          ▼
    run state ◀──── settlement ◀──── report of a batch

Workers know neither the plan nor the ledger: every decision is made here. The backend says how many batches may be
under way, so that no call waits in a queue elsewhere while a worker has nothing to do.
"""

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from procession._engine.call_context import CallContext
from procession._engine.commit import AT_RISK, AT_RISK_S, CommitThread
from procession._engine.latch import SLICE_S, Latch
from procession._engine.run_deadline import within
from procession._engine.run_state import RunState
from procession._engine.suspension import look_again, may_go_on
from procession._engine.task_logs import wanted_logs
from procession._model.record import WHOLE
from procession._model.strategy import Stage
from procession._model.text import shown
from procession._remote.backends.base import Arrival, Backend
from procession._remote.backends.executor import LocalBackend
from procession._remote.batch_size import MOST_BYTES, BatchSize
from procession._remote.pending_call import PendingCall, PlainCalls
from procession._remote.queue import CallQueue
from procession._remote.settlement import Settlement
from procession._remote.wire.batch import Batch, BatchOptions, Report
from procession._remote.wire.result import Result
from procession._remote.wire.serialize import Call, by_value
from procession.errors import TransferError, WorkersUnavailableError

_TURN_S = 0.002
"""How long to wait for one backend before turning to another, or to a source of elements."""
_LEAVING_S = 1.0
"""How long the second Ctrl-C waits for workers to be ended."""
_GRACE_S = 1.0
"""How long a cancelled task may go on before the worker it runs in is ended, where that is possible."""


class _Sent:
    """A batch that has been sent and not come back: its calls, since when, and when it is late."""

    __slots__ = ("at", "call_context", "late", "pending_calls", "settled")

    def __init__(self, pending_calls: Sequence[PendingCall], call_context: CallContext, late_s: float) -> None:
        self.pending_calls = pending_calls
        self.call_context = call_context
        self.at = time.perf_counter()
        self.late = self.at + late_s
        self.settled = 0
        """How many of its calls were settled before it came back: they are not among `pending_calls` any more."""


class Coordinator:
    """Drives the run state of one run over a backend, which `open_backend` makes when the run begins.

    With `own_thread`, a run that is driven from the main thread is coordinated in a thread of its own, so that signals
    interrupt only a wait.
    """

    def __init__(
        self, run_state: RunState, open_backend: Callable[[RunState], Backend], *, own_thread: bool = True
    ) -> None:
        self.run_state = run_state
        self._open_backend = open_backend
        self._own_thread = own_thread
        self._backend: Backend | None = None
        self._local: LocalBackend | None = None
        self._queue = CallQueue(run_state)
        self._settlement = Settlement(run_state, self._queue)
        self._batch_size = BatchSize()
        self._sent: dict[Batch, _Sent] = {}
        self._whole = False
        self._wanted_logs = wanted_logs(recorded=run_state.recorder is not None)
        self._encode = None if run_state.recorder is None else run_state.recorder.encode_elsewhere
        self._commit_thread: CommitThread | None = run_state.commit_thread()
        self._left = False
        self._told = (False, False)
        self._patience: float | None = None

    def drive(self) -> None:
        """Run every stage. Never raises what a task raised.

        Signals reach only the main thread, at any instruction, so the main thread does nothing but wait. Raises the
        second `KeyboardInterrupt` at once, with calls still being made.
        """
        run_state = self.run_state
        if not self._own_thread or threading.current_thread() is not threading.main_thread():
            self._coordinate()
            return
        over = Latch()

        def coordinate() -> None:
            try:
                self._coordinate()
            except BaseException as error:
                run_state.interrupt(error)
            finally:
                over.open()

        name = f"procession-{shown(run_state.process_name, 40)}-coordinator"
        coordinator = threading.Thread(target=coordinate, name=name, daemon=True)
        try:
            coordinator.start()
        except RuntimeError as error:
            text = f"process {run_state.process_name!r}: no coordinator thread could be started: {error}"
            run_state.interrupt(WorkersUnavailableError(text))
            return
        try:
            over.wait_through(run_state.interrupt)
            coordinator.join()
        except BaseException as error:
            run_state.interrupt(error)
            self._left = True
            coordinator.join(_LEAVING_S)
            raise

    def leave_behind(self) -> None:
        """End the workers, as nobody waits for this run any more. From another thread."""
        self._left = True
        self._wake()

    def _coordinate(self) -> None:
        run_state, here = self.run_state, threading.get_ident()
        if self._commit_thread is not None:
            self._commit_thread.committed = self._wake
        self._queue.on_wake = lambda: None if threading.get_ident() == here else self._wake()
        try:
            self._backend = self._open_backend(run_state)
            for stage in run_state.plan.stages:
                if not run_state.ledger.well:
                    break
                self._run(stage, self._backend)
            values = run_state.ledger.values
            if isinstance(values, list) and not self._left:
                self._backend.fetch(values)
        except BaseException as error:
            run_state.break_down(error)
        finally:
            ends: list[Callable[[], object]] = [self._forsake, self._queue.close, self._settlement.handed_on.close]
            if self._commit_thread is not None:
                ends.insert(0, partial(self._commit_thread.close, wait=not self._left))
            ends += [partial(backend.close, at_once=self._left) for backend in self._backends()]
            for end in ends:
                try:
                    end()
                except BaseException as error:
                    run_state.interrupt(error)

    def _run(self, stage: Stage, backend: Backend) -> None:
        """Run all tasks of a stage that are ready or become ready."""
        run_state, queue = self.run_state, self._queue
        queue.in_order = not stage.at_once
        run_state.ledger.open(stage)
        while not self._left:
            if queue.in_order:
                run_state.commits.flush()
            if run_state.ledger.halted:
                self._halt()
            else:
                self._send(backend)
            if self._settlement.conclude_maps():
                continue
            committing = run_state.commits.busy  # before it is looked what is ready: a commit makes others ready
            busy = [some for some in self._backends() if some.busy]
            if not busy and queue.rests and self._goes_on(committing=committing):
                continue
            if not busy and queue.is_empty:
                return
            if self._commit_thread is not None:
                self._commit_thread.commit()
            if busy or committing or run_state.admission is not None or run_state.streams is not None:
                self._receive(busy or [backend])  # which can be woken
            else:
                run_state.wait_halted(self._pause())

    def _goes_on(self, *, committing: bool) -> bool:
        """Return whether there may be something to do after all: what is committed now, was answered or is due."""
        if committing:
            self.run_state.commits.flush()  # there is nothing else to do: no time goes into waking another thread
            return True
        return may_go_on(self.run_state) and look_again(self.run_state)

    def _receive(self, backends: Sequence[Backend]) -> None:
        """Wait for batches to come back, or for something to be committed, and settle what has come."""
        pause = self._pause() if len(backends) == 1 else _TURN_S
        for backend in backends:
            for arrival in backend.receive(pause):
                self._settle(arrival)

    def _pause(self) -> float:
        """Return for how many seconds nothing is to be looked after."""
        pause = _TURN_S if self._queue.is_hungry else SLICE_S
        return min(pause, self._until_late(), pause if self._queue.pause is None else self._queue.pause)

    def _backends(self) -> list[Backend]:
        return [backend for backend in (self._backend, self._local) if backend is not None]

    def _wake(self) -> None:
        """Make the coordinator look again at what may be sent: something was committed or admitted. From any thread."""
        for backend in self._backends():
            backend.wake()

    # Sending

    def _send(self, backend: Backend) -> None:
        queue, in_order = self._queue, self._queue.in_order
        for pending_call in queue.due():
            self._settlement.begin_retry(pending_call)
        queue.wake()
        while not (in_order and (self._sent or queue.waits)):
            left = queue.count()
            if not left:
                if in_order or not self._recalled(backend):
                    return
                continue
            # A batch that lies ready at a busy worker takes no place of its own.
            full = len(self._sent) - backend.ahead >= self.run_state.max_workers
            if full and self._local is not None and self._local.busy:
                return
            room = backend.room(1 if in_order else queue.near, self._batch_size.call_s)
            if room <= 0 and (full or not queue.next_stays):
                return
            size = self._size(queue.near, backend)
            queue.idle = backend.idle
            pending_calls = queue.take(size) if size > 0 else ()
            self._settlement.refuse_failed()
            if not pending_calls:
                if in_order or not self._recalled(backend):
                    return
                continue
            if full and pending_calls[0].stays:
                queue.give_back(pending_calls)
                return
            self._send_calls(self._backend_for(pending_calls[0], backend), pending_calls)

    def _size(self, left: int, backend: Backend) -> int:
        """Return how many calls to send together, 0 if none may be sent for now."""
        if not self._queue.in_order:
            return self._within_risk(self._batch_size.size(left, self.run_state.max_workers), backend)
        # In order, a task has ended when that is recorded, and only then may the next one start.
        return 1 if self.run_state.recorder is not None else self._batch_size.size(left, 1)

    def _within_risk(self, size: int, backend: Backend) -> int:
        """Return how many calls may be sent where only so many may have ended and not be committed.

        Of the calls under way, all but the last of each worker may have ended when another begins.
        """
        if self.run_state.recording is None:
            return size
        call_s = self._batch_size.call_s or AT_RISK_S
        most = max(AT_RISK, AT_RISK_S / max(call_s, 1e-7)) / (2 * self.run_state.max_workers)
        ahead = sum(len(sent.pending_calls) for sent in self._sent.values()) - len(self._sent) + backend.ahead
        return min(size, max(int(most), 1), self.run_state.recording.commits.room(call_s, ahead))

    def _backend_for(self, pending_call: PendingCall, backend: Backend) -> Backend:
        if not pending_call.stays:
            return backend
        if self._local is None:
            self._local = LocalBackend(self.run_state)
        return self._local

    def _send_calls(self, backend: Backend, pending_calls: Sequence[PendingCall]) -> None:
        run_state, chained = self.run_state, pending_calls[-1].follows
        stop = run_state.ledger.on_error == "stop"
        self._settlement.tell_start(pending_calls[0])
        options = BatchOptions(
            run_state.process_name,
            run_state.run_id,
            budget=2 * self._batch_size.batch_s,
            stops=self._queue.in_order or chained or stop,
            halts=stop and (isinstance(pending_calls, PlainCalls) or all(map(_is_last, pending_calls))),
            kills=backend.kills,
            chained=chained,
            wanted_logs=self._wanted_logs,
            encode=self._encode,
            recorded=run_state.recorder is not None,
            allow_changes=run_state.recorder is not None and run_state.recorder.allow_changes,
        )
        batch = Batch(self._calls(pending_calls), options, run_state, whole=self._whole, within=backend.within)
        batch.handed_on = None if isinstance(pending_calls, PlainCalls) else self._settlement.handed_on
        sent = _Sent(pending_calls, run_state.call_context(""), self._batch_size.late_s(len(pending_calls)))
        sent.call_context.index = pending_calls[0].index
        self._sent[batch] = sent
        self._note_sent(pending_calls, sent.at)
        sent.call_context.worker = backend.send(batch, self._timeout(pending_calls[0]))
        if batch.size > MOST_BYTES and pending_calls[0].job is not None:
            pending_calls[0].job.draw_less()
        if batch.handed_on is not None:
            for pending_call in pending_calls:
                if pending_call.stays:
                    batch.handed_on.forget(pending_call.index)
                elif pending_call.job is None:
                    batch.handed_on.taken(pending_call.index)

    def _calls(self, pending_calls: Sequence[PendingCall]) -> list[Call]:
        if isinstance(pending_calls, PlainCalls):
            calls = self.run_state.plan.calls
            return [
                (index, WHOLE, 1, None, function, args, kwargs)
                for index in pending_calls.indexes
                for function, args, kwargs in (calls[index],)
            ]
        return [
            (
                pending_call.index,
                pending_call.element,
                pending_call.attempt,
                self._timeout(pending_call),
                *pending_call.with_setup,
            )
            for pending_call in pending_calls
        ]

    def _timeout(self, call: PendingCall) -> float | None:
        return None if call.timeout is None else within(self.run_state, call.timeout)

    def _note_sent(self, pending_calls: Sequence[PendingCall], at: float) -> None:
        starts = self.run_state.ledger.starts
        if isinstance(pending_calls, PlainCalls):
            for index in pending_calls.indexes:
                starts[index] = at
            return
        for pending_call in pending_calls:
            if pending_call.follows or pending_call.job is not None:
                continue
            self.run_state.attempts[pending_call.index] = pending_call.attempt
            if starts[pending_call.index] is None:
                starts[pending_call.index] = at

    # Taking back

    def _until_late(self) -> float:
        """Return in how many seconds a batch may be late, and calls of it be taken back."""
        now = time.perf_counter()
        if self._queue.in_order or self._queue.count():
            return SLICE_S
        return min((sent.late - now for sent in self._sent.values() if sent.late > now), default=SLICE_S)

    def _recalled(self, backend: Backend) -> bool:
        """Take back calls that lie behind others in batches that are late, if a worker is free to make them.

        The calls of these batches that have ended are settled, as other tasks may wait for them. Return whether any
        batch was recalled.
        """
        if self.run_state.ledger.halted or len(self._sent) - backend.ahead >= self.run_state.max_workers:
            return False
        now = time.perf_counter()
        late = {batch for batch, sent in self._sent.items() if sent.late <= now}
        recalled = backend.recall(late) if late else []
        for batch, ended, begun in recalled:
            sent = self._sent[batch]
            pending_calls = list(sent.pending_calls)
            sent.pending_calls, sent.settled = pending_calls[len(ended) : begun], len(ended)
            self._settlement.settle_batch(pending_calls, ended, sent.call_context.worker)
            for pending_call in sent.pending_calls:
                self._settlement.follow(pending_call)
            if begun:
                self._batch_size.learn(begun, seconds=now - sent.at, way=now - sent.at, size=batch.size)
            self._queue.give_back([pending_call for pending_call in pending_calls[begun:] if not pending_call.follows])
        return bool(recalled)

    def _settle(self, arrival: Arrival) -> None:
        """Go on from a batch that came back."""
        sent = self._sent[arrival.batch]
        report = arrival.report
        if report is None or report.error is not None:
            self._settle_unmade(arrival, sent)
        else:
            self._settle_made(arrival, sent, report)
        del self._sent[arrival.batch]
        self.run_state.leave(sent.call_context)

    def _settle_made(self, arrival: Arrival, sent: _Sent, report: Report) -> None:
        """Settle the calls that were made, and have the others made elsewhere."""
        pending_calls, lost, now = sent.pending_calls, arrival.lost, time.perf_counter()
        # Where the worker's clock is another one than ours, its work is taken to have ended when it came back.
        shift = 0.0 if sent.at <= report.began and report.finished <= now else now - report.finished
        if report.ended and not sent.settled:
            took = report.finished - report.began
            self._batch_size.learn(len(report.ended), seconds=took, way=now - sent.at - took, size=arrival.batch.size)
        ended = report.ended[sent.settled :]
        if not isinstance(pending_calls, PlainCalls):
            for pending_call in pending_calls:
                pending_call.hung = report.hung
        self._settlement.settle_batch(pending_calls, ended, report.worker, shift)
        rest = pending_calls[len(ended) :]
        if lost is not None and rest:
            first, rest = rest[0], rest[1:]
            self._settlement.follow(first)
            if report.crash_log is not None and report.crash_log[0] == (first.index, first.element):
                self.run_state.logged(*report.crash_log)
            self._settlement.settle(first, Result(False, lost, sent.at, now, report.worker))
        # Those that follow are claimed anew once what they wait for has ended.
        self._queue.give_back([pending_call for pending_call in rest if not pending_call.follows])

    def _settle_unmade(self, arrival: Arrival, sent: _Sent) -> None:
        """Go on from a batch of which no call was made, as far as is known."""
        batch, report, lost = arrival
        claimed = [pending_call for pending_call in sent.pending_calls if not pending_call.follows]
        if report is not None and report.error is not None:
            self._settle_unread(batch, claimed, report.error, sent.at)
        elif lost is None:
            if batch.size > MOST_BYTES and len(claimed) > 1:
                # They were too much to send together. Those of many megabytes are not to be held here at once, either.
                self._batch_size.weigh(len(claimed), batch.size)
                for pending_call in claimed:
                    pending_call.alone = True
            self._queue.give_back(claimed)
        else:
            for pending_call in claimed:
                self._lose(pending_call, type(lost)(*lost.args), sent.at, sent.call_context.worker)

    def _settle_unread(
        self, batch: Batch, pending_calls: Sequence[PendingCall], error: BaseException, sent_at: float
    ) -> None:
        """Go on from calls that the worker could not unpickle: send them by value, then one by one; then one fails."""
        if isinstance(error, MemoryError):
            if len(pending_calls) == 1:
                self._lose(
                    pending_calls[0], MemoryError("the worker process had no memory left to read the call"), sent_at, ""
                )
                return
        elif not batch.whole and by_value() is not None:
            self._whole = True
        elif len(pending_calls) == 1:
            why = f"the call could be pickled, but not be unpickled in the worker: {error}"
            self._lose(pending_calls[0], TransferError(why), sent_at, "")
            return
        for pending_call in pending_calls:
            pending_call.alone = pending_call.alone or batch.whole
        self._queue.give_back(pending_calls)

    def _lose(self, pending_call: PendingCall, error: BaseException, sent_at: float, worker: str) -> None:
        self._settlement.settle(pending_call, Result(False, error, sent_at, time.perf_counter(), worker))

    # Stopping

    def _halt(self) -> None:
        """Start nothing new, and drop what waits."""
        ledger = self.run_state.ledger
        told = (True, ledger.cancelled)
        if told != self._told:
            self._told = told
            for backend in self._backends():
                backend.halt(cancelled=ledger.cancelled)
            if ledger.cancelled and not isinstance(ledger.failure, KeyboardInterrupt):
                self._patience = time.monotonic() + _GRACE_S
        if self._patience is not None and time.monotonic() > self._patience and self._backend is not None:
            self._patience = None
            self._backend.stop()
        for pending_call in self._queue.drop():
            self._settlement.drop(pending_call)

    def _forsake(self) -> None:
        """Fail the calls that are still under way when the run is over: nobody waits for them any more."""
        for sent in self._sent.values():
            self.run_state.leave(sent.call_context)
            for pending_call in sent.pending_calls:
                self._settlement.abandon(pending_call, sent.at, sent.call_context.worker)
        self._sent.clear()
        self._settlement.abandon_maps()


def _is_last(pending_call: PendingCall) -> bool:
    """Return whether the run is over at once if this attempt fails and failures stop it."""
    return pending_call.again is None and pending_call.job is None and not pending_call.limits
