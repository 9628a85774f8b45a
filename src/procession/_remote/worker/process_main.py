"""The main function of a worker process: a loop that makes the calls of batches, and a thread that watches the parent.

    coordinator ══ work ══▶ batches ──▶ main thread ──▶ calls
        ▲   │                             ├──▶ crash file      each result, at once
        │   └───── word ──▶ watcher       │
        └═════════ work ══════════════════┘               the report of a batch, when it is done

Both pipes are this worker's own, and nothing is shared that it could leave locked. A worker goes when `work` is closed,
at once if the parent is gone, and by itself once it is worn out or has been idle for long: it says `BYE`, and reads
nothing any more. It serves one run after another; what it knows of a run is in that run's stub.
"""

import gc
import io
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from procession._remote.wire.batch import Batch, Report
from procession._remote.wire.call_requests import CallLink
from procession._remote.wire.crash_file import CrashFile
from procession._remote.wire.crash_log import CrashLogs
from procession._remote.wire.descriptors import receive_files, send_files
from procession._remote.wire.packed import Packed, Packer, pack_bytes
from procession._remote.wire.result import Encode, Result, failure_of, pack_result
from procession._remote.worker.run_calls import run_calls, worker_name
from procession._remote.worker.run_stub import RunStub

HELLO, PART, REPORT, SETTING_UP, SET_UP_FAILED, BYE, NO_MEMORY = b"h", b"p", b"r", b"s", b"f", b"b", b"m"
ASK = b"a"
"""What a message to the coordinator is: its first byte."""
RUN = b"n"
"""The first byte of a message from the coordinator that says which run the next batches belong to. (No pickled batch
begins with it.)"""
HALT, CANCEL, END, ANSWER = b"h", b"c", b"e", b"a"
"""The words to the watcher. The number of the run follows the first two, and what was asked for the last."""

_ORPHAN_CHECK_S = 1.0


class WorkerSetup(NamedTuple):
    """What holds for a worker process as long as it lives."""

    initializer: Sequence[bytes] = ()
    """A function and its arguments, pickled, to be called before the first batch is taken: the first that can be read
    here, as a function that has a name in a program has none here if that is a session."""
    max_calls: int | None = None
    """After so many calls the worker ends."""
    idle_s: float | None = None
    """After so many seconds without a batch, too."""


class _Runs:
    """The run that the worker serves, and which runs are halted. The watcher and the main thread use it."""

    def __init__(self, crash_file: CrashFile, link: CallLink) -> None:
        self._crash_file = crash_file
        self.link = link
        self._lock = threading.Lock()
        self._number = 0
        self._halted: dict[int, bool] = {}
        self.run_stub = RunStub("", "")

    def begin(self, number: int, process_name: str, run_id: str) -> None:
        """Serve a run from now on; forget the one before."""
        if self.run_stub.stop_listening is not None:
            self.run_stub.stop_listening()
        run_stub = RunStub(process_name, run_id)
        run_stub.kept = CrashLogs(self._crash_file.crash_log)
        run_stub.link = self.link
        with self._lock:
            self._number, self.run_stub = number, run_stub
            cancelled = self._halted.pop(number, None)
            self._halted.clear()  # of runs that have been served before
        if cancelled is not None:
            run_stub.halt(cancelled=cancelled)

    def halt(self, number: int, *, cancelled: bool) -> None:
        """Halt a run, which may be the one that will be served next."""
        with self._lock:
            if number != self._number:
                self._halted[number] = cancelled
                return
        self.run_stub.halt(cancelled=cancelled)


def serve(work: Connection, word: Connection, path: str, parent: int, setup: WorkerSetup) -> None:
    """Make calls until there are no more."""
    # Ctrl-C reaches all processes of the foreground, and SIGTERM, as systemd sends it, the whole group: calls go on,
    # and the coordinator decides. Not ignored, as programs that tasks start would inherit that.
    signal.signal(signal.SIGINT, _let_end)
    signal.signal(signal.SIGTERM, _let_end)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        crash_file = CrashFile(path)
    except OSError:
        if _is_orphan(parent) or _is_let_go(work):  # and so its memory is gone
            return
        raise
    if hasattr(os, "register_at_fork"):
        # The child of a task that forks goes on with this very loop and these pipes: it must hold none of them open,
        # and its results must not be taken for ours.
        os.register_at_fork(after_in_child=crash_file.part)
        os.register_at_fork(after_in_child=work.close)
        os.register_at_fork(after_in_child=word.close)
        os.register_at_fork(after_in_child=_end_on_sigterm)
    _print_whole_lines()
    runs = _Runs(crash_file, CallLink(lambda data: work.send_bytes(ASK + data)))
    threading.Thread(target=_watch, args=(word, runs, parent), name="procession-watcher", daemon=True).start()
    if setup.initializer and not _set_up(work, setup.initializer):
        return
    # What is imported by now stays: looking through it for garbage would be most of the time that the end takes.
    gc.freeze()
    work.send_bytes(HELLO)
    _serve(work, crash_file, runs, setup)


def _end_without_memory(work: Connection, why: str) -> None:
    """Fail the call by name. The worker ends, and another worker replaces it immediately."""
    with suppress(OSError):
        work.send_bytes(NO_MEMORY + why.encode())


