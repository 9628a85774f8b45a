"""Elements through stages: each goes on as soon as it may, in bounded memory, and nothing waits without end."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from procession import (
    HandleError,
    Limit,
    NotKept,
    Process,
    RunCancelledError,
    TaskTimeoutError,
    stream,
    task,
)
from procession._engine.map import ThreadMap
from stream_kinds import (  # noqa: F401 - a fixture among them
    AWAITED,
    PLAIN,
    WAIT_S,
    WINDOW,
    kinds,
    listed,
    listed_async,
    made,
    pair,
    twice,
    twice_async,
)


# Pipelines


def test_an_element_goes_on_while_others_have_not_ended(kinds):
    """Element 0 passes the second stage while element 1 is still in the first, which waits for that."""
    first, second, last = kinds
    passed = threading.Event()
    process = Process("passing", "parallel", 2)
    begun = process.map(made(first, lambda number: number if number == 0 else passed.wait(WAIT_S)), [0, 1])
    ended = process.map(made(second, lambda number: number or passed.set()), begun)
    process.task(last["sink"], stream(ended))
    assert process.execute() == [[0, True], [None, True], [None, True]]


def test_with_one_worker_elements_go_on_before_new_ones_begin(kinds):
    """What has begun is finished first, so that little is in flight."""
    first, second, _ = kinds
    order = []

    def slow(name):
        def call(number):
            time.sleep(0.002)
            order.append(name)
            return number

        return call

    process = Process("one by one", "parallel", 1)
    begun = process.map(task(keep=False)(made(first, slow("first"))), range(20))
    process.map(made(second, slow("second")), begun)
    process.execute()
    assert "second" in order[:18]


def test_an_element_of_several_maps_waits_for_those_at_its_place(kinds):
    """Maps side by side, a list among them, and one map twice."""
    first, second, last = kinds
    process = Process("side by side", "parallel", 3)
    one = process.map(first["map"], range(100))
    two = process.map(second["map"], one)
    process.map(last["pair"], one, two, range(100), one)
    results = process.execute()
    assert results[2] == [(2 * n, 4 * n, n, 2 * n) for n in range(100)]


@pytest.mark.parametrize("others", [range(99), range(101), [0]])
def test_maps_of_unequal_length_are_refused(others, kinds):
    """Whichever is the longer one."""
    first, _, last = kinds
    process = Process("uneven", "parallel", 3)
    process.map(last["pair"], process.map(first["map"], range(100)), others)
    with pytest.raises(ValueError, match="must be equally long"):
        process.execute()


def test_two_maps_of_unequal_length_are_refused(kinds):
    """Their lengths are known only when they have ended."""
    first, second, last = kinds
    process = Process("uneven", "parallel", 3)
    process.map(last["pair"], process.map(first["map"], range(300)), process.map(second["map"], range(5)))
    with pytest.raises(ValueError, match="must be equally long"):
        process.execute()


def test_a_coroutine_that_an_element_returns_fails_it():
    """It is not handed on as a value."""

    async def unawaited():
        """Do nothing."""

    process = Process("unawaited", "parallel", 2)
    process.map(twice, process.map(lambda _: unawaited(), [1]))
    with pytest.raises(TypeError, match="nobody awaits"):
        process.execute()


# Sinks


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("count", [0, 1, WINDOW, WINDOW + 1, 300])
def test_a_sink_gets_all_elements_in_order(count, workers, kinds):
    """With one worker, too, whose place it lends; others take the list, and what it returns."""
    first, second, last = kinds
    process = Process("in order", "parallel", workers)
    doubled = process.map(second["map"], process.map(first["map"], range(count)))
    taken = process.task(last["sink"], stream(doubled))
    process.task(len, taken)
    process.task(len, doubled)
    assert process.execute()[1:] == [[4 * n for n in range(count)]] * 2 + [count] * 2


def test_a_sink_gets_an_element_while_the_map_goes_on(kinds):
    """The last element waits until the sink has had the first."""
    first, _, last = kinds
    had = threading.Event()

    def take(elements):
        numbers = []
        for element in elements:
            numbers.append(element)
            had.set()
        return numbers

    async def take_async(elements):
        numbers = []
        async for element in elements:
            numbers.append(element)
            had.set()
        return numbers

    process = Process("while", "parallel", 2)
    begun = process.map(made(first, lambda number: number if number == 0 else had.wait(WAIT_S)), [0, 1])
    process.task(take if last is PLAIN else take_async, stream(begun))
    assert process.execute() == [[0, True], [0, True]]


def test_no_more_than_a_window_is_drawn_and_not_handed_on(kinds):
    """However fast the map is, and exactly that much if the sink is slow."""
    first, _, last = kinds
    drawn, ahead = itertools.count(), []
    source = ((number, ahead.append(next(drawn)))[0] for number in range(1000))

    def take(elements):
        return most([element for number, element in enumerate(elements) if not pause(number)])

    async def take_async(elements):
        number = 0
        async for _ in elements:
            pause(number)
            number += 1
        return most(number)

    def pause(number):
        if number < 10:
            time.sleep(0.005)
        assert len(ahead) - (number + 1) <= WINDOW
        return False

    def most(_):
        return len(ahead)

    process = Process("window", "parallel", 2)
    process.task(take if last is PLAIN else take_async, stream(process.map(first["map"], source)))
    assert process.execute()[1] == 1000


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("first_one", [0, 1])
def test_two_streams_of_one_task_are_read_in_any_order(first_one, workers):
    """Though one follows from the other, and either has more elements than a window."""

    def one_after_the_other(*streams):
        return list(streams[first_one]), list(streams[1 - first_one])

    process = Process("two", "parallel", workers)
    doubled = process.map(twice, range(500))
    again = process.map(twice, doubled)
    process.task(one_after_the_other, stream(doubled), stream(again))
    taken = process.execute()[-1]
    assert [sum(elements) for elements in sorted(taken)] == [sum(range(500)) * 2, sum(range(500)) * 4]


def test_a_map_that_is_taken_twice_by_one_task_gives_each_stream_all_elements(kinds):
    """They are read one after the other, or in turn."""
    first, _, _ = kinds

    def take(one, other, *, third):
        return list(one), list(zip(other, third, strict=True))

    process = Process("twice", "parallel", 2)
    doubled = process.map(first["map"], range(200))
    process.task(take, stream(doubled), stream(doubled), third=stream(doubled))
    values, taken = process.execute()
    assert taken == (values, list(zip(values, values, strict=True)))


def test_a_sink_is_not_kept_waiting_by_a_slow_element_of_another_stage(kinds):
    """An element that is late in the first stage finds room in the second, whatever others are there already."""
    first, second, last = kinds
    gate = threading.Event()

    def late(number):
        if number == 5:
            gate.wait(0.05)
        return number

    process = Process("late", "parallel", 4)
    handed = process.map(made(first, late), range(400))
    for _ in range(2):
        handed = process.map(second["map"], handed)
    process.task(last["sink"], stream(handed))
    assert process.execute()[-1] == [4 * n for n in range(400)]


def test_a_sink_that_takes_another_value_begins_when_that_is_there(kinds):
    """Values before it are held until then; where the other value follows from the map, all are."""
    first, _, last = kinds

    def take(elements, other):
        return sum(elements), other

    process = Process("late", "parallel", 2)
    doubled = process.map(first["map"], range(200))
    ready = process.task(time.sleep, 0.02)
    process.task(take, stream(doubled), ready)
    process.task(take, stream(doubled), process.task(last["sink"], stream(doubled)))
    values = process.execute()
    assert values[2] == (sum(values[0]), None)
    assert values[4] == (sum(values[0]), values[0])


def test_no_more_than_max_workers_calls_are_made_beside_waiting_sinks(kinds):
    """A sink that goes on counts, one that waits does not."""
    first, second, _ = kinds
    lock, here, most = threading.Lock(), [], []

    def count(value):
        with lock:
            here.append(1)
            most.append(len(here))
        time.sleep(0.001)
        with lock:
            here.pop()
        return value

    def take(elements):
        return [count(element) for element in elements]

    process = Process("bounded", "parallel", 2)
    doubled = process.map(made(second, count), process.map(made(first, count), range(50)))
    for _ in range(3):
        process.task(take, stream(doubled))
    assert process.execute()[2:] == [list(range(50))] * 3
    assert max(most) <= 2


def test_a_sink_may_take_longer_than_its_timeout_only_to_fail(kinds):
    """Waiting for elements counts. Nothing is left behind that keeps the run from ending."""
    first, _, last = kinds
    gate = threading.Event()
    process = Process("timed", "parallel", 3, on_error="return")
    begun = process.map(made(first, lambda number: number or gate.wait(WAIT_S)), [1, 0, 0])
    process.task(task(timeout=0.1)(last["sink"]), stream(begun))
    run = process.start()
    assert next(iter(run)).index == 1
    gate.set()
    values, error = run.result(WAIT_S)
    assert values == [1, True, True]
    assert isinstance(error, TaskTimeoutError)


def test_a_cancelled_run_ends_while_a_sink_waits(kinds):
    """The sink does not wait for elements that will never come."""
    first, _, last = kinds
    begun, gate = threading.Event(), threading.Event()
    process = Process("cancelled", "parallel", 2)
    process.task(last["sink"], stream(process.map(made(first, lambda _: begun.set() or gate.wait(0.2)), range(10))))
    run = process.start()
    assert begun.wait(WAIT_S)
    run.cancel()
    with pytest.raises(RunCancelledError):
        run.result(WAIT_S)


def test_elements_are_called_while_their_source_keeps_its_worker_waiting():
    """Though another map that the caller follows always has something to do for the other worker."""
    calls, waits, over = [], threading.Event(), threading.Event()

    def note(number):
        calls.append(number)
        if waits.is_set():
            over.set()

    def source():
        """Yield numbers until two are drawn together; then wait until the first of these is called."""
        for number in itertools.count():
            if number and number - 1 not in calls:
                waits.set()
                assert number - 1 in calls or over.wait(WAIT_S)
                over.set()
                return
            yield number

    def others():
        while not over.is_set():
            yield 0

    process = Process("waiting", "parallel", 2)
    followed = process.map(note, source()), process.map(twice, others())
    process.start(streams=followed).result(WAIT_S + 5)


def test_a_coroutine_gets_elements_of_plain_calls_before_the_window_is_full():
    """Though the only worker could go on with the map."""
    calls, ahead = [], []

    def slow(number):
        time.sleep(0.005)
        calls.append(number)

    async def note(elements):
        async for _ in elements:
            ahead.append(len(calls) - len(ahead))

    process = Process("coroutine", "parallel", 1)
    process.task(note, stream(process.map(slow, range(2 * WINDOW))))
    process.execute()
    assert max(ahead) < WINDOW // 2


def test_a_map_began_with_its_first_element_however_often_workers_come_in_vain(monkeypatch):
    """Also one that sleeps when the run is cancelled."""
    sleeps, started, in_vain, gate, starts = ThreadMap._sleeps.fget, *(threading.Event() for _ in range(3)), []

    def noted(job):
        found = sleeps(job)
        if found:
            in_vain.set()
        return found

    def note(_):
        assert started.wait(WAIT_S)
        starts.append(run.outcomes[1].start)

    monkeypatch.setattr(ThreadMap, "_sleeps", property(noted))
    process = Process("begun", "parallel", 2)
    process.map(note, process.map(lambda number: number and gate.wait(WAIT_S), [0, 1]))
    run = process.start()
    started.set()
    assert in_vain.wait(WAIT_S)
    run.cancel()
    gate.set()
    assert run.wait(WAIT_S)
    assert [run.outcomes[1].start] == starts


def test_a_sink_has_a_limit_like_any_other_task(kinds):
    """Two take turns; one whose cost makes no sense fails, and leaves the map alone."""
    first, _, last = kinds
    process = Process("limited", "parallel", 2, on_error="return")
    doubled = process.map(first["map"], range(100))
    one = task(limit=Limit("one sink", at_once=1))(last["sink"])
    process.task(one, stream(doubled))
    process.task(one, stream(doubled))
    process.task(task(limit=Limit("senseless", rate=1, cost=lambda _: -1))(last["sink"]), stream(doubled))
    values, *taken, error = process.execute()
    assert taken == [values, values]
    assert isinstance(error, ValueError)


# Recorded runs


def noted(name, number):
    CALLS.append((name, number))
    return number


def once(number):
    return noted("first", number)


async def once_async(number):
    return once(number)


def again(number):
    return noted("second", number)


def breaks_once(elements):
    taken = []
    for element in elements:
        taken.append(element)
        if len(taken) == 50 and not CALLS.count("broken"):
            CALLS.append("broken")
            raise OSError("the disk is full")
    return taken


CALLS = []


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("first", [once, once_async])
def test_a_recorded_pipeline_calls_nothing_again_that_has_ended(first, keep, tmp_path):
    """The sink that had not ended is called again, with the whole stream; then nothing is."""
    CALLS.clear()
    for failing in True, False, False:
        process = Process("recorded", "parallel", 2, journal=tmp_path / "runs.db")
        numbers = process.map(again, process.map(task(keep=keep)(first), range(200)))
        process.task(breaks_once, stream(numbers))
        if failing:
            with pytest.raises(OSError, match="full"):
                process.execute(run_id="a")
            assert CALLS.index("broken") < 400  # while the maps went on
        else:
            first_values, second_values, taken = process.execute(run_id="a")
            assert first_values == (list(range(200)) if keep else NotKept(200))
            assert second_values == taken == list(range(200))
    assert len(CALLS) == len(set(CALLS)) == 401


# Where there is no pipeline


EVERYWHERE = [
    *itertools.product(["threads", "executor"], ["sequential", "hybrid", "parallel"], [False, True]),
    ("processes", "parallel", True),
]


@pytest.mark.parametrize(("executor", "strategy", "recorded"), EVERYWHERE)
def test_a_stream_gives_the_same_elements_everywhere(executor, strategy, recorded, tmp_path):
    """In order, on other executors and in recorded runs a task begins when the map has ended."""
    with ThreadPoolExecutor(2) as pool:
        process = Process("everywhere", strategy, 2, executor=pool if executor == "executor" else executor)
        doubled = process.map(twice, range(10))
        process.task(listed, stream(doubled))
        process.task(listed_async, elements=stream(process.map(twice_async, doubled)))
        options = {"journal": tmp_path / "runs.db", "run_id": "a"} if recorded else {}
        expected = [[2 * n for n in range(10)]] * 2 + [[4 * n for n in range(10)]] * 2
        assert process.execute(**options) == expected
        assert process.execute(**options) == expected


# Bad input


def test_what_is_no_stream_is_refused_at_once():
    """By what was passed, and with what would be right."""
    process, other = Process("bad", "parallel"), Process("other", "parallel")
    doubled = process.map(twice, [1])
    for wrong in [1, 2], process.task(len, "a"), stream(doubled):
        with pytest.raises(TypeError, match=r"stream\(...\) takes the handle"):
            stream(wrong)
    with pytest.raises(HandleError, match="another process"):
        other.task(listed, stream(doubled))
    with pytest.raises(HandleError, match="a map takes the handle itself"):
        process.map(twice, stream(doubled))
    with pytest.raises(HandleError, match="stay a handle"):
        process.task(len, [stream(doubled)])
    with pytest.raises(HandleError, match="iteration"):
        list(stream(doubled))


def test_unkept_elements_for_a_task_that_begins_too_late_are_refused():
    """It takes the value of another task that needs all of them first."""
    process = Process("bad", "parallel")
    doubled = process.map(task(keep=False)(twice), range(3))
    process.task(max, stream(doubled), process.task(listed, stream(doubled)))
    with pytest.raises(ValueError, match="cannot begin"):
        process.execute()
    assert process.status == "failed"


def test_unkept_values_cannot_be_asked_for():
    """`run[handle]` says so."""
    process = Process("bad", "parallel")
    doubled = process.map(task(keep=False)(twice), [1])
    run = process.start()
    with pytest.raises(HandleError, match="not kept"):
        run[doubled]
    run.wait(WAIT_S)


@pytest.mark.parametrize("keep", [None, 0, "no"])
def test_keep_is_true_or_false(keep):
    """Nothing else can be meant."""
    with pytest.raises(TypeError, match="True or False"):
        task(keep=keep)


# Generated plans


@st.composite
def pipelines(draw):
    """Return maps and sinks, each with the earlier maps that it takes, and how many workers there are."""
    nodes = []
    for _ in range(draw(st.integers(1, 6))):
        maps = [place for place, (kind, _, _) in enumerate(nodes) if kind == "map"]
        kind = draw(st.sampled_from(["map", "map", "sink", "whole"])) if maps else "map"
        sources = draw(st.lists(st.sampled_from(maps), min_size=kind != "map", max_size=2)) if maps else []
        nodes.append((kind, sources, draw(st.booleans())))
    return nodes, draw(st.integers(1, 4)), draw(st.sampled_from([3, 64, 65, 200]))


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(pipelines())
def test_generated_pipelines_end_with_what_a_loop_would_give(plan):
    """However maps, sinks and whole lists follow from each other, and how many workers there are."""
    nodes, workers, count = plan
    process, expected, handles = Process("generated", "parallel", workers), [], []
    for kind, sources, awaited in nodes:
        functions = AWAITED if awaited else PLAIN
        taken = [expected[source] for source in sources]
        if kind == "map":
            iterables = [handles[source] for source in sources] or [range(count)]
            expected.append(list(zip(*(taken or [range(count)]), strict=True)))
            handles.append(process.map(functions["pair"], *iterables))
        elif kind == "sink":
            expected.append(taken[0])
            handles.append(process.task(functions["sink"], stream(handles[sources[0]])))
        else:
            expected.append(len(taken[0]))
            handles.append(process.task(len, handles[sources[0]]))
    assert process.execute() == expected
