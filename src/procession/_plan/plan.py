"""The plan: what a strategy and the handles make of a list of tasks.

tasks ──▶ stages            ranges of tasks, each in order or all at once, one range after the other
specs ──▶ needs             task → the earlier tasks of its own stage that it waits for
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from procession._model.strategy import Stage, Strategy
from procession._model.task import Call, Spec


class Plan(NamedTuple):
    """One run's work. `needs` names only edges inside a stage that runs at once: all others hold by the stages."""

    calls: list[Call]
    specs: Mapping[int, Spec]
    stages: tuple[Stage, ...]
    needs: Mapping[int, tuple[int, ...]]


def plan_of(tasks: Sequence[Call], specs: Mapping[int, Spec], strategy: Strategy) -> Plan:
    """Return the plan of the tasks.

    >>> tasks = [(len, ("a",), {})] * 3
    >>> from procession._model.strategy import Hybrid
    >>> plan_of(tasks, {}, Hybrid(first=1)).stages
    (Stage(start=0, stop=1, at_once=False), Stage(start=1, stop=3, at_once=True))
    """
    stages = strategy.stages(len(tasks))
    needs: dict[int, tuple[int, ...]] = {}
    # At most one stage runs at once, and it is the last: see the strategies.
    first_at_once = next((stage.start for stage in stages if stage.at_once), len(tasks))
    for index, spec in specs.items():
        if index >= first_at_once:
            inside = tuple(need for need in spec.needs if need >= first_at_once)
            if inside:
                needs[index] = inside
    return Plan(list(tasks), dict(specs), stages, needs)
