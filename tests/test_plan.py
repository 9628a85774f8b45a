"""What a strategy and the handles make of a list of tasks: stages, and which task waits for which."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procession import Hybrid, Parallel, Sequential
from procession._model.strategy import Stage
from procession._plan.plan import Plan, plan_of

CALLS = [(len, (str(number),), {}) for number in range(6)]
NEEDS = {2: (0,), 3: (1, 2), 5: (3, 4)}


def in_order(start, stop):
    return Stage(start, stop, at_once=False)


def at_once(start, stop):
    return Stage(start, stop, at_once=True)


@pytest.mark.parametrize(
    ("strategy", "stages", "edges"),
    [
        (Sequential(), (in_order(0, 6),), {}),
        (Parallel(), (at_once(0, 6),), NEEDS),
        (Hybrid(), (in_order(0, 3), at_once(3, 6)), {5: (3, 4)}),
        (Hybrid(first=0), (at_once(0, 6),), NEEDS),
        (Hybrid(first=1), (in_order(0, 1), at_once(1, 6)), {3: (1, 2), 5: (3, 4)}),
        (Hybrid(first=4), (in_order(0, 4), at_once(4, 6)), {5: (4,)}),
        (Hybrid(first=6), (in_order(0, 6),), {}),
        (Hybrid(first=100), (in_order(0, 6),), {}),
    ],
)
def test_a_plan_says_what_waits_for_what(strategy, stages, edges):
    """What holds by the order of stages needs no edge of its own.

    0 ──▶ 2 ──▶ 3 ──▶ 5
    1 ──────────┘     │
    4 ────────────────┘
    """
    plan = plan_of(CALLS, strategy, options={}, needs=NEEDS, handled={0, 1, 2, 3, 4})
    assert plan == Plan(CALLS, stages, {}, NEEDS, edges, frozenset({0, 1, 2, 3, 4}))


@pytest.mark.parametrize("strategy", [Sequential(), Parallel(), Hybrid(), Hybrid(first=3)])
def test_no_tasks_make_no_stages(strategy):
    """An empty process has nothing to wait for."""
    assert plan_of([], strategy, options={}, needs={}, handled=set()) == Plan([], (), {}, {}, {}, frozenset())


def test_a_plan_is_not_changed_by_what_is_added_later():
    """A run keeps to what was defined when it began."""
    calls, options, needs, handled = list(CALLS), {}, dict(NEEDS), {0}
    plan = plan_of(calls, Parallel(), options=options, needs=needs, handled=handled)
    before = plan_of(CALLS, Parallel(), options={}, needs=NEEDS, handled={0})
    calls.pop()
    options[0] = None
    needs.clear()
    handled.add(1)
    assert plan == before


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    st.integers(0, 40), st.sampled_from([Sequential(), Parallel(), Hybrid()]) | st.builds(Hybrid, st.integers(0, 50))
)
def test_every_task_has_its_place_in_exactly_one_stage(count, strategy):
    """One after the other the stages go through all tasks in the order added, and only the last may run at once."""
    stages = strategy.stages(count)
    assert [index for stage in stages for index in range(stage.start, stage.stop)] == list(range(count))
    assert all(stage.start < stage.stop for stage in stages)
    assert not any(stage.at_once for stage in stages[:-1])
