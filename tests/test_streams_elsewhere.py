"""Elements go from map to map, and to who iterates over them, wherever their calls are made: see `barriers`."""

import itertools
import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context

import pytest

from barriers import attend, attend_async, hall, quick, quick_async
from elsewhere import MADE, made_on
from errands import called, noted
from placed_jobs import fetched, parsed
from procession import Limit, NotKept, Process, WorkerProcesses, current_task, stream, task
from single_tasks import no_backoff

WINDOW, TOGETHER = 64, 16


@pytest.fixture(scope="module", params=["processes", *MADE])
def process_of(request):
    """Make a process whose calls are made on each executor, by two workers."""
    yield from made_on(request.param, "elsewhere")


@pytest.mark.parametrize("function", [attend, attend_async])
def test_an_element_goes_on_while_others_have_not_ended(process_of, function):
    """Element 0 is in the second stage while element 1 is still in the first, or they would not meet."""
    with hall() as at:
        meeting = at("both stages", 2)
        process = process_of()
        begun = process.map(function, [[], [meeting]])
        process.task(list, stream(process.map(function, [[meeting], []], begun)))
        assert process.execute() == [[1, 1], [2, 2], [2, 2]]


@pytest.mark.parametrize("kind", ["function", "coroutine"])
def test_a_task_that_iterates_is_called_here_and_has_elements_as_they_end(process_of, kind):
    """It has the first one while the second is still being called."""

    def take(elements):
        first = next(elements)
        attend([meeting])
        return os.getpid(), [first, *elements]

    async def take_async(elements):
        taken = []
        async for element in elements:
            if not taken:
                await attend_async([meeting])
            taken.append(element)
        return os.getpid(), taken

    with hall() as at:
        meeting = at("map and sink", 2)
        process = process_of()
        begun = process.map(task(keep=False)(attend), [[], [meeting]])
        process.task(take if kind == "function" else take_async, stream(begun))
        kept, taken = process.execute()
        assert isinstance(kept, NotKept)
        assert taken == (os.getpid(), [1, 1])


def test_the_other_calls_are_made_elsewhere(process_of):
    """Those of maps and of plain tasks, before, in and after the pipeline."""
    threads = isinstance(process_of.keywords["executor"], ThreadPoolExecutor)
    process = process_of()
    alone = process.task(fetched, 7)
    pages = process.map(fetched, range(5))
    process.map(parsed, pages)
    process.task(parsed, alone)
    alone, pages, rows, after = process.execute()
    there = {alone[1], after[2], *(pid for _, pid in pages), *(pid for _, _, pid in rows)}
    assert (os.getpid() in there) == threads
    assert [row[0] for row in rows] == [0, 2, 4, 6, 8]


def test_the_caller_takes_elements_as_they_end(process_of):
    """Here the second one ends only once the caller has had the first."""
    with hall() as at:
        meeting = at("map and caller", 2)
        process = process_of()
        begun = process.map(attend, [[], [meeting]])
        with process.start(streams=[begun]) as run:
            elements = run.stream(begun)
            assert next(elements) == 1
            attend([meeting])
            assert list(elements) == [1]


@pytest.mark.parametrize("function", [quick, quick_async])
def test_elements_come_in_order_through_all_stages(process_of, function):
    """With more of them than are drawn ahead, in runs of many that travel together."""
    process = process_of()
    ended = process.map(quick, process.map(function, range(500)))
    process.task(list, stream(ended))
    assert process.execute() == [list(range(500))] * 3


def test_no_more_than_a_window_is_drawn_and_not_handed_on(process_of):
    """However quick the calls are; and all is drawn in the end."""
    drawn = []

    def numbers():
        for number in range(300):
            drawn.append(number)
            yield number

    def take(elements):
        ahead = [len(drawn) - taken for taken, _ in enumerate(elements, start=1)]
        return max(ahead), len(ahead)

    process = process_of()
    process.task(take, stream(process.map(task(keep=False)(quick), numbers())))
    ahead, taken = process.execute()[1]
    assert taken == 300
    assert ahead <= WINDOW + TOGETHER  # the last ones that were taken are counted together


