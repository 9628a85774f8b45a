"""A backend of worker processes of our own: each has its own pipes, is ended at a timeout, and replaced when gone.

    room ──starts──▶ worker ◀══ work ══▶ send, receive
                        ▲
                        └────── word ─── halt, close

Measured beside a `ProcessPoolExecutor` with one worker for each of ours, of the standard library and of loky, and
pebble's pool: the way there and back takes 30 µs instead of 165 to 300, no threads, and a worker that is killed while
it sends a large result is noticed; both executors wait for the rest of it for ever.
"""

import os
import signal
import sys
import time
import warnings
from collections.abc import Collection
from multiprocessing.connection import wait

from procession._engine.run_state import RunState
from procession._model.text import described, shown
from procession._model.where import usable_cores
from procession._remote.backends.base import SETTLED_S, Arrival, Recalled
from procession._remote.backends.worker_process import EXIT_CHECK_S, WorkerProcess
from procession._remote.wire.batch import Batch
from procession._remote.worker.process_main import CANCEL, END, HALT
from procession.errors import TaskCancelled, TaskTimeoutError, WorkerDiedError, WorkersUnavailableError

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
_UNGUARDED = 'starts a process when it is imported, and so in every worker: put that under if __name__ == "__main__":'
_CLOSING_S = 5.0
"""How long what tasks have left in a worker may hold up its end: handlers at exit, threads, children."""


