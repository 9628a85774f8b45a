"""The map tasks that threads work on, of a run or of one of its stages: each begins when the first worker comes."""

import threading
from typing import TYPE_CHECKING, Any

from procession._engine.call_context import CURRENT_CALL
from procession._engine.map import ThreadMap
from procession._engine.retry import GiveUp
from procession._engine.run_state import RunState
from procession._engine.workers import Workers
from procession._model.task import PLAIN, MapFunction

if TYPE_CHECKING:
    from procession._model.outcome import NotKept


class ThreadMaps:
    """The map tasks of a run, or of one of its stages, that threads work on."""

    def __init__(self, run_state: RunState) -> None:
        self._run_state = run_state
        self._lock = threading.Lock()
        self._maps: dict[int, ThreadMap] = {}

    def join(self, workers: Workers, index: int, map_function: MapFunction, *, in_order: bool) -> "list[Any] | NotKept":
        """Work on a map; return its results in the last worker on it, else raise `LeaveTask`."""
        run_state = self._run_state
        with self._lock:
            job = self._maps.get(index)
            if job is None:
                options = run_state.plan.options.get(index, PLAIN)
                try:
                    job = ThreadMap(
                        run_state, workers, index, map_function, options, in_order=in_order, others=self._maps
                    )
                except Exception as error:  # what is recorded of it cannot be read
                    raise GiveUp(error) from None
                self._maps[index] = job
                run_state.maps[index] = job.state
        return job.join(CURRENT_CALL.get())

    def end_left(self) -> None:
        """End the maps that all workers have left before their end."""
        for job in self._maps.values():
            job.end_left()

    def close(self) -> None:
        """Let go of the maps, which refer to their workers."""
        for job in self._maps.values():
            job.close()
        self._maps.clear()
