"""One worker process as the coordinator sees it: its pipes, what it has been sent, and what is left of it when it dies.

ProcessBackend ──send──▶ work ══▶ process ══▶ work ──▶ receive
──tell──▶ word ──▶    ┊
◀─recall, remains─ crash file
"""

import multiprocessing
import os
import pickle
import signal
import sys
import time
from contextlib import ExitStack, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import wait

from procession._remote.backends.base import Recalled
from procession._remote.wire.batch import Batch, Report
from procession._remote.wire.crash_file import CrashFile
from procession._remote.worker.process_main import HELLO, PART, serve

EXIT_CHECK_S = 1.0
"""How often workers are looked after that may be gone without a sign, and how long an ended one is waited for."""

_SPAWN = multiprocessing.get_context("spawn")
_AHEAD_BYTES = 1 << 16 if sys.platform == "linux" else 1 << 12
"""What is sent to a worker that is busy: so little that it fits into the system's pipe."""


class WorkerProcess:
    """A worker process, with the batch that it is at and the one that lies ready for it."""

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
        """Whether it has calls that other workers could make."""
        return self.batch is not None and not self.recalled and (self.ahead is not None or len(self.batch.calls) > 1)

    def send(self, batch: Batch, timeout: float | None) -> None:
        """Send a batch. To a busy worker, send it only if that takes no waiting, else keep it until the worker is free.

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
        """Take the next message; return it if it is a report. Raises `EOFError` or `OSError` if the worker is gone."""
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
        """See to it that no other call begins of the batches that were sent."""
        self.crash_file.recall(self._number + (self.ahead is not None and self.ahead[2] is None))

    def is_recalled(self) -> list[Recalled]:
        """Return the batches that were recalled a moment ago, or nothing if a message that says more is on its way."""
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
        """Return what the crash file says of the batch after the worker is gone."""
        end = time.perf_counter()
        noted = self.crash_file.read(self._number, len(self._parts))
        report = self._whole(Report(self.name, noted, self.sent, end))
        report.crash_log = self.crash_file.crash_log.read()
        return report

    def close(self) -> None:
        """Let go of a worker that has ended, or end it."""
        self.work.close()
        self.word.close()
        self.process.join(0 if self.process.exitcode is not None else EXIT_CHECK_S)
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


class _signals_blocked:  # noqa: N801  # reads as a word
    """Keeps Ctrl-C and SIGTERM from a process that starts until it has set its handlers."""

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