class ProcessBackend:
    """Worker processes, started as they are needed and ended with the run."""

    kills = True
    within = None

    def __init__(self, run_state: RunState) -> None:
        self._run_state = run_state
        self._names = (run_state.process_name, run_state.run_id)
        self._workers: list[WorkerProcess] = []
        self._arrivals: list[Arrival] = []
        self._started = 0
        self._stillborn = 0
        self._any_greeted = False
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
    def busy(self) -> bool:
        """Whether there is something to receive sooner or later."""
        return bool(self._arrivals) or any(
            worker.batch is not None or not (worker.greeted or self._halted) for worker in self._workers
        )

    def room(self, waiting: int, call_s: float | None) -> int:
        """Return how many batches can be sent, after starting more workers if they are worth it."""
        free = starting = 0
        for worker in self._workers:
            free += worker.is_free
            starting += not worker.greeted
        self._watched = False
        wanted = 0 if self._halted else self._wanted_workers(waiting - free - starting, call_s, starting)
        for _ in range(wanted):
            if not self._start():
                break
        if free or self._halted or call_s is None:
            return free
        if waiting * call_s < max(_AHEAD_S, _AHEAD_CALLS * call_s) * len(self._workers):
            return 0  # each of the last calls goes to the worker that is free first
        # While there is enough for all, nobody waits for the coordinator, which may be a while in waking up.
        return sum(worker.takes_another for worker in self._workers)

    def send(self, batch: Batch, timeout: float | None) -> str:
        """Give a batch to a worker that is free, or else to the one that has been at its batch for longest."""
        free = [worker for worker in self._workers if worker.is_free]
        others = [worker for worker in self._workers if worker.takes_another and not worker.is_free]
        for worker in free or sorted(others, key=lambda worker: worker.sent):
            try:
                worker.send(batch, timeout)
            except OSError:
                continue  # gone; found out when it is listened to
            return worker.name
        self._arrivals.append(Arrival(batch, None, None))
        return ""

    def recall(self, late: Collection[Batch]) -> list[Recalled]:
        """See to it that no other call begins of batches that are late, nor of those that lie ready behind them."""
        workers = [worker for worker in self._workers if worker.batch in late and worker.hides]
        for worker in workers:
            self._take_back(worker)
            worker.recall()
        if workers:
            time.sleep(SETTLED_S)
        return [recalled for worker in workers for recalled in worker.is_recalled()]

    def receive(self, seconds: float) -> list[Arrival]:
        """Wait for batches to come back, at most so long, and return those that have."""
        arrivals, self._arrivals = self._arrivals, []
        now = time.monotonic()
        if self._watched:
            seconds = min(seconds, _QUIET_S)
        deadlines = [worker.deadline for worker in self._workers if worker.deadline is not None]
        if deadlines:
            seconds = min(seconds, max(min(deadlines) - now, 0.0))
        by_pipe = {worker.work: worker for worker in self._workers}
        heard = wait(list(by_pipe), 0 if arrivals else seconds) if by_pipe else []
        for pipe in heard:
            worker = by_pipe[pipe]  # type: ignore[index]
            try:
                report = worker.receive()
            except (EOFError, OSError):
                self._gone(worker, arrivals)
                continue
            if worker.greeted:
                self._any_greeted = True
                self._stillborn = 0
            if report is not None:
                assert worker.batch is not None
                arrivals.append(Arrival(worker.batch, report, None))
                worker.go_on()
        now = time.monotonic()
        if heard:
            self._heard = now
        self._look_after(now, arrivals)
        return arrivals

    def halt(self, *, cancelled: bool) -> None:
        """See to it that no other call begins; with `cancelled`, ask the tasks to stop."""
        self._halted = True
        for worker in self._workers:
            self._take_back(worker)
            worker.tell(CANCEL if cancelled else HALT)

    def stop(self) -> None:
        """End every worker that has a batch."""
        for worker in self._workers:
            if worker.batch is not None:
                worker.cancelled = True
                worker.process.kill()

    def fetch(self, values: list[object]) -> None:
        """Do nothing: all values come with the reports."""

    def close(self, *, at_once: bool) -> None:
        """End all workers: free ones by asking them to, others at once."""
        for worker in self._workers:
            if at_once or worker.batch is not None or not worker.greeted:
                worker.process.kill()
            else:
                worker.tell(END)
                worker.work.close()
        deadline = time.monotonic() + _CLOSING_S
        cut_off: list[str] = []
        for worker in self._workers:
            worker.process.join(max(deadline - time.monotonic(), 0.0))
            if worker.process.exitcode is None:  # a thread that a task has left there does not end
                cut_off.append(worker.name)
                worker.process.kill()
                worker.process.join()
            worker.close()
        self._workers.clear()
        if cut_off:
            where = f"process {shown(self._run_state.process_name)!r}"
            warnings.warn(
                f"{where}: {', '.join(cut_off)} had not ended {_CLOSING_S:g} s after the last task, and so was killed. "
                "What tasks had left there was cut off: a handler at exit, a thread, or a child process; let each task "
                "wait for what it has started",
                RuntimeWarning,
                stacklevel=1,
            )

    # Inside

    def _wanted_workers(self, waiting: int, call_s: float | None, starting: int) -> int:
        """Return how many workers to start, where so many calls wait for which no worker is free or starting."""
        count = len(self._workers)
        more = min(waiting, self._run_state.max_workers - count)
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

    def _start(self) -> bool:
        """Start a worker; return whether that was possible. Raises `WorkersUnavailableError` if there is none."""
        self._started += 1
        name = f"procession-{shown(self._run_state.process_name, 40)}-{self._started}"
        try:
            self._workers.append(WorkerProcess(name, self._names))
        except Exception as error:
            if not self._workers:
                unguarded = isinstance(error, RuntimeError) and "bootstrapping" in str(error)
                why = f"this is one, and its main module {_UNGUARDED}" if unguarded else described(error)
                raise self._unavailable(why) from error
            self._cores = 0  # go on with those there are
        self._heard = time.monotonic()
        return self._cores > 0

    def _gone(self, worker: WorkerProcess, arrivals: list[Arrival]) -> None:
        """Take note that a worker is gone, and of the calls that it had made."""
        self._workers.remove(worker)
        worker.process.join(EXIT_CHECK_S)
        code = worker.process.exitcode
        if worker.batch is not None:
            arrivals.append(Arrival(worker.batch, worker.remains(), self._why(worker, code)))
        if worker.ahead is not None:
            arrivals.append(Arrival(worker.ahead[0], None, None))
        worker.close()
        if worker.greeted:
            return
        self._stillborn += 1
        if any(other.greeted for other in self._workers):
            return
        # A worker that was killed may have been unlucky. One that ended by itself had a reason, which others will have.
        if self._stillborn >= _STILLBORN or (code is not None and code >= 0 and not self._any_greeted):
            why = _unreadable() or f"a program whose main module {_UNGUARDED}"
            raise self._unavailable(f"it {_ending(code)} before it could take a task; {why}")

    def _why(self, worker: WorkerProcess, code: int | None) -> BaseException:
        assert worker.batch is not None
        if worker.cancelled:
            return TaskCancelled("the run was cancelled, and the worker process was ended")
        if worker.late:
            index = worker.batch.calls[0][0]
            name = shown(self._run_state.name(index))
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
        return WorkersUnavailableError(
            f"process {self._run_state.process_name!r}: no worker process could be started: {why}"
        )


def _unreadable() -> str:
    """Return what is wrong where the program is no file that a worker could import, else nothing."""
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
