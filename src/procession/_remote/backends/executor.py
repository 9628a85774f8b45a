"""A backend over any `concurrent.futures.Executor` of the caller's, which is used and not shut down.

send ──submit──▶ executor ──done callback──▶ queue ──▶ receive
"""

import time
from collections.abc import Collection
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue

from procession._engine.latch import Latch
from procession._engine.run_state import RunState
from procession._model.text import described, shown, sketch
from procession._remote.backends.base import SETTLED_S, Arrival, Recalled
from procession._remote.wire.batch import Batch, Report
from procession._remote.worker.run_calls import run_batch
from procession.errors import ExecutorBrokenError


class ExecutorBackend:
    """Keeps at most `max_workers` batches with the executor at the same time, however many workers that has."""

    kills = False
    ahead = 0
    idle = True

    def __init__(self, executor: Executor, max_workers: int) -> None:
        self._executor = executor
        self.within: object = executor
        self._max_workers = max_workers
        self._futures: dict[Future[Report], Batch] = {}
        self._done: SimpleQueue[Future[Report] | None] = SimpleQueue()
        self._halted = False

    @property
    def busy(self) -> bool:
        """Whether there is something to receive sooner or later."""
        return bool(self._futures)

    def room(self, waiting: int, call_s: float | None) -> int:  # noqa: ARG002
        """Return how many batches can be sent."""
        return self._max_workers - len(self._futures)

    def send(self, batch: Batch, timeout: float | None) -> str:  # noqa: ARG002
        """Give a batch to the executor. Raises `ExecutorBrokenError`."""
        batch.shared = True
        try:
            future = self._executor.submit(run_batch, batch)
        except Exception as error:
            raise self._broken("did not take a task", error) from error
        self._futures[future] = batch
        future.add_done_callback(self._done.put)
        return type(self._executor).__name__

    def recall(self, late: Collection[Batch]) -> list[Recalled]:
        """Keep other calls from beginning in the batches that are late.

        A batch that the executor has not begun is left alone: any of its workers may take it.
        """
        batches = [batch for batch in self._futures.values() if batch in late and _hides(batch)]
        for batch in batches:
            batch.recalled = True
            if batch.crash_file is not None:
                batch.crash_file.recall(1)
        if batches:
            time.sleep(SETTLED_S)
        found = [(batch, *batch.ended_so_far()) for batch in batches]
        return [Recalled(batch, ended, count + 1) for batch, ended, count in found]

    def receive(self, seconds: float) -> list[Arrival]:
        """Wait for batches to come back, at most so long, and return those that have."""
        done: list[Future[Report] | None] = []
        try:
            done.append(self._done.get(timeout=seconds))
            while True:
                done.append(self._done.get_nowait())
        except Empty:
            pass
        return [self._arrived(future) for future in done if future is not None]

    def wake(self) -> None:
        """Make `receive` return soon."""
        self._done.put(None)

    def halt(self, *, cancelled: bool) -> None:  # noqa: ARG002
        """Take back the batches that the executor has not begun."""
        self._halted = True
        for future in list(self._futures):
            future.cancel()

    def stop(self) -> None:
        """Do nothing: the workers are the caller's."""

    def fetch(self, values: list[object]) -> None:
        """Do nothing: all values come with the reports."""

    def close(self, *, at_once: bool) -> None:  # noqa: ARG002
        """Let go of the executor."""
        self.halt(cancelled=True)
        for batch in self._futures.values():
            _let_go(batch)

    def _arrived(self, future: "Future[Report]") -> Arrival:
        batch = self._futures.pop(future)
        _let_go(batch)
        if future.cancelled():
            return Arrival(batch, None, None if self._halted else self._broken("cancelled what it was given", None))
        error = future.exception()
        if error is None:
            return Arrival(batch, future.result(), None)
        return Arrival(batch, None, self._broken("failed", error))

    def _broken(self, what: str, error: BaseException | None) -> ExecutorBrokenError:
        why = "" if error is None else f": {described(error)}"
        return ExecutorBrokenError(f"the executor, {sketch(self._executor)}, {what}{why}")


def _hides(batch: Batch) -> bool:
    """Return whether calls lie behind the one that is being made, and can be taken back."""
    if batch.recalled or len(batch.calls) == 1:
        return False
    if batch.travelled:
        return batch.crash_file is not None and batch.crash_file.at[0] == 1
    return batch.begun


def _let_go(batch: Batch) -> None:
    if batch.crash_file is not None:
        batch.crash_file.close()


def settle_in(executor: Executor) -> None:
    """Make a pool that forks its workers fork them now, before the run has threads.

    Such a pool forks all its workers at the first call. A lock that another thread holds at that moment (of the log's
    stream, the terminal or a database) stays locked in the child for ever.
    """
    if isinstance(executor, ProcessPoolExecutor):
        with suppress(Exception):  # a pool that is shut down says so when it is given a batch
            executor.submit(int)


class LocalBackend(ExecutorBackend):
    """Threads in this process, for tasks whose callable is a `Process`."""

    def __init__(self, run_state: RunState) -> None:
        count, prefix = run_state.max_workers, f"procession-{shown(run_state.process_name, 40)}-local"
        pool, made = ThreadPoolExecutor(count, thread_name_prefix=prefix), Latch()
        super().__init__(pool, count)
        self.within = None
        # All threads now, since a pool may count a busy thread as idle later, and then starts none.
        try:
            with suppress(RuntimeError):  # the system has no more: those there are do
                for _ in range(count):
                    pool.submit(made.wait)
        finally:
            made.open()

    def close(self, *, at_once: bool) -> None:
        """End the threads."""
        super().close(at_once=at_once)
        self._executor.shutdown(wait=not at_once)
