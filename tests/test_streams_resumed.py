"""A recorded pipeline in which something has failed, executed again: it ends as if nothing had, and calls only the rest.

Generated: chains, fan-outs and fan-ins of maps, tasks that take their elements as they end, plain functions and
coroutine functions, values that are kept or let go, under every strategy and failure policy, on threads, an event loop
and a given executor.
"""

import tempfile
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import mixed_pipelines
from procession import NotKept, Process, stream, task
from procession.journal import Journal
from procession.testing import recorded_calls

ELEMENTS = 5
FAILING = set()
"""The calls that fail: a stage and, of a map, the place of an element, else -1."""
CALLED = deque()


def step(*values, stage):
    CALLED.append((stage, values[0][0]))
    if (stage, values[0][0]) in FAILING:
        raise OSError(f"stage {stage}, element {values[0][0]}")
    return values[0][0], sum(value for _, value in values) + 1


async def step_async(*values, stage):
    return step(*values, stage=stage)


def gathered(rows, stage):
    rows = list(rows)
    return rows, step((-1, 0), stage=stage)


async def gathered_async(rows, stage):
    rows = [row async for row in rows]
    return rows, step((-1, 0), stage=stage)


def made(plan, strategy, policy, executor):
    process = Process("pipeline", strategy, 2, on_error=policy, executor=executor)
    handles = []
    for stage, (taken, is_map, is_coroutine, kept) in enumerate(plan):
        if is_map:
            function = task(keep=kept)(step_async if is_coroutine else step)
            sources = [handles[place] for place in taken] or [[(place, 0) for place in range(ELEMENTS)]]
            handles.append(process.map(function, *sources, constants={"stage": stage}))
        else:
            function = gathered_async if is_coroutine else gathered
            handles.append(process.task(function, stream(handles[taken[0]]), stage))
    return process


def right(plan):
    """Return the results of such a process."""
    results = []
    for taken, is_map, _, _ in plan:
        if not is_map:
            results.append((results[taken[0]], (-1, 1)))
            continue
        sources = [results[place] for place in taken] or [[(place, 0) for place in range(ELEMENTS)]]
        results.append([(place, sum(row[place][1] for row in sources) + 1) for place in range(ELEMENTS)])
    return [
        NotKept(ELEMENTS) if is_map and not kept else value
        for (_, is_map, _, kept), value in zip(plan, results, strict=True)
    ]


def following(plan, failing):
    """Return a stage, and those that take its elements, directly or not."""
    found = {failing}
    for stage, (taken, *_) in enumerate(plan):
        if found.intersection(taken):
            found.add(stage)
    return found


@pytest.fixture(scope="module")
def pool():
    with ThreadPoolExecutor(2) as pool:
        yield pool


@settings(deadline=None, max_examples=60)
@given(
    plan=mixed_pipelines(),
    strategy=st.sampled_from(["sequential", "parallel", "hybrid"]),
    policy=st.sampled_from(["stop", "continue", "return"]),
    elsewhere=st.booleans(),
    data=st.data(),
)
def test_a_pipeline_that_failed_is_resumed_as_if_it_had_not(plan, strategy, policy, elsewhere, data, pool):
    executor = pool if elsewhere and strategy != "sequential" else "threads"
    failing = data.draw(st.integers(0, len(plan) - 1))
    place = data.draw(st.integers(0, ELEMENTS - 1)) if plan[failing][1] else -1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.db"
        FAILING.add((failing, place))
        try:
            process = made(plan, strategy, policy, executor)
            try:
                process.execute(run_id="run", journal=path)
            except (OSError, ExceptionGroup):
                assert policy != "return"
            assert process.last_run.status == ("completed" if policy == "return" else "failed")
        finally:
            FAILING.clear()
        with Journal(path) as journal:
            # A task that had taken what there was gets all there is, in another call.
            again = {(stage, -1) for stage in following(plan, failing)}
            recorded = {(stage, element) for _, stage, element in recorded_calls(journal)} - again
        CALLED.clear()
        assert made(plan, strategy, policy, executor).execute(run_id="run", journal=path) == right(plan)
        assert recorded.isdisjoint(CALLED)
        assert len(CALLED) == len(set(CALLED))
