"""The results of a worker process in memory that outlives it: which calls of its batch have ended, and how.

    ┌───────┬───────┬──────┬──────────┬──────────────┬──────────────┬────
    │ batch │ parts │ used │ recalled │ length, data │ length, data │ ...
    └───────┴───────┴──────┴──────────┴──────────────┴──────────────┴────

A mapped file that both sides see. The worker notes each result as the call ends, which costs no system call. If the
worker is killed, the results that it has noted are there, and the first call without one is the call it was killed in.
Results that do not fit go through the pipe, as an early part of the report; `parts` counts these, so that none counts
twice. Behind the results lies the log of the call that is being made: see `crash_log`.

The coordinator writes one number there, `recalled`: of that batch and of those before, no other call may begin. The
worker looks at the number after it has noted a result. So what the coordinator reads a moment after it has written is
final: the first call without a result may be going on, and those after it never begin. That holds whatever the worker
is doing, and costs it a look at a number.
"""

import mmap
import os
import stat
import struct
import sys
import tempfile
from contextlib import suppress

from procession._remote.wire.crash_log import DRAFT_BYTES, CrashLog

_SIZE = 1 << 17
_LENGTH = struct.Struct("=I")
_pack_length = _LENGTH.pack
_BATCH, _PART, _USED, _RECALLED = range(4)
"""The numbers at the head, each of the size of a length."""
_WIDTH = _LENGTH.size
_FIRST = 4 * _WIDTH
_TOKEN_BYTES = 16
_WHOLE = _SIZE + DRAFT_BYTES + _TOKEN_BYTES


class CrashFile:
    """The memory of one worker process, opened by path on both sides."""

    def __init__(self, path: str, descriptor: int | None = None) -> None:
        self.path = path
        self._descriptor = descriptor
        with open(path, "r+b") as file:  # noqa: PTH123  # a plain name is what travels
            self._map = mmap.mmap(file.fileno(), _WHOLE)
        self._head = _head_of(self._map)
        self._used = _FIRST
        self.crash_log = CrashLog(self._map, _SIZE)

    @classmethod
    def made(cls) -> "CrashFile":
        """Return a new crash file. It takes its space at once, as a write to mapped memory could raise no error later.

        On Linux the file is in no folder, and gone once no process has it open, however these end.
        """
        in_memory = _memory()
        path = folder = tempfile.gettempdir() if in_memory is None else ""
        try:
            descriptor, path = in_memory or tempfile.mkstemp(prefix="procession-", dir=folder)
            with os.fdopen(descriptor, "wb", closefd=in_memory is None) as file:
                file.write(bytes(_SIZE + DRAFT_BYTES) + os.urandom(_TOKEN_BYTES))
            return cls(path, None if in_memory is None else descriptor)
        except BaseException as error:
            if in_memory is not None:
                os.close(in_memory[0])
            elif path != folder:
                with suppress(OSError):
                    os.unlink(path)  # noqa: PTH108
            if not isinstance(error, OSError):
                raise
            if in_memory is None:
                takes = f"a worker takes a temporary file of {_WHOLE:,} bytes, in the folder that TMPDIR names"
                raise OSError(error.errno, f"{error.strerror}; {takes}", folder) from error
            takes = f"a worker takes a file of {_WHOLE:,} bytes in memory, to which limits of files apply (ulimit -f)"
            raise OSError(error.errno, f"{error.strerror}; {takes}") from error

    @classmethod
    def found(cls, path: str, token: bytes) -> "CrashFile | None":
        """Return the file at a path if it has this token: on another machine, some other file may have the path."""
        try:
            status = os.stat(path)  # noqa: PTH116
            if not stat.S_ISREG(status.st_mode) or status.st_size != _WHOLE:
                return None
            crash_file = cls(path)
        except OSError:
            return None
        if crash_file.token == token:
            return crash_file
        crash_file.release()
        return None

    @property
    def token(self) -> bytes:
        """What tells this file from any other."""
        return self._map[-_TOKEN_BYTES:]

    def begin(self, batch: int, part: int) -> None:
        """Begin anew, for another batch or another part of its report."""
        self.crash_log.clear()
        head = self._head
        head[_USED] = self._used = _FIRST
        head[_BATCH], head[_PART] = batch, part

    def note(self, data: bytes) -> bool:
        """Write a result; return whether there was room for it."""
        size, used = len(data), self._used
        end = used + _WIDTH + size
        if end > _SIZE:
            return False
        self._map[used:end] = _pack_length(size) + data
        self._head[_USED] = self._used = end
        return True

    def recall(self, batch: int) -> None:
        """Keep other calls of this batch, and of those before, from beginning."""
        self._head[_RECALLED] = batch

    def is_recalled(self, batch: int) -> bool:
        """Return whether no other call of this batch may begin."""
        return self._head[_RECALLED] >= batch

    @property
    def at(self) -> tuple[int, int]:
        """The batch that was begun last, and the part of its report that is being noted."""
        return self._head[_BATCH], self._head[_PART]

    def read(self, batch: int, part: int) -> list[bytes]:
        """Return the results that were noted for this part of the report on this batch."""
        noted: list[bytes] = []
        found, at, used = self._head[:_RECALLED].tolist()
        if (found, at) == (batch, part):
            place = _FIRST
            while place < used:
                start = place + _WIDTH
                place = start + _LENGTH.unpack_from(self._map, place)[0]
                noted.append(self._map[start:place])
        return noted

    def part(self) -> None:
        """Note into private memory from now on: for a child that a task has forked, whose results are not asked for."""
        self._map = mmap.mmap(-1, _SIZE + DRAFT_BYTES)
        self._head = _head_of(self._map)
        self.crash_log = CrashLog(self._map, _SIZE)

    def unlink(self) -> None:
        """Delete the name of the file, which is of no use once both sides have opened it."""
        if self.path.startswith("/proc/"):
            descriptor, self._descriptor = self._descriptor, None
            if descriptor is not None:
                os.close(descriptor)
            return
        with suppress(OSError):
            os.unlink(self.path)  # noqa: PTH108

    def release(self) -> None:
        """Close the memory, in the process that has not made it."""
        self._head.release()
        self._map.close()

    def close(self) -> None:
        """Close the memory and delete the file, in the process that has made it."""
        self.release()
        self.unlink()  # if that has not been possible yet: on Windows it is not while the file is mapped


def _head_of(memory: mmap.mmap) -> "memoryview[int]":
    """Return the numbers at the head, which are read and written for each call: like that in half the time."""
    with memoryview(memory) as whole, whole[:_FIRST] as head:
        return head.cast("I")


def _memory() -> tuple[int, str] | None:
    """Return a file that has no name but among those that this process has open, where there is such a list."""
    if sys.platform != "linux":
        return None
    descriptor = os.memfd_create("procession")
    path = f"/proc/{os.getpid()}/fd/{descriptor}"
    if os.access(path, os.R_OK | os.W_OK):
        return descriptor, path
    os.close(descriptor)
    return None
