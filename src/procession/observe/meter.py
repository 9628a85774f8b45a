"""How far the parts of a run have come, how fast they go, and how long they will take."""

from collections import deque
from typing import Final, NamedTuple

from procession._engine.parts import known_sizes, parts_of
from procession._engine.run_progress import with_parts
from procession._engine.run_state import RunState
from procession._model.columns import shortened
from procession._model.held_back import held_back_by
from procession._model.progress import Progress
from procession.observe.column import Column

PARTS: Final = 8
"""Maps and processes that are shown at the same time, at most."""

_WINDOW_S: Final = 5.0


class Reading(NamedTuple):
    """How one part of a run stands: a stage, or a map or a process in it. Elements and tasks of these count, too."""

    label: str
    ended: int
    failed: int
    total: int | None
    """`None` where nobody knows."""
    rate: float | None
    """How many end in a second."""
    left_s: float | None
    """How many seconds it will take, if it goes on like this."""
    held_back: str = ""
    """How many calls wait for which limits, in words."""
    running: str = ""
    """The label of the first task or element that runs, where names are templates."""


class Meter:
    """Follows the parts of a run."""

    def __init__(self, run_state: RunState) -> None:
        self._run_state = run_state
        self._sizes = known_sizes(run_state)
        self._columns = [Column(run_state.ledger.ends, stage.start, stage.stop) for stage in run_state.plan.stages]
        self._histories: dict[object, deque[tuple[float, int, int | None]]] = {}

    def read(self, now: float) -> list[Reading]:
        """Return how each stage stands, and the maps and processes in it that have begun, the last if they are many."""
        run_state, stages = self._run_state, self._run_state.plan.stages
        ends, errors = run_state.ledger.ends, list(run_state.ledger.errors)
        parts = parts_of(run_state)
        unbegun = {index: Progress(ends[index] is not None, 0, size) for index, size in self._sizes.items()}
        sizes = unbegun | parts
        readings: list[Reading] = []
        for number, stage in enumerate(stages):
            column = self._columns[number]
            column.look()
            column.see()
            failed = sum(stage.start <= index < stage.stop for index in errors)
            stopped = sum(stage.start <= index < stage.stop for index in list(run_state.ledger.stopped))
            plain = Progress(column.filled() - stopped, failed, stage.stop - stage.start)
            here = {index: part for index, part in sizes.items() if stage.start <= index < stage.stop}
            progress = with_parts(run_state.ledger, plain, here)
            what = "" if len(stages) == 1 else ": at once" if stage.at_once else ": in order"
            label = f"{shortened(run_state.process_name, 40)}{what}"
            running = self._running(range(stage.start, stage.stop))
            readings.append(self._reading(number, label, progress, progress.total, now)._replace(running=running))
        lazy = {index: part.progress for index, part in list(run_state.maps.items()) if index not in parts}
        last = sorted(parts.keys() | lazy.keys(), key=lambda index: (ends[index] is None, index))[-PARTS:]
        for index in sorted(last):
            label = f"  {index}: {shortened(run_state.label(index) or run_state.name(index), 40)}"
            progress = parts.get(index) or lazy[index]
            total = progress.total if index in parts else None
            running = self._running(range(index, index + 1))
            readings.append(self._reading(("part", index), label, progress, total, now)._replace(running=running))
        shown_maps = dict(zip(sorted(last), range(len(stages), len(readings)), strict=True))
        for held in run_state.admission.held_back if run_state.admission is not None else ():
            if words := held_back_by([held]):
                place = self._place_of(held.limit, readings, shown_maps)
                before = readings[place].held_back
                readings[place] = readings[place]._replace(held_back=f"{before}, {words}" if before else words)
        return readings

    def _running(self, indices: range) -> str:
        """Return the label of what runs of these tasks: of the first task or element, or "" where none has one."""
        run_state = self._run_state
        if run_state.labels is None:
            return ""
        contexts = list(run_state.call_contexts)
        places = sorted((one.index, one.element) for one in contexts if one.index in indices and not one.over)
        return next((label for place in places if (label := run_state.label(*place)) is not None), "")

    def _place_of(self, limit: str, readings: list[Reading], shown_maps: dict[int, int]) -> int:
        """Return the reading that is to say what a limit holds back: of those that go on, a part that the limit is for.

        Where the limit is for none of them alone, it is the last one.
        """
        options = self._run_state.plan.options
        going_on = {place for place, one in enumerate(readings) if one.total is None or one.ended < one.total}
        limited = {
            place
            for index, place in shown_maps.items()
            if index in options and limit in [one.name for one in options[index].limit]
        }
        return max(going_on & limited or going_on, default=0)

    def _reading(self, part: object, label: str, progress: Progress, total: int | None, now: float) -> Reading:
        history = self._histories.setdefault(part, deque())
        history.append((now, progress.ended, total))
        while len(history) > 2 and now - history[1][0] > _WINDOW_S:  # noqa: PLR2004
            history.popleft()
        then, ended, total_then = history[0]
        rate = (progress.ended - ended) / (now - then) if now > then and progress.ended > ended else None
        left = None
        # Of a total that grows nobody knows how far it will.
        if rate is not None and total is not None and total == total_then:
            left = (total - progress.ended) / rate
        return Reading(label, progress.ended, progress.failed, total, rate, left)


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
    total = "" if reading.total is None else f" of {reading.total:,}"
    parts = [f"{reading.label.strip()}: {reading.ended:,}{total}"]
    if reading.failed:
        parts.append(f"{reading.failed:,} failed")
    if reading.held_back:
        parts.append(reading.held_back)
    if reading.rate is not None:
        parts.append(pace(reading.rate))
    if reading.left_s is not None:
        parts.append(f"{clock(reading.left_s)} left")
    return " · ".join(parts)
