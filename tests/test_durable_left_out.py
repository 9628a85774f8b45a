"""What a recorded run has made without elements that failed: it is made again with them, and nothing else is."""

import itertools
from collections import deque
from functools import partial
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import pipelines
from procession import Process, current_task, stream, task
from procession.errors import JournalError
from procession.journal import Journal
from procession.testing import failing_journal, memory_journal, recorded_calls

BROKEN = set()
"""The elements that fail at the moment, each by a stage and its place."""

MADE = deque()


@pytest.fixture(autouse=True)
def nothing_before():
    BROKEN.clear()
    MADE.clear()


def made():
    """Return what was called since the last time, in the order of its places."""
    names = sorted(MADE, key=str)
    MADE.clear()
    return names


def fetch(number):
    MADE.append(number)
    if number in BROKEN:
        raise ConnectionError(f"{number} is down")
    return number


async def fetch_async(number):
    return fetch(number)


def write(rows):
    MADE.append("write")
    return sum(rows)


async def write_async(rows):
    MADE.append("write")
    return sum([row async for row in rows])


def find(rows):
    """Return the first that is above 0."""
    MADE.append("find")
    return next(row for row in rows if row > 0)


def after(value):
    MADE.append("after")
    return [value, value]


def twice(value):
    return [value, value]


def same(value):
    return value


def pages(process, fetch=fetch):
    return process.map(fetch, range(4))


def a_sink(process):
    process.add_task(after, process.task(write, stream(pages(process))))


def a_sink_of_values_that_are_not_kept(process):
    process.add_task(after, process.task(write, stream(pages(process, task(keep=False)(fetch)))))


def a_sink_of_a_pipeline(process):
    process.add_task(after, process.task(write, stream(process.map(same, process.map(same, pages(process))))))


def a_sink_that_awaits(process):
    process.add_task(after, process.task(write_async, stream(pages(process, fetch_async))))


def a_map_of_what_a_sink_returned(process):
    process.map(same, process.task(after, process.task(write, stream(pages(process)))))


def a_sink_of_nested_runs(process):
    inner = Process("inner")
    inner.add_task(fetch, 1)
    process.add_task(after, process.task(write, stream(process.map(alone, [0, 1, 2, 3]))))


def alone(number):
    inner = Process("inner")
    inner.add_task(fetch, number)
    return current_task().call(inner)[0]


def a_sink_in_a_nested_run(process):
    inner = Process("inner", "parallel", 2, on_error="continue")
    a_sink(inner)
    process.add_task(inner)


def a_sink_in_a_run_that_a_task_calls(process):
    process.add_task(calls_a_process)


def calls_a_process():
    inner = Process("inner", "parallel", 2, on_error="continue")
    a_sink(inner)
    return current_task().call(inner)


CONSUMERS = [
    a_sink,
    a_sink_of_values_that_are_not_kept,
    a_sink_of_a_pipeline,
    a_sink_that_awaits,
    a_map_of_what_a_sink_returned,
    a_sink_of_nested_runs,
    a_sink_in_a_nested_run,
    a_sink_in_a_run_that_a_task_calls,
]


def built(consumer, on_error="return"):
    process = Process("pages", "parallel", 2, on_error=on_error)
    consumer(process)
    return process


@pytest.mark.parametrize("consumer", CONSUMERS, ids=lambda consumer: consumer.__name__)
@pytest.mark.parametrize("on_error", ["return", "continue"])
def test_what_was_made_without_an_element_is_made_again_with_it(consumer, on_error, where):
    """The results are those of a run in which nothing ever failed; no page that was there is fetched again."""
    expected = shown(built(consumer).execute())
    made()
    BROKEN.add(1)
    try:
        assert shown(built(consumer, on_error).execute(run_id="a", journal=where)) != expected
    except ExceptionGroup:
        assert on_error == "continue"
    made()
    BROKEN.clear()
    assert shown(built(consumer, on_error).execute(run_id="a", journal=where)) == expected
    assert made() == [1, "after", "write"]
    assert shown(built(consumer, on_error).execute(run_id="a", journal=where)) == expected
    assert made() == []


def shown(results):
    """Return results that can be compared."""
    return [str(result) for result in results]


@pytest.mark.parametrize("changes", [False, True])
def test_what_found_what_it_sought_looks_again_at_what_it_was_not_given(changes, where):
    """It stopped early, and might have stopped earlier: its map was cancelled, and is drawn from again."""

    def run(**options):
        process = Process("search", "parallel", 1, on_error="return")
        numbers = range(200) if changes else itertools.count()
        process.add_task(find, stream(process.map(task(keep=False)(fetch), numbers)))
        return process.execute(run_id="a", journal=where, **options)[-1]

    BROKEN.add(1)
    assert run() == 2
    BROKEN.clear()
    assert run(allow_changes=changes) == 1
    assert run() == 1


