"""How far a run has come, and what runs now: for those who watch."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from procession._engine.call_context import CallContext
from procession._engine.failed_attempts import FailedAttempts
from procession._engine.ledger import Ledger
from procession._model.progress import Progress, Snapshot


class Part(Protocol):
    """A map, which counts as its elements in the progress of a run."""

    @property
    def progress(self) -> Progress:
        """How far it has come."""
        ...

    @property
    def total(self) -> int | None:
        """How many elements it has; `None` as long as nobody knows."""
        ...


class Ended(NamedTuple):
    """A map that has ended."""

    progress: Progress

    @property
    def total(self) -> int:
        """How many elements it had."""
        return self.progress.total


class WatchedRun(Protocol):
    """What a snapshot shows of a run."""

    ledger: Ledger
    maps: dict[int, Part]
    workers: list[str | None]
    call_contexts: set[CallContext]
    failed_attempts: FailedAttempts

    def name(self, index: int) -> str:
        """Return a task's name."""
        ...

    def label(self, index: int) -> str | None:
        """Return a task's label, if it has one."""
        ...

    def moment(self, reading: float) -> float:
        """Return the seconds since the epoch that a reading of the clock stands for."""
        ...


def with_parts(ledger: Ledger, tasks: Progress, parts: Mapping[int, Progress]) -> Progress:
    """Return how far tasks have come, where each of the `parts`, which are among them, counts as what is in it.

    Tasks that were stopped have not ended.
    """
    ended, failed, total = tasks
    for index, part in parts.items():
        ended += part.ended - (ledger.ends[index] is not None and index not in ledger.stopped)
        failed += part.failed - (index in ledger.errors) if part.failed else 0
        total += part.total - 1
    return Progress(ended, failed, total)


def progress_of(ledger: Ledger, maps: Mapping[int, Part]) -> Progress:
    """Return how far a run has come, each map counted as its elements."""
    count = len(ledger.ends)
    # Counting takes 14 ns a task, which at the end of a run of trivial ones is too much.
    left = len(ledger.stopped) + (0 if ledger.over and ledger.well else ledger.ends.count(None))
    parts = {index: part.progress for index, part in list(maps.items())}
    return with_parts(ledger, Progress(count - left, len(ledger.errors), count), parts)


def snapshot_of(run: WatchedRun) -> Snapshot:
    """Return how far a run has come, and what runs now.

    A map whose elements pause between two attempts runs, with the worker of the last attempt; a task that does waits.
    """
    starts, ends, failed = run.ledger.starts, run.ledger.ends, run.failed_attempts
    at = [(context.index, context.worker) for context in list(run.call_contexts) if context.index >= 0]
    for tried in failed.maps, failed.pausing:
        tried.difference_update([index for index in list(tried) if ends[index] is not None])
    at += [(index, run.workers[index] or "") for index in failed.maps.difference(index for index, _ in at)]

    def with_names(at: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str, str, float]]:
        for index, worker in at:
            start = starts[index] if ends[index] is None else None
            if start is not None:
                yield index, run.name(index), worker, run.moment(start)

    pausing = set(failed.pausing)
    running = list(with_names((index, worker) for index, worker in at if index not in pausing))
    waiting = list(with_names((index, run.workers[index] or "") for index in sorted(pausing)))
    labels = {index: label for index, *_ in (*running, *waiting) if (label := run.label(index)) is not None}
    return Snapshot(progress_of(run.ledger, run.maps), running, labels, waiting)
