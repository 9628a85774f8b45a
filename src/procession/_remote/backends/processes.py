"""A backend of worker processes of our own: each has its own pipes, is ended at a timeout, and replaced when gone.

    room ──starts──▶ worker ◀══ work ══▶ send, receive
      ▲                 ▲
    pool                └────── word ─── halt, close

Measured beside a `ProcessPoolExecutor` with one worker for each of ours, of the standard library and of loky, and
pebble's pool: the way there and back takes 30 µs instead of 165 to 300, no threads, and a worker that is killed while
it sends a large result is noticed; both executors wait for the rest of it for ever.
"""

import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Collection
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, Protocol

from procession._model.text import described, shown
from procession._model.where import usable_cores
from procession._remote.backends.alarm import Alarm
from procession._remote.backends.base import SETTLED_S, Arrival, Recalled
from procession._remote.backends.worker_pool import WorkerPool
from procession._remote.backends.worker_process import EXIT_CHECK_S, WorkerProcess
from procession._remote.batch_size import MOST_BYTES
from procession._remote.wire.batch import Batch
from procession._remote.wire.snapshots import Snapshots
from procession._remote.worker.process_main import CANCEL, HALT
from procession.errors import TaskCancelled, TaskTimeoutError, WorkerDiedError, WorkersUnavailableError

if TYPE_CHECKING:
    from procession._remote.wire.call_requests import CallRequest

_QUIET_S = 0.01
"""Where nothing has come back for so long, and calls wait, more workers than there are cores are started for them."""
_SOME_WORK_S = 0.2
"""The same where so many seconds of work wait for each worker: about twice what it takes to start one."""
_STALL_S, _STALLS = 0.05, 3
"""The same if all compute: one at a time, where nothing has come back for three times as long as a call takes, too."""
_WORTH_S = 0.5
"""The same, where so much work waits for each worker."""
_AHEAD_S, _AHEAD_CALLS = 0.01, 4
"""A batch lies ready at each worker that has one while so much work, and so many calls, wait for each of them."""
_STILLBORN = 3
"""After so many workers in a row that were gone before they could take a task, no other is started beside the rest."""
_KILLED = "others were, too: the system may have too little memory for so many workers, which max_workers bounds"
_UNGUARDED = 'starts a process when it is imported, and so in every worker: put that under if __name__ == "__main__":'


class Served(Protocol):
    """What a backend has to know of the run that it serves."""

    process_name: str
    run_id: str
    max_workers: int

    def name(self, index: int) -> str:
        """Return the name of a task."""
        ...