def test_what_stopped_early_is_not_called_again_where_nothing_was_left_out(where):
    """Though its map was cancelled, and never completes."""

    def run():
        process = Process("search", "parallel", 1, on_error="return")
        process.add_task(find, stream(process.map(task(keep=False)(fetch), itertools.count())))
        return process.execute(run_id="a", journal=where)[-1]

    assert run() == 1
    made()
    assert run() == 1
    assert made() == []


@pytest.mark.parametrize("keep", [True, False])
def test_a_map_goes_on_though_what_took_its_elements_is_recorded(keep, where):
    """Nobody waits for a task that will take nothing more."""

    def run():
        process = Process("search", "parallel", 2)
        found = process.task(find, stream(process.map(task(keep=keep)(fetch), range(300))))
        process.add_task(answer, found)
        return process.execute(run_id="a", journal=where)[1:]

    BROKEN.add("answer")
    with pytest.raises(ConnectionError):
        run()
    BROKEN.clear()
    made()
    assert run() == [1, 1]
    assert "find" not in made()


def answer(value):
    if "answer" in BROKEN:
        raise ConnectionError
    return value


def test_what_stopped_early_is_called_again_where_elements_may_have_changed(where):
    """A generator gives others, and changes are allowed."""

    def run(first, **options):
        process = Process("search", "parallel", 1)
        numbers = (first + number for number in range(200))
        process.add_task(find, stream(process.map(task(keep=False)(fetch), numbers)))
        return process.execute(run_id="a", journal=where, **options)[-1]

    assert run(3) == 3
    assert run(5, allow_changes=True) == 5


def test_what_shares_an_object_with_a_sink_is_called_again_with_it(where):
    """The sink alone would see the object as it was at first."""

    def run():
        rows = [10]
        process = Process("shared", "parallel", 1, on_error="return")
        process.add_task(append_all, rows, stream(pages(process)))
        process.add_task(append_all, rows, [7])
        return process.execute(run_id="a", journal=where)

    BROKEN.add(1)
    run()
    BROKEN.clear()
    assert sorted(max(run()[1:], key=len)) == [0, 1, 2, 3, 7, 10]


def append_all(rows, others):
    rows.extend(others)
    return list(rows)


@given(pipelines(streams=2), st.data())
@settings(max_examples=60, deadline=None)
def test_any_pipeline_comes_to_what_its_elements_say_however_often_it_is_executed(plan, data):
    """Elements fail and are mended, writes to the journal fail: no task is completed with other elements than there are."""
    places = st.tuples(st.integers(0, len(plan) - 1), st.integers(0, 5))
    with memory_journal() as journal:
        for _ in range(data.draw(st.integers(1, 3))):
            BROKEN.clear()
            BROKEN.update(data.draw(st.sets(places, max_size=3)))
            check(plan, journal, data.draw(st.sampled_from([None, None, 3, 6, 10])))
        BROKEN.clear()
        check(plan, journal)
        made()
        check(plan, journal)
        assert made() == []


def check(plan, journal, at=None):
    """Execute a plan, with a write that fails; compare what comes of it with what a few lines say."""
    known = recorded_calls(journal)
    process = pipeline(plan)
    if at is not None:
        with failing_journal(at):
            try:
                results = process.execute(run_id="a", journal=journal)
            except JournalError:
                return
    else:
        results = process.execute(run_id="a", journal=journal)
    good = []
    for stage, (taken, is_map, _) in enumerate(plan):
        here = set(range(6)).intersection(*(good[source] for source in taken)) if is_map else set()
        good.append({at for at in here if (stage, at) not in BROKEN or ("a", place(plan, stage), at) in known})
    for stage, (taken, is_map, stop) in enumerate(plan):
        result = results[place(plan, stage)]
        if is_map:
            assert [value for value in result if not isinstance(value, Exception)] == sorted(good[stage])
        else:
            expected = [sorted(good[source])[:stop] for source in taken]
            assert result == expected
            assert results[place(plan, stage) + 1] == [expected, expected]


def place(plan, stage):
    """Return the place of a stage among the tasks: behind each that takes streams there is another."""
    return stage + sum(not is_map for _, is_map, _ in plan[:stage])


def pipeline(plan):
    process, handles = Process("generated", "parallel", 3, on_error="return"), []
    for stage, (taken, is_map, stop) in enumerate(plan):
        sources = [handles[source] for source in taken]
        if is_map:
            handles.append(process.map(partial(element, stage), *(sources or [range(6)])))
        else:
            handles.append(process.task(partial(read, stop), *map(stream, sources)))
            process.add_task(after, handles[-1])
    return process


def element(stage, *numbers):
    MADE.append((stage, numbers[0]))
    if (stage, numbers[0]) in BROKEN:
        raise ConnectionError
    return numbers[0]


def read(stop, *streams):
    MADE.append("read")
    return [list(islice(one, stop)) for one in streams]
