"""A thread that draws from what may take its time, while the coordinator goes on."""

import contextvars
import threading
import time
from collections.abc import Callable

from procession.errors import WorkersUnavailableError

_QUICK_S = 0.001


class Source:
    """Has `fill` called in a thread of its own each time it is asked, one call at a time. Asked by one thread."""

    __slots__ = ("_answered", "_busy", "_fill", "_over", "_quick", "_thread", "_asked")

    def __init__(self, fill: Callable[[], object], name: str, context: contextvars.Context) -> None:
        self._fill = fill
        self._asked = threading.Semaphore(0)
        self._answered = threading.Event()
        self._busy = False
        self._over = False
        self._quick = True
        self._thread = threading.Thread(target=context.run, args=(self._serve,), name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise WorkersUnavailableError(f"no thread could be started to draw from an iterable: {error}") from None

    def ask(self) -> None:
        """Have more drawn. Return when it is there if that is a matter of a moment, else at once."""
        if not self._busy:
            self._busy = True
            self._answered.clear()
            self._asked.release()
        if self._quick:
            self._quick = self._answered.wait(_QUICK_S)

    def close(self) -> None:
        """End the thread, and wait for a call that is under way: nobody can stop it."""
        self._over = True
        self._asked.release()
        self._thread.join()

    def _serve(self) -> None:
        while self._asked.acquire() and not self._over:
            start = time.perf_counter()
            self._fill()
            self._quick = time.perf_counter() - start < _QUICK_S
            self._busy = False
            self._answered.set()
