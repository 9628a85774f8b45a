"""What a worker process has got done of its batch, in memory that outlives it.

    ┌───────┬───────┬──────┬──────────┬──────────────┬──────────────┬────
    │ batch │ parts │ used │ recalled │ length, data │ length, data │ ...
    └───────┴───────┴──────┴──────────┴──────────────┴──────────────┴────

A mapped file that both sides see. The worker notes each call when it has ended, which costs no system call; should it
be killed, what it had noted is there, and the first call that is missing is the one it was killed in. What does not
fit goes through the pipe, as a part of the report that comes early; `parts` says how many there were, so that nothing
counts twice. After that comes the log of the call that it is at: see `crash_log`.

The coordinator writes one number there, `recalled`: of that batch and those before, no other call is to be begun. The
worker looks at it after it has noted a call, so what the coordinator reads a moment after it has written is settled:
the first call that is not noted may be going on, and those after it never begin. That holds whatever the worker is
doing, and costs it no more than to look at a number.
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
_HEAD = struct.Struct("=III")
_LENGTH = struct.Struct("=I")
_USED = 8
_RECALLED = _HEAD.size
_FIRST = _RECALLED + _LENGTH.size
_TOKEN_BYTES = 16
_WHOLE = _SIZE + DRAFT_BYTES + _TOKEN_BYTES


class CrashFile:
    """One worker's memory, opened by path on both sides."""

    def __init__(self, path: str, descriptor: int | None = None) -> None:
        self.path = path
        self._descriptor = descriptor
        with open(path, "r+b") as file:  # noqa: PTH123  # a plain name is what travels
            self._map = mmap.mmap(file.fileno(), _WHOLE)
        self._used = _FIRST
        self.crash_log = CrashLog(self._map, _SIZE)

    @classmethod
    def made(cls) -> "CrashFile":
        """Return a new one. The file takes its space at once: there is no error that a write to a map could raise.

        On Linux it is in no folder, and gone with those who have it open, however they end.
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
            if in_memory is None and isinstance(error, OSError):
                takes = f"a worker takes a temporary file of {_WHOLE:,} bytes, in the folder that TMPDIR names"
                why = f"{error.strerror}; {takes}"
                raise OSError(error.errno, why, folder) from error
            raise

    @classmethod
    def found(cls, path: str, token: bytes) -> "CrashFile | None":
        """Return the one with this token, if it is there: on another machine, something else may have its path."""
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
        """What tells this one from any other."""
        return self._map[-_TOKEN_BYTES:]

    def begin(self, batch: int, part: int) -> None:
        """Begin anew, for another batch or another part of its report."""
        self.crash_log.clear()
        self._used = _FIRST
        _LENGTH.pack_into(self._map, _USED, self._used)
        _HEAD.pack_into(self._map, 0, batch, part, self._used)

    def note(self, data: bytes) -> bool:
        """Note how a call ended; return whether there was room."""
        end = self._used + _LENGTH.size + len(data)
        if end > _SIZE:
            return False
        self._map[self._used : end] = _LENGTH.pack(len(data)) + data
        self._used = end
        _LENGTH.pack_into(self._map, _USED, end)
        return True

    def recall(self, batch: int) -> None:
        """Have no other call of this batch, nor of those before, begun."""
        _LENGTH.pack_into(self._map, _RECALLED, batch)

    def is_recalled(self, batch: int) -> bool:
        """Return whether no other call of this batch is to be begun."""
        recalled: int = _LENGTH.unpack_from(self._map, _RECALLED)[0]
        return recalled >= batch

    @property
    def at(self) -> tuple[int, int]:
        """The batch that was begun last, and the part of its report that is being noted."""
        batch, part, _ = _HEAD.unpack_from(self._map)
        return batch, part

    def read(self, batch: int, part: int) -> list[bytes]:
        """Return what was noted of this part of the report on this batch."""
        noted: list[bytes] = []
        found, at, used = _HEAD.unpack_from(self._map)
        if (found, at) == (batch, part):
            place = _FIRST
            while place < used:
                start = place + _LENGTH.size
                place = start + _LENGTH.unpack_from(self._map, place)[0]
                noted.append(self._map[start:place])
        return noted

    def part(self) -> None:
        """Have memory of its own from now on, in a child that a task has forked: its calls are nobody's."""
        self._map = mmap.mmap(-1, _SIZE + DRAFT_BYTES)
        self.crash_log = CrashLog(self._map, _SIZE)

    def unlink(self) -> None:
        """Let the name of the file go, which is of no use once both sides have opened it."""
        if self.path.startswith("/proc/"):
            descriptor, self._descriptor = self._descriptor, None
            if descriptor is not None:
                os.close(descriptor)
            return
        with suppress(OSError):
            os.unlink(self.path)  # noqa: PTH108

    def release(self) -> None:
        """Let it go where it was not made."""
        self._map.close()

    def close(self) -> None:
        """Let it go."""
        self._map.close()
        self.unlink()  # if that has not been possible yet: on Windows it is not while the file is mapped


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
