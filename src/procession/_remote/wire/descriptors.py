"""Open files on their way through the pipe between a coordinator and a worker, behind the message that tells of them.

They travel inside the system: what was sent is there for the receiver whatever becomes of the sender, and is closed if
nobody receives it.
"""

import os
import socket
import sys
from array import array
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from procession._remote.wire.memory_file import MemoryFile
from procession._remote.wire.packed import Packed


class Pipe(Protocol):
    """The end of a pipe."""

    def fileno(self) -> int:
        """Return its descriptor."""
        ...


def send_files(pipe: Pipe, packed: Sequence[object]) -> None:
    """Send the files of what is packed of these values. Raises `OSError` if the other side is gone."""
    for one in packed:
        if isinstance(one, Packed):
            _send(pipe, one.files)


def receive_files(pipe: Pipe, packed: Sequence[object]) -> None:
    """Take the files of what is packed of these values. Raises `EOFError` or `OSError` if the other side is gone."""
    for one in packed:
        if isinstance(one, Packed):
            one.files = _received(pipe, one.count)


def _send(pipe: Pipe, files: Sequence[MemoryFile]) -> None:
    if sys.platform != "win32" and files:
        descriptors = array("i", [file.descriptor for file in files])
        with _as_socket(pipe) as sock:
            sock.sendmsg([b"f"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])


def _received(pipe: Pipe, count: int) -> list[MemoryFile]:
    """Return files that were sent, or fewer if this process may not open so many."""
    descriptors = array("i")
    if sys.platform != "win32" and count:
        with _as_socket(pipe) as sock:
            said, ancillary, _, _ = sock.recvmsg(1, socket.CMSG_SPACE(count * descriptors.itemsize))
        for _, _, data in ancillary:
            descriptors.frombytes(data[: len(data) // descriptors.itemsize * descriptors.itemsize])
        if not said:
            raise EOFError
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return [MemoryFile(descriptor) for descriptor in descriptors]


@contextmanager
def _as_socket(pipe: Pipe) -> "Generator[socket.socket]":
    """Return the end of a pipe as the socket that it is: files travel through nothing else."""
    if sys.platform == "win32":
        raise OSError("there are no such sockets on Windows")
    # Not `socket.socket`, which gevent replaces by one that does not wait.
    sock: Any = socket.SocketType(socket.AF_UNIX, socket.SOCK_STREAM, 0, pipe.fileno())
    try:
        sock.settimeout(None)  # the program may have set another default, which the pipe has got just now
        yield sock
    finally:
        sock.detach()
