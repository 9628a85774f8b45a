"""One worker process as a coordinator sees it: its pipes, what it has been sent, and what is left of it when it dies.

ProcessBackend ──send──▶ work ══▶ process ══▶ work ──▶ receive
──tell──▶ word ──▶    ┊
◀─recall, remains─ crash file
"""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

from procession._remote.backends.base import Recalled
from procession._remote.backends.environment import NameWithEnvironment
from procession._remote.batch_size import MOST_BYTES
from procession._remote.wire.batch import Batch, Report
from procession._remote.wire.crash_file import CrashFile
from procession._remote.wire.descriptors import receive_files, send_files
from procession._remote.wire.result import error_of
from procession._remote.worker.process_main import (
    ANSWER,
    ASK,
    BYE,
    END,
    HELLO,
    NO_MEMORY,
    PART,
    RUN,
    SET_UP_FAILED,
    SETTING_UP,
    WorkerSetup,
    serve,
)

if TYPE_CHECKING:
    from procession._remote.wire.call_requests import CallRequest
    from procession._remote.wire.packed import Packed

EXIT_CHECK_S = 1.0
"""How often workers are looked after that may be gone without a sign, and how long an ended one is waited for."""

_SPAWN = multiprocessing.get_context("spawn")
_AHEAD_BYTES = 1 << 16 if sys.platform == "linux" else 1 << 12
"""What is sent to a worker that is busy: so little that it fits into the system's pipe."""


