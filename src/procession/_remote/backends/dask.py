"""A backend on a Dask cluster: each batch is one task there, and large values stay where they were made.

send ──submit run_away──▶ Report ──done callback──▶ queue ──▶ receive
                   └────▶ Kept, if a value is large ──submit told──▶ report ──done callback──▶ queue
                            └──submit value_of, for each large value──▶ Future: `Away`
halt ──run on every worker──▶ halted
"""

import multiprocessing
import os
import time
from collections.abc import Collection
from concurrent.futures import CancelledError
from contextlib import suppress
from contextvars import ContextVar
from importlib import import_module
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol, cast
from uuid import uuid4

try:
    # Untyped as far as one can build on it, and type checkers need not have it.
    distributed: Any = import_module("distributed")
except ImportError as error:
    raise ImportError('Dask is not installed: pip install "procession[dask]"') from error

from procession._engine.run_state import RunState
from procession._model.outcome import Away
from procession._model.text import described
from procession._remote.backends.base import Arrival, Recalled
from procession._remote.backends.cluster import packed, places_away, refer, small_bytes
from procession._remote.backends.executor import LocalBackend
from procession._remote.wire.batch import Batch, BatchOptions, Report
from procession._remote.worker.cluster_main import Failed, Kept, run_away, told, value_of
from procession._remote.worker.halt_registry import halt, registered
from procession._remote.worker.run_stub import RunStub
from procession.errors import ExecutorBrokenError

if TYPE_CHECKING:
    from collections.abc import Callable

WAITING: ContextVar[tuple[str, ...]] = ContextVar("procession_waiting", default=())
"""The addresses of workers whose task waits for the calling code to end, though that runs on another cluster."""

_HALT_S = 2.0
"""How long workers, and the scheduler, have to answer when a run is halted."""
_SILENT_S = 10.0
"""After so many seconds without an answer, the batches of a cancelled run are given up."""


class Future(Protocol):
    """The part of Dask's futures that is used here."""

    key: str
    status: str
    type: object

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


