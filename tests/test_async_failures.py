"""Coroutines that fail, take too long, or are tried again."""

import asyncio
import contextvars
import gc
import threading
import traceback
import weakref
from unittest import mock

import pytest
import tenacity

from coroutines import awaited, every_strategy, every_way, executed, later, same, started, states, throw
from procession import Process, RunCancelledError, TaskSkippedError, TaskTimeoutError, current_task, stream, task

pytestmark = pytest.mark.usefixtures("nothing_is_left")


# Failures


@every_way
@every_strategy
def test_a_failure_leaves_as_itself_with_a_note(strategy, way):
    """And what waits does not start."""
    never = mock.AsyncMock()
    process = Process("broken", strategy, 1)
    process.add_task(later, 1)
    process.add_task(throw, EOFError("the end"))
    process.add_task(never)
    process.add_task(never)
    with pytest.raises(EOFError, match="the end") as caught:
        way(process)
    assert caught.value.__notes__ == ["in process 'broken', task 1 (throw), attempt 1"]
    assert caught.traceback[-1].name == "throw"
    assert never.call_count == 0
    assert process.status == "failed"
    assert states(process.last_run) == ["completed", "failed", "skipped", "skipped"]


@pytest.mark.parametrize("error", [KeyboardInterrupt("k"), SystemExit(3), GeneratorExit("g"), StopAsyncIteration("s")])
@pytest.mark.parametrize("options", [{}, {"timeout": 30}, {"retries": 2}])
@pytest.mark.parametrize("way", [executed, started, awaited])
def test_any_exception_leaves_as_itself(error, options, way):
    """Whatever it means to an event loop, under options, too."""
    process = Process("any", "parallel", 2)
    process.add_task(task(**options)(throw) if options else throw, error)
    with pytest.raises(type(error)) as caught:
        way(process)
    assert caught.value is error
    assert process.status == "failed"


@pytest.mark.parametrize("way", [executed, awaited])
def test_policies_hold_for_coroutines(way):
    """ "continue" raises a group of all failures, "return" puts them in their places; dependents are skipped."""
    first, second = EOFError(1), KeyError(2)

    def built(policy):
        process = Process("policy", "parallel", 2, on_error=policy)
        failing = process.task(throw, first)
        process.add_task(later, failing)
        process.add_task(throw, second)
        process.add_task(later, 4)
        process.add_task(same, failing)
        return process

    with pytest.raises(ExceptionGroup) as caught:
        way(process := built("continue"))
    assert caught.value.exceptions == (first, second)
    assert states(process.last_run) == ["failed", "skipped", "failed", "completed", "skipped"]
    results = way(built("return"))
    assert results[0] is first
    assert results[2] is second
    assert results[3] == 4
    assert isinstance(results[1], TaskSkippedError)
    assert isinstance(results[4], TaskSkippedError)


@pytest.mark.parametrize("way", [executed, awaited])
def test_what_runs_is_let_end_after_a_failure(way):
    """Other coroutines are not cancelled because one has failed."""
    process = Process("let", "parallel", 2)
    process.add_task(later, 5, turns=50)
    process.add_task(throw, EOFError())
    with pytest.raises(EOFError):
        way(process)
    assert process.last_run.outcomes[0].value == 5


@pytest.mark.parametrize("options", [{}, {"timeout": 30}, {"retries": 1, "retry_on": KeyError}])
@pytest.mark.parametrize("mapped", [True, False])
def test_a_traceback_shows_the_task_and_nothing_of_the_engine(options, mapped):
    """Whose frames would keep alive whatever the run has to do with."""
    function = task(**options)(throw) if options else throw
    process = Process("frames", "parallel", 2)
    if mapped:
        process.map(function, [EOFError()])
    else:
        process.add_task(function, EOFError())
    with pytest.raises(EOFError) as caught:
        process.execute()
    modules = [entry.frame.f_globals["__name__"] for entry in caught.traceback]
    assert modules == [
        __name__,
        "procession._process",
        "procession._execution",
        "procession._execution",
        throw.__module__,
    ]


@every_strategy
def test_results_of_coroutines_are_the_callers_alone(strategy):
    """Dropped by the caller they are gone, without any garbage collection."""

    class Big:
        pass

    async def makes():
        await asyncio.sleep(0)
        return Big()

    process = Process("alone", strategy, 2)
    for _ in range(4):
        process.add_task(makes)
    gc.collect()
    gc.disable()
    try:
        results = process.execute()
        watched = [weakref.ref(result) for result in results]
        del results
        assert [watch() for watch in watched] == [None] * 4
    finally:
        gc.enable()


