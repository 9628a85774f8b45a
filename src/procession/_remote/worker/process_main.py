"""The main function of a worker process: a loop that makes the calls of batches, and a thread that watches the parent.

    coordinator ══ work ══▶ batches ──▶ main thread ──▶ calls
        ▲   │                             ├──▶ crash file      each result, at once
        │   └───── word ──▶ watcher       │
        └═════════ work ══════════════════┘               the report of a batch, when it is done

Both pipes are this worker's own, and nothing is shared that it could leave locked. A worker goes when `work` is closed,
at once if the parent is gone.
"""

import gc
import os
import pickle
import signal
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection

from procession._remote.wire.batch import Batch, Report
from procession._remote.wire.crash_file import CrashFile
from procession._remote.wire.crash_log import CrashLogs
from procession._remote.wire.result import Encode, Result, encode_result
from procession._remote.worker.run_calls import run_calls, worker_name
from procession._remote.worker.run_stub import RunStub

HELLO, PART, REPORT = b"h", b"p", b"r"
"""What a message to the coordinator is: its first byte."""
HALT, CANCEL, END = b"h", b"c", b"e"
"""The words to the watcher."""

_ORPHAN_CHECK_S = 1.0


def serve(work: Connection, word: Connection, path: str, names: tuple[str, str], parent: int) -> None:
    """Make calls until there are no more."""
    # What is imported by now stays: looking through it for garbage would be most of the time that the end takes.
    gc.freeze()
    # Ctrl-C reaches all processes of the foreground, and SIGTERM, as systemd sends it, the whole group: calls go on,
    # and the coordinator decides. Not ignored, as programs that tasks start would inherit that.
    signal.signal(signal.SIGINT, _let_end)
    signal.signal(signal.SIGTERM, _let_end)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        crash_file = CrashFile(path)
    except OSError:
        if _is_orphan(parent):  # and so its memory is gone
            return
        raise
    run_stub, pid = RunStub(*names), os.getpid()
    run_stub.kept = CrashLogs(crash_file.crash_log)
    if hasattr(os, "register_at_fork"):
        # The child of a task that forks goes on with this very loop and these pipes: it must hold none of them open,
        # and its results must not be taken for ours.
        os.register_at_fork(after_in_child=crash_file.part)
        os.register_at_fork(after_in_child=work.close)
        os.register_at_fork(after_in_child=word.close)
        os.register_at_fork(after_in_child=_end_on_sigterm)
    threading.Thread(target=_watch, args=(word, run_stub, parent), name="procession-watcher", daemon=True).start()
    work.send_bytes(HELLO)
    number = 0
    while True:
        try:
            batch: Batch = pickle.loads(work.recv_bytes())  # noqa: S301  # from our coordinator
        except (EOFError, OSError):
            return
        number += 1
        report = _Notes(work, crash_file, number, batch.options.encode).report(batch, run_stub)
        if os.getpid() != pid:
            os._exit(0)
        with suppress(OSError):
            work.send_bytes(REPORT + pickle.dumps(report, pickle.HIGHEST_PROTOCOL))
        del batch, report


class _Notes:
    """How the calls of one batch ended, noted where the coordinator finds it should this process be killed."""

    def __init__(self, work: Connection, crash_file: CrashFile, number: int, encode: Encode | None) -> None:
        self._work = work
        self._crash_file = crash_file
        self._number = number
        self._encode = encode
        self._part = 0
        self._ended: list[bytes] = []
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
        data = encode_result(result, self._encode)
        self._ended.append(data)
        if not self._crash_file.note(data):
            self._work.send_bytes(PART + pickle.dumps(self._ended, pickle.HIGHEST_PROTOCOL))
            self._ended.clear()
            self._part += 1
            self._crash_file.begin(self._number, self._part)
        return self._crash_file.is_recalled(self._number)


def _is_orphan(parent: int) -> bool:
    return os.name == "posix" and os.getppid() != parent


def _let_end(_number: int, _frame: object) -> None:
    """Do nothing on Ctrl-C and on SIGTERM: what runs may end."""


def _end_on_sigterm() -> None:
    """Have a child that a task has forked end on SIGTERM, as its parent may send it to end it."""
    if signal.getsignal(signal.SIGTERM) is _let_end:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _watch(word: Connection, run_stub: RunStub, parent: int) -> None:
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
        run_stub.halt(cancelled=said == CANCEL)