class WorkerProcess:
    """A worker process, with the batch that it is at and the one that lies ready for it.

    It belongs to one run at a time, or to none: only that run's coordinator uses it.
    """

    def __init__(self, name: str, setup: WorkerSetup, variables: Mapping[str, str]) -> None:
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
        self.setting_up = False
        """Whether its initializer goes on."""
        self.failure: BaseException | None = None
        """What its initializer has raised."""
        self.lack: MemoryError | None = None
        """That it had no memory left; it ends then."""
        self.asked: CallRequest | None = None
        """What its task asks of the journal."""
        self._telling = threading.Lock()
        self.left = False
        """Whether it has ended by itself, idle or worn out: it begins nothing any more."""
        self.run = 0
        """The number of the run that it was told of last."""
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
        self._parts: list[list[bytes | Packed]] = []
        self.process = _SPAWN.Process(
            target=serve,
            args=(theirs, hears, self.crash_file.path, os.getpid(), setup),
            name=NameWithEnvironment(name, variables),
            daemon=False,
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
    def is_gone(self) -> bool:
        """Whether it has ended, or is about to, where nothing is expected from it. Says so, too, if it cannot tell."""
        try:
            return self.work.poll()
        except OSError:
            return True

    @property
    def takes_another(self) -> bool:
        """Whether another batch may lie ready for when it has made the one it has."""
        return self.greeted and self.ahead is None and self.deadline is None and not self.recalled

    @property
    def hides(self) -> bool:
        """Whether it has calls that other workers could make."""
        return self.batch is not None and not self.recalled and (self.ahead is not None or len(self.batch.calls) > 1)

    def begin_run(self, number: int, process_name: str, run_id: str) -> None:
        """Tell it which run the next batches belong to. Raises `OSError` when the worker is gone."""
        if self.run != number:
            self.work.send_bytes(RUN + pickle.dumps((number, process_name, run_id)))
            self.run = number

    def send(self, batch: Batch, timeout: float | None) -> bool:
        """Send a batch; return whether that was done, as it is not where several calls take too many bytes.

        To a busy worker, it is sent only if that takes no waiting, else kept until the worker is free. Raises `OSError`
        when the worker is gone.
        """
        data = pickle.dumps(batch, pickle.HIGHEST_PROTOCOL)
        if is_too_large(batch):
            return False
        if self.batch is None:
            self._write(batch, data)
            self._take_up(batch, timeout)
        elif timeout is None and len(data) <= _AHEAD_BYTES:
            self._write(batch, data)
            self.ahead = batch, timeout, None
        else:
            self.ahead = batch, timeout, data
        return True

    def go_on(self) -> None:
        """Go on with the batch that lies ready, as the one before is done."""
        ahead, self.batch, self.deadline, self.ahead = self.ahead, None, None, None
        self._parts.clear()  # results, which may be large: who has them decides how long they stay
        if ahead is not None:
            batch, timeout, data = ahead
            self._take_up(batch, timeout)
            if data is not None:
                with suppress(OSError):  # gone; found out when it is listened to
                    self._write(batch, data)

    def let_go(self) -> list[Batch]:
        """Return the batches that it leaves without having begun them, and keep nothing of their run."""
        batches = [self.batch, None if self.ahead is None else self.ahead[0]]
        self.batch = self.ahead = None
        self._parts.clear()
        return [batch for batch in batches if batch is not None]

    def _write(self, batch: Batch, data: bytes) -> None:
        self.work.send_bytes(data)
        send_files(self.work, [batch.packed])
        batch.packed = b""  # the files are the worker's now

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
            self.setting_up, self.deadline = False, None
            self.crash_file.unlink()
            return None
        if kind == SETTING_UP:
            self.setting_up = True
            return None
        if kind == SET_UP_FAILED:
            self.failure = error_of(memoryview(data)[1:])
            return None
        if kind == NO_MEMORY:
            self.lack = MemoryError(f"the worker process had no memory left to {data[1:].decode()}")
            return None
        if kind == BYE:
            self.left = True
            return None
        if kind == ASK:
            self.asked = pickle.loads(memoryview(data)[1:])  # noqa: S301  # from a worker of ours
            return None
        if kind == PART:
            ended: list[bytes | Packed] = pickle.loads(memoryview(data)[1:])  # noqa: S301  # from a worker of ours
            receive_files(self.work, ended)
            self._parts.append(ended)
            return None
        report: Report = pickle.loads(memoryview(data)[1:])  # noqa: S301
        return self._whole(report)

    def listen_once_more(self) -> None:
        """Take the messages that it has sent before it ended."""
        with suppress(EOFError, OSError):
            while self.work.poll(EXIT_CHECK_S):
                self.receive()

    def recall(self) -> None:
        """Keep other calls from beginning in the batches that were sent."""
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
            ended = [data for some in self._parts for data in some]
            ended += self.crash_file.read(number, part)
            recalled = [Recalled(self.batch, ended, len(ended) + 1)]
        return recalled if self.ahead is None else [*recalled, Recalled(self.ahead[0], [], 0)]

    def tell(self, said: bytes) -> None:
        """Send a word to the watcher. From any thread."""
        with self._telling, suppress(OSError):
            self.word.send_bytes(said)

    def answer(self, data: bytes) -> None:
        """Send the answer to what its task has asked. From any thread."""
        self.tell(ANSWER + data)

    def halt(self, word: bytes) -> None:
        """Say a word of the run that it serves to the watcher."""
        self.tell(word + str(self.run).encode())

    def end(self) -> None:
        """Ask it to end, as it has nothing to do."""
        self.tell(END)
        self.work.close()

    def remains(self) -> Report:
        """Return the results that the crash file has of the batch of a worker that is gone."""
        end = time.perf_counter()
        noted = self.crash_file.read(self._number, len(self._parts))
        report = self._whole(Report(self.name, noted, self.sent, end))
        report.crash_log = self.crash_file.crash_log.read()
        return report

    def reap(self) -> bool:
        """Let go of it if it has ended; return whether it has."""
        ended = self.has_ended(0)
        if ended:
            self.close()
        return ended

    def has_ended(self, seconds: float) -> bool:
        """Return whether the process has ended, after waiting for that at most so many seconds."""
        self.process.join(seconds)
        # Where somebody else has asked for its exit code, which can be told only once, there is none.
        return self.process.exitcode is not None or bool(wait([self.process.sentinel], 0))

    def close(self) -> None:
        """End the worker, if it has not ended, and release its resources."""
        self.work.close()
        self.word.close()
        if not self.has_ended(EXIT_CHECK_S):
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


def is_too_large(batch: Batch) -> bool:
    """Return whether the calls of a batch are not to travel together."""
    return batch.size > MOST_BYTES and len(batch.calls) > 1 and not batch.options.chained


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
