"""A backend of worker processes of our own: each has its own pipes, is ended at a timeout, and replaced when gone.

    room ──starts──▶ worker ◀══ work ══▶ send, receive
                        ▲
                        └────── word ─── halt, close

Measured beside a `ProcessPoolExecutor` with one worker for each of ours, of the standard library and of loky, and
pebble's pool: the way there and back takes 30 µs instead of 165 to 300, no threads, and a worker that is killed while
it sends a large result is noticed; both executors wait for the rest of it for ever.
"""

import multiprocessing
import os
import pickle
import signal
import sys
import time
import warnings
from collections.abc import Collection
from contextlib import ExitStack, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import wait

from procession._engine.run_state import RunState
from procession._model.text import described, shown
from procession._model.where import usable_cores
from procession._remote.backends.base import SETTLED_S, Arrival, Recalled
from procession._remote.wire.batch import Batch, Report
from procession._remote.wire.crash_file import CrashFile
from procession._remote.worker.process_main import CANCEL, END, HALT, HELLO, PART, serve
from procession.errors import TaskCancelled, TaskTimeoutError, WorkerDiedError, WorkersUnavailableError

_SPAWN = multiprocessing.get_context("spawn")
_QUIET_S = 0.01
"""Where nothing has come back for so long, and calls wait, more workers than there are cores are started for them."""
_SOME_WORK_S = 0.2
"""The same where so many seconds of work wait for each worker: about twice what it takes to start one."""
_STALL_S, _STALLS = 0.05, 3
"""The same if all compute: one at a time, where nothing has come back for three times as long as a call takes, too."""
_WORTH_S = 0.5
"""The same, where so much work waits for each worker."""
_AHEAD_S = 0.01
"""The same, for batches to lie ready at workers that have one."""
_AHEAD_BYTES = 1 << 16 if sys.platform == "linux" else 1 << 12
"""What is sent to a worker that is busy: so little that it fits into the system's pipe."""
_STILLBORN = 3
"""After so many workers in a row that were gone before they could take a task, no other is started beside the rest."""
_UNGUARDED = 'starts a process when it is imported, and so in every worker: put that under if __name__ == "__main__":'
_CLOSING_S = 5.0
"""How long what tasks have left in a worker may hold up its end: handlers at exit, threads, children."""
_EXIT_CHECK_S = 1.0