def _print_whole_lines() -> None:
    """Write each line that is printed at once and in one piece, so that those of several workers do not mix."""
    for stream in sys.stdout, sys.stderr:
        if isinstance(stream, io.TextIOWrapper):  # else it is somebody else's, or there is none
            stream.reconfigure(line_buffering=True, write_through=False)


def _set_up(work: Connection, initializer: Sequence[bytes]) -> bool:
    """Call the initializer; return whether it has succeeded. If not, the coordinator is told why."""
    work.send_bytes(SETTING_UP)
    try:
        function, args = _read(initializer)
        function(*args)
    except BaseException as error:
        with suppress(OSError):
            work.send_bytes(SET_UP_FAILED + failure_of(error))
        return False
    return True


def _read(initializer: Sequence[bytes]) -> Any:
    *others, last = initializer
    for data in others:
        with suppress(Exception):
            return pickle.loads(data)  # noqa: S301  # from our coordinator
    return pickle.loads(last)  # noqa: S301


def _serve(work: Connection, crash_file: CrashFile, runs: _Runs, setup: WorkerSetup) -> None:
    pid, number, left = os.getpid(), 0, setup.max_calls
    while True:
        try:
            if setup.idle_s is not None and not work.poll(setup.idle_s):
                work.send_bytes(BYE)
                return
            data = work.recv_bytes()
        except (EOFError, OSError):
            return
        except MemoryError:
            _end_without_memory(work, "receive the call")
            return
        if data[:1] == RUN:
            runs.begin(*pickle.loads(memoryview(data)[1:]))  # noqa: S301
            continue
        batch: Batch = pickle.loads(data)  # noqa: S301
        del data
        try:
            receive_files(work, [batch.data])
        except (EOFError, OSError):
            return
        number += 1
        notes = _Notes(work, crash_file, number, batch.options.encode, left)
        report = notes.report(batch, runs.run_stub)
        if os.getpid() != pid:
            os._exit(0)
        left = notes.left
        with suppress(OSError):
            try:
                data = REPORT + pickle.dumps(report, pickle.HIGHEST_PROTOCOL)
            except MemoryError:
                _end_without_memory(work, "send the result")
                return
            work.send_bytes(data)
            if left == 0:
                work.send_bytes(BYE)
                return
        del batch, report, notes


class _Notes:
    """How the calls of one batch ended, noted where the coordinator finds it should this process be killed."""

    def __init__(
        self, work: Connection, crash_file: CrashFile, number: int, encode: Encode | None, left: int | None
    ) -> None:
        self.left = left
        """How many more calls this worker makes; `None` if there is no limit."""
        self._work = work
        self._crash_file = crash_file
        self._number = number
        self._encode = encode
        self._packer = Packer()
        self._part = 0
        self._ended: list[bytes | Packed] = []
        crash_file.begin(number, 0)

    def report(self, batch: Batch, run_stub: RunStub) -> Report:
        """Make the calls of the batch; return how those ended that have not been sent yet."""
        began = time.perf_counter()
        error = None
        if not self._crash_file.is_recalled(self._number):
            error = run_calls(batch, self._note, run_stub)
        return Report(worker_name(here=False), self._ended, began, time.perf_counter(), error)

    def _note(self, result: Result) -> bool:
        """Note how a call ended; return whether no other is to begin."""
        data = pack_result(result, self._encode, self._packer, pack_bytes)
        self._ended.append(data)
        if isinstance(data, Packed) or not self._crash_file.note(data):
            self._work.send_bytes(PART + pickle.dumps(self._ended, pickle.HIGHEST_PROTOCOL))
            send_files(self._work, self._ended)
            self._ended.clear()
            self._part += 1
            self._crash_file.begin(self._number, self._part)
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                return True
        return self._crash_file.is_recalled(self._number)


def _is_orphan(parent: int) -> bool:
    return os.name == "posix" and os.getppid() != parent


def _is_let_go(work: Connection) -> bool:
    """Return whether the other end of the pipe is closed: a parent that ends closes its files before it is gone."""
    try:
        return work.poll(_ORPHAN_CHECK_S) and not work.recv_bytes()
    except (EOFError, OSError):
        return True


def _let_end(_number: int, _frame: object) -> None:
    """Do nothing on Ctrl-C and on SIGTERM: what runs may end."""


def _end_on_sigterm() -> None:
    """Make a child that a task has forked end on SIGTERM, which its parent may send."""
    if signal.getsignal(signal.SIGTERM) is _let_end:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _watch(word: Connection, runs: _Runs, parent: int) -> None:
    while True:
        try:
            # A child that the parent has forked may hold the other end of the pipe when the parent is gone.
            while not word.poll(_ORPHAN_CHECK_S):
                if _is_orphan(parent):
                    os._exit(1)
            said = word.recv_bytes()
        except (EOFError, OSError):
            os._exit(1)
        if said == END:
            return
        if said[:1] == ANSWER:
            runs.link.take(said[1:])
            continue
        runs.halt(int(said[1:]), cancelled=said[:1] == CANCEL)
