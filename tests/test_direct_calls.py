"""Tasks called directly in tests, and retries without pauses."""

import asyncio

import pytest
import tenacity

from procession import Process, TaskCancelled, current_task, task
from procession.testing import task_context, without_pauses


def about():
    me = current_task()
    return me.name, me.index, me.attempt, me.process_name, me.run_id, me.cancelled


def test_a_function_that_asks_for_its_task_can_be_called_directly():
    """In the block, with what is said of the task; around it, it is in none."""
    with task_context():
        assert about() == ("task", 0, 1, "test", "test", False)
        with task_context("load", index=3, attempt=2, process_name="etl", run_id="a"):
            assert about() == ("load", 3, 2, "etl", "a", False)
        assert about()[0] == "task"
    with pytest.raises(RuntimeError, match="outside of a task"):
        about()


def test_a_task_can_be_cancelled():
    """As its run would be."""
    with task_context() as context:
        current_task().sleep(0)
        context.cancel()
        assert context.task.cancelled and about()[-1]
        with pytest.raises(TaskCancelled):
            current_task().sleep(60)


def test_a_coroutine_has_it_too():
    """As all that runs in its context."""

    async def ask():
        await asyncio.sleep(0)
        return current_task().name

    with task_context("ask"):
        assert asyncio.run(ask()) == "ask"


def test_a_process_runs_in_it_as_in_a_task():
    """Which is what a task may do."""
    process = Process("inner")
    process.add_task(about)
    with task_context("outer"):
        assert process.execute()[0][:2] == ("about", 0)


def flaky():
    if current_task().attempt < 4:
        raise OSError("not yet")
    return current_task().attempt


async def flaky_coroutine():
    return flaky()


LONG = tenacity.Retrying(stop=tenacity.stop_after_attempt(4), wait=tenacity.wait_fixed(3600))


@pytest.mark.parametrize("function", [flaky, flaky_coroutine])
@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_retries_make_no_pauses_in_the_block(function, executor):
    """On every engine, for tasks and for elements."""
    process = Process("flaky", "parallel", 2, executor=executor)
    process.add_task(task(retries=LONG)(function))
    process.map(task(retries=LONG)(lambda _: flaky()), range(2))
    with without_pauses():
        assert process.execute() == [4, [4, 4]]
