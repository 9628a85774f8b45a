"""The deadline of a run: when it comes, the run is cancelled, and no thread is waited for.

A run is cancelled as ever: coroutines are cancelled, worker processes are ended, and functions that look whether they
are cancelled have a moment to end. Other calls in threads have the rest of the run's time, and that moment, as their
timeout. So they are given up as at a timeout of their own.
"""

import time
from typing import Final, Protocol

from procession._engine.ledger import Ledger
from procession._model.task import PLAIN, Options
from procession._plan.plan import Plan
from procession.errors import TaskCancelled, TaskTimeoutError

GRACE_S: Final = 0.1
"""How long a call in a thread may go on after the deadline before it is given up."""


class BoundedRun(Protocol):
    """What a deadline needs of its run."""

    ledger: Ledger
    deadline: "RunDeadline | None"

    def cancel(self) -> bool:
        """Cancel the run."""
        ...


class RunDeadline:
    """Until when a run may take, from now on."""

    __slots__ = ("at", "passed", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds: Final = seconds
        self.at: Final = time.monotonic() + seconds
        self.passed = False
        """Whether the run was cancelled by it."""

    @property
    def left(self) -> float:
        """How many seconds are left."""
        return max(self.at - time.monotonic(), 0.0)

    def come(self, run: BoundedRun) -> None:
        """Cancel the run, unless that was done before."""
        if not run.ledger.cancelled:
            self.passed = True
            run.cancel()


def bounded(plan: Plan, deadline: RunDeadline) -> Plan:
    """Return the plan of a run with a deadline: plain functions have no more than all of its time."""

    def options(index: int) -> Options:
        own = plan.options.get(index, PLAIN)
        # Coroutines are cancelled, and may clean up for as long as they like.
        return own if index in plan.coroutines else own._replace(timeout=min(own.timeout or most, most))

    most = deadline.seconds + GRACE_S
    return plan._replace(options={index: options(index) for index in range(len(plan.calls))})


def within(run: BoundedRun, timeout: float) -> float:
    """Return how many seconds a call that begins now may take, of a task with this timeout."""
    return timeout if run.deadline is None else min(timeout, run.deadline.left + GRACE_S)


def ended_early(run: BoundedRun, error: BaseException) -> BaseException:
    """Return the error that a call ended with: that it was cancelled, if it was given up at the deadline of its run."""
    deadline = run.deadline
    if deadline is None or not isinstance(error, TaskTimeoutError) or deadline.left > 0:
        return error
    deadline.come(run)
    return TaskCancelled("the run's deadline came before the call had ended")
