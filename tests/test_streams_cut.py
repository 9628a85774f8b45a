"""A map that fails as a whole, two stages before a task that takes elements as they end: the task is not completed."""

from collections import deque

import pytest

from procession import Process, stream

SUMS = deque()


def numbers():
    """Yield elements, and fail where there should be more."""
    yield from range(150)
    raise OSError("the source is gone")


def same(number):
    return number


def write(rows):
    SUMS.append(sum(rows))
    return SUMS[-1]


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_a_sink_does_not_take_what_came_for_all_there_is(stages):
    """However many maps there are in between."""
    SUMS.clear()
    process = Process("cut", "parallel", 3, on_error="continue")
    rows = process.map(same, numbers())
    for _ in range(stages - 1):
        rows = process.map(same, rows)
    process.add_task(write, stream(rows))
    with pytest.raises(ExceptionGroup):
        process.execute()
    assert [outcome.state for outcome in process.last_run.outcomes] == ["failed", *["skipped"] * stages]
    assert not SUMS
