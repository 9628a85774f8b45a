"""The worker processes of one executor: idle ones, which any run may take, and those that runs have at the moment.

    run A ──take──▶ worker ──give_back──▶ idle ──take──▶ run B
    run C ──ask──▶ queue ◀──grant── a worker that is given back while runs wait

A run has a worker only from the start of a batch to its end, so that runs take turns. A worker belongs to the run that
has it: only that run's coordinator uses it, and needs no lock for that.
"""

import atexit
import os
import threading
import time
import warnings
import weakref
from collections import deque
from typing import Final, NamedTuple, Protocol

from procession._remote.backends.environment import thread_variables
from procession._remote.backends.worker_process import WorkerProcess
from procession._remote.worker.process_main import WorkerSetup

CLOSING_S = 5.0
"""How long what calls have left in a worker may hold up its end: handlers at exit, threads, children."""


class PoolSetup(NamedTuple):
    """What holds for all workers of a pool."""

    worker: WorkerSetup = WorkerSetup()
    initializer: str = ""
    """How the initializer is called in messages."""
    initializer_s: float | None = None
    """How long it may take in each worker, in seconds."""
    threads_each: int = 1
    """How many threads libraries may start in each worker."""
    threads_firm: bool = False
    """Whether that holds though the environment says something else."""


class Borrower(Protocol):
    """A run that takes workers."""

    granted: "deque[WorkerProcess]"
    """Workers that were given to it while it waited."""

    def wake(self) -> None:
        """See to it that it looks at what it was granted, and whether it can start a worker."""
        ...


