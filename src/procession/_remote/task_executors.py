"""The executors that tasks of a run have of their own, by `@task(executor=...)`; its engine makes the other calls.

PlacedCall ──submit──▶ TaskExecutor ──▶ Submissions ──▶ backend ┄┄▶ worker
                            ▲
run state ──stopped─────────┘
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from procession._engine.commit import AT_RISK_S
from procession._engine.run_state import RunState
from procession._model.remote_setup import REMOTE_SETUP
from procession._model.task import Call
from procession._model.text import shown
from procession._model.where import is_dask
from procession._remote.backends.executor import ExecutorBackend, settle_in
from procession._remote.batch_size import BatchSize
from procession._remote.submissions import Submission, Submissions
from procession._remote.wire.wrapped import WithRemoteSetup
from procession._remote.worker.run_calls import WITHIN
from procession._remote.worker_processes import WorkerProcesses, opened, pool_of, task_workers

if TYPE_CHECKING:
    from procession._model.where import ExecutorLike
    from procession._remote.backends.base import Backend
    from procession._remote.backends.worker_pool import WorkerPool
    from procession._remote.wire import serialize as wire


class TaskExecutor:
    """One executor, as the place where calls of a run are made: `"processes"` are worker processes of the run."""

    def __init__(self, executor: "ExecutorLike") -> None:
        self._executor = executor
        self._run_state: RunState | None = None
        self._own: WorkerPool | None = None
        self._submissions: Submissions | None = None

    def submit(self, submission: Submission) -> None:
        """Queue calls."""
        assert self._submissions is not None
        self._submissions.submit(submission)

    def within_risk(self, size: int, call_s: float | None) -> int:
        """Return how many of so many calls may be sent where only so many may have ended and not be committed."""
        recording = None if self._run_state is None else self._run_state.recording
        if recording is None or self._submissions is None:
            return size
        return max(min(size, recording.commits.room(call_s or AT_RISK_S, self._submissions.under_way)), 1)

    @property
    def max_workers(self) -> int:
        """How many calls it makes at the same time, at most, as far as is known."""
        assert self._run_state is not None
        most = self._run_state.max_workers
        return min(most, self._executor.max_workers) if isinstance(self._executor, WorkerProcesses) else most

    def interrupt(self, error: BaseException) -> None:
        """Stop the run, as Ctrl-C came while a call was waited for."""
        if self._run_state is not None:
            self._run_state.interrupt(error)

    def begin(self, run_state: RunState) -> None:
        """Begin to take calls of a run."""
        self._run_state = run_state
        name, executor = f"procession-{shown(run_state.process_name, 40)}", self._executor
        if isinstance(executor, WorkerProcesses):
            pool = pool_of(executor)
            self._submissions = Submissions(name, partial(opened, pool, run_state), pool.check, run_state)
        elif isinstance(executor, Executor):
            open_backend: Callable[[], Backend] = partial(ExecutorBackend, executor, run_state.max_workers)
            self._submissions = Submissions(name, open_backend, run_state=run_state)
        elif is_dask(executor):
            from procession._remote.backends import dask

            open_backend = partial(dask.open_backend, executor, run_state)
            self._submissions = Submissions(name, open_backend, run_state=run_state, linger_s=inf)
        elif executor == "ray":
            from procession._remote.backends import ray

            open_backend = partial(ray.open_backend, run_state)
            self._submissions = Submissions(name, open_backend, run_state=run_state, linger_s=inf)
        else:
            self._own = task_workers(name, run_state)
            self._submissions = Submissions(name, partial(opened, self._own, run_state), run_state=run_state)

    def look(self) -> None:
        """Take note that the run was stopped."""
        if self._submissions is not None:
            self._submissions.wake()

    def close(self) -> None:
        """Let go of the executor, and of the run; what is still under way is ended, or left behind."""
        submissions, self._submissions = self._submissions, None
        own, self._own = self._own, None
        run_state, self._run_state = self._run_state, None
        hurried = False
        if submissions is not None:
            hurried = submissions.close()
        if own is not None and run_state is not None:
            own.close(at_once=hurried, what=f"process {shown(run_state.process_name)!r}")


class FunctionPlace:
    """One executor, as the place where calls of one function are made."""

    def __init__(self, executor: TaskExecutor) -> None:
        self._executor = executor
        self._batch_size = BatchSize()

    @property
    def workers(self) -> int:
        """How many calls are made there at the same time, at most, as far as is known."""
        return self._executor.max_workers

    def size(self, left: int) -> int:
        """Return how many calls are to be submitted together, of so many that are left."""
        size = self._batch_size.size(left, self.workers)
        return self._executor.within_risk(size, self._batch_size.call_s)

    def submit(
        self, index: int, calls: Sequence[tuple[int, Call]], attempt: int = 1, timeout: float | None = None
    ) -> Submission:
        """Submit calls of a task, each with its element. One of them alone may take `timeout` seconds."""
        setup = REMOTE_SETUP.get()
        sent: list[wire.Call] = []
        for element, (function, args, kwargs) in calls:
            prepared = function if setup is None else WithRemoteSetup(setup, function)
            sent.append((index, element, attempt, timeout, prepared, args, kwargs))
        submission = Submission(sent, self._batch_size)
        self._executor.submit(submission)
        return submission

    def interrupt(self, error: BaseException) -> None:
        """Stop the run, as Ctrl-C came while a call was waited for."""
        self._executor.interrupt(error)


class TaskExecutors:
    """The executors of the tasks of one run."""

    def __init__(self) -> None:
        self._by_id: dict[object, TaskExecutor] = {}

    def get(self, executor: "ExecutorLike") -> TaskExecutor | None:
        """Return where the calls of a task are made; `None` for where the run makes its calls.

        Raises `RuntimeError` for worker processes that were shut down, or are those of the process forked from.
        """
        key = executor if isinstance(executor, str) else id(executor)
        if key not in self._by_id:
            if any(executor is one for one in WITHIN.get()):
                return None  # its worker waits for this run: to wait there for another could be to wait for ever
            if isinstance(executor, WorkerProcesses):
                executor.check()
            elif isinstance(executor, Executor):
                settle_in(executor)
            self._by_id[key] = TaskExecutor(executor)
        return self._by_id[key]

    def begin(self, run_state: RunState) -> None:
        """Begin to take calls of a run."""
        for executor in self._by_id.values():
            executor.begin(run_state)
        run_state.children[self] = self._look

    def close(self) -> None:
        """Let go of all executors."""
        for executor in self._by_id.values():
            executor.close()

    def _look(self) -> None:
        for executor in self._by_id.values():
            executor.look()
