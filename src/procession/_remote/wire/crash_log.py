"""The log of the call that a worker process is making, in memory that outlives it, for a call that kills its worker.

    ┌───────────────┬──────────┬──────┬───────────────────────┬────
    │ task, element │ left out │ used │ attempt, length, text │ ...
    └───────────────┴──────────┴──────┴───────────────────────┴────

It lies in the mapped file of a `crash_file`. The log of a call that ends goes back with its result; this is read only
when the worker is gone. An entry counts once `used` includes it, so that none is read half-way.
"""

import os
import struct
from contextlib import suppress
from mmap import mmap

from procession._model.log import Log, Logs

DRAFT_BYTES = 1 << 16

_HEAD = struct.Struct("=qqII")
_ENTRY = struct.Struct("=II")
_USED = struct.Struct("=I")
_USED_AT = _HEAD.size - _USED.size


class CrashLog:
    """A part of a mapped file, which begins at `start`."""

    def __init__(self, memory: mmap, start: int) -> None:
        self._memory = memory
        self._start = start
        self._used = 0
        self._call = (-1, -1)

    def write(self, call: tuple[int, int], log: Log) -> None:
        """Write the last entry of a call's log; of another call, or where there is no room, as much of it as fits."""
        if call != self._call or not all(self._append(*entry) for entry in log.last(1)):
            self._write_all(call, log)

    def clear(self) -> None:
        """Forget what was written: the call has ended."""
        if self._used:
            self._call, self._used = (-1, -1), 0
            _HEAD.pack_into(self._memory, self._start, -1, -1, 0, 0)

    def read(self) -> tuple[tuple[int, int], Log] | None:
        """Return the call that wrote here last, and its log."""
        task, element, left_out, used = _HEAD.unpack_from(self._memory, self._start)
        log, place = Log(left_out), _HEAD.size
        while place < used:
            attempt, length = _ENTRY.unpack_from(self._memory, self._start + place)
            place += _ENTRY.size + length
            log.add(attempt, self._memory[self._start + place - length : self._start + place].decode())
        return ((task, element), log) if len(log) else None

    def _write_all(self, call: tuple[int, int], log: Log) -> None:
        entries = log.last(len(log))
        fitting = room = 0
        for _, text in reversed(entries):
            room += _ENTRY.size + len(text.encode())
            if room > DRAFT_BYTES // 2:  # what comes next is to fit, too
                break
            fitting += 1
        self._call, self._used = call, _HEAD.size
        _HEAD.pack_into(self._memory, self._start, *call, log.left_out + len(entries) - fitting, self._used)
        for attempt, text in entries[len(entries) - fitting :]:
            self._append(attempt, text)

    def _append(self, attempt: int, text: str) -> bool:
        # Read once: a call may end, or a signal's handler log, in between.
        data, begin = text.encode(), self._used
        end = begin + _ENTRY.size + len(data)
        if end > DRAFT_BYTES:
            return False
        self._memory[self._start + begin : self._start + end] = _ENTRY.pack(attempt, len(data)) + data
        self._used = end
        _USED.pack_into(self._memory, self._start + _USED_AT, end)
        return True


class CrashLogs(Logs):
    """Logs of a worker process, each entry of which is also written into a crash log."""

    def __init__(self, crash_log: CrashLog) -> None:
        super().__init__()
        self._crash_log = crash_log
        self._process = os.getpid()

    def add(self, call: tuple[int, int], attempt: int, text: str) -> None:
        """Add an entry to the log of a call."""
        log = self.setdefault(call, Log())
        log.add(attempt, text)
        # A child that a task has forked shares the memory, and has no business there.
        if os.getpid() == self._process:
            with suppress(RuntimeError):  # a thread that a task has left logs, and the task's call ends just now
                self._crash_log.write(call, log)