class _Worker:
    """One worker process, as the coordinator sees it."""

    def __init__(self, name: str, names: tuple[str, str]) -> None:
        with ExitStack() as opened:  # closed again where there is no room for all of it
            self.crash_file = CrashFile.made()
            opened.callback(self.crash_file.close)
            self.work, theirs = map(opened.enter_context, _SPAWN.Pipe())
            hears, self.word = map(opened.enter_context, _SPAWN.Pipe(duplex=False))
            if sys.platform != "win32":
                # gevent, where it has patched sockets, has made these so that they do not wait.
                for end in (self.work, theirs):
                    os.set_blocking(end.fileno(), True)
            opened.pop_all()
        self.greeted = False
        self.batch: Batch | None = None
        self.ahead: tuple[Batch, float | None, bytes | None] | None = None
        """The next batch, its timeout, and, unless it is on its way, its bytes."""
        self.timeout: float | None = None
        self.deadline: float | None = None
        self.late = False
        self.cancelled = False
        self.recalled = False
        self.sent = 0.0
        self._number = 0
        self._parts: list[list[bytes]] = []
        self.process = _SPAWN.Process(
            target=serve, args=(theirs, hears, self.crash_file.path, names, os.getpid()), name=name, daemon=False
        )
        try:
            resource_tracker.ensure_running()  # which, if it was to be started now, would take the block away
            with _signals_blocked():
                self.process.start()
        except BaseException:
            self.work.close()
            self.word.close()
            self.crash_file.close()
            raise
        finally:
            theirs.close()
            hears.close()
        self.name = f"{name} ({self.process.pid})"

    @property
    def is_free(self) -> bool:
        """Whether it has nothing to do."""
        return self.greeted and self.batch is None

    @property
    def takes_another(self) -> bool:
        """Whether another batch may lie ready for when it has made the one it has."""
        return self.greeted and self.ahead is None and self.deadline is None and not self.recalled

    @property
    def hides(self) -> bool:
        """Whether it has calls that others could make."""
        return self.batch is not None and not self.recalled and (self.ahead is not None or len(self.batch.calls) > 1)

    def send(self, batch: Batch, timeout: float | None) -> None:
        """Send a batch, or, to one that has another, as far as it can be sent without waiting for anybody.

        Raises `OSError` when the worker is gone.
        """
        data = pickle.dumps(batch, pickle.HIGHEST_PROTOCOL)
        if self.batch is None:
            self.work.send_bytes(data)
            self._take_up(batch, timeout)
        elif timeout is None and len(data) <= _AHEAD_BYTES:
            self.work.send_bytes(data)
            self.ahead = batch, timeout, None
        else:
            self.ahead = batch, timeout, data

    def go_on(self) -> None:
        """Take note that the batch is done, and go on with the one that lies ready."""
        ahead, self.batch, self.deadline, self.ahead = self.ahead, None, None, None
        if ahead is not None:
            batch, timeout, data = ahead
            self._take_up(batch, timeout)
            if data is not None:
                with suppress(OSError):  # gone; found out when it is listened to
                    self.work.send_bytes(data)

    def _take_up(self, batch: Batch, timeout: float | None) -> None:
        self._number += 1
        self._parts.clear()
        self.recalled = False
        self.batch = batch
        self.sent = time.perf_counter()
        self.timeout = timeout
        self.deadline = None if timeout is None else time.monotonic() + timeout

    def waits(self) -> bool:
        """Return whether its call waits for something instead of computing, as far as is known."""
        return self.batch is not None and not _runs(self.process.pid) and not self.work.poll()

    def receive(self) -> Report | None:
        """Take the next message; return the report if that is one. Raises `EOFError` or `OSError` when it is gone."""
        data = self.work.recv_bytes()
        kind = data[:1]
        if kind == HELLO:
            self.greeted = True
            self.crash_file.unlink()
            return None
        if kind == PART:
            self._parts.append(pickle.loads(memoryview(data)[1:]))  # noqa: S301  # from a worker of ours
            return None
        report: Report = pickle.loads(memoryview(data)[1:])  # noqa: S301
        return self._whole(report)

    def recall(self) -> None:
        """Have no other call begun of what was sent."""
        self.crash_file.recall(self._number + (self.ahead is not None and self.ahead[2] is None))

    def is_recalled(self) -> list[Recalled]:
        """Return what was recalled a moment ago, unless a message that says more is on its way."""
        assert self.batch is not None
        number, part = self.crash_file.at
        if number > self._number or (number == self._number and part != len(self._parts)):
            return []
        self.recalled = True
        if number < self._number:
            recalled = [Recalled(self.batch, [], 0)]
        else:
            ended = [data for part in (*self._parts, self.crash_file.read(number, part)) for data in part]
            recalled = [Recalled(self.batch, ended, len(ended) + 1)]
        return recalled if self.ahead is None else [*recalled, Recalled(self.ahead[0], [], 0)]

    def tell(self, said: bytes) -> None:
        """Say a word to the watcher."""
        with suppress(OSError):
            self.word.send_bytes(said)

    def remains(self) -> Report:
        """Return what is known of the batch after the worker is gone."""
        end = time.perf_counter()
        noted = self.crash_file.read(self._number, len(self._parts))
        report = self._whole(Report(self.name, noted, self.sent, end))
        report.crash_log = self.crash_file.crash_log.read()
        return report

    def close(self) -> None:
        """Let go of a worker that has ended, or end it."""
        self.work.close()
        self.word.close()
        self.process.join(0 if self.process.exitcode is not None else _EXIT_CHECK_S)
        if self.process.exitcode is None and not wait([self.process.sentinel], 0):
            self.process.kill()
            self.process.join()
        if self.process.exitcode is None:  # somebody else has asked for its exit code, which can be told only once
            self.process._popen.returncode = 0  # type: ignore[attr-defined]  # else it could not be closed
        self.process.close()
        self.crash_file.close()

    def _whole(self, report: Report) -> Report:
        if self._parts:
            report.ended = [data for part in (*self._parts, report.ended) for data in part]
        return report


