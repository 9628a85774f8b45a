"""A map whose taker returns early counts the elements that were called, wherever its run is shown."""

import itertools
import json
import threading
import time

import pytest

from procession import NotKept, Process, stream, task, unrecorded
from procession.cli.main import main
from procession.journal import Journal

CALLED = [itertools.count(), itertools.count()]


def first_stage(number):
    next(CALLED[0])
    return number


def second_stage(number):
    next(CALLED[1])
    return number


async def first_stage_async(number):
    return first_stage(number)


async def second_stage_async(number):
    return second_stage(number)


def take(elements):
    return [element for element, _ in zip(elements, range(70), strict=False)]


async def take_async(elements):
    taken = []
    async for element in elements:
        taken.append(element)
        if len(taken) == 70:
            return taken
    return None


PLAIN, AWAITED = (first_stage, second_stage, take), (first_stage_async, second_stage_async, take_async)


@pytest.fixture(params=[PLAIN, AWAITED], ids=["threads", "coroutines"])
def ended(request, tmp_path):
    """A completed run in which a task took 70 elements of two maps without an end; and how many these were called for."""
    CALLED[:] = itertools.count(), itertools.count()
    first, second, sink = request.param
    process = Process("early", "parallel", 3, journal=tmp_path / "runs.db")
    rows = process.map(task(keep=False)(second), process.map(task(keep=False)(first), itertools.count()))
    process.task(sink, stream(rows))
    values = process.execute(run_id="a")
    called = [next(count) for count in CALLED]
    assert min(called) >= 70
    assert values == [*map(NotKept, called), list(range(70))]
    return process.last_run, called


@pytest.mark.parametrize("_", range(10))
def test_the_run_counts_what_was_called(ended, _):
    """As ended, and as all there was."""
    run, called = ended
    assert [outcome.state for outcome in run.outcomes] == ["cancelled", "cancelled", "completed"]
    assert run.progress == (sum(called) + 1, 0, sum(called) + 1)


def test_show_says_that_the_map_was_cancelled_and_after_how_many(ended, tmp_path, capsys):
    """It is not to be gone on with, so it was not interrupted."""
    _, called = ended
    assert main(["show", "a", "--journal", str(tmp_path / "runs.db")]) == 0
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert f"{sum(called) + 1} of {sum(called) + 1} tasks ended" in head
    assert [row.split()[:1] + row.split()[4:] for row in rows[:2]] == [
        [str(number), "cancelled", "after", str(count), "elements"] for number, count in enumerate(called)
    ]
    assert main(["show", "a", "--json", "--journal", str(tmp_path / "runs.db")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["state"] for one in found["tasks"]] == ["cancelled", "cancelled", "completed"]
    assert found["run"]["progress"] == {"ended": sum(called) + 1, "failed": 0, "total": sum(called) + 1}


def test_a_map_that_a_later_execution_would_go_on_with_is_interrupted(tmp_path):
    """The run was cancelled, and not the map alone."""
    begun = threading.Event()
    process = Process("early", "parallel", 2, journal=tmp_path / "runs.db")
    rows = process.map(task(keep=False)(first_stage), itertools.count())

    def wait(elements, event):
        next(elements)
        event.set()
        for _ in elements:
            time.sleep(0.001)

    process.task(wait, stream(rows), unrecorded(begun))
    run = process.start(run_id="a")
    assert begun.wait(20)
    run.cancel()
    run.wait(20)
    with Journal(tmp_path / "runs.db") as journal, journal.reader() as reader:
        info = reader.run(reader.key("a"))
        assert reader.status(reader.key("a"), info, 0).state == "interrupted"


def test_a_cancelled_map_is_so_in_a_completed_run_in_which_something_has_failed(tmp_path, capsys):
    """A map that follows from what failed is interrupted: a later execution goes on with it."""

    def odd(number):
        if number % 2:
            raise ValueError(number)
        return number

    CALLED[:] = itertools.count(), itertools.count()
    process = Process("mixed", "parallel", 3, journal=tmp_path / "runs.db", on_error="return")
    rows = process.map(task(keep=False)(first_stage), itertools.count())
    process.task(take, stream(rows))
    process.map(second_stage, process.map(odd, range(10)))
    process.execute(run_id="a")
    assert [outcome.state for outcome in process.last_run.outcomes] == ["cancelled", "completed", "failed", "skipped"]
    assert main(["show", "a", "--json", "--journal", str(tmp_path / "runs.db")]) == 0
    found = [one["state"] for one in json.loads(capsys.readouterr().out)["tasks"]]
    assert found == ["cancelled", "completed", "failed", "interrupted"]
