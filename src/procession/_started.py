"""Runs in the event loop of the coroutine that starts them, and runs that are made in a thread beside it."""

from asyncio import CancelledError, Future, ensure_future, get_running_loop
from collections.abc import Awaitable, Callable

from procession._loop.side_threads import in_thread, shield_once
from procession._loop.stop import stop
from procession._run import Run


class StartedHere:
    """A run in the event loop of the coroutine that enters it: see `Process.start_async`."""

    __slots__ = ("_driver", "_make", "_run")

    def __init__(self, make: Callable[[], Awaitable[Run]]) -> None:
        self._make = make
        self._run: Run | None = None
        self._driver: Future[None] | None = None

    async def __aenter__(self) -> Run:
        """Begin the run."""
        if self._run is not None:
            raise RuntimeError("start_async() is entered once: call it again for another run")
        self._run = run = await self._make()
        self._driver = ensure_future(run._execution.drive_async())
        return run

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Cancel the run unless it has ended, and wait until its running tasks have."""
        assert self._run is not None
        assert self._driver is not None
        stop(self._run._run_state)
        if kind is not None and issubclass(kind, CancelledError):
            # The next cancellation is the second one, which leaves at once. Not now: it may not have begun.
            get_running_loop().call_soon(self._driver.cancel)
        try:
            await shield_once(self._driver, self._driver.cancel)
        except CancelledError:
            self._driver.cancel()  # a second cancellation leaves at once
            raise


async def made_in_thread(make: Callable[[], Run]) -> Run:
    """Return a run that is made in another thread: opening its journal may take long, and must not block the loop."""

    def end(run: Run) -> None:  # the caller was cancelled and does not wait any more
        run.cancel()
        run._execution.drive()

    return await in_thread(make, forsaken=end)
