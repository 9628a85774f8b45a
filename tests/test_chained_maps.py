"""Maps whose values are kept and that no task iterates over hand their elements on as well, wherever calls are made."""

import tempfile
from collections import deque
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from barriers import attend, attend_async, hall, quick, quick_async
from elsewhere import HERE, MADE, NEEDED, made_on
from errands import called, noted
from placed_jobs import wait_for_file
from procession import Limit, Process, RunCancelledError, TaskSkippedError, WorkerProcesses, task
from procession.journal import Journal
from procession.testing import recorded_calls
from single_tasks import no_backoff


@pytest.fixture(scope="module", params=[*HERE, *MADE])
def process_of(request):
    """Make a process whose calls are made on each executor, by two workers."""
    yield from made_on(request.param, "chained")


@pytest.fixture(scope="module", params=[name for name in (*HERE, *MADE) if name not in NEEDED])
def prompt_process_of(request):
    """The same where no call of a batch waits for long behind another one."""
    yield from made_on(request.param, "chained")


@pytest.fixture(scope="module", params=["worker processes", "threads of others"])
def quick_process_of(request):
    """The same, for so many workers as are asked for, on two executors on which a run takes little time."""
    with MADE[request.param]() as executor:
        yield partial(Process, "chained", "parallel", executor=executor)


# The second map begins while the first goes on


@pytest.mark.parametrize(
    ("function", "how"),
    [
        (attend_async, "plain"),
        *((attend, how) for how in ("plain", "recorded", "tried again", "limited", "in batches")),
    ],
)
def test_an_element_goes_on_while_others_have_not_ended(process_of, function, how, tmp_path):
    """Element 0 is in the second map while element 1 is still in the first, or they would not meet."""
    begun_by = {
        "tried again": task(retries=no_backoff(2))(function),
        "limited": task(limit=Limit(f"chained {tmp_path}", at_once=2))(function),
        "in batches": attend_each,
    }.get(how, function)
    size = {"batch": 1} if how == "in batches" else {}
    with hall() as at:
        meeting = at("both maps", 2)
        process = process_of(journal=tmp_path / "runs.db" if how == "recorded" else None)
        begun = process.map(begun_by, [[], [meeting]], **size)
        process.map(begun_by, [[meeting], []], begun, **size)
        assert process.execute() == [[1, 1], [2, 2]]


def attend_each(meetings, *values):
    return [attend(*each) for each in zip(meetings, *values, strict=True)]


def test_it_does_so_through_many_maps(prompt_process_of):
    """Of three elements through four maps, each waits for the one behind it, and that for nobody."""
    with hall() as at:
        process = prompt_process_of()
        rows = process.map(attend, [[], [at("first", 2)], []])
        rows = process.map(attend, [[at("first", 2)], [], [at("second", 2)]], rows)
        rows = process.map(attend, [[], [at("second", 2)], []], rows)
        process.map(attend, [[], [], []], rows)
        assert process.execute()[-1] == [4, 4, 4]


def test_it_does_so_where_the_first_map_draws_from_a_generator(process_of):
    """That gives its second element only when the second map has been called with the first."""

    def rows():
        yield [at("first map", 1)]
        attend([meeting])
        yield []

    with hall() as at:
        meeting = at("generator and second map", 2)
        process = process_of()
        begun = process.map(attend, rows())
        process.map(attend, [[meeting], []], begun)
        assert process.execute() == [[1, 1], [2, 2]]


def test_it_does_so_behind_much_that_is_ready(prompt_process_of):
    """The first map goes on for long, and other tasks stand between the two."""
    with hall() as at:
        meeting = at("both maps", 2)
        process = prompt_process_of()
        begun = process.map(attend, [[], *[[]] * 200, [meeting]])
        for number in range(50):
            process.add_task(quick, number)
        process.map(attend, [[meeting], *[[]] * 201], begun)
        assert process.execute()[-1] == [2] * 202


def test_it_does_so_where_its_constants_come_late(prompt_process_of):
    """They are the value of a task that ends while the first map goes on."""
    with hall() as at:
        early, late = at("task and first map", 2), at("both maps", 2)
        process = prompt_process_of()
        constant = process.task(attend, [early])
        begun = process.map(attend, [[], [early], [late]])
        process.map(attend_and_add, [[late], [], []], begun, constants={"more": constant})
        assert process.execute()[-1] == [3, 3, 3]


def attend_and_add(meetings, value, *, more):
    return attend(meetings, value) + more


