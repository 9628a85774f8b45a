"""Following the ends of a run's tasks: each is seen once, whatever ends while one begins to look."""

from collections.abc import Callable
from typing import Self

from procession._engine.run_state import RunState


class Ends:
    """Which tasks have ended: those `before` one looked, in the order of their ends, and those `put` is told of."""

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
        """Return whether it is the first time that the task is seen."""
        if index in self._seen:
            return False
        self._seen.add(index)
        return True

    def missing(self) -> list[int]:
        """Return the tasks that never ended."""
        return [index for index in range(len(self._run_state.ledger.ends)) if index not in self._seen]
