"""Elements through stages: what becomes of the others when one fails, or the map or the sink does."""

import pytest

from procession import (
    Process,
    TaskSkippedError,
    stream,
    task,
)
from stream_kinds import PLAIN, kinds, made, twice  # noqa: F401 - a fixture


@pytest.mark.parametrize("on_error", ["continue", "return"])
def test_a_failed_element_takes_only_its_own_successors(on_error, kinds):
    """Good elements pass; a sink gets these; who takes a whole list with holes is skipped."""
    first, second, last = kinds
    process = Process("holes", "parallel", 2, on_error=on_error)
    odd = process.map(first["odd"], range(6))
    doubled = process.map(second["map"], odd)
    process.map(first["map"], doubled)
    process.task(last["sink"], stream(doubled))
    process.task(len, doubled)
    if on_error == "return":
        failed, skipped, further, taken, whole = process.execute()
        assert [type(value) for value in failed] == [ValueError, int] * 3
        assert [type(value) for value in skipped] == [TaskSkippedError, int] * 3
        assert [type(value) for value in further] == [TaskSkippedError, int] * 3
        assert taken == [2, 6, 10]
        assert isinstance(whole, TaskSkippedError)
    else:
        with pytest.raises(ExceptionGroup) as caught:
            process.execute()
        assert len(caught.value.exceptions) == 1  # of the map that failed
    states = [outcome.state for outcome in process.last_run.outcomes]
    assert states == ["failed", "skipped", "skipped", "completed", "skipped"]


def breaking(count):
    yield from range(count)
    raise OSError("the source is gone")


@pytest.mark.parametrize("on_error", ["continue", "return"])
def test_a_sink_of_a_map_that_fails_as_a_whole_is_skipped(on_error, kinds):
    """Even if it has made something of the elements it had: it would be a wrong value."""
    first, second, last = kinds
    process = Process("gone", "parallel", 2, on_error=on_error)
    begun = process.map(first["map"], breaking(10))
    process.task(last["sink"], stream(begun))
    process.map(second["map"], begun)
    if on_error == "return":
        error, taken, mapped = process.execute()
        assert [type(error), type(taken), type(mapped)] == [OSError, TaskSkippedError, TaskSkippedError]
    else:
        with pytest.raises(ExceptionGroup):
            process.execute()
    assert [outcome.state for outcome in process.last_run.outcomes] == ["failed", "skipped", "skipped"]


def test_a_failure_ends_the_run_while_a_sink_waits(kinds):
    """The failure is raised as itself, and the sink is told to stop."""
    first, _, last = kinds
    process = Process("failing", "parallel", 2)
    process.task(last["sink"], stream(process.map(first["odd"], [1, 2, *range(3, 100, 2)])))
    with pytest.raises(ValueError, match="2"):
        process.execute()
    assert process.last_run.outcomes[1].state != "completed"


def test_a_sink_that_fails_leaves_the_map_to_the_others():
    """Under "return", what is kept goes on."""

    def fail(elements):
        raise ValueError(next(elements))

    process = Process("sink fails", "parallel", 2, on_error="return")
    doubled = process.map(twice, range(200))
    process.task(fail, stream(doubled))
    values, error = process.execute()
    assert values == [2 * n for n in range(200)]
    assert isinstance(error, ValueError)


def test_a_retried_sink_gets_the_whole_stream_again(kinds):
    """Values that are kept are there for each attempt."""
    first, _, last = kinds
    attempts = []

    def third(elements):
        attempts.append(list(elements))
        if len(attempts) < 3:
            raise ConnectionError
        return len(attempts)

    async def third_async(elements):
        return third([element async for element in elements])

    process = Process("again", "parallel", 2)
    function = third if last is PLAIN else third_async
    process.task(task(retries=2)(function), stream(process.map(first["map"], range(100))))
    assert process.execute()[1] == 3
    assert attempts == [[2 * n for n in range(100)]] * 3
