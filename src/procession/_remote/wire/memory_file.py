"""Memory that other processes are handed as an open file: it has no name, and goes with the last who has it open.

On Linux it is a memfd, which takes no room in `/dev/shm` nor on a disk; on other systems with descriptors it is a
temporary file that is unlinked as soon as it is open. On Windows there is none.
"""

import mmap
import os
import sys
import tempfile
from functools import cache
from pickle import PickleBuffer
from typing import Any
from weakref import finalize

IS_SUPPORTED = sys.platform != "win32"
"""Whether descriptors, and with them such memory, can be handed to another process."""

_NONE = "there is no such memory on Windows"
_PAGE = mmap.ALLOCATIONGRANULARITY
_MOST_AT_ONCE = 1 << 30
"""Bytes for one system call: no system takes more than 2 GB."""


class MemoryFile:
    """An open file that holds copies of buffers. It is closed with the last reference to it."""

    __slots__ = ("descriptor", "size")

    def __init__(self, descriptor: int, size: int = 0) -> None:
        self.descriptor = descriptor
        self.size = size
        """How many bytes were written to it."""

    @classmethod
    def made(cls) -> "MemoryFile":
        """Return a new file without content. Raises `OSError`."""
        if sys.platform == "linux":
            return cls(os.memfd_create("procession"))
        descriptor, path = tempfile.mkstemp(prefix="procession-")
        os.unlink(path)  # noqa: PTH108
        return cls(descriptor)

    def append(self, view: memoryview) -> int:
        """Copy bytes to the end of the file; return where they begin. Raises `OSError` if there is no room for them.

        Written, not stored into a mapping: there, the lack of room would be a signal that kills.
        """
        if sys.platform == "win32":
            raise OSError(_NONE)
        start = place = -(-self.size // _PAGE) * _PAGE
        try:
            while view:
                count = os.pwrite(self.descriptor, view[:_MOST_AT_ONCE], place)
                place, view = place + count, view[count:]
        except OSError:
            os.ftruncate(self.descriptor, self.size)
            raise
        self.size = place
        return start

    def read_into(self, view: memoryview, start: int) -> None:
        """Copy bytes from the file. Raises `OSError`."""
        if sys.platform == "win32":
            raise OSError(_NONE)
        while view:
            count = os.preadv(self.descriptor, [view[:_MOST_AT_ONCE]], start)
            if not count:
                raise EOFError("the memory ends before the value does")
            start, view = start + count, view[count:]

    def mapped(self, start: int, size: int) -> memoryview:
        """Return a writable view of a part of the file: what is written to it is seen by nobody else.

        It outlives this object and keeps no descriptor open. Raises `OSError`.
        """
        if sys.platform == "win32":
            raise OSError(_NONE)
        flags, access = mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE
        if sys.version_info >= (3, 13):
            return memoryview(mmap.mmap(self.descriptor, size, flags, access, offset=start, trackfd=False))
        # Before 3.13 a mapping of the standard library has a descriptor of its own, and there may be thousands.
        return _mapped(self.descriptor, start, size, flags, access)

    def __del__(self, close: Any = os.close) -> None:
        close(self.descriptor)


def _mapped(descriptor: int, start: int, size: int, flags: int, access: int) -> memoryview:
    import ctypes  # by those who need it

    system = _system()
    address = system.mmap(None, size, access, flags, descriptor, start)
    if address == ctypes.c_void_p(-1).value:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    memory = (ctypes.c_ubyte * size).from_address(address)
    finalize(memory, system.munmap, address, size).atexit = False
    return PickleBuffer(memory).raw()


@cache
def _system() -> Any:
    """Return the system's own functions for mappings."""
    import ctypes

    system = ctypes.CDLL(None, use_errno=True)
    system.mmap.restype = ctypes.c_void_p
    system.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    system.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return system
