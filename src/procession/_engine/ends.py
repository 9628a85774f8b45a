"""Following the ends of a run's tasks: each end is seen exactly once, also if it comes while following begins.

Who waits looks from time to time whether to wait here is allowed, by what is called `check`.
"""

from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Self

from procession._engine.latch import SLICE_S, Latch
from procession._engine.run_state import RunState


class Ends:
    """The ends of a run's tasks: `before` has the tasks that have ended already, `put` is called with later ones."""

    __slots__ = ("_put", "_run_state", "_seen", "before")

    def __init__(self, run_state: RunState, put: Callable[[int | None], None]) -> None:
        self._run_state = run_state
        self._put = put
        self._seen: set[int] = set()
        self.before: list[int] = []

    def __enter__(self) -> Self:
        self._run_state.watch(self._put)
        # Watching began before this look, so that no task ends unseen between the two.
        before = sorted((end, index) for index, end in enumerate(self._run_state.ledger.ends) if end is not None)
        self.before = [index for _, index in before]
        self._seen.update(self.before)
        return self

    def __exit__(self, *_: object) -> None:
        self._run_state.unwatch(self._put)

    def first(self, index: int) -> bool:
        """Return whether the task is new here, and remember it."""
        if index in self._seen:
            return False
        self._seen.add(index)
        return True

    def missing(self) -> list[int]:
        """Return the tasks that never ended."""
        return [index for index in range(len(self._run_state.ledger.ends)) if index not in self._seen]


def next_end(queue: "SimpleQueue[int | None]", check: Callable[[], None]) -> int | None:
    """Wait for the next item of a queue, and return it."""
    try:
        return queue.get_nowait()
    except Empty:  # and not `suppress`, which takes longer than all the rest
        pass
    while True:
        check()
        with suppress(Empty):
            return queue.get(timeout=SLICE_S)


def wait_for_end(run_state: RunState, index: int, over: Latch, check: Callable[[], None]) -> None:
    """Wait until a task has ended, or the run is `over`."""
    ended = Latch()

    def watch(other: int | None) -> None:
        if other == index or other is None:
            ended.open()

    run_state.watch(watch)
    try:
        # Watching began before this look, so that neither can end unseen between the two.
        if run_state.ledger.ends[index] is None and not over.is_open:
            check()
            ended.wait()
    finally:
        run_state.unwatch(watch)
