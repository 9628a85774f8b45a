"""A crew on a Ray cluster: each chunk is one task there, and large values stay in its object store.

send ──run_away.remote──▶ two references: the report, with small values; the large ones ──▶ `Away`
         ray.wait ──▶ receive
"""

import os
import threading
from collections.abc import Collection
from importlib import import_module
from typing import Any, cast

try:
    # Untyped as far as one can build on it, and type checkers need not have it.
    ray: Any = import_module("ray")
except ImportError as error:
    raise ImportError('Ray is not installed: pip install "procession[ray]"') from error

from procession._crew.chunk import Chunk, Report
from procession._crew.cluster import packed, places_away, refer, run_away, small_bytes, told, value_of
from procession._crew.crew import Arrival, Recalled
from procession._crew.given import LocalCrew
from procession._engine.course import Course
from procession._engine.kept import Wanted
from procession._model.outcome import Away
from procession._model.text import described
from procession.errors import ExecutorBrokenError


class RayValue(Away):
    """A value on the cluster: one of those that a chunk left there."""

    __slots__ = ("kept", "place")

    def __init__(self, kept: Any, place: int) -> None:
        self.kept = kept
        self.place = place

    def fetch(self) -> Any:
        """Bring the value here."""
        return ray.get(self.kept)[self.place]


class RayCrew:
    """At most `max_workers` chunks are with Ray at the same time, and no more than it has processors for.

    It is the Ray that the program is connected to; if there is none, one on this machine is started, and ended with
    the run.
    """

    kills = False
    ahead = 0
    within = None

    def __init__(self, course: Course) -> None:
        self._course = course
        self._opened = not ray.is_initialized()
        try:
            if self._opened:
                ray.init(num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False, configure_logging=False)
            self._places = min(course.max_workers, max(int(ray.cluster_resources().get("CPU", 1)), 1))
        except Exception as error:
            raise ExecutorBrokenError(f"no Ray could be reached: {described(error)}") from error
        self._submit: Any = ray.remote(num_returns=2)(_run).remote
        self._small_bytes = small_bytes(course)
        self._references: dict[Any, tuple[Chunk, Any]] = {}

    @property
    def busy(self) -> bool:
        """Whether there is something to receive sooner or later."""
        return bool(self._references)

    def room(self, waiting: int, call_s: float | None) -> int:  # noqa: ARG002
        """Return how many chunks can be sent: what has to wait there could not be taken back from there."""
        return self._places - len(self._references)

    def send(self, chunk: Chunk, timeout: float | None) -> str:  # noqa: ARG002
        """Give a chunk to Ray. Raises `ExecutorBrokenError`."""
        data, apart = packed(chunk.calls, whole=chunk.whole)
        chunk.size = len(data)
        values = [cast("RayValue", value) for value in apart]
        names = (self._course.process_name, self._course.run_id)
        how = names, chunk.budget, chunk.stops, chunk.chained, chunk.wanted
        places = [value.place for value in values]
        try:
            report, kept = self._submit(data, how, self._small_bytes, places, *(value.kept for value in values))
        except Exception as error:
            raise self._broken("did not take a task", error) from error
        self._references[report] = chunk, kept
        return "Ray"

    def recall(self, late: Collection[Chunk]) -> list[Recalled]:  # noqa: ARG002
        """Do nothing, for now."""
        return []

    def receive(self, seconds: float) -> list[Arrival]:
        """Wait for chunks to come back, at most so long, and return those that have."""
        waiting = list(self._references)
        done, _ = ray.wait(waiting, timeout=seconds)
        if done:
            done, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0)
        return [self._arrived(report) for report in done]

    def halt(self, *, cancelled: bool) -> None:
        """Do nothing: what was sent has been begun."""

    def stop(self) -> None:
        """Do nothing: nobody else's workers are ended."""

    def fetch(self, values: list[object]) -> None:
        """Put values in place of what stands for them, each chunk's in one go."""
        found = places_away(values)
        kept = list({id(holder[place].kept): holder[place].kept for holder, place in found}.values())
        brought = dict(zip(map(id, kept), ray.get(kept), strict=True))
        for holder, place in found:
            value: RayValue = holder[place]
            holder[place] = brought[id(value.kept)][value.place]

    def close(self, *, at_once: bool) -> None:  # noqa: ARG002
        """Let go of Ray, and end it if it was started here."""
        self._references.clear()
        if self._opened:
            ray.shutdown()

    def _arrived(self, reference: Any) -> Arrival:
        chunk, kept = self._references.pop(reference)
        try:
            report: Report
            report, away = ray.get(reference)
        except ray.exceptions.RayError as error:
            return Arrival(chunk, None, self._broken("lost a task", error))
        order = {place: number for number, place in enumerate(away)}
        refer(report, away, lambda place: RayValue(kept, order[place]))
        return Arrival(chunk, report, None)

    def _broken(self, what: str, error: BaseException) -> ExecutorBrokenError:
        return ExecutorBrokenError(f"Ray {what}: {described(error)}")


def in_task() -> bool:
    """Return whether this process is a worker of Ray."""
    return bool(ray.is_initialized() and ray.get_runtime_context().worker.mode == ray.WORKER_MODE)


def hired(course: Course) -> RayCrew | LocalCrew:
    """Return a crew on Ray, or one here: for a run in a task there that has no place to lend while it waits.

    Ray gives the place of a task that waits to others, but only if it does so in its main thread.
    """
    if in_task() and threading.current_thread() is not threading.main_thread():
        return LocalCrew(course)
    return RayCrew(course)


def _run(
    data: bytes,
    how: tuple[tuple[str, str], float, bool, bool, Wanted],
    small_bytes: float,
    places: list[int],
    *kept: list[Any],
) -> tuple[tuple[Report, list[int]], list[Any]]:
    """Make the calls of a chunk on Ray; return what is told of it, and the large values."""
    report = run_away(data, *how, [values[place] for values, place in zip(kept, places, strict=True)])
    short, away = told(report, small_bytes)
    return (short, away), [value_of(report, place) for place in away]
