"""Where the time of one run went, in numbers and in words."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

from procession._model.states import RunStatus
from procession._model.strategy import Stage
from procession._model.table import lasting
from procession._model.text import counted
from procession.pictures.picture import TIMES, label
from procession.pictures.schedule import Busy, Lane, Reason, Span, busy_spans, critical_path, idle_of, lanes_of, waste

_SHORT_S = 0.005
_STEPS = 5


class SpeedUp(NamedTuple):
    """How many times as fast a run was as its tasks one after another."""

    reached: float
    ideal: float
    """What was possible with these tasks and workers."""


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
    ) -> None:
        self.process_name = process_name
        self.status = status
        self.spans = tuple(spans)
        self.max_workers = max_workers
        count = max((span.index for span in spans), default=-1) + 1
        self.stages = tuple(stages) or (Stage(0, count, at_once=True),)
        self.needs: Mapping[int, tuple[int, ...]] = {} if needs is None else needs
        self.cpu = cpu
        self.begun: list[Busy] = busy_spans(spans, duration)
        self.duration = max([duration, *(busy.end for busy in self.begun)])
        """Seconds."""

    @cached_property
    def lanes(self) -> list[Lane]:
        """Who was busy when: one lane a worker, or several for one that did several things at once."""
        return lanes_of(self.begun)

    @cached_property
    def work(self) -> float:
        """How long all tasks took together, in seconds."""
        return sum(busy.end - busy.start for busy in self.begun)

    @cached_property
    def critical_path(self) -> tuple[Span, ...]:
        """The chain of tasks that took longest, each waiting for the one before: the run could not be shorter."""
        return critical_path(self.begun, self.stages, self.needs)

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
        head = f"{label(self.process_name, 60)}: {self.status} in {lasting(self.duration)}"
        if not self.work:
            return [f"{head}. No task has run."]
        reached, ideal = self.speed_up
        workers = counted(self._workers, "worker")
        critical = f"{lasting(self.critical)}, {self.critical / self.duration:.0%} of the run"
        return [
            f"{head}. Its tasks took {lasting(self.work)} together.",
            f"That is {_times(reached)} times as fast as one after another, of {_times(ideal)} that {workers} allow.",
            f"The critical path takes {critical}: {self._chain()}.",
            *self._idleness(),
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
    def _waste(self) -> dict[Reason, float]:
        return waste(self.begun, self.stages, self.needs, workers=self._workers, duration=self.duration)

    @property
    def _idle_part(self) -> float:
        return sum(self._waste.values()) / (self._workers * self.duration)

    def _chain(self) -> str:
        steps: list[tuple[str, int, float]] = []
        for span in self.critical_path:
            name, took = label(span.name, 40), span.duration or 0.0
            if steps and steps[-1][0] == name:
                steps[-1] = name, steps[-1][1] + 1, steps[-1][2] + took
            else:
                steps.append((name, 1, took))
        said = [f"{name}{f' {TIMES} {count:,}' if count > 1 else ''} ({lasting(took)})" for name, count, took in steps]
        if len(said) > _STEPS:
            said = [*said[:2], f"… {len(said) - 4:,} more …", *said[-2:]]
        return " → ".join(said)

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
        parts = [f"{spent / capacity:.0%} {words[reason]}" for reason, spent in reasons if spent >= 0.01 * capacity]
        if not parts or self._workers == 1:
            return []
        return [f"The workers were idle {self._idle_part:.0%} of the time: {'; '.join(parts)}."]

    @cached_property
    def verdict(self) -> str:
        """What holds the run up most, and what would help."""
        if not self.work:
            return "No task has run."
        reason = max(self._waste, key=self._waste.__getitem__)
        longest = max(self.critical_path, key=lambda span: span.duration or 0.0)
        if not any(stage.at_once for stage in self.stages):
            return "All tasks run in order. Those that need not wait for each other can run at once."
        if self.cpu is not None and self.work > 1.5 * self.duration and 0.7 < self.cpu / self.duration < 1.25:  # noqa: PLR2004
            return (
                f"While tasks ran side by side, the interpreter used {self.cpu / self.duration:.1f} cores: threads "
                "that compute in Python take turns, so each task lasts longer and the speed-up is not real. "
                "Worker processes take no turns."
            )
        if self.critical > 0.75 * self.duration:
            return (
                "More workers would not make it faster, because the tasks of the critical path wait for each other; "
                f"a shorter {label(longest.name, 40)} would."
            )
        if self._idle_part < 0.25:  # noqa: PLR2004
            return (
                "The workers were busy nearly all the time: more of them would make it faster, if the machine has room."
            )
        last = max(self.begun, key=lambda busy: busy.end).span
        mean = self.work / len(self.begun)
        return {
            "order": "Most is lost while tasks run in order: move what need not wait out of there.",
            "few": "There are too few tasks to go round: split them, or use fewer workers.",
            "values": "Most is lost waiting for values: begin with what others wait for, and split what takes longest.",
            "between": f"The tasks are short ({lasting(mean)} on average): let each do more."
            if mean < _SHORT_S
            else "Workers were free while tasks were left to start: something else kept the interpreter busy.",
            "end": f"Task {last.index} ({label(last.name, 40)}) was the last to end, long after others: start it "
            "earlier, or split it.",
            "margin": "The tasks are short: what comes before and after them, such as starting workers, is most of it.",
        }[reason]


def _times(factor: float) -> str:
    return f"{factor:.1f}".removesuffix(".0") if factor < 10 else f"{factor:,.0f}"  # noqa: PLR2004