# Timeouts and retries


@every_way
def test_a_timeout_cancels_a_coroutine_for_real(way):
    """It cleans up, and the error says which task took too long and where it was waiting."""
    cleaned = []

    @task(timeout=0.02)
    async def hangs():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    process = Process("timeout", "parallel")
    process.add_task(hangs)
    with pytest.raises(TaskTimeoutError, match=r"task 0 .*hangs.* timeout of 0.02 s") as caught:
        way(process)
    assert cleaned == [True]
    cause = caught.value.__cause__
    assert isinstance(cause, asyncio.CancelledError)
    assert traceback.extract_tb(cause.__traceback__)[0].name == "hangs"


def test_a_tasks_own_timeout_error_is_its_own():
    """Only the task's timeout is a TaskTimeoutError."""

    @task(timeout=30)
    async def own():
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()

    process = Process("own")
    process.add_task(own)
    with pytest.raises(TimeoutError) as caught:
        process.execute()
    assert type(caught.value) is TimeoutError


@every_way
def test_retries_are_counted_and_each_attempt_knows_which_it_is(way):
    """And every attempt has a context of its own."""
    seen = []
    variable = contextvars.ContextVar("variable", default="clean")

    @task(retries=tenacity.Retrying(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_none()))
    async def flaky():
        seen.append((current_task().attempt, variable.get()))
        variable.set("soiled")
        await asyncio.sleep(0)
        if len(seen) < 3:
            raise ConnectionError
        return "well"

    process = Process("flaky", "parallel")
    process.add_task(flaky)
    assert way(process) == ["well"]
    assert seen == [(1, "clean"), (2, "clean"), (3, "clean")]
    assert process.last_run.outcomes[0].attempts == 3


def test_the_rules_of_a_retrying_hold_for_coroutines():
    """On results and exceptions, with its callbacks."""
    calls, told = [], []

    def rules(**more):
        return tenacity.Retrying(stop=tenacity.stop_after_attempt(2), wait=tenacity.wait_none(), **more)

    async def gives(value):
        calls.append(value)
        await asyncio.sleep(0)
        if isinstance(value, Exception):
            raise value
        return value

    process = Process("rules", on_error="stop")
    process.add_task(
        task(
            retries=rules(
                retry=tenacity.retry_if_result(bool),
                before_sleep=lambda state: told.append(state.attempt_number),
                retry_error_callback=lambda state: "given up",
            )
        )(gives),
        1,
    )
    process.add_task(task(retries=rules(retry=tenacity.retry_if_exception_type(KeyError)))(gives), 0)
    error = EOFError()
    process.add_task(task(retries=3, retry_on=KeyError)(gives), error)
    with pytest.raises(EOFError):
        process.execute()
    assert calls == [1, 1, 0, error]
    assert told == [1]
    assert process.last_run.outcomes[0].value == "given up"


def test_a_coroutine_that_takes_a_stream_by_for_is_told_how_it_is_taken():
    """It would hold up the loop that makes the elements."""

    async def total(numbers):
        return sum(number for number in numbers)

    process = Process("summed", "parallel", 2)
    process.task(total, stream(process.map(later, range(3))))
    with pytest.raises(TypeError, match="by `async for`"):
        process.execute()


@pytest.mark.parametrize("ends", ["cancel", "failure"])
def test_the_wait_between_attempts_ends_when_the_run_is_halted(ends):
    """It takes no thread, and the task has failed with what its last attempt raised."""
    waiting = threading.Event()

    @task(
        retries=tenacity.Retrying(
            wait=tenacity.wait_fixed(10_000), before_sleep=lambda _: waiting.set(), stop=tenacity.stop_never
        )
    )
    async def flaky():
        raise ConnectionError("again")

    async def fails():
        while not waiting.is_set():
            await asyncio.sleep(0.001)
        if ends == "failure":
            raise EOFError
        process.last_run.cancel()

    process = Process("halted", "parallel", 3)
    process.add_task(flaky)
    process.add_task(fails)
    with pytest.raises(EOFError if ends == "failure" else RunCancelledError):
        process.execute()
    outcome = process.last_run.outcomes[0]
    assert (outcome.state, outcome.attempts, str(outcome.error)) == ("failed", 1, "again")
    assert outcome.duration < 100