def test_an_early_return_cancels_what_feeds_only_that_task(process_of):
    """Of a source without an end, through two stages; what is kept goes on."""
    process = process_of()
    endless = process.map(task(keep=False)(quick), itertools.count())
    process.task(two, stream(process.map(task(keep=False)(quick), endless)))
    kept = process.map(quick, range(200))
    process.task(two, stream(kept))
    first, second, taken, all_of_them, taken_of_kept = process.execute()
    assert taken == taken_of_kept == [0, 1]
    assert all_of_them == list(range(200))
    assert isinstance(first, NotKept)
    assert isinstance(second, NotKept)
    run = process.last_run
    assert [outcome.state for outcome in run.outcomes] == ["cancelled", "cancelled", *["completed"] * 3]
    assert run.progress == (first.count + second.count + 202, 0, first.count + second.count + 202)


def two(elements):
    return [next(elements), next(elements)]


def test_a_task_that_is_tried_again_reads_back_what_is_not_kept(process_of, tmp_path):
    """It has all elements once more, and none is called again."""
    process = process_of(journal=tmp_path / "runs.db")
    begun = process.map(task(keep=False)(partial(noted_and_same, tmp_path)), range(20))
    process.task(task(retries=no_backoff(2))(partial(fail_first, tmp_path)), stream(begun))
    assert process.execute(run_id="run")[1] == list(range(20))
    assert called(tmp_path) == 20


@pytest.mark.parametrize("on_error", ["stop", "continue", "return"])
def test_a_failed_element_takes_only_its_own_successors(process_of, on_error):
    """As everywhere: with its note, and the others go on unless the run is to stop."""
    process = process_of(on_error=on_error)
    begun = process.map(fails_on_3, range(6))
    process.task(list, stream(process.map(quick, begun)))
    if on_error == "return":
        _, passed, taken = process.execute()
        assert taken == [0, 1, 2, 4, 5] == [value for value in passed if isinstance(value, int)]
        return
    with pytest.raises(KeyError if on_error == "stop" else ExceptionGroup) as caught:
        process.execute()
    error = caught.value
    while isinstance(error, ExceptionGroup):
        (error,) = error.exceptions
    assert error.__notes__[-1] == "in process 'elsewhere', task 0 (map of fails_on_3), element 3, attempt 1"


def fails_on_3(number):
    if number == 3:
        raise KeyError(number)
    return number


def test_attempts_limits_and_what_calls_know_hold_as_everywhere(process_of):
    """Retries are made elsewhere, too."""
    process = process_of()
    limit = Limit("elsewhere", at_once=1)
    begun = process.map(task(retries=no_backoff(2), limit=limit, name="second {number}")(second_time), range(4))
    process.task(list, stream(begun))
    assert process.execute()[1] == [(0, number, 2, "map of second {number}") for number in range(4)]


def second_time(number):
    me = current_task()
    if me.attempt < 2:
        raise ConnectionError
    return me.index, me.element, me.attempt, me.name


def test_a_recorded_pipeline_calls_nothing_again_that_has_ended(process_of, tmp_path):
    """When the task that iterates over its elements has failed, and the run goes on."""

    def built():
        process = process_of(journal=tmp_path / "runs.db")
        begun = process.map(partial(noted_and_same, tmp_path), range(20))
        process.task(partial(fail_first, tmp_path), stream(process.map(quick, begun)))
        return process

    with pytest.raises(ConnectionError):
        built().execute(run_id="run")
    assert built().execute(run_id="run")[2] == list(range(20))
    assert called(tmp_path) == 20


def noted_and_same(folder, number):
    noted(folder)
    return number


def fail_first(folder, elements):
    taken = list(elements)
    if not (folder / "failed").exists():
        (folder / "failed").touch()
        raise ConnectionError
    return taken
