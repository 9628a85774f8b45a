"""Where the time of one run went, in numbers and in words."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

from procession._model.columns import shortened
from procession._model.held_back import HeldBack
from procession._model.states import RunStatus
from procession._model.strategy import Stage
from procession._model.table import lasting
from procession._model.text import counted
from procession.pictures.forecast import Work, forecast, works_of
from procession.pictures.picture import TIMES
from procession.pictures.schedule import (
    Busy,
    Lane,
    Reason,
    Span,
    busy_spans,
    critical_path,
    idle_of,
    lanes_of,
    waste,
    with_calls,
)

_SHORT_S = 0.005
_STEPS = 5
_FULL = 0.8
"""The part of all cores that are as good as all."""
_WORTH = 0.1
"""The part of a run that a change must save to be worth a word."""
_SURE = 0.9
"""What part of a run its critical path is where nothing but a shorter one makes the run faster."""


class SpeedUp(NamedTuple):
    """How many times as fast a run was as its tasks one after another."""

    reached: float
    """How many times as fast it was."""
    ideal: float
    """How many times as fast it could have been with these tasks and as many workers."""


class Account:
    """Where the time of one run went. See `Timeline` for the arguments."""

    def __init__(
        self,
        process_name: str,
        status: RunStatus,
        duration: float,
        spans: Sequence[Span],
        *,
        max_workers: int,
        stages: Sequence[Stage] = (),
        needs: Mapping[int, tuple[int, ...]] | None = None,
        cpu: float | None = None,
        cores: tuple[float, int] | None = None,
        exact: float = 0.0,
        held_back: Sequence[HeldBack] = (),
        calls: Sequence[Span] = (),
    ) -> None:
        self.process_name = process_name
        self.status = status
        self.spans = tuple(spans)
        self.max_workers = max_workers
        count = max((span.index for span in spans), default=-1) + 1
        self.stages = tuple(stages) or (Stage(0, count, at_once=True),)
        self.needs: Mapping[int, tuple[int, ...]] = {} if needs is None else needs
        self.cpu = cpu
        self.cores = cores
        self.exact = exact
        self.held_back = tuple(held_back)
        self.begun: list[Busy] = busy_spans(spans, duration)
        self.calls: list[Busy] = busy_spans(calls, duration)
        """The recorded calls, in the order of their starts."""
        self.duration = max([duration, *(busy.end for some in (self.begun, self.calls) for busy in some)])
        """Seconds."""

    @cached_property
    def lanes(self) -> list[Lane]:
        """What each worker did and when: a lane for each worker, or several if it did several things at once."""
        lanes = lanes_of(self.begun, self.exact)
        return with_calls(lanes, self.calls) if self.calls else lanes

    @cached_property
    def work(self) -> float:
        """How long all calls took together, in seconds."""
        return sum(sum(work.calls) for work in self._works.values())

    @cached_property
    def critical_path(self) -> tuple[Span, ...]:
        """The chain of tasks that took longest, each waiting for the one before: the run could not be shorter."""
        at_once = [stage.at_once for stage in self.stages for _ in range(stage.start, stage.stop)]
        least = {index: work.least if at_once[index] else work.whole for index, work in self._works.items()}
        return critical_path(self.begun, self.stages, self.needs, least)

    @cached_property
    def idle(self) -> dict[str, float]:
        """How long each worker did nothing, in seconds."""
        return idle_of(self.lanes, self.duration)

    @cached_property
    def speed_up(self) -> SpeedUp:
        """How many times as fast the run was as its tasks one after another, and how fast it could have been."""
        if not self.work or not self.duration:
            return SpeedUp(0.0, 0.0)
        return SpeedUp(self.work / self.duration, min(self._workers, self.work / self.critical))

    # Why it is not faster

    @cached_property
    def told(self) -> list[str]:
        """Why the run is not faster, in a few sentences."""
        head = f"{shortened(self.process_name, 60)}: {self.status} in {lasting(self.duration)}"
        if not self.work:
            return [f"{head}. No task has run.{self._calls_made()}"]
        reached, ideal = self.speed_up
        workers = counted(self._workers, "worker")
        critical = f"{lasting(self.critical)}, {self.critical / self.duration:.0%} of the run"
        return [
            f"{head}. Its tasks took {lasting(self.work)} together.{self._counts()}{self._calls_made()}",
            f"That is {_times(reached)} times as fast as one after another, of {_times(ideal)} that {workers} allow.",
            f"The critical path takes {critical}: {self._chain()}.",
            *self._idleness(),
            *self._held_back(),
            self.verdict,
        ]

    @property
    def headline(self) -> str:
        """The figures of the run in one line."""
        if not self.work:
            return f"{self.status} in {lasting(self.duration)}"
        reached, ideal = self.speed_up
        return (
            f"{self.status} in {lasting(self.duration)}  ·  {_times(reached)} {TIMES} as fast as one after another, "
            f"{_times(ideal)} {TIMES} at most  ·  critical path {self.critical / self.duration:.0%}"
            + (f"  ·  workers idle {self._idle_part:.0%}" if self._workers > 1 else "")
            + "".join(
                f"  ·  held back by {shortened(one.limit, 40)}: {lasting(one.seconds)}" for one in self.held_back[:2]
            )
        )

    @property
    def critical(self) -> float:
        """How long the critical path takes, in seconds."""
        return sum(span.duration or 0.0 for span in self.critical_path)

    @cached_property
    def _workers(self) -> int:
        """How many workers could be busy: those that may be, or more if more were (abandoned ones still run)."""
        if not any(stage.at_once for stage in self.stages):
            return 1
        return self.max_workers

    @cached_property
    def elements(self) -> tuple[int, int] | None:
        """How many elements of maps were called, and how many of them completed; `None` where there is no map."""
        parts = [busy.span for busy in self.begun if busy.span.elements is not None]
        if not parts:
            return None
        called = sum(span.elements or 0 for span in parts)
        return called, called - sum(span.failed for span in parts)

    def _counts(self) -> str:
        if self.elements is None:
            return ""
        called, completed = self.elements
        return f" {completed:,} of {counted(called, 'element')} completed."

    def _calls_made(self) -> str:
        if not self.calls:
            return ""
        count = sum(busy.span.calls for busy in self.calls)
        took = sum(busy.end - busy.start if busy.span.busy is None else busy.span.busy for busy in self.calls)
        going_on = sum(busy.span.state == "running" for busy in self.calls)
        so_far = f", {going_on:,} of which {'goes' if going_on == 1 else 'go'} on" if going_on else ""
        return f" Tasks made {counted(count, 'recorded call')}{so_far}, of {lasting(took)} together."

    @cached_property
    def _works(self) -> dict[int, Work]:
        return works_of(self.begun)

    @cached_property
    def _waste(self) -> dict[Reason, float]:
        return waste(self.begun, self.stages, self.needs, workers=self._workers, duration=self.duration)

    @property
    def _idle_part(self) -> float:
        return sum(self._waste.values()) / (self._workers * self.duration)

    def _chain(self) -> str:
        steps: list[tuple[str, int, float]] = []
        for span in self.critical_path:
            name, took = self._step(span), span.duration or 0.0
            if steps and steps[-1][0] == name:
                steps[-1] = name, steps[-1][1] + 1, steps[-1][2] + took
            else:
                steps.append((name, 1, took))
        said = [f"{name}{f' {TIMES} {count:,}' if count > 1 else ''} ({lasting(took)})" for name, count, took in steps]
        if len(said) > _STEPS:
            said = [*said[:2], f"… {len(said) - 4:,} more …", *said[-2:]]
        return " → ".join(said)

    def _step(self, span: Span) -> str:
        """Return the name of a step of the critical path: a task, or the longest element of a map."""
        name = shortened(span.name, 40)
        work = self._works[span.index]
        return f"the longest element of {name}" if span.duration == max(work.calls) != sum(work.calls) else name

    def _idleness(self) -> list[str]:
        capacity = self._workers * self.duration
        words: dict[Reason, str] = {
            "order": "while tasks ran in order",
            "few": "because there were fewer tasks than workers",
            "values": "waiting for the values of other tasks",
            "between": "between one task and the next",
            "end": "at the end, with nothing left to start",
            "margin": "before the first task and after the last",
        }
        reasons = sorted(self._waste.items(), key=lambda item: -item[1])
        parts = [f"{idle / capacity:.0%} {words[reason]}" for reason, idle in reasons if idle >= 0.01 * capacity]
        if not parts or self._workers == 1:
            return []
        return [f"The workers were idle {self._idle_part:.0%} of the time: {'; '.join(parts)}."]

    @property
    def _limited(self) -> str | None:
        """What to say of a run that a limit has held up for most of its time."""
        most = max(self.held_back, key=lambda one: one.seconds, default=None)
        if not self.work or most is None or most.seconds < 0.5 * self.duration:
            return None
        part = f"{most.seconds / self.duration:.0%} of the run"
        return (
            f"The limit {shortened(most.limit, 40)} held calls back for {part}: more workers would not make it faster."
        )

    def _held_back(self) -> list[str]:
        return [
            f"The limit {shortened(one.limit, 40)} held {counted(one.calls, 'call')} back, for "
            f"{lasting(one.seconds)} of the run."
            for one in self.held_back[:_STEPS]
        ]

    # What would help: what is told of it is what a run of the same calls would gain

    @property
    def verdict(self) -> str:
        """What holds the run up most, and what would help."""
        return self._limited or self._unlimited

    @cached_property
    def _unlimited(self) -> str:
        """The same where no limit does."""
        if not self.work:
            return "No task has run."
        if not any(stage.at_once for stage in self.stages):
            return "All tasks run in order. Those that need not wait for each other can run at once."
        if self.cpu is not None and self.work > 1.5 * self.duration and 0.7 < self.cpu / self.duration < 1.25:  # noqa: PLR2004
            return (
                f"While tasks ran side by side, the interpreter used {self.cpu / self.duration:.1f} cores: threads "
                "that compute in Python take turns, so each task lasts longer and the speed-up is not real. "
                "Worker processes take no turns."
            )
        if self.cores is not None and self._workers > 1 and self.cores[0] > _FULL * self.cores[1]:
            return (
                f"The calls kept {self.cores[0]:.1f} of {counted(self.cores[1], 'core')} busy: more workers would not "
                "make it faster, more cores would."
            )
        if self._best < 0.5 * self.duration:
            return self._overhead
        gains = self._gains
        best = max(gains, key=gains.__getitem__)
        if gains[best] >= _WORTH:
            return self._remedy(best, gains[best])
        if self.critical > 0.75 * self.duration:
            return self._bound
        if self._waste["few"] == max(self._waste.values()):
            return "There are too few tasks to go round: split them, or use fewer workers."
        return self._overhead

    @property
    def _bound(self) -> str:
        """What to say of a run that is little longer than its critical path."""
        slow = max(self.critical_path, key=lambda span: self._works[span.index].drawn)
        if self._works[slow.index].drawn > 0.5 * self.duration:
            return (
                f"More workers would not make it faster: the elements of {shortened(slow.name, 40)} are slow to come."
            )
        longest = self._step(max(self.critical_path, key=lambda span: span.duration or 0.0))
        if self.critical < _SURE * self.duration:  # of a map only the longest call is known, so forecasts may err
            return f"The critical path is {self.critical / self.duration:.0%} of the run: shorten {longest} first."
        return (
            "More workers would not make it faster, because no run is shorter than its critical path; "
            f"a shorter {longest.removeprefix('the ')} would."
        )

    @property
    def _gains(self) -> dict[str, float]:
        """What part of the run a change would save."""
        now, worth = self._best, self._best - _WORTH * self.duration
        took = {"workers": now, "order": now, "stages": now}
        if self.critical < worth:
            took["workers"] = self._forecast(workers=2 * self._workers)
        if max(self.critical, self.work / self._workers) < worth:
            took["order"] = self._forecast(urgent_first=True)
        if len(self.stages) > 1:
            merged = Stage(self.stages[0].start, self.stages[-1].stop, at_once=True)
            took["stages"] = self._forecast(stages=(merged,))
        return {change: (now - seconds) / max(now, self.duration) for change, seconds in took.items()}

    @cached_property
    def _best(self) -> float:
        """How long these calls take on these workers with nothing lost in between, in seconds."""
        return self._forecast()

    def _forecast(
        self, *, workers: int | None = None, stages: Sequence[Stage] | None = None, urgent_first: bool = False
    ) -> float:
        return forecast(
            self._works,
            self.stages if stages is None else stages,
            self.needs,
            self._workers if workers is None else workers,
            urgent_first=urgent_first,
        )

    def _remedy(self, change: str, gain: float) -> str:
        last = max(self.begun, key=lambda busy: busy.end).span
        if change == "workers":
            room = f"if the machine has room: with {2 * self._workers:,}, about {lasting(self.duration * (1 - gain))}."
            if self._idle_part < 0.25:  # noqa: PLR2004
                return f"The workers were busy nearly all the time: more of them would make it faster, {room}"
            return f"More workers would make it faster, {room}"
        if change == "stages":
            return "Most is lost while tasks run in order: move what need not wait out of there."
        if len(self._works[last.index].calls) > 1:
            return (
                f"An element of {shortened(last.name, 40)} ended long after others: begin with those that take longest."
            )
        if self.needs:
            return "Most is lost waiting for values: begin with what others wait for, and split what takes longest."
        return (
            f"Task {last.index} ({shortened(last.name, 40)}) was the last to end, long after others: start it "
            "earlier, or split it."
        )

    @property
    def _overhead(self) -> str:
        """What takes time beside the calls."""
        lost = (self.duration - self._best) * self._workers
        if self._waste["margin"] > 0.5 * lost:
            return "The tasks are short: what comes before and after them, such as starting workers, is most of it."
        mean = self.work / sum(len(work.calls) for work in self._works.values())
        if mean < _SHORT_S:
            return f"The tasks are short ({lasting(mean)} on average): let each do more."
        others = ["something else kept the interpreter busy"]
        if any(busy.span.attempts > 1 for busy in self.begun):
            others.insert(0, "they paused before their next attempt")
        if self.elements is not None:
            others.insert(0, "the elements of a map were slow to come")
        return f"Workers were free while tasks were left to start: {', or '.join(others)}."


def _times(factor: float) -> str:
    return f"{factor:.1f}".removesuffix(".0") if factor < 10 else f"{factor:,.0f}"  # noqa: PLR2004