class DaskBackend:
    """At most `max_workers` batches are with the cluster at the same time, wherever it runs them.

    `where` is a client, which stays open, the address of a scheduler, or `"dask"` for a cluster on this machine that
    is closed with the run.
    """

    kills = False
    idle = True
    within = None

    def __init__(self, run_state: RunState, where: object) -> None:
        self._run_state = run_state
        self._own_cluster = where == "dask"
        self._owned: list[Any] = []
        self._client = self._connected(where)
        self._small_bytes = small_bytes(run_state)
        self._futures: dict[Future, tuple[Batch, Future]] = {}
        """What is waited for: the batch that it tells of, and what the batch came to, which is the same at first."""
        self._done: SimpleQueue[Future | None] = SimpleQueue()
        self._ended: list[tuple[Future, Batch, Future]] = []
        """What has succeeded and is not brought here yet. It takes no place any more."""
        self._halted = self._cancelled = False
        self._unanswered: float | None = None
        self._lent = False
        self._waiting: tuple[str, ...] = ()
        self._key = uuid4().hex  # run ids may be used again

    def gets_through(self) -> bool:
        """Return whether there are places for the calls, also where this run is in a task on that very cluster.

        Such a task waits, so its place is lent to others meanwhile, if it has one to lend: only its own thread can.
        """
        context = self._run_state.context.copy()
        self._waiting = context.get(WAITING, ())
        try:
            here: str = context.run(distributed.get_worker).address
        except ValueError:
            return True
        there = () if self._own_cluster else tuple(self._client.nthreads([*self._waiting, here]))
        if not there:
            self._waiting = *self._waiting, here
            return True
        if there != (here,):  # another one waits, too, and lends nothing any more
            return False
        try:
            distributed.secede()
        except KeyError:  # it was lent before and not taken back: see `close`
            return True
        except (AttributeError, ValueError):  # another thread
            return False
        self._lent = True
        return True

    @property
    def ahead(self) -> int:
        """How many batches have succeeded on the cluster and are not received yet."""
        return len(self._ended)

    @property
    def busy(self) -> bool:
        """Whether there is something to receive sooner or later."""
        return bool(self._futures or self._ended)

    def room(self, waiting: int, call_s: float | None) -> int:  # noqa: ARG002
        """Return how many batches can be sent."""
        return self._run_state.max_workers - len(self._futures)

    def send(self, batch: Batch, timeout: float | None) -> str:  # noqa: ARG002
        """Give a batch to the cluster. Raises `ExecutorBrokenError`."""
        data, taken = packed(batch.calls, whole=batch.whole)
        batch.size = len(data)
        values = [cast("DaskValue", value).future for value in taken]
        try:
            options = tuple(batch.options)  # Dask looks into arguments, and would make a plain tuple of it anyway
            made = self._client.submit(
                _run, self._key, self._waiting, data, options, values, self._small_bytes, pure=False
            )
        except Exception as error:
            raise self._broken("did not take a task", error) from error
        self._expect(made, batch, made)
        return "Dask"

    def recall(self, late: Collection[Batch]) -> list[Recalled]:  # noqa: ARG002
        """Do nothing, for now."""
        return []

    def receive(self, seconds: float) -> list[Arrival]:
        """Wait for batches to end, at most so long; return those that had ended when this was called, or have failed.

        To bring a report here takes milliseconds, for which its place would be empty: others can be sent first. But
        after a failure, it may be that no other is to begin.
        """
        if self._ended:
            ended, self._ended = self._ended, []
            return [arrival for report in ended for arrival in self._arrived(*report)]
        reports: list[Future | None] = []
        try:
            reports.append(self._done.get(timeout=seconds))
            while True:
                reports.append(self._done.get_nowait())
        except Empty:
            pass
        if not reports and self._futures and self._is_lost():
            lost = [self._futures.pop(report) for report in list(self._futures)]
            return [Arrival(batch, None, self._gone()) for batch, _ in lost]
        arrivals: list[Arrival] = []
        for report in reports:
            if report is None or report not in self._futures:
                continue
            if report.type is Report:
                self._ended.append((report, *self._futures.pop(report)))
            else:
                arrivals += self._arrived(report, *self._futures.pop(report))
        return arrivals

    def wake(self) -> None:
        """Make `receive` return soon."""
        self._done.put(None)

    def halt(self, *, cancelled: bool) -> None:
        """Keep other calls from beginning, and take back the batches that no worker has."""
        self._halted, self._cancelled = True, cancelled
        self._unanswered = None if self._took_back() else time.monotonic()

    def stop(self) -> None:
        """Do nothing: the workers belong to the cluster."""

    def fetch(self, values: list[object]) -> None:
        """Put values in the places where references stand for them, all in one go."""
        places = places_away(values)
        if places:
            try:
                brought = self._client.gather([holder[place].future for holder, place in places])
            except (OSError, CancelledError) as error:
                raise (self._gone() if self._is_gone else self._broken("lost values", error)) from error
            for (holder, place), value in zip(places, brought, strict=True):
                holder[place] = value

    def close(self, *, at_once: bool) -> None:  # noqa: ARG002
        """Disconnect from the cluster, and close what was opened here."""
        if self._futures and not self._is_gone:
            self.halt(cancelled=True)
        self._futures.clear()
        self._ended.clear()
        self._close_owned()
        # Taking the place back means to wait for it. A task that is to end does not: its thread ends with it.
        if self._lent and not self._run_state.cancelled:
            with suppress(RuntimeError):  # the worker is being closed
                distributed.rejoin()

    def _connected(self, where: object) -> Any:
        if isinstance(where, distributed.Client):
            return where
        try:
            if self._own_cluster:
                cores = os.cpu_count() or 1
                cluster: Any = distributed.LocalCluster(
                    n_workers=min(self._run_state.max_workers, cores),
                    threads_per_worker=1,
                    # A worker of Dask is a daemon, which may start none.
                    processes=not multiprocessing.current_process().daemon,
                    dashboard_address=":0",
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
            with suppress(Exception):  # there may be nothing left to close
                owned.close()
        self._owned.clear()

    def _took_back(self) -> bool:
        """Tell the workers to begin no call, and take back the batches that none has.

        Return whether the scheduler answered.
        """
        waiting = [made for report, (_, made) in self._futures.items() if report.status == "pending"]
        if not waiting:
            return True
        sync, scheduler = self._client.sync, self._client.scheduler
        with suppress(Exception):  # too late, or gone; then what is just being begun may be taken for not begun
            self._client.run(halt, self._key, self._cancelled, on_error="ignore", callback_timeout=_HALT_S)
        try:
            # In this order: a batch that has left the first by the time of its answer is in the second.
            processing = sync(scheduler.processing, callback_timeout=_HALT_S)
            who_has = sync(scheduler.who_has, keys=[made.key for made in waiting], callback_timeout=_HALT_S)
        except Exception:
            return False
        begun = {key for keys in processing.values() for key in keys}
        ended = {key for key, workers in who_has.items() if workers}
        for made in waiting:
            if made.key not in begun | ended:
                made.cancel()
        return True

    @property
    def _is_gone(self) -> bool:
        return bool(self._client.status != "running")

    def _is_lost(self) -> bool:
        """Return whether no batch will come back any more. A halt that nobody has answered is said again."""
        if self._is_gone:
            return True
        if self._unanswered is None:
            return False
        if self._took_back():
            self._unanswered = None
            return False
        return self._cancelled and time.monotonic() - self._unanswered > _SILENT_S

    def _expect(self, report: Future, batch: Batch, made: Future) -> None:
        """Wait for a report of a batch."""
        self._futures[report] = batch, made
        report.add_done_callback(self._done.put)

    def _arrived(self, report: Future, batch: Batch, made: Future) -> list[Arrival]:
        """Return the batch that a report tells of; nothing, if the report has yet to be asked for."""
        if report.status == "cancelled":
            if self._is_gone:
                return [Arrival(batch, None, self._gone())]
            return [Arrival(batch, None, None if self._halted else self._broken("cancelled what it was given", None))]
        if report.status != "finished":
            error = report.exception()
            return [Arrival(batch, None, self._broken("lost a task", error))]
        submit = self._client.submit
        try:
            # A cluster that does not say what it is may have kept it, too.
            if report is made and made.type is not Report and made.type is not Failed:
                self._expect(submit(told, made, pure=False, priority=1), batch, made)
                return []
            ended, away = (report.result(), ()) if report is made else report.result()
        except (Exception, CancelledError) as error:  # the cluster ends just now, and has taken the report along
            return [Arrival(batch, None, self._gone() if self._is_gone else self._broken("lost a report", error))]
        refer(ended, away, lambda place: DaskValue(submit(value_of, made, place, pure=False)))
        return [Arrival(batch, ended, None)]

    def _gone(self) -> ExecutorBrokenError:
        whys = {
            "connecting": "the connection to its scheduler was lost",
            "running": f"its scheduler has not answered for {_SILENT_S:g} s",
        }
        status = self._client.status
        return self._broken(f"is gone: {whys.get(status, f'the client is {status}')}", None)

    def _broken(self, what: str, error: BaseException | None) -> ExecutorBrokenError:
        why = "" if error is None else f": {described(error)}"
        return ExecutorBrokenError(f"the Dask cluster {what}{why}")


def open_backend(where: object, run_state: RunState) -> DaskBackend | LocalBackend:
    """Return a backend on Dask, or one here: for a run inside a task of the cluster that cannot lend its place."""
    backend = DaskBackend(run_state, where)
    try:
        if backend.gets_through():
            return backend
    except BaseException:
        backend.close(at_once=True)
        raise
    backend.close(at_once=True)
    return LocalBackend(run_state)


def _run(
    key: str, waiting: tuple[str, ...], data: bytes, options: tuple[Any, ...], values: list[Any], small_bytes: float
) -> Report | Kept:
    """Make the calls of a batch on Dask, until the run is halted."""
    how = BatchOptions(*options)
    run_stub = RunStub(how.process_name, how.run_id)
    before = WAITING.set(waiting)
    try:
        with registered(run_stub, key):
            kept = run_away(data, how, values, small_bytes, run_stub)
            return kept if kept.away else kept.report
    finally:
        WAITING.reset(before)