class ProcessBackend:
    """The worker processes that a run has of a pool, which ends with the run if it is the run's own."""

    kills = True
    within = None

    def __init__(self, run: Served, pool: WorkerPool, *, own: bool = False) -> None:
        self._run = run
        self._pool = pool
        self._own = own
        self._number = pool.enter(self)
        self._workers: list[WorkerProcess] = []
        """Those that start, have a batch, or were granted a moment ago."""
        self.granted: deque[WorkerProcess] = deque()
        self.answer: Callable[[CallRequest, Callable[[bytes], object]], object] | None = None
        """What answers the tasks that ask something of the journal, in a recorded run."""
        self._alarm: Alarm | None = None
        """The ends of a pipe by which other threads wake this one, where they have a reason to."""
        self._asked = self._waits = False
        self._arrivals: list[Arrival] = []
        self._snapshots = Snapshots()
        self._stillborn = 0
        self._any_greeted = False
        self._failed: WorkersUnavailableError | None = None
        """Why no worker can be had: raised once what has arrived has been taken."""
        self._halted = False
        self._watched = False
        self._heard = time.monotonic()
        self._checked = self._looked = self._heard
        self._cores = usable_cores()

    @property
    def ahead(self) -> int:
        """How many batches lie ready at workers that are busy with another one."""
        return sum(worker.ahead is not None for worker in self._workers)

    @property
    def idle(self) -> bool:
        """Whether a worker has nothing to do, of this run or of the pool."""
        return self._spare > 0 or any(worker.is_free for worker in self._workers)

    @property
    def _spare(self) -> int:
        """How many workers of the pool that have nothing to do this run may have."""
        return min(self._pool.spare, self._run.max_workers - len(self._workers))

    @property
    def busy(self) -> bool:
        """Whether there is something to receive sooner or later."""
        return (
            self._waits
            or self._failed is not None
            or bool(self._arrivals)
            or any(worker.batch is not None or worker.greeted or not self._halted for worker in self._workers)
        )

    def room(self, waiting: int, call_s: float | None) -> int:
        """Return how many batches can be sent, after starting more workers if they are worth it."""
        self._check()
        self._asked = True
        free = starting = 0
        for worker in self._workers:
            free += worker.is_free
            starting += not worker.greeted
        spare = self._spare
        free += spare
        self._watched = False
        wanted = 0 if self._halted else self._wanted_workers(waiting - free - starting, call_s, starting, spare)
        for _ in range(wanted):
            if not self._start():
                break
        if free or self._halted:
            return free
        if waiting > starting and not self._pool.slots and len(self._workers) < self._run.max_workers:
            self._wait_for_worker()
        if call_s is None or self._pool.contested:
            return 0
        if waiting * call_s < max(_AHEAD_S, _AHEAD_CALLS * call_s) * len(self._workers):
            return 0  # each of the last calls goes to the worker that is free first
        # While there is enough for all, nobody waits for the coordinator, which may be a while in waking up.
        return sum(worker.takes_another for worker in self._workers)

    def send(self, batch: Batch, timeout: float | None) -> str:
        """Give a batch to a worker that is free, or else to the one that has been at its batch for longest."""
        batch.snapshots = self._snapshots
        free = [worker for worker in self._workers if worker.is_free]
        while (taken := free.pop() if free else self._take()) is not None:
            if self._sent(taken, batch, timeout):
                return taken.name
        others = [worker for worker in self._workers if worker.takes_another and not worker.is_free]
        for worker in sorted(others, key=lambda worker: worker.sent):
            if self._sent(worker, batch, timeout):
                return worker.name
        self._arrivals.append(Arrival(batch, None, None))
        return ""

    def recall(self, late: Collection[Batch]) -> list[Recalled]:
        """See to it that no other call begins of batches that are late, nor of those that lie ready behind them."""
        if not (self._pool.spare or self._pool.slots or any(worker.is_free for worker in self._workers)):
            return []  # no worker could make them
        workers = [worker for worker in self._workers if worker.batch in late and worker.hides]
        for worker in workers:
            self._take_back(worker)
            worker.recall()
        if workers:
            time.sleep(SETTLED_S)
        return [recalled for worker in workers for recalled in worker.is_recalled()]

    def receive(self, seconds: float) -> list[Arrival]:
        """Wait for batches to come back, at most so long, and return those that have."""
        self._check()
        arrivals, self._arrivals = self._arrivals, []
        self._give_back_free()  # they were granted before, and not used since
        if not self._asked:
            self._want_no_worker()
        self._asked = False
        now = time.monotonic()
        if self._watched:
            seconds = min(seconds, _QUIET_S)
        deadlines = [worker.deadline for worker in self._workers if worker.deadline is not None]
        if deadlines:
            seconds = min(seconds, max(min(deadlines) - now, 0.0))
        heard = self._hear(0.0 if arrivals else seconds)
        for worker in heard:
            self._receive_from(worker, arrivals)
        now = time.monotonic()
        if heard:
            self._heard = now
        self._look_after(now, arrivals)
        return arrivals

    def wake(self) -> None:
        """Make `receive` return soon, from any thread, if it listens."""
        if self._alarm is not None:
            self._alarm.ring()

    def halt(self, *, cancelled: bool) -> None:
        """Keep other calls from beginning; with `cancelled`, ask the tasks to stop."""
        self._halted = True
        for worker in self._workers:
            self._take_back(worker)
            if worker.run == self._number:
                worker.halt(CANCEL if cancelled else HALT)
        self._want_no_worker()

    def stop(self) -> None:
        """End every worker that has a batch."""
        for worker in self._workers:
            if worker.batch is not None:
                worker.cancelled = True
                worker.process.kill()

    def fetch(self, values: list[object]) -> None:
        """Do nothing: all values come with the reports."""

    def close(self, *, at_once: bool) -> None:
        """Give back all workers; those that have a batch are ended."""
        self._halted = True
        self._want_no_worker()
        for worker in self._workers:
            if at_once or worker.batch is not None or self._failed is not None:
                worker.process.kill()
                self._pool.discard(worker)
            else:
                self._pool.give_back(worker)
        self._workers.clear()
        self._snapshots.close()
        self._pool.leave(self)
        if self._own:
            self._pool.close(at_once=at_once, what=f"process {shown(self._run.process_name)!r}")
        if self._alarm is not None:
            self._alarm.close()

    def listen(self) -> None:
        """Make it possible to wake this from other threads."""
        if self._alarm is None:
            self._alarm = Alarm()

    # Inside

    def _check(self) -> None:
        if self._failed is not None:
            raise self._failed
        if self._pool.cancelled:
            raise self._unavailable("the executor was shut down with cancel_futures=True")

    def _wanted_workers(self, waiting: int, call_s: float | None, starting: int, spare: int) -> int:
        """Return how many workers to start, where so many calls wait for which no worker is free or starting."""
        count = len(self._workers) + spare
        more = min(waiting, self._run.max_workers - count, self._pool.slots)
        if self._stillborn >= _STILLBORN and count:
            return 0  # go on with those there are
        if more <= 0 or count < max(self._cores, 1):
            return min(more, max(self._cores, 1) - count)
        self._watched = True
        now = time.monotonic()
        if now - self._looked < _QUIET_S:
            return 0
        self._looked = now
        work_s = 0.0 if call_s is None else waiting * call_s / count
        quiet_s = now - self._heard
        if quiet_s < _QUIET_S and work_s < _SOME_WORK_S:
            return 0
        if waiting_workers := sum(worker.waits() for worker in self._workers):
            return min(more, waiting_workers)
        # Where all compute, another one is of use only to calls that wait for each other while they do.
        return int(not starting and (work_s > _WORTH_S or quiet_s > max(_STALL_S, _STALLS * (call_s or 0.0))))

    def _take_back(self, worker: WorkerProcess) -> None:
        """Take back a batch that lies ready for a worker and has not been sent."""
        if worker.ahead is not None and worker.ahead[2] is not None:
            self._arrivals.append(Arrival(worker.ahead[0], None, None))
            worker.ahead = None

    def _take(self) -> WorkerProcess | None:
        worker = self._pool.take() if len(self._workers) < self._run.max_workers else None
        if worker is not None:
            self._workers.append(worker)
        return worker

    def _sent(self, worker: WorkerProcess, batch: Batch, timeout: float | None) -> bool:
        """Send a batch to a worker; return whether another need not be tried.

        A large batch in which the worker has ended may be too much for any other, too: it fails.
        """
        try:
            worker.begin_run(self._number, self._run.process_name, self._run.run_id)
            if not worker.send(batch, timeout):
                self._arrivals.append(Arrival(batch, None, None))
        except OSError:
            if worker.batch is not None:
                return False  # it has ended in another call: that is found out by listening
            worker.listen_once_more()
            self._discard(worker)
            if worker.left or (batch.size <= MOST_BYTES and worker.lack is None):
                return False
            lost = WorkerDiedError("the worker process died while the call was sent to it")
            self._arrivals.append(Arrival(batch, None, worker.lack or lost))
        return True

    def _start(self) -> bool:
        """Start a worker; return whether that was possible. Raises `WorkersUnavailableError` if there is none."""
        try:
            worker = self._pool.start()
        except Exception as error:
            if not self._workers and not self._pool.spare:
                unguarded = isinstance(error, RuntimeError) and "bootstrapping" in str(error)
                why = f"this is one, and its main module {_UNGUARDED}" if unguarded else described(error)
                raise self._unavailable(why) from error
            self._cores = 0  # go on with those there are
            worker = None
        else:
            self._heard = time.monotonic()
        if worker is not None:
            self._workers.append(worker)
        return worker is not None

    def _wait_for_worker(self) -> None:
        if not self._waits:
            self.listen()
            self._waits = True
            self._pool.ask(self)

    def _want_no_worker(self) -> None:
        """Leave the queue for workers, and give back those that have nothing to do."""
        if self._waits:
            self._waits = False
            self._pool.forgo(self)
        self._accept()
        self._give_back_free()

    def _give_back_free(self) -> None:
        for worker in [worker for worker in self._workers if worker.is_free]:
            self._give_back(worker)

    def _accept(self) -> None:
        while self.granted:
            self._workers.append(self.granted.popleft())

    def _give_back(self, worker: WorkerProcess) -> None:
        self._workers.remove(worker)
        self._pool.give_back(worker)

    def _hear(self, seconds: float) -> list[WorkerProcess]:
        """Return the workers that have sent something, after waiting for that at most so many seconds."""
        by_pipe = {worker.work: worker for worker in self._workers}
        alarms = [] if self._alarm is None else [self._alarm.heard]
        heard: list[Any] = wait([*by_pipe, *alarms], seconds) if by_pipe or alarms else []
        if self._alarm is not None and self._alarm.heard in heard:
            heard.remove(self._alarm.heard)
            self._alarm.end()
            self._waits = False  # whatever it was woken for: it asks again
            self._accept()
        return [by_pipe[pipe] for pipe in heard]

    def _receive_from(self, worker: WorkerProcess, arrivals: list[Arrival]) -> None:
        try:
            report = worker.receive()
        except (EOFError, OSError):
            self._gone(worker, arrivals)
            return
        if worker.asked is not None:
            asked, worker.asked = worker.asked, None
            if self.answer is not None:
                self.answer(asked, worker.answer)
            return
        if worker.failure is not None:
            self._discard(worker)
            name = self._pool.setup.initializer
            self._failed = self._unavailable(f"the initializer, {name}, raised {described(worker.failure)}")
            self._failed.__cause__ = worker.failure
            return
        if worker.setting_up:
            limit = self._pool.setup.initializer_s
            worker.deadline = None if limit is None else time.monotonic() + limit
            return
        if worker.left:
            self._workers.remove(worker)
            self._pool.let_leave(worker)
            arrivals += [Arrival(batch, None, None) for batch in worker.let_go()]
            return
        self._any_greeted = True
        self._stillborn = 0
        if report is not None:
            assert worker.batch is not None
            arrivals.append(Arrival(worker.batch, report, None))
            worker.go_on()
        if worker.is_free:
            self._give_back(worker)

    def _discard(self, worker: WorkerProcess) -> None:
        self._workers.remove(worker)
        self._pool.discard(worker)

    def _gone(self, worker: WorkerProcess, arrivals: list[Arrival]) -> None:
        """Take note that a worker is gone, and of the calls that it had made."""
        worker.process.join(EXIT_CHECK_S)
        code = worker.process.exitcode
        if worker.batch is not None:
            arrivals.append(Arrival(worker.batch, worker.remains(), self._why(worker, code)))
        if worker.ahead is not None:
            arrivals.append(Arrival(worker.ahead[0], None, None))
        self._discard(worker)
        if worker.greeted:
            return
        if worker.setting_up and worker.late:
            name, seconds = self._pool.setup.initializer, self._pool.setup.initializer_s
            self._failed = self._unavailable(f"the initializer, {name}, took longer than its limit of {seconds:g} s")
            return
        self._stillborn += 1
        if any(other.greeted for other in self._workers) or self._pool.spare:
            return
        # A worker that was killed may have been unlucky. One that ended by itself had a reason, which others will have.
        if self._stillborn >= _STILLBORN or (code is not None and code >= 0 and not self._any_greeted):
            killed = code is not None and code < 0
            why = _unreadable() or (_KILLED if killed else f"a program whose main module {_UNGUARDED}")
            if worker.setting_up:
                why = f"the initializer, {self._pool.setup.initializer}, had not ended"
            self._failed = self._unavailable(f"it {_ending(code)} before it could take a task; {why}")

    def _why(self, worker: WorkerProcess, code: int | None) -> BaseException:
        assert worker.batch is not None
        if worker.lack is not None:
            return worker.lack
        if worker.cancelled:
            return TaskCancelled("the run was cancelled, and the worker process was ended")
        if worker.late:
            index = worker.batch.calls[0][0]
            name = shown(self._run.name(index))
            return TaskTimeoutError(f"task {index} ({name}) took longer than its timeout of {worker.timeout:g} s")
        return WorkerDiedError(f"the worker process that ran the task {_ending(code)}")

    def _look_after(self, now: float, arrivals: list[Arrival]) -> None:
        """End workers whose call has run into its timeout, and look now and then for workers gone without a sign."""
        for worker in self._workers:
            if worker.deadline is not None and now >= worker.deadline:
                worker.late = True
                worker.deadline = None
                worker.process.kill()
        if now - self._checked > EXIT_CHECK_S:
            # A program that a task has started may hold the other end of the pipe.
            self._checked = now
            for worker in list(self._workers):
                if worker.process.exitcode is not None and not worker.work.poll():
                    self._gone(worker, arrivals)

    def _unavailable(self, why: str) -> WorkersUnavailableError:
        return WorkersUnavailableError(f"process {self._run.process_name!r}: no worker process could be started: {why}")


def _unreadable() -> str:
    """Return words for why workers cannot import the program, as it is no file; else an empty text."""
    main = sys.modules["__main__"]
    path: str | None = getattr(main, "__file__", None)
    if path is None or getattr(main, "__spec__", None) is not None or os.path.exists(path):  # noqa: PTH110
        return ""
    return (
        f"each worker imports the program, and {shown(path)!r} is no file that it could read: save the program to a "
        "file, or hand it over by `python -c`"
    )


def _ending(code: int | None) -> str:
    if code is None:
        return "is gone"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
