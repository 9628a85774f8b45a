"""Values that do not stay for the results: each is let go when the last task that takes it has ended."""

import threading
from typing import cast

from procession._engine.ledger import Ledger
from procession._model.outcome import NotKept
from procession._plan.plan import Plan


class Unkept:
    """Lets go of the values of tasks with `keep=False`, but for elements that are handed on as they end."""

    __slots__ = ("_ledger", "_left", "_lock", "_plan", "_sources")

    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        self._plan = plan
        self._ledger = ledger
        self._lock = threading.Lock()
        self._sources = plan.unkept
        self._left = {source: set(takers) for source, takers in self._sources.items() if takers}

    def ended(self, index: int) -> None:
        """Take note that a task has ended, and needs what it took no more."""
        for source in self._plan.needs.get(index, ()):
            with self._lock:
                takers = self._left.get(source, set())
                takers.discard(index)
                last = not takers and self._left.pop(source, None) is not None
            if last:
                self._let_go(source)

    def end(self) -> None:
        """Let go of what is left, as the run has ended."""
        for source in self._sources:
            if self._ledger.state(source) == "completed":
                self._let_go(source)

    def _let_go(self, source: int) -> None:
        values = self._ledger.values
        if not isinstance(values[source], NotKept):
            values[source] = NotKept(count_of(values[source]) if self._plan.is_map(source) else 1)


def count_of(results: object) -> int:
    """Return how many elements a map has, from what stands in the results for it."""
    return results.count if isinstance(results, NotKept) else len(cast("list[object]", results))
