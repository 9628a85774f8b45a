"""Threads for what would hold up an event loop: plain functions and slow iterables."""

import asyncio
import contextvars
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, NamedTuple, TypeVar

from procession.errors import WorkersUnavailableError

T = TypeVar("T")


class _Job(NamedTuple):
    """A call, and what delivers its value or its error in the loop of the caller."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    loop: asyncio.AbstractEventLoop
    deliver: Callable[[Any, BaseException | None], object]


_AGAIN_S = 0.01
"""How long to wait before handing over again what could not be handed over."""


class SideThreads:
    """Threads beside an event loop: an idle one, or else a new one, for each call.

    Whoever calls sees to it that there are not too many. They are daemons, so that the interpreter can exit while one
    that was left behind is still busy. All methods are called in the loop, one loop at a time.
    """

    __slots__ = ("_idle", "_jobs", "_name", "_owed", "_threads", "_waiting", "calls")

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._name = name
        self.calls: set[asyncio.Future[Any]] = set()
        """The calls that have not ended."""
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._owed = 0
        self._waiting = 0

    def note_waits(self) -> None:
        """Take note that a call waits for others, which may be those for which there is no thread: then none goes on.

        Raises `WorkersUnavailableError` in that case.
        """
        self._waiting += 1
        self._check_owed()

    def note_goes_on(self) -> None:
        """Take note that a call that has waited goes on."""
        self._waiting -= 1

    def _check_owed(self) -> None:
        if self._owed and self._waiting >= len(self._threads):
            raise WorkersUnavailableError(
                f"{self._name}: no thread could be started beside those in which tasks wait for elements of a stream"
            )

    def call(self, function: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":
        """Make the call in a thread; return the future of its value.

        Raises `WorkersUnavailableError` where there is no thread and none can be started.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if self._idle:
            self._idle -= 1
        else:
            self._start()
        self._jobs.put(_Job(function, args, loop, partial(self._deliver, future)))
        self.calls.add(future)
        return future

    def close(self) -> None:
        """Let the threads end, and wait for that unless some are still busy and so are left behind."""
        self._end_threads()
        if self._idle == len(self._threads):
            for thread in self._threads:
                thread.join()

    def __del__(self) -> None:
        with suppress(AttributeError):  # an error kept it from being made
            self._end_threads()  # where an error kept `close` from being called

    def _end_threads(self) -> None:
        for _ in self._threads:
            self._jobs.put(None)

    def _start(self) -> None:
        name = f"{self._name}-side_{len(self._threads)}"
        thread = threading.Thread(target=_serve, args=(self._jobs,), name=name, daemon=True)
        self._threads.append(thread)
        try:
            thread.start()
        except BaseException as error:
            self._threads.pop()
            if not isinstance(error, RuntimeError):
                raise
            if not self._threads:
                raise WorkersUnavailableError(f"{self._name}: no thread could be started: {error}") from None
            self._owed += 1  # the next one to become idle takes the call
            self._check_owed()

    def _deliver(self, future: "asyncio.Future[Any]", value: Any, failure: BaseException | None) -> None:
        try:
            self.calls.discard(future)
            if self._owed:
                self._owed -= 1
            else:
                self._idle += 1
            if future.done():
                return
            if failure is None:
                future.set_result(value)
            else:
                future.set_exception(failure)
        except BaseException as error:  # not from the call, and the loop would only log it
            if not future.done():
                future.set_exception(error)


def _serve(jobs: "SimpleQueue[_Job | None]") -> None:
    """Make one call after the other, until there is a `None`."""
    while True:
        job: _Job | None = None
        value: Any = None
        failure: BaseException | None = None
        try:
            job = jobs.get()
            if job is None:
                return
            value = job.function(*job.args)
        except BaseException as error:
            failure = error
        if job is None:  # not from a call, and one may come any moment
            time.sleep(_AGAIN_S)
            continue
        try:
            hand_over(job.loop, job.deliver, value, failure)
        except BaseException as error:
            hand_over(job.loop, job.deliver, None, error)


def hand_over(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: Any) -> None:
    """Schedule a function in a loop, from another thread; do nothing if the loop is closed, as nobody waits any more.

    Where that raises, as without any memory left, it is tried until it works: what is not handed over, the loop would
    wait for without end.
    """
    while True:
        try:
            loop.call_soon_threadsafe(function, *args)
        except Exception:
            if loop.is_closed():
                return
            time.sleep(_AGAIN_S)
        else:
            return


class Mailbox(Generic[T]):
    """Where other threads leave things for a coroutine. Made, and read, in its loop."""

    __slots__ = ("_loop", "_queue")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[T] = asyncio.Queue()

    def put(self, thing: T) -> None:
        """Leave something, from any thread."""
        hand_over(self._loop, self._queue.put_nowait, thing)

    async def get(self) -> T:
        """Wait for the first item, and return it."""
        return await self._queue.get()


async def shield_once(future: "asyncio.Future[T]", stop: Callable[[], object]) -> T:
    """Return a future's result. A first cancellation calls `stop` and is raised once it is done; a second at once."""
    try:
        await asyncio.wait((future,))
        return future.result()
    except asyncio.CancelledError:
        stop()
        with _apart_from_scopes():
            await asyncio.wait((future,))
        raise


def _apart_from_scopes() -> AbstractContextManager[object]:
    """Return a context in which anyio, which repeats the cancellations of its scopes, does not cancel again."""
    anyio: Any = sys.modules.get("anyio")  # Starlette and FastAPI have imported it
    return nullcontext() if anyio is None else anyio.CancelScope(shield=True)


async def in_thread(function: Callable[[], T], *, forsaken: Callable[[T], object] = lambda _: None) -> T:
    """Return the value of a call that is made in a thread, in this context.

    A cancellation is raised once it has ended, a second one at once; then `forsaken` gets what it gives.
    """

    def forsake(future: "asyncio.Future[T]") -> None:
        if not future.cancelled() and future.exception() is None:
            forsaken(future.result())

    threads = SideThreads("procession")
    future: asyncio.Future[T] | None = None
    try:
        future = threads.call(contextvars.copy_context().run, function)
        return await shield_once(future, lambda: None)
    except BaseException:
        if future is not None and future.done():
            forsake(future)
        elif future is not None:
            future.add_done_callback(forsake)
        raise
    finally:
        threads.close()
