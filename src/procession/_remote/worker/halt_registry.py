"""Which runs have been halted, as a worker of a cluster is told: no batch of theirs makes another call there."""

from collections.abc import Generator
from contextlib import contextmanager

from procession._remote.worker.run_stub import RunStub

_MOST = 1_000
"""So many halted runs are kept in mind, the newest: whatever an older one had sent has long come back."""

_HALTED: dict[str, bool] = {}
_AT_WORK: set[tuple[str, RunStub]] = set()


def halt(run: str, cancelled: bool) -> None:
    """Have the batches of a run begin no other call here: those that are being made, and those that are still to come.

    With `cancelled`, the tasks are asked to stop.
    """
    _HALTED[run] = cancelled
    while len(_HALTED) > _MOST:
        del _HALTED[next(iter(_HALTED))]
    for name, run_stub in list(_AT_WORK):
        if name == run:
            run_stub.halt(cancelled=cancelled)


@contextmanager
def registered(run_stub: RunStub, run: str) -> Generator[None]:
    """Have one that stands for the run here learn when that is halted, or that it is."""
    _AT_WORK.add((run, run_stub))  # first: `halt` looks here last
    if run in _HALTED:
        run_stub.halt(cancelled=_HALTED[run])
    try:
        yield
    finally:
        _AT_WORK.discard((run, run_stub))
