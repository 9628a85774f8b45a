"""Requests that wait: a server that takes as long as it is asked to, and how to ask it.

python benchmarks/fetching.py                serves on a port that it prints, until its standard input is closed
"""

import asyncio
import http.client
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakKeyDictionary

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b"

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_KEPT = threading.local()
_KEPT_ON_LOOPS: WeakKeyDictionary[asyncio.AbstractEventLoop, list[Connection]] = WeakKeyDictionary()


@contextmanager
def served() -> Iterator[int]:
    """Serve in another process, and say on which port."""
    with subprocess.Popen([sys.executable, Path(__file__)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        yield int(server.stdout.readline())
        assert server.stdin is not None
        server.stdin.close()


def fetch(port: int, microseconds: int) -> int:
    """Ask for what takes so long, and return what the answer says. Each thread keeps its connection."""
    if getattr(_KEPT, "port", None) != port:
        _KEPT.port, _KEPT.connection = port, http.client.HTTPConnection("127.0.0.1", port)
    connection: http.client.HTTPConnection = _KEPT.connection
    connection.request("GET", f"/{microseconds}")
    return int(connection.getresponse().read())


async def fetch_awaited(port: int, microseconds: int) -> int:
    """Do the same in a coroutine. Each loop keeps its connections."""
    kept = _KEPT_ON_LOOPS.setdefault(asyncio.get_running_loop(), [])
    reader, writer = kept.pop() if kept else await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /%d HTTP/1.1\r\nhost: localhost\r\n\r\n" % microseconds)
    head = await reader.readuntil(b"\r\n\r\n")
    said = await reader.readexactly(int(head.rpartition(b":")[2]))
    kept.append((reader, writer))
    return int(said)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            asked = head.split()[1][1:]
            await asyncio.sleep(int(asked) / 1e6)
            writer.write(ANSWER % (len(asked), asked))
    except (asyncio.IncompleteReadError, asyncio.CancelledError):  # nothing more is asked, or the server ends
        writer.close()


async def _serve() -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0, backlog=1000)
    async with server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve())
