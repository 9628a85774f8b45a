"""Whether a run is as its process usually is: beside the runs before it, and how long it may still take."""

from collections.abc import Sequence
from statistics import median, quantiles
from typing import NamedTuple

from procession._model.table import lasting
from procession._model.text import counted
from procession.journal import Found, LastRun, Reader, RunInfo

RUNS = 30
"""Runs of a process that are looked at, at most."""

PROCESSES = 12
"""Processes whose last runs are shown side by side, at most."""

_ENOUGH = 3
"""Completed runs without which nothing is said to be usual."""

_UNUSUAL = 1.25
"""How many times the usual time is worth a word."""


class Past(NamedTuple):
    """One of the runs of a process."""

    key: int
    run: RunInfo | LastRun
    took: float | None
    """Seconds; `None` where nobody knows when it ended."""
    height: float
    """What it took, as a part of what the longest did."""


class Usual(NamedTuple):
    """A run among those of its process."""

    past: Sequence[Past]
    """The last runs up to this one, the oldest first."""
    earlier: int | None
    later: int | None
    """The keys of the runs before and after it."""
    said: str
    """How what it took, or has taken so far, compares with what is usual; empty where nothing is."""


def usual_of(reader: Reader, key: int, info: RunInfo) -> Usual:
    """Return how a run, which is nested in no other, stands among those of its process."""
    found = reader.runs(process=info.process, before=key + 1, limit=RUNS)[::-1]
    later = reader.runs(process=info.process, after=key, limit=1)
    past = _past([(one.key, one.run) for one in found], reader.now)
    earlier = found[-2].key if len(found) > 1 else None
    completed = [one.took for one in past[:-1] if one.run.status == "completed" and one.took is not None]
    said = compared_with(info, past[-1].took, completed) if past else ""
    return Usual(past, earlier, later[0].key if later else None, said)


class History(NamedTuple):
    """The last runs of a process."""

    process: str
    past: Sequence[Past]
    """The oldest first."""
    said: str
    """What its completed runs usually take; empty where nothing is usual."""


def histories_of(reader: Reader, process: str | None = None) -> list[History]:
    """Return the last runs of the processes that ran last, or of one of them."""
    found = reader.last_runs(RUNS, process)
    histories: list[History] = []
    for name, last in list(found.items())[:PROCESSES]:
        past = _past([(one.key, one) for one in reversed(last)], reader.now)
        completed = [one.took for one in past if one.run.status == "completed" and one.took is not None]
        said = f"usually {lasting(median(completed))}" if len(completed) >= _ENOUGH else ""
        histories.append(History(name, past, said))
    return histories


def others(reader: Reader, key: int, info: RunInfo) -> list[Found]:
    """Return the last runs of the same process, the newest first, without the run itself."""
    return [one for one in reader.runs(process=info.process, limit=RUNS + 1) if one.key != key][:RUNS]


def _past(found: Sequence[tuple[int, RunInfo | LastRun]], now: float) -> list[Past]:
    times = [_took(run, now) for _, run in found]
    most = max((took for took in times if took), default=0.0)
    return [
        Past(key, run, took, (took or 0.0) / most if most else 0.0)
        for (key, run), took in zip(found, times, strict=True)
    ]


def _took(run: RunInfo | LastRun, now: float) -> float | None:
    end = now if run.status == "running" else run.ended_at
    return None if end is None else max(0.0, end - run.started_at)


def compared_with(info: RunInfo, took: float | None, completed: Sequence[float]) -> str:
    """Return how the time that a run took, or has taken so far, compares with that of completed runs before it."""
    if took is None or len(completed) < _ENOUGH:
        return ""
    usual = median(completed)
    if info.status == "running":
        low, _, high = quantiles(completed, n=4)
        by = f"of its last {counted(len(completed), 'good run')}, half took {lasting(low)} to {lasting(high)}"
        if took < usual:
            return f"about {lasting(usual - took)} left: {by}"
        return f"longer than usual: {by}" if took > high else f"soon over: {by}"
    factor = took / usual if usual else 1.0
    if 1 / _UNUSUAL < factor < _UNUSUAL or info.status != "completed":
        return f"usually {lasting(usual)}"
    return f"{factor:.2g} times the usual {lasting(usual)}"