@pytest.mark.parametrize("how", ["of a list", "of a generator", "with a constant"])
def test_the_first_map_runs_no_further_ahead_than_a_window(quick_process_of, how, tmp_path):
    """When the only worker makes the first call of the second map, it has made at most 64 of the first."""
    with hall() as at:
        look = at("test and second map", 2)
        process = quick_process_of(1)
        constants = {"constants": {"more": process.task(quick, 0)}} if how == "with a constant" else {}
        numbers = iter(range(300)) if how == "of a generator" else range(300)
        begun = process.map(partial(noted_and_same, tmp_path), numbers)
        process.map(attend_and_return, [[look, look], *[[]] * 299], begun, **constants)
        run = process.start()
        attend([look])
        assert 0 < called(tmp_path) <= 64
        attend([look])
        assert run.result()[-1] == list(range(300))


def attend_and_return(meetings, number, *, more=0):
    attend(meetings)
    return number + more


# What it comes to


@pytest.mark.parametrize("function", [quick, quick_async])
def test_results_stand_in_order(process_of, function):
    """Of more elements than a window has, through three maps, one of which takes two others side by side."""
    process = process_of()
    first = process.map(function, range(300))
    second = process.map(function, first)
    process.map(pair, first, second)
    process.task(sum, second)
    numbers = list(range(300))
    assert process.execute() == [numbers, numbers, [(number, number) for number in numbers], sum(numbers)]


def pair(*values):
    return values


@pytest.mark.parametrize("on_error", ["stop", "continue", "return"])
def test_a_failed_element_takes_only_its_own_successors(process_of, on_error):
    """Unless the run is to stop."""
    process = process_of(on_error=on_error)
    process.map(quick, process.map(fails_on_3, range(6)))
    if on_error == "return":
        begun, passed = process.execute()
        assert [type(value) for value in begun] == [int, int, int, KeyError, int, int]
        assert [type(value) for value in passed] == [int, int, int, TaskSkippedError, int, int]
        return
    with pytest.raises(KeyError if on_error == "stop" else ExceptionGroup):
        process.execute()
    states = [outcome.state for outcome in process.last_run.outcomes]
    assert states in (["failed", "skipped"], ["failed", "cancelled"]) if on_error == "stop" else ["failed", "skipped"]


def fails_on_3(number):
    if number == 3:
        raise KeyError(number)
    return number


def test_a_map_whose_source_fails_as_a_whole_is_skipped(process_of):
    """Elements that came before have been called; the run ends."""

    def numbers():
        yield from range(5)
        raise OSError("no more")

    process = process_of(on_error="return")
    process.map(quick, process.map(quick, numbers()))
    failed, skipped = process.execute()
    assert (type(failed), type(skipped)) == (OSError, TaskSkippedError)


def test_a_map_and_a_list_of_another_length_are_refused(process_of):
    """As everywhere."""
    process = process_of()
    process.map(pair, process.map(quick, range(5)), range(4))
    with pytest.raises(ValueError, match="equally long"):
        process.execute()


def test_a_cancelled_run_ends(process_of, tmp_path):
    """While both maps are called, by calls that end after that, or with their workers."""
    there = str(tmp_path / "cancelled")
    with hall() as at:
        meeting = at("both maps and the test", 3)
        process = process_of()
        begun = process.map(attend_and_wait, [[], [meeting], *[[]] * 100], [there] * 102)
        process.map(attend_and_wait, [[meeting], *[[]] * 101], [there] * 102, begun)
        run = process.start()
        attend([meeting])
        run.cancel()
        (tmp_path / "cancelled").touch()
        with pytest.raises(RunCancelledError):
            run.result()
        assert [outcome.state for outcome in run.outcomes] == ["cancelled", "cancelled"]


def attend_and_wait(meetings, path, _=None):
    attend(meetings)
    if meetings:
        wait_for_file(path)


def test_a_resumed_run_calls_only_what_is_missing(process_of, tmp_path):
    """An element of the second map has failed."""

    def built():
        process = process_of(journal=tmp_path / "runs.db", on_error="continue")
        process.map(partial(fails_once, tmp_path), process.map(partial(noted_and_same, tmp_path), range(20)))
        return process

    with pytest.raises(ExceptionGroup):
        built().execute(run_id="run")
    assert called(tmp_path) == 39
    assert built().execute(run_id="run") == [list(range(20))] * 2
    assert called(tmp_path) == 40


def noted_and_same(folder, number):
    noted(folder)
    return number


def fails_once(folder, number):
    if number == 7 and not (folder / "failed").exists():
        (folder / "failed").touch()
        raise ConnectionError
    return noted_and_same(folder, number)


