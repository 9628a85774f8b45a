"""Calls that are made elsewhere, for somebody who waits for each, or for a few: of an executor's caller, or of a run.

    submit ──▶ queue ──▶ thread: send, receive ──▶ backend
    Future ◀────────────────────┘

The thread is there while calls are, and a moment longer. Where the calls are not of a run, it is no daemon, so the
interpreter waits at its exit until all futures are done.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from procession._engine.latch import SLICE_S
from procession._engine.placed import Made
from procession._engine.run_state import RunState
from procession._engine.task_logs import wanted_logs
from procession._model.text import described
from procession._remote.backends.base import Arrival, Backend
from procession._remote.batch_size import BatchSize
from procession._remote.wire.batch import Batch, BatchOptions
from procession._remote.wire.packed import Packed
from procession._remote.wire.result import Result, result_of
from procession._remote.wire.serialize import Call, by_value
from procession.errors import TaskCancelled, TransferError

_LINGER_S = 0.05
"""How long the thread stays without a call, since the next may come soon."""
_TURN_S = 10.0
_GRACE_S = 1.0
"""How long a call of a cancelled run may go on before the worker it runs in is ended, where that is possible."""


class Submission:
    """Calls that were submitted, to be made one after another by one worker, and the future of how they end."""

    def __init__(self, calls: Sequence[Call], batch_size: BatchSize | None = None) -> None:
        self.calls = calls
        self.batch_size = batch_size
        """What learns how long they took."""
        self.future: Future[Made] = Future()
        self.hung: threading.Thread | bool = False
        self.whole = False
        """Whether functions are to go by value."""
        self.at: float | None = None
        """When they were sent, as a reading of the clock."""
        self.late = 0.0
        """When the batch is late."""
        self.settled = 0
        """How many calls were settled before the batch came back: they are not among its calls any more."""

    def end(self, ended: Sequence[Result], going: "Submission | None" = None) -> None:
        """Say how the first calls ended, and which others are still going on."""
        self.future.set_result(Made(ended, going, 0 if going is None else len(going.calls)))

    def fail(self, error: BaseException) -> None:
        """End all calls with an error."""
        now = time.perf_counter()
        self.end([Result(False, type(error)(*error.args), now, now, "") for _ in self.calls])


class SingleCall(Submission):
    """A call whose future is that of its value."""

    def end(self, ended: Sequence[Result], going: Submission | None = None) -> None:  # noqa: ARG002 - as for several
        """Say how the call ended."""
        future: Future[Any] = self.future
        (result,) = ended
        if result.returned:
            future.set_result(result.value)
        else:
            future.set_exception(result.value)

    def fail(self, error: BaseException) -> None:
        """End the call with an error."""
        self.future.set_exception(error)


class Submissions:
    """The calls that are submitted to a backend, which `open_backend` makes when there is one to be made.

    `check` raises where no call is taken. With a `run_state`, they are calls of tasks of a run, and end with it. The
    backend is closed once there was no call for `linger_s` seconds.
    """

    def __init__(
        self,
        name: str,
        open_backend: Callable[[], Backend],
        check: Callable[[], object] = lambda: None,
        run_state: RunState | None = None,
        linger_s: float = _LINGER_S,
    ) -> None:
        self._name = name
        self._linger_s = linger_s
        self._open_backend = open_backend
        self._check = check
        self._run_state = run_state
        self._lock = threading.Lock()
        self._queue: deque[Submission] = deque()
        self._sent: dict[Batch, Submission] = {}
        self._open: dict[int, Submission] = {}
        """Those that have not ended, wherever they are: whatever is raised here, nobody waits for one without end."""
        self._options = BatchOptions(name, "", budget=0.0)
        if run_state is not None:
            recorder = run_state.recorder
            self._options = BatchOptions(
                run_state.process_name,
                run_state.run_id,
                budget=0.0,
                wanted_logs=wanted_logs(recorded=recorder is not None),
                recorded=recorder is not None,
                allow_changes=recorder is not None and recorder.allow_changes,
                stops=run_state.ledger.on_error == "stop",
            )
        self._backend: Backend | None = None
        """That of the thread, while there is one."""
        self._thread: threading.Thread | None = None
        self._told: tuple[bool, bool] | None = None
        self._kill_at: float | None = None
        self._closed = self._ends = self._forsaken = False

    def submit(self, submission: Submission) -> None:
        """Queue calls. Raises `RuntimeError` if none are taken."""
        self._check()  # first of all in a fork, where the lock may be locked for ever
        with self._lock:
            self._check()
            self._keep(submission)
            self._queue.append(submission)
            if self._backend is None:
                self._start()
            else:
                self._backend.wake()

    def _keep(self, submission: Submission) -> None:
        key = id(submission)  # the submission itself would keep itself
        self._open[key] = submission
        submission.future.add_done_callback(lambda _: self._open.pop(key, None))

    @property
    def under_way(self) -> int:
        """How many calls have been sent and have not come back."""
        return sum(len(submission.calls) for submission in list(self._sent.values()))

    def cancel(self) -> None:
        """Cancel the calls that are not sent yet."""
        with self._lock:
            submissions = list(self._queue)
            self._queue.clear()
        for submission in submissions:
            submission.future.cancel()
            submission.future.set_running_or_notify_cancel()

    def wake(self) -> None:
        """Wake the thread, so that it notices that the run was stopped."""
        with self._lock:
            if self._backend is not None:
                self._backend.wake()

    def end(self) -> None:
        """Let the thread end as soon as there is no call."""
        self._ends = True
        self.wake()

    def close(self) -> bool:
        """End the thread at once; return whether calls were still under way, which end with it where that can be."""
        self._closed = True
        self.end()
        self.join()
        return self._forsaken

    def join(self) -> None:
        """Wait until the thread has ended, as it does after `end`."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    # Inside

    def _start(self) -> None:
        try:
            backend = self._open_backend()
        except BaseException:
            del self._open[id(self._queue.pop())]
            raise
        try:
            thread = threading.Thread(
                target=self._serve, args=(backend,), name=f"{self._name}-futures", daemon=self._run_state is not None
            )
            thread.start()
            self._thread = thread
        except BaseException:
            del self._open[id(self._queue.pop())]
            backend.close(at_once=True)
            raise
        self._backend = backend

    def _serve(self, backend: Backend) -> None:
        """Send calls and take their results back until there are none: the whole thread."""
        failure: BaseException | None = None
        over = False
        try:
            self._options = self._options._replace(kills=backend.kills)
            self._told, idle_since = None, time.monotonic()
            while not (self._closed or over):
                self._look(backend)
                self._send(backend)
                self._recall(backend)
                if self._sent or self._queue:
                    idle_since = time.monotonic()
                elif self._is_over(idle_since):
                    over = True
                    continue
                for arrival in backend.receive(self._pause()):
                    self._settle(arrival)
        except BaseException as error:
            failure = error
        if over:  # another thread may have begun with the calls that came since
            backend.close(at_once=False)
            return
        self._forsaken = failure is not None or bool(self._sent)
        self._fail(failure)
        backend.close(at_once=self._forsaken)

    def _pause(self) -> float:
        if not (self._sent or self._queue):
            return min(self._linger_s, _TURN_S)
        now = time.perf_counter()
        # Of a batch that is late, it is looked again and again whether a worker is free for the calls that lie in it.
        late = [submission.late - now for submission in self._sent.values() if len(submission.calls) > 1]
        pause = min((SLICE_S if seconds <= 0 else seconds for seconds in late), default=_TURN_S)
        return pause if self._kill_at is None else min(pause, max(self._kill_at - now, 0.0))

    def _is_over(self, idle_since: float) -> bool:
        with self._lock:
            if self._queue or not (self._ends or time.monotonic() - idle_since >= self._linger_s):
                return False
            self._backend = None
        return True

    def _look(self, backend: Backend) -> None:
        """Begin nothing more where the run is halted, and end what runs some time after it was cancelled."""
        ledger = None if self._run_state is None else self._run_state.ledger
        if ledger is None or not ledger.halted:
            return
        with self._lock:
            submissions = list(self._queue)
            self._queue.clear()
        for submission in submissions:
            submission.end([])
        told = True, ledger.cancelled
        if told != self._told:
            self._told = told
            backend.halt(cancelled=ledger.cancelled)
            if ledger.cancelled and not isinstance(ledger.failure, KeyboardInterrupt):
                self._kill_at = time.perf_counter() + _GRACE_S
        if self._kill_at is not None and time.perf_counter() >= self._kill_at:
            self._kill_at = None
            backend.stop()

    def _send(self, backend: Backend) -> None:
        while (left := len(self._queue)) and backend.room(left, None) > 0:
            try:
                submission = self._queue.popleft()
            except IndexError:  # cancelled just now
                return
            if submission.at is None and not submission.future.set_running_or_notify_cancel():
                continue
            calls, learns = submission.calls, submission.batch_size
            budget = 0.0 if learns is None else 2 * learns.batch_s
            batch = Batch(
                calls,
                self._options._replace(budget=budget),
                self._run_state,
                whole=submission.whole,
                within=backend.within,
            )
            submission.at = time.perf_counter()
            submission.late = submission.at + (0.0 if learns is None else learns.late_s(len(calls)))
            self._sent[batch] = submission
            backend.send(batch, calls[0][3])

    def _recall(self, backend: Backend) -> None:
        """Take back calls that lie behind others in batches that are late, if a worker is free to make them."""
        now = time.perf_counter()
        late = {batch for batch, sent in self._sent.items() if len(sent.calls) > 1 and sent.late <= now}
        for batch, ended, begun in backend.recall(late) if late and not self._queue else ():
            submission, count = self._sent[batch], len(ended)
            going = Submission(submission.calls[count:begun], submission.batch_size)
            going.at, going.late, going.settled = submission.at, submission.late, count
            going.future.set_running_or_notify_cancel()
            if going.calls:
                self._keep(going)
            self._sent[batch] = going
            results = [self._result(call, data, "") for call, data in zip(submission.calls, ended, strict=False)]
            submission.end(results, going if going.calls else None)

    def _result(self, call: Call, data: Result | bytes | Packed, worker: str, shift: float = 0.0) -> Result:
        result = result_of(data, worker, shift)
        if result.log is not None and self._run_state is not None:
            self._run_state.logged(call[:2], result.log)
        return result

    def _settle(self, arrival: Arrival) -> None:
        submission, report, lost, now = self._sent.pop(arrival.batch), arrival.report, arrival.lost, time.perf_counter()
        calls, at = submission.calls, submission.at
        assert at is not None
        if report is not None and report.error is not None:
            self._settle_unread(submission, report.error)
            return
        results: list[Result] = []
        if report is not None:
            submission.hung = report.hung
            # Where the worker's clock is another one than ours, its work is taken to have ended when it came back.
            shift = 0.0 if at <= report.began and report.finished <= now else now - report.finished
            ended = report.ended[submission.settled :]
            results = [self._result(call, data, report.worker, shift) for call, data in zip(calls, ended, strict=False)]
            if submission.batch_size is not None and report.ended and not submission.settled:
                took = report.finished - report.began
                submission.batch_size.learn(len(results), seconds=took, way=now - at - took, size=arrival.batch.size)
        if lost is not None and len(results) < len(calls):
            if report is not None and report.crash_log is not None and self._run_state is not None:
                self._run_state.logged(*report.crash_log)
            results.append(Result(False, lost, at, now, ""))
        if results or len(calls) > 1:
            submission.end(results)
        elif calls:  # it was not begun
            submission.settled = 0
            self._queue.appendleft(submission)

    def _settle_unread(self, submission: Submission, error: BaseException) -> None:
        """Go on from a call that the worker could not unpickle: send it by value, once."""
        if not isinstance(error, MemoryError) and not submission.whole and by_value() is not None:
            submission.whole = True
            self._queue.appendleft(submission)
        elif len(submission.calls) > 1:
            submission.end([])  # one by one, only one of them fails
        elif isinstance(error, MemoryError):
            submission.fail(MemoryError("the worker process had no memory left to read the call"))
        else:
            why = f"the call could be pickled, but not be unpickled in the worker: {described(error)}"
            submission.fail(TransferError(why))

    def _fail(self, error: BaseException | None) -> None:
        """End every call, as no worker can be had, or as nobody waits for the run any more."""
        with self._lock:
            self._backend = None
            submissions = list(self._open.values())
            self._sent.clear()
            self._queue.clear()
        if self._run_state is not None:
            if error is not None:
                self._run_state.interrupt(error)
            error = None
        for submission in submissions:
            future = submission.future
            if future.done() or not (future.running() or future.set_running_or_notify_cancel()):
                continue
            if submission.at is None and self._run_state is not None:
                submission.end([])
            else:
                submission.fail(error or TaskCancelled("the run ended before the call did"))
