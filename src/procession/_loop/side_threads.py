"""Threads for what would hold up an event loop: plain functions, slow iterables, commits."""

import asyncio
import contextvars
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from procession.errors import WorkersUnavailableError

T = TypeVar("T")

_Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[..., Any], tuple[Any, ...]]


class SideThreads:
    """Threads beside an event loop: an idle one, or else a new one, for each call.

    Whoever calls sees to it that there are not too many. They are daemons, so that the interpreter can exit while one
    that was left behind is still busy. All methods are called in the loop, one loop at a time.
    """

    __slots__ = ("_idle", "_jobs", "_name", "_owed", "_threads")

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._owed = 0

    def call(self, function: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":
        """Have the call made in a thread; return the future of its value.

        Raises `WorkersUnavailableError` where there is no thread and none can be started.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if self._idle:
            self._idle -= 1
        else:
            self._start()
        self._jobs.put((loop, future, function, args))
        return future

    def close(self) -> None:
        """Let the threads end, and wait for that unless some are still busy and so are left behind."""
        for _ in self._threads:
            self._jobs.put(None)
        if self._idle == len(self._threads):
            for thread in self._threads:
                thread.join()

    def _start(self) -> None:
        thread = threading.Thread(target=self._serve, name=f"{self._name}-aside_{len(self._threads)}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            if not self._threads:
                raise WorkersUnavailableError(f"{self._name}: no thread could be started: {error}") from None
            self._owed += 1  # the next one to become idle takes the call
        else:
            self._threads.append(thread)

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            loop, future, function, args = job
            del job
            value: Any = None
            failure: BaseException | None = None
            try:
                value = function(*args)
            except BaseException as error:
                failure = error
            del function, args
            with suppress(RuntimeError):  # nobody waits any more: the loop is closed
                loop.call_soon_threadsafe(self._deliver, future, value, failure)
            del loop, future, value, failure

    def _deliver(self, future: "asyncio.Future[Any]", value: Any, failure: BaseException | None) -> None:
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


class Mailbox(Generic[T]):
    """Where other threads leave things for a coroutine. Made, and read, in its loop."""

    __slots__ = ("_loop", "_queue")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[T] = asyncio.Queue()

    def put(self, thing: T) -> None:
        """Leave something, from any thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody reads any more
            self._loop.call_soon_threadsafe(self._queue.put_nowait, thing)

    async def get(self) -> T:
        """Return what was left first, once there is something."""
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
    """Return what keeps anyio from cancelling again and again what its scope has cancelled once, as it does."""
    anyio: Any = sys.modules.get("anyio")  # Starlette and FastAPI have imported it
    return nullcontext() if anyio is None else anyio.CancelScope(shield=True)


async def in_thread(function: Callable[[], T], *, forsaken: Callable[[T], object] = lambda _: None) -> T:
    """Return what a call gives that is made in a thread, in this context.

    A cancellation is raised once it has ended, a second one at once; then `forsaken` gets what it gives.
    """

    def hand_over(future: "asyncio.Future[T]") -> None:
        if not future.cancelled() and future.exception() is None:
            forsaken(future.result())

    threads = SideThreads("procession")
    future: asyncio.Future[T] = threads.call(contextvars.copy_context().run, function)
    try:
        return await shield_once(future, lambda: None)
    except BaseException:
        if future.done():
            hand_over(future)
        else:
            future.add_done_callback(hand_over)
        raise
    finally:
        threads.close()
