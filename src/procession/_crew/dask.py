"""A crew on a Dask cluster: each chunk is one task there, and large values stay where they were made.

send ──submit run_away──▶ Report, kept ──submit told──▶ report ──done callback──▶ queue ──▶ receive
                               └──submit value_of, for each large value──▶ Future: `Away`
halt ──run on every worker──▶ halted
"""

import os
from contextlib import suppress
from importlib import import_module
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol, cast
from uuid import uuid4

try:
    # Untyped as far as one can build on it, and type checkers need not have it.
    distributed: Any = import_module("distributed")
except ImportError as error:
    raise ImportError('Dask is not installed: pip install "procession[dask]"') from error

from procession._crew.chunk import Chunk, Report
from procession._crew.cluster import packed, places_away, refer, run_away, small_bytes, told, value_of
from procession._crew.crew import Arrival
from procession._crew.halted import halt, heard_by
from procession._crew.remote import Remote
from procession._engine.course import Course
from procession._engine.kept import Wanted
from procession._model.outcome import Away
from procession._model.text import described
from procession.errors import ExecutorBrokenError

if TYPE_CHECKING:
    from collections.abc import Callable

_HALT_S = 2.0
"""How long workers have to answer when a run is halted."""


class Future(Protocol):
    """What this needs of Dask's futures."""

    key: str
    status: str

    def add_done_callback(self, fn: "Callable[[Future], object]") -> None: ...
    def result(self) -> Any: ...
    def exception(self) -> BaseException: ...
    def cancel(self) -> None: ...


class DaskValue(Away):
    """A value on the cluster."""

    __slots__ = ("future",)

    def __init__(self, future: Future) -> None:
        self.future = future

    def fetch(self) -> Any:
        """Bring the value here."""
        return self.future.result()


class DaskCrew:
    """At most `max_workers` chunks are with the cluster at the same time, wherever it runs them.

    `where` is a client, which stays open, the address of a scheduler, or `"dask"` for a cluster on this machine that
    is closed with the run.
    """

    kills = False
    ahead = 0
    within = None

    def __init__(self, course: Course, where: object) -> None:
        self._course = course
        self._owned: list[Any] = []
        self._client = self._connected(where)
        self._small_bytes = small_bytes(course)
        self._futures: dict[Future, tuple[Chunk, Future]] = {}
        self._done: SimpleQueue[Future] = SimpleQueue()
        self._halted = False
        self._key = uuid4().hex  # run ids may be used again

    @property
    def busy(self) -> bool:
        """Whether there is something to receive sooner or later."""
        return bool(self._futures)

    def room(self, waiting: int, call_s: float | None) -> int:  # noqa: ARG002
        """Return how many chunks can be sent."""
        return self._course.max_workers - len(self._futures)

    def send(self, chunk: Chunk, timeout: float | None) -> str:  # noqa: ARG002
        """Give a chunk to the cluster. Raises `ExecutorBrokenError`."""
        data, apart = packed(chunk.calls, whole=chunk.whole)
        chunk.size = len(data)
        names = (self._course.process_name, self._course.run_id)
        values = [cast("DaskValue", value).future for value in apart]
        try:
            how = data, names, chunk.budget, chunk.stops, chunk.chained, chunk.wanted
            kept = self._client.submit(_run, self._key, how, values, pure=False)
            report = self._client.submit(told, kept, self._small_bytes, pure=False)
        except Exception as error:
            raise self._broken("did not take a task", error) from error
        self._futures[report] = chunk, kept
        report.add_done_callback(self._done.put)
        return "Dask"

    def receive(self, seconds: float) -> list[Arrival]:
        """Wait for chunks to come back, at most so long, and return those that have."""
        reports: list[Future] = []
        try:
            reports.append(self._done.get(timeout=seconds))
            while True:
                reports.append(self._done.get_nowait())
        except Empty:
            pass
        if not reports and self._futures and self._client.status != "running":
            lost = [self._futures.pop(report) for report in list(self._futures)]
            error = self._broken(f"is gone: the client is {self._client.status}", None)
            return [Arrival(chunk, None, error) for chunk, _ in lost]
        return [self._arrived(report) for report in reports if report in self._futures]

    def halt(self, *, cancelled: bool) -> None:
        """Have no other call begun, and take back what has not been given to a worker."""
        self._halted = True
        waiting = [(report, kept) for report, (_, kept) in self._futures.items() if report.status == "pending"]
        if not waiting:
            return
        with suppress(Exception):  # too late, or gone; then what is just being begun may be taken for not begun
            self._client.run(halt, self._key, cancelled, on_error="ignore", callback_timeout=_HALT_S)
        # In this order: what has left the one by the time of the answer is in the other.
        begun = {key for keys in self._client.processing().values() for key in keys}
        made = {key for key, workers in self._client.who_has([kept for _, kept in waiting]).items() if workers}
        for report, kept in waiting:
            if kept.key not in begun | made:
                kept.cancel()
                report.cancel()

    def stop(self) -> None:
        """Do nothing: nobody else's workers are ended."""

    def fetch(self, values: list[object]) -> None:
        """Put values in place of what stands for them, all in one go."""
        places = places_away(values)
        if places:
            brought = self._client.gather([holder[place].future for holder, place in places])
            for (holder, place), value in zip(places, brought, strict=True):
                holder[place] = value

    def close(self, *, at_once: bool) -> None:  # noqa: ARG002
        """Let go of the cluster, and close what was opened here."""
        if self._futures and self._client.status == "running":
            self.halt(cancelled=True)
        self._futures.clear()
        self._close_owned()

    def _connected(self, where: object) -> Any:
        if isinstance(where, distributed.Client):
            return where
        try:
            if where == "dask":
                cores = os.cpu_count() or 1
                cluster: Any = distributed.LocalCluster(
                    n_workers=min(self._course.max_workers, cores), threads_per_worker=1, dashboard_address=":0"
                )
                self._owned.append(cluster)
                where = cluster
            client: Any = distributed.Client(where, set_as_default=False)
        except Exception as error:
            self._close_owned()
            raise ExecutorBrokenError(f"no Dask cluster could be reached: {described(error)}") from error
        self._owned.append(client)
        return client

    def _close_owned(self) -> None:
        """Close what was opened here."""
        for owned in reversed(self._owned):
            owned.close()
        self._owned.clear()

    def _arrived(self, told_future: Future) -> Arrival:
        chunk, kept = self._futures.pop(told_future)
        if told_future.status == "cancelled":
            return Arrival(chunk, None, None if self._halted else self._broken("cancelled what it was given", None))
        if told_future.status != "finished":
            error = told_future.exception()
            return Arrival(chunk, None, self._broken("lost a task", error))
        report: Report
        report, away = told_future.result()
        submit = self._client.submit
        refer(report, away, lambda place: DaskValue(submit(value_of, kept, place, pure=False)))
        return Arrival(chunk, report, None)

    def _broken(self, what: str, error: BaseException | None) -> ExecutorBrokenError:
        why = "" if error is None else f": {described(error)}"
        return ExecutorBrokenError(f"the Dask cluster {what}{why}")


def _run(key: str, how: tuple[bytes, tuple[str, str], float, bool, bool, Wanted], values: list[Any]) -> Report:
    """Make the calls of a chunk on Dask, until the run is halted."""
    remote = Remote(*how[1])
    with heard_by(remote, key):
        return run_away(*how, values, remote)