class ProcessBackend:
    """Worker processes, started as they are needed and ended with the run."""

    kills = True
    within = None

    def __init__(self, run_state: RunState) -> None:
        self._run_state = run_state
        self._names = (run_state.process_name, run_state.run_id)
        self._workers: list[_Worker] = []
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
        """How many batches lie ready at workers that have another one."""
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
        if free or self._halted or call_s is None or waiting * call_s < _AHEAD_S * len(self._workers):
            return free
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
        """Have no other call begun of batches that take longer than they should, and of those that lie behind them."""
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
        """Have nothing new begun; with `cancelled`, the tasks are asked to stop."""
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
        """End all workers: those that are free by asking them to go."""
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
        """Return how many workers to start, where there are calls for so many more."""
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

    def _take_back(self, worker: _Worker) -> None:
        """Take back a batch that lies ready for a worker and has not been sent."""
        if worker.ahead is not None and worker.ahead[2] is not None:
            self._arrivals.append(Arrival(worker.ahead[0], None, None))
            worker.ahead = None

    def _start(self) -> bool:
        """Start a worker; return whether that was possible. Raises `WorkersUnavailableError` if there is none."""
        self._started += 1
        name = f"procession-{shown(self._run_state.process_name, 40)}-{self._started}"
        try:
            self._workers.append(_Worker(name, self._names))
        except Exception as error:
            if not self._workers:
                unguarded = isinstance(error, RuntimeError) and "bootstrapping" in str(error)
                why = f"this is one, and its main module {_UNGUARDED}" if unguarded else described(error)
                raise self._unavailable(why) from error
            self._cores = 0  # go on with those there are
        self._heard = time.monotonic()
        return self._cores > 0

    def _gone(self, worker: _Worker, arrivals: list[Arrival]) -> None:
        """Take note that a worker is gone, and of what it had got done."""
        self._workers.remove(worker)
        worker.process.join(_EXIT_CHECK_S)
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
        # One that was killed may have been unlucky; one that ended by itself has its reason, and so will the others.
        if self._stillborn >= _STILLBORN or (code is not None and code >= 0 and not self._any_greeted):
            why = _unreadable() or f"a program whose main module {_UNGUARDED}"
            raise self._unavailable(f"it {_ending(code)} before it could take a task; {why}")

    def _why(self, worker: _Worker, code: int | None) -> BaseException:
        assert worker.batch is not None
        if worker.cancelled:
            return TaskCancelled("the run was cancelled, and the worker process was ended")
        if worker.late:
            index = worker.batch.calls[0][0]
            name = shown(self._run_state.name(index))
            return TaskTimeoutError(f"task {index} ({name}) took longer than its timeout of {worker.timeout:g} s")
        return WorkerDiedError(f"the worker process that ran the task {_ending(code)}")

    def _look_after(self, now: float, arrivals: list[Arrival]) -> None:
        """End workers that are late, and look now and then for some that are gone without a sign."""
        for worker in self._workers:
            if worker.deadline is not None and now >= worker.deadline:
                worker.late = True
                worker.deadline = None
                worker.process.kill()
        if now - self._checked > _EXIT_CHECK_S:
            # A program that a task has started may hold the other end of the pipe.
            self._checked = now
            for worker in list(self._workers):
                if worker.process.exitcode is not None and not worker.work.poll():
                    self._gone(worker, arrivals)

    def _unavailable(self, why: str) -> WorkersUnavailableError:
        return WorkersUnavailableError(
            f"process {self._run_state.process_name!r}: no worker process could be started: {why}"
        )


class _signals_blocked:  # noqa: N801  # reads as a word
    """Keeps Ctrl-C and SIGTERM from a process until it has said what it does about them."""

    def __enter__(self) -> None:
        if sys.platform != "win32":
            self._before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})

    def __exit__(self, *_: object) -> None:
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_SETMASK, self._before)


def _runs(pid: int | None) -> bool:
    """Return whether the main thread of a process has a processor, or waits for one; only Linux tells."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123  # a third of the time
            return file.read().rpartition(b")")[2].split()[0] == b"R"
    except (OSError, IndexError):
        return False


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