class WorkerPool:
    """At most `max_workers` worker processes, started when a run needs them."""

    def __init__(self, name: str, max_workers: int, setup: PoolSetup) -> None:
        self.max_workers = max_workers
        self.setup = setup
        self.refused = ""
        """Why it takes no other run; empty if it does."""
        self.cancelled = False
        """Whether the runs that it has are to fail."""
        self._name = name
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._idle: list[WorkerProcess] = []
        self._leaving: list[WorkerProcess] = []
        """Workers that end by themselves."""
        self._alive = 0
        self._started = 0
        self._runs = 0
        self._borrowers: set[Borrower] = set()
        self._waiting: deque[Borrower] = deque()
        self._closed = False
        self._over = threading.Event()
        _POOLS.add(self)

    # Runs

    def check(self) -> None:
        """Raise `RuntimeError` if it takes no other run."""
        if os.getpid() != self._pid:
            raise RuntimeError(
                f"{self._name} was made in process {self._pid}, and this is a fork of it: make another one here"
            )
        if self.refused:
            raise RuntimeError(f"{self._name} {self.refused}, and takes no other calls")

    def enter(self, borrower: Borrower) -> int:
        """Begin a run; return its number. Raises `RuntimeError`."""
        with self._changed:
            self.check()
            self._runs += 1
            self._borrowers.add(borrower)
            return self._runs

    def leave(self, borrower: Borrower) -> None:
        """End a run, which has given back all workers."""
        with self._changed:
            self._borrowers.discard(borrower)
            self._changed.notify_all()
            last = bool(self.refused) and not self._borrowers
        if last:
            self.close()

    @property
    def is_used(self) -> bool:
        """Whether a run goes on, or there are workers."""
        return os.getpid() == self._pid and not self._closed and bool(self._borrowers or self._alive)

    # Workers

    @property
    def spare(self) -> int:
        """How many workers are ready for a batch."""
        return sum(worker.greeted for worker in list(self._idle))

    @property
    def slots(self) -> int:
        """How many workers can be started, or are starting for nobody."""
        return self.max_workers - self._alive + sum(not worker.greeted for worker in list(self._idle))

    @property
    def contested(self) -> bool:
        """Whether a run waits for a worker."""
        return bool(self._waiting)

    def take(self) -> WorkerProcess | None:
        """Return a worker that is ready for a batch, if there is one."""
        with self._changed:
            for worker in reversed(self._idle):  # the newest, so that others get to end when they are idle for long
                if not worker.greeted:
                    continue
                self._idle.remove(worker)
                if not worker.is_gone:
                    return worker
                self._leave(worker)
        return None

    def start(self) -> WorkerProcess | None:
        """Return a worker that starts, and that is the caller's; `None` if there are as many as may be."""
        with self._changed:
            for worker in self._idle:
                if not worker.greeted:
                    self._idle.remove(worker)
                    return worker
            if self._alive >= self.max_workers:
                return None
            self._alive += 1
            self._started += 1
            name = f"{self._name}-{self._started}"
        try:
            variables = thread_variables(self.setup.threads_each, firm=self.setup.threads_firm)
            return WorkerProcess(name, self.setup.worker, variables)
        except BaseException:
            with self._changed:
                self._lose()
            raise

    def give_back(self, worker: WorkerProcess) -> None:
        """Hand a worker that has no batch to the run that waits for longest, or keep it."""
        with self._changed:
            if worker.greeted and self._waiting:
                borrower = self._waiting.popleft()
                borrower.granted.append(worker)
                borrower.wake()
            else:
                self._idle.append(worker)

    def let_leave(self, worker: WorkerProcess) -> None:
        """Take note that a worker ends by itself."""
        with self._changed:
            self._leave(worker)

    def discard(self, worker: WorkerProcess) -> None:
        """Let go of a worker that is gone, or is to be ended at once."""
        worker.close()
        with self._changed:
            self._lose()

    def ask(self, borrower: Borrower) -> None:
        """Queue for the next worker that is given back."""
        with self._changed:
            if borrower not in self._waiting:
                self._waiting.append(borrower)

    def forgo(self, borrower: Borrower) -> None:
        """Leave the queue."""
        with self._changed:
            if borrower in self._waiting:
                self._waiting.remove(borrower)

    # The end

    def shut_down(self, why: str, *, wait: bool, cancel: bool) -> None:
        """Take no other run; end the workers when the last has ended. With `cancel`, runs fail as soon as can be."""
        with self._changed:
            self.refused = self.refused or why
            self.cancelled = self.cancelled or cancel
            if cancel:
                for borrower in self._borrowers:
                    borrower.wake()
            while wait and self._borrowers:
                self._changed.wait()
            over = not self._borrowers
        if over:
            self.close()
        if wait:
            self._over.wait()

    def close(self, *, at_once: bool = False, what: str = "") -> None:
        """End all workers: those that are ready by asking them to, others at once."""
        with self._changed:
            if os.getpid() != self._pid or self._closed:
                return
            self._closed = True
            self.refused = self.refused or "was shut down"
            workers, self._idle, self._leaving = self._idle + self._leaving, [], []
            self._alive = 0
        try:
            _end(workers, what or self._name, at_once=at_once)
        finally:
            _POOLS.discard(self)
            self._over.set()

    # Inside, with the lock

    def _leave(self, worker: WorkerProcess) -> None:
        self._leaving = [one for one in self._leaving if not one.reap()]
        self._leaving.append(worker)
        self._lose()

    def _lose(self) -> None:
        self._alive -= 1
        if self._waiting:  # there is room for another one
            self._waiting.popleft().wake()


def _end(workers: list[WorkerProcess], what: str, *, at_once: bool) -> None:
    for worker in workers:
        if at_once or not (worker.greeted or worker.left):
            worker.process.kill()
        else:
            worker.end()
    deadline = time.monotonic() + CLOSING_S
    cut_off: list[str] = []
    for worker in workers:
        if not worker.has_ended(
            max(deadline - time.monotonic(), 0.0)
        ):  # a thread that a call has left there does not end
            cut_off.append(worker.name)
            worker.process.kill()
            worker.process.join()
        worker.close()
    if cut_off:
        warnings.warn(
            f"{what}: {', '.join(cut_off)} had not ended {CLOSING_S:g} s after the last call, and so was killed. "
            "What calls had left there was cut off: a handler at exit, a thread, or a child process; let each call "
            "wait for what it has started",
            RuntimeWarning,
            stacklevel=1,
        )


_POOLS: Final = weakref.WeakSet[WorkerPool]()


def _close_all() -> None:
    """End the workers of all pools that are left when the interpreter exits."""
    for pool in list(_POOLS):
        pool.close()


# Importing `multiprocessing` has registered a function that waits for all processes, so this one is called before it.
atexit.register(_close_all)
