"""How far the parts of a run have come, how fast they go, and how long they will take."""

from collections import deque
from typing import Final, NamedTuple

from procession._engine.run_state import RunState
from procession._model.progress import Progress
from procession._model.text import shown
from procession.observe.column import Column

MAPS: Final = 8
"""Maps that are shown at the same time, at most."""

_WINDOW_S: Final = 5.0


class Reading(NamedTuple):
    """How one part of a run stands: a stage, or a map in it."""

    label: str
    ended: int
    failed: int
    total: int
    """As far as is known."""
    rate: float | None
    """How many end in a second."""
    left_s: float | None
    """How many seconds it will take, if it goes on like this."""


class Meter:
    """Follows the parts of a run."""

    def __init__(self, run_state: RunState) -> None:
        self._run_state = run_state
        self._columns = [Column(run_state.ledger.ends, stage.start, stage.stop) for stage in run_state.plan.stages]
        self._histories: dict[object, deque[tuple[float, int, int]]] = {}

    def read(self, now: float) -> list[Reading]:
        """Return how each stage stands, and the maps that have begun, the last ones if they are many."""
        run_state, stages = self._run_state, self._run_state.plan.stages
        ends, errors = run_state.ledger.ends, list(run_state.ledger.errors)
        readings: list[Reading] = []
        for number, stage in enumerate(stages):
            column = self._columns[number]
            column.look()
            column.see()
            failed = sum(stage.start <= index < stage.stop for index in errors)
            progress = Progress(column.filled(), failed, stage.stop - stage.start)
            what = "" if len(stages) == 1 else ": at once" if stage.at_once else ": in order"
            readings.append(self._reading(number, f"{shown(run_state.process_name, 40)}{what}", progress, now))
        maps = sorted(run_state.maps.items(), key=lambda item: (ends[item[0]] is None, item[0]))[-MAPS:]
        for index, part in sorted(maps, key=lambda item: item[0]):
            label = f"  {index}: {shown(run_state.name(index), 40)}"
            readings.append(self._reading(("map", index), label, part.progress, now))
        return readings

    def _reading(self, part: object, label: str, progress: Progress, now: float) -> Reading:
        history = self._histories.setdefault(part, deque())
        history.append((now, progress.ended, progress.total))
        while len(history) > 2 and now - history[1][0] > _WINDOW_S:  # noqa: PLR2004
            history.popleft()
        then, ended, total = history[0]
        rate = (progress.ended - ended) / (now - then) if now > then and progress.ended > ended else None
        left = None
        # A total that grows is that of an iterable of which nobody knows how long it is.
        if rate is not None and total == progress.total:
            left = (progress.total - progress.ended) / rate
        return Reading(label, *progress, rate, left)


def pace(rate: float) -> str:
    """Return a rate for people.

    >>> pace(1234.5), pace(2.53), pace(0.1), pace(0.001)
    ('1,234/s', '2.5/s', '6.0/min', '3.6/h')
    """
    for unit, seconds in (("s", 1), ("min", 60)):
        if rate * seconds >= 1:
            return f"{rate * seconds:,.0f}/{unit}" if rate * seconds >= 10 else f"{rate * seconds:.1f}/{unit}"  # noqa: PLR2004
    return f"{rate * 3600:.1f}/h"


def clock(seconds: float) -> str:
    """Return a time for people who wait.

    >>> clock(3.2), clock(61), clock(86_399)
    ('3 s', '1:01', '23:59:59')
    """
    whole = int(seconds + 0.5)
    if whole < 60:  # noqa: PLR2004
        return f"{whole} s"
    minutes, whole = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole:02}" if hours else f"{minutes}:{whole:02}"


def told(reading: Reading) -> str:
    """Return a reading in words.

    >>> told(Reading("fetch_all", 1200, 3, 5000, 240.0, 15.8))
    'fetch_all: 1,200 of 5,000 · 3 failed · 240/s · 16 s left'
    """
    parts = [f"{reading.label.strip()}: {reading.ended:,} of {reading.total:,}"]
    if reading.failed:
        parts.append(f"{reading.failed:,} failed")
    if reading.rate is not None:
        parts.append(pace(reading.rate))
    if reading.left_s is not None:
        parts.append(f"{clock(reading.left_s)} left")
    return " · ".join(parts)