def test_the_caller_follows_a_map_that_hands_on_its_elements(process_of):
    """Though it was not named as the run began."""
    process = process_of()
    begun = process.map(quick, range(100))
    ended = process.map(quick, begun)
    run = process.start()
    assert list(run.stream(begun)) == list(run.stream(ended)) == list(range(100))
    assert run.result() == [list(range(100))] * 2


# Generated plans


@st.composite
def plans(draw):
    """Return maps and tasks, each with the earlier maps that it takes and its options, and how many workers there are."""
    nodes = []
    for _ in range(draw(st.integers(2, 6))):
        maps = [place for place, (kind, *_) in enumerate(nodes) if kind == "map"]
        kind = draw(st.sampled_from(["map", "map", "map", "whole"])) if maps else "map"
        sources = draw(st.lists(st.sampled_from(maps), min_size=kind != "map", max_size=2)) if maps else []
        constant = [place for place, (kind, *_) in enumerate(nodes) if kind == "whole"]
        constant = draw(st.sampled_from([None, *constant])) if kind == "map" else None
        nodes.append((kind, sources, draw(st.sampled_from(["", "", "async", "batch", "lazy", "retries"])), constant))
    return nodes, draw(st.integers(1, 4)), draw(st.sampled_from([3, 64, 65, 200]))


def tuples(*lists, constant=None):
    return [(*row, constant) for row in zip(*lists, strict=True)]


def row(*values, constant=None):
    return (*values, constant)


async def row_async(*values, constant=None):
    return (*values, constant)


def made(plan, process):
    """Add the tasks of a plan to a process; return what a loop would give."""
    nodes, _, count = plan
    expected, handles = [], []
    for kind, sources, how, constant in nodes:
        if kind == "whole":
            expected.append(len(expected[sources[0]]))
            handles.append(process.task(len, handles[sources[0]]))
            continue
        value = None if constant is None else expected[constant]
        taken = [expected[source] for source in sources] or [range(count)]
        iterables = [handles[source] for source in sources] or [iter(range(count)) if how == "lazy" else range(count)]
        function = {"async": row_async, "batch": tuples, "retries": task(retries=no_backoff(2))(row)}.get(how, row)
        constants = {} if constant is None else {"constants": {"constant": handles[constant]}}
        handles.append(process.map(function, *iterables, batch=7 if how == "batch" else None, **constants))
        expected.append(tuples(*taken, constant=value))
    return expected


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(plan=plans(), recorded=st.booleans())
def test_generated_plans_end_with_what_a_loop_would_give(quick_process_of, plan, recorded):
    """However maps and whole lists follow from each other, how elements are called, and how many workers there are."""
    with tempfile.TemporaryDirectory() as folder:
        process = quick_process_of(plan[1], journal=Path(folder) / "runs.db" if recorded else None)
        expected = made(plan, process)
        assert process.execute() == expected


FAILING = set()
CALLED = deque()


def step(stage, *values):
    CALLED.append((stage, values[0][0]))
    if (stage, values[0][0]) in FAILING:
        raise OSError(f"stage {stage}, element {values[0][0]}")
    return values[0][0], sum(value for _, value in values) + 1


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(plan=plans(), policy=st.sampled_from(["stop", "continue", "return"]), data=st.data())
def test_a_generated_plan_that_failed_is_resumed_as_if_it_had_not(plan, policy, data):
    """Nothing that is recorded is called again."""
    nodes = [sources for kind, sources, *_ in plan[0] if kind == "map"]
    places = [place for place, (kind, *_) in enumerate(plan[0]) if kind == "map"]
    failing = data.draw(st.integers(0, len(nodes) - 1)), data.draw(st.integers(0, 4))

    def built(pool):
        process, handles, right = Process("chained", "parallel", 2, on_error=policy, executor=pool), [], []
        for stage, sources in enumerate(nodes):
            taken = [places.index(source) for source in sources]
            first = [(place, 0) for place in range(5)]
            handles.append(process.map(partial(step, stage), *([handles[at] for at in taken] or [first])))
            rows = [right[at] for at in taken] or [first]
            right.append([(place, sum(row[place][1] for row in rows) + 1) for place in range(5)])
        return process, right

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        path = Path(folder) / "runs.db"
        FAILING.add(failing)
        try:
            built(pool)[0].execute(run_id="run", journal=path)
        except (OSError, ExceptionGroup):
            assert policy != "return"
        finally:
            FAILING.clear()
        with Journal(path) as journal:
            recorded = {(stage, element) for _, stage, element in recorded_calls(journal) if element >= 0}
        CALLED.clear()
        process, right = built(pool)
        assert process.execute(run_id="run", journal=path) == right
        assert recorded.isdisjoint(CALLED)
        assert len(CALLED) == len(set(CALLED)) == 5 * len(nodes) - len(recorded)
