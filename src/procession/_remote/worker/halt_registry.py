"""Which runs are halted, as far as this worker of a cluster was told: their batches make no other call here."""

from collections.abc import Generator
from contextlib import contextmanager

from procession._remote.worker.run_stub import RunStub

_MOST = 1_000
"""So many halted runs are remembered, the newest: the batches of older ones have come back long ago."""

_HALTED: dict[str, bool] = {}
_AT_WORK: set[tuple[str, RunStub]] = set()


def halt(run: str, cancelled: bool) -> None:
    """Keep other calls of a run from beginning here, in batches that are here or still to come.

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
    """Register `run_stub` to be told when its run is halted, or at once if it has been."""
    _AT_WORK.add((run, run_stub))  # first: `halt` looks here last
    if run in _HALTED:
        run_stub.halt(cancelled=_HALTED[run])
    try:
        yield
    finally:
        _AT_WORK.discard((run, run_stub))
