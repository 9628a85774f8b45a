"""A backend on a Ray cluster: each batch is one task there, and large values stay in its object store.

send ──run_away.remote──▶ two references: the report, with small values; the large ones ──▶ `Away`
         ray.wait ──▶ receive
"""

import os
import threading
import time
from collections.abc import Collection
from importlib import import_module
from typing import Any, cast

try:
    # Untyped as far as one can build on it, and type checkers need not have it.
    ray: Any = import_module("ray")
except ImportError as error:
    raise ImportError('Ray is not installed: pip install "procession[ray]"') from error

from procession._engine.run_state import RunState
from procession._model.outcome import Away
from procession._model.text import described
from procession._remote.backends.base import Arrival, Recalled
from procession._remote.backends.cluster import packed, places_away, refer, small_bytes
from procession._remote.backends.executor import LocalBackend
from procession._remote.wire.batch import Batch, BatchOptions, Report
from procession._remote.worker.cluster_main import run_away, told, value_of
from procession.errors import ExecutorBrokenError

_SLICE_S = 0.005
"""How long to wait at a time where something else than a batch that comes back may make calls ready."""


class RayValue(Away):
    """A value on the cluster: one of the values of a batch that stayed there."""

    __slots__ = ("kept", "place")

    def __init__(self, kept: Any, place: int) -> None:
        self.kept = kept
        self.place = place

    def fetch(self) -> Any:
        """Bring the value here."""
        return ray.get(self.kept)[self.place]


class RayBackend:
    """Keeps at most `max_workers` batches with Ray at the same time, and no more than Ray has processors for.

    It is the Ray that the program is connected to. If there is none, Ray is started on this machine, and ended with the
    run.
    """

    kills = False
    ahead = 0
    idle = True
    within = None

    def __init__(self, run_state: RunState) -> None:
        self._run_state = run_state
        self._opened = not ray.is_initialized()
        try:
            if self._opened:
                ray.init(num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False, configure_logging=False)
            self._places = min(run_state.max_workers, max(int(ray.cluster_resources().get("CPU", 1)), 1))
        except Exception as error:
            raise ExecutorBrokenError(f"no Ray could be reached: {described(error)}") from error
        self._submit: Any = ray.remote(num_returns=2)(_run).remote
        self._small_bytes = small_bytes(run_state)
        wakes = any(some is not None for some in (run_state.recorder, run_state.admission, run_state.streams))
        self._longest_s = _SLICE_S if wakes else float("inf")
        self._references: dict[Any, tuple[Batch, Any]] = {}

    @property
    def busy(self) -> bool:
        """Whether there is something to receive sooner or later."""
        return bool(self._references)

    def room(self, waiting: int, call_s: float | None) -> int:  # noqa: ARG002
        """Return how many batches can be sent: one that waits for a processor there could not be taken back."""
        return self._places - len(self._references)

    def send(self, batch: Batch, timeout: float | None) -> str:  # noqa: ARG002
        """Give a batch to Ray. Raises `ExecutorBrokenError`."""
        data, taken = packed(batch.calls, whole=batch.whole)
        batch.size = len(data)
        values = [cast("RayValue", value) for value in taken]
        places = [value.place for value in values]
        try:
            report, kept = self._submit(
                data, batch.options, self._small_bytes, places, *(value.kept for value in values)
            )
        except Exception as error:
            raise self._broken("did not take a task", error) from error
        self._references[report] = batch, kept
        return "Ray"

    def recall(self, late: Collection[Batch]) -> list[Recalled]:  # noqa: ARG002
        """Do nothing, for now."""
        return []

    def receive(self, seconds: float) -> list[Arrival]:
        """Wait for batches to come back, at most so long, and return those that have."""
        waiting = list(self._references)
        if not waiting:
            time.sleep(min(seconds, self._longest_s))
            return []
        done, _ = ray.wait(waiting, timeout=min(seconds, self._longest_s))
        if done:
            done, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0)
        return [self._arrived(report) for report in done]

    def wake(self) -> None:
        """Do nothing: Ray cannot be woken, so where that is to be expected, `receive` never waits for long."""

    def halt(self, *, cancelled: bool) -> None:
        """Do nothing: every batch that was sent has been begun."""

    def stop(self) -> None:
        """Do nothing: the workers belong to the cluster."""

    def fetch(self, values: list[object]) -> None:
        """Put values in the places where references stand for them, those of each batch in one go."""
        found = places_away(values)
        kept = list({id(holder[place].kept): holder[place].kept for holder, place in found}.values())
        brought = dict(zip(map(id, kept), ray.get(kept), strict=True))
        for holder, place in found:
            value: RayValue = holder[place]
            holder[place] = brought[id(value.kept)][value.place]

    def close(self, *, at_once: bool) -> None:  # noqa: ARG002
        """Disconnect from Ray, and end it if it was started here."""
        self._references.clear()
        if self._opened:
            ray.shutdown()

    def _arrived(self, reference: Any) -> Arrival:
        batch, kept = self._references.pop(reference)
        try:
            report: Report
            report, away = ray.get(reference)
        except ray.exceptions.RayError as error:
            return Arrival(batch, None, self._broken("lost a task", error))
        order = {place: number for number, place in enumerate(away)}
        refer(report, away, lambda place: RayValue(kept, order[place]))
        return Arrival(batch, report, None)

    def _broken(self, what: str, error: BaseException) -> ExecutorBrokenError:
        return ExecutorBrokenError(f"Ray {what}: {described(error)}")


def in_task() -> bool:
    """Return whether this process is a worker of Ray."""
    return bool(ray.is_initialized() and ray.get_runtime_context().worker.mode == ray.WORKER_MODE)


def open_backend(run_state: RunState) -> RayBackend | LocalBackend:
    """Return a backend on Ray, or one here: for a run inside a task of Ray that cannot lend its place.

    Ray lends the place of a task that waits, but only if the task waits in its main thread.
    """
    if in_task() and threading.current_thread() is not threading.main_thread():
        return LocalBackend(run_state)
    return RayBackend(run_state)


def _run(
    data: bytes, options: BatchOptions, small_bytes: float, places: list[int], *kept: list[Any]
) -> tuple[tuple[Report, list[int]], list[Any]]:
    """Make the calls of a batch on Ray; return the report with the small values, and the large values."""
    taken = [values[place] for values, place in zip(kept, places, strict=True)]
    made = run_away(data, options, taken, small_bytes)
    return told(made), [value_of(made, place) for place in made.away]
