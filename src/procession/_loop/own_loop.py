"""An event loop that a run has for itself, where nobody awaits it."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from procession._engine.latch import Latch
from procession.errors import WorkersUnavailableError

_GRACE_S = 0.1


class OwnLoop(Protocol):
    """A loop that runs one coroutine at a time, until it is closed."""

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine to its end, or to a second Ctrl-C, which is raised at once."""
        ...

    def close(self, *, hurried: bool) -> None:
        """Cancel whatever is left on the loop, wait for it unless in a hurry, and close the loop."""
        ...


def own_loop(name: str, interrupt: Callable[[BaseException], object]) -> OwnLoop:
    """Return a loop in this thread or, where one runs in it already, as in a notebook, in another.

    `interrupt` is called with what comes in between for the first time, such as Ctrl-C, and has to end what runs.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _Here(interrupt)
    return _Elsewhere(name, interrupt)


def _runner() -> asyncio.Runner:
    # With a factory, it leaves alone what the thread has set as its current loop.
    return asyncio.Runner(loop_factory=asyncio.new_event_loop)


class _Here:
    """In this thread. Its runner makes Ctrl-C in the main thread cancel what runs, and a second one be raised.

    Where a program has a handler of its own, that may raise the first one right inside the loop, which goes on then.
    """

    def __init__(self, interrupt: Callable[[BaseException], object]) -> None:
        self._interrupt = interrupt
        self._runner = _runner()
        self._task: asyncio.Task[Any] | None = None

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        self._task = None
        try:
            self._runner.run(self._noted(main))
        except (KeyboardInterrupt, SystemExit) as error:  # of a signal, or of a task that a coroutine has made
            task = self._task
            if task is None or task.done() or task.cancelling():
                raise
            self._interrupt(error)
            self._runner.get_loop().run_until_complete(task)

    async def _noted(self, main: Coroutine[Any, Any, None]) -> None:
        self._task = asyncio.current_task()
        await main

    def close(self, *, hurried: bool) -> None:
        if not hurried:
            self._runner.close()
            return
        loop = self._runner.get_loop()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=_GRACE_S))
        for task in asyncio.all_tasks(loop):
            # They ignore that they are cancelled, and are left behind knowingly: no complaint when they are destroyed.
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()


class _Elsewhere:
    """In a thread of its own, for which this one waits."""

    def __init__(self, name: str, interrupt: Callable[[BaseException], object]) -> None:
        self._interrupt = interrupt
        self._runner = _runner()
        self._loop = self._runner.get_loop()
        self._over = False
        self._thread = threading.Thread(target=self._serve, name=f"{name}-loop", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._runner.close()
            raise WorkersUnavailableError(f"{name}: no thread could be started for its loop: {error}") from None

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        ended = Latch()
        future = asyncio.run_coroutine_threadsafe(main, self._loop)
        future.add_done_callback(lambda _: ended.open())
        ended.wait_through(self._interrupt)
        future.result()

    def close(self, *, hurried: bool) -> None:
        self._over = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        if not hurried:
            self._thread.join()

    def _serve(self) -> None:
        while not self._over:
            try:
                self._loop.run_forever()
            except BaseException as error:  # `SystemExit` of a task that a coroutine has made: the loop goes on
                self._interrupt(error)
        self._runner.close()
