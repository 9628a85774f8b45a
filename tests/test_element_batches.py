"""`map(..., batch=N)`: a function gets lists of elements, and all else goes by element, on every engine."""

import collections
import itertools
import re
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barriers import hall
from batched_calls import (
    ENGINES,
    HERE,
    Engine,
    asks,
    at_last,
    attend,
    attend_each,
    but_13,
    counting,
    engine_of,
    meet,
    one_less,
    sizes,
    sums,
)
from crashing import piped, tens
from errands import called, noted
from logging_tasks import LOGGER
from observing import Kept
from procession import (
    Limit,
    NotKept,
    PlanChangedError,
    Process,
    ResultError,
    TaskSkippedError,
    TaskTimeoutError,
    current_task,
    stream,
    task,
)
from procession.journal import Journal
from procession.testing import crash_everywhere, memory_journal
from single_tasks import no_backoff
from task_logs import handler, logs

__all__ = ["handler"]

NEEDED = {"dask": "distributed", "ray": "ray"}
STRATEGIES = ["sequential", "parallel"]

every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)


@pytest.fixture(scope="module", params=ENGINES)
def engine(request):
    """Each kind of engine."""
    if request.param in NEEDED:
        pytest.importorskip(NEEDED[request.param])
    with engine_of(request.param) as made:
        yield made


@pytest.fixture(params=HERE)
def here(request):
    """Each kind of engine that makes its calls in this process."""
    return Engine(request.param)


# What calls get and give


@every_strategy
def test_results_are_those_of_a_plain_map(engine, strategy):
    """From lists, generators, handles and several iterables, with constants, in lists and generators."""
    process = engine.process(strategy)
    first = engine.map(process, tens, range(25), batch=4)
    lazy = engine.map(process, tens, (n for n in range(25)), batch=7, constants={"plus": 1})
    both = engine.map(process, sums, first, lazy, batch=3)
    none = engine.map(process, tens, [], batch=4)
    total = process.task(sum, both)
    run = process.start()
    run.result()
    assert run[first] == [10 * n for n in range(25)]
    assert run[both] == [20 * n + 1 for n in range(25)]
    assert run[none] == []
    assert run[total] == sum(20 * n + 1 for n in range(25))


@every_strategy
@pytest.mark.parametrize(("count", "batch"), [(10, 4), (64, 50), (300, 100), (3, 1), (5, 10)])
def test_batches_of_a_list_are_full_but_for_the_last(engine, strategy, count, batch):
    """Each call has as many elements as it may have."""
    process = engine.process(strategy)
    engine.map(process, sizes, range(count), batch=batch)
    assert process.execute()[-1] == [batch] * (count - count % batch) + [count % batch] * (count % batch)


def test_batches_stay_full_though_elements_are_taken_one_by_one(here):
    """There is room for a whole batch, or none is drawn."""
    process = here.process()
    handle = here.map(process, sizes, range(1200), options={"keep": False}, batch=30)
    process.task(list, stream(handle))
    assert process.execute()[-1] == [30] * 1200


def test_in_order_batches_of_a_slow_iterable_are_full_too(here):
    """Nobody could take what is there meanwhile."""

    def slow():
        for number in range(7):
            threading.Event().wait(0.003)
            yield number

    process = here.process("sequential")
    here.map(process, sizes, slow(), batch=3)
    (found,) = process.execute()[-1:]
    # An event loop has another thread draw, and takes what is there.
    assert found == [3, 3, 3, 3, 3, 3, 1] if here.name == "threads" else all(1 <= size <= 3 for size in found)


def test_an_iterable_that_waits_for_what_becomes_of_its_elements_gets_it(engine):
    """A batch that is not full is called while the next element is a while in coming."""
    followed, taken = threading.Event(), []

    def elements():
        yield 0
        yield 1
        assert followed.wait(20)
        elements = taken.pop()
        assert [next(elements), next(elements)] == [0, 10]
        yield 2

    process = engine.process()
    handle = engine.map(process, tens, elements(), batch=100)
    with process.start(streams=[handle]) as run:
        taken.append(run.stream(handle))
        followed.set()
        assert run.result()[-1] == [0, 10, 20]


def test_several_batches_are_in_flight_at_once(engine):
    """As many as there are workers, however large they are."""
    with hall() as at:
        process = engine.process()
        engine.map(process, meet, [at("two", 2)] * 400, batch=100)
        assert process.execute()[-1] == [1] * 400


def test_all_workers_are_on_a_map_whose_elements_others_take(here):
    """There is room for a batch of each, and for the next one."""
    with hall() as at:
        process = here.process(workers=6)
        handle = here.map(process, meet, [at("five", 5)] * 1000, options={"keep": False}, batch=100)
        process.task(sum, stream(handle))
        assert process.execute()[-1] == 1000


def test_no_more_is_drawn_than_two_batches_for_each_worker(here):
    """Though those who take the elements take their time; and no less than without batches."""
    drawn, given = [], []

    def numbers():
        for number in range(1000):
            drawn.append(number)
            yield number

    def take(elements):
        for element in elements:
            given.append(element)
            # Those that are handed out together are counted together.
            assert len(drawn) - len(given) <= 2 * 2 * 50 + 16
        return len(given)

    process = here.process(workers=2)
    handle = here.map(process, tens, numbers(), options={"keep": False}, batch=50)
    process.task(take, stream(handle))
    assert process.execute()[-1] == 1000


# Other numbers of results


def test_another_number_of_results_than_elements_fails_the_call(engine):
    """With an error that names both, and a note that names the elements."""
    process = engine.process()
    engine.map(process, one_less, range(8), batch=4)
    with pytest.raises(ValueError, match=r"one_less\w* returned 3 results for 4 elements") as caught:
        process.execute()
    note = r"in process 'batches', task \d \(map of one_less\w*\), elements (0 to 3|4 to 7), attempt 1"
    assert any(re.fullmatch(note, one) for one in caught.value.__notes__)


class DataFrame:
    """Iterates over its columns, as those of pandas and polars."""

    def __iter__(self):
        return iter("ab")


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (None, TypeError, "an object of type NoneType, which cannot be iterated, for 2 elements"),
        (3, TypeError, "an object of type int, which cannot be iterated"),
        ("ab", TypeError, "an object of type str for 2 elements"),
        (b"ab", TypeError, "an object of type bytes"),
        ({"a": 1, "b": 2}, TypeError, "an object of type dict"),
        ({1, 2}, TypeError, "an object of type set"),
        (DataFrame(), TypeError, "an object of type DataFrame"),
        ([1, 2, 3], ValueError, "3 results for 2 elements"),
        ([], ValueError, "0 results for 2 elements"),
        (iter([1]), ValueError, "1 results for 2 elements"),
        (itertools.count(), ValueError, "more than 2 results for 2 elements"),
    ],
)
def test_what_holds_no_result_for_each_element_is_refused(value, error, said):
    """Plainly, also where it could be iterated."""
    process = Process("wrong")
    process.map(lambda _: value, [1, 2], batch=2)
    with pytest.raises(error, match=said):
        process.execute()


class Indexed:
    def __getitem__(self, place):
        return [5, 6][place]


@pytest.mark.parametrize(
    "value",
    [(n for n in (5, 6)), collections.deque([5, 6]), {5: 7, 6: 8}.keys(), Indexed()],
    ids=lambda value: type(value).__name__,
)
def test_any_iterable_with_the_right_number_will_do(value):
    """Generators, deques, views, and objects that are iterated by index."""
    process = Process("right")
    process.map(lambda _: value, [1, 2], batch=2)
    assert process.execute() == [[5, 6]]


def test_a_row_of_an_array_is_a_result():
    """As an element is of an array of one dimension."""
    numpy = pytest.importorskip("numpy")
    process = Process("rows")
    process.map(lambda numbers: numpy.array(numbers) * 2, range(5), batch=2)
    process.map(lambda numbers: numpy.array([[number, number] for number in numbers]), range(5), batch=2)
    doubled, rows = process.execute()
    assert doubled == [0, 2, 4, 6, 8]
    assert [row.tolist() for row in rows] == [[n, n] for n in range(5)]


def test_a_generator_that_raises_fails_its_call():
    """It is gone through in the attempt, whose retries it has."""
    attempts = []

    @task(retries=no_backoff(2))
    def breaks_once(numbers):
        attempts.append(current_task().attempt)
        yield numbers[0]
        if attempts[-1] == 1:
            raise OSError("broken")
        yield from numbers[1:]

    process = Process("broken")
    process.map(breaks_once, range(3), batch=3)
    assert process.execute() == [[0, 1, 2]]
    assert attempts == [1, 2]


def test_a_coroutine_among_the_results_fails_the_call(here):
    """Nobody would await it."""

    async def later(number):
        return number

    def plain(numbers):
        return [later(number) for number in numbers]

    async def awaited(numbers):
        return [later(number) for number in numbers]

    process = here.process()
    process.map(awaited if here.name == "loop" else plain, [1, 2], batch=2)
    with pytest.raises(TypeError, match="for element 0, it returned a coroutine"):
        process.execute()


@pytest.mark.parametrize(
    ("batch", "error"), [(0, ValueError), (-3, ValueError), (True, TypeError), (2.0, TypeError), ("2", TypeError)]
)
def test_what_is_no_number_of_elements_is_refused_at_once(batch, error):
    """The message says what is wanted."""
    with pytest.raises(error, match=r"task 0 \(tens\): map\(batch=...\) takes a number of"):
        Process("refused").map(tens, [1], batch=batch)


# Failures, attempts, limits


def failure_in(caught):
    """Return the one failure, whatever groups it is in."""
    error = caught.value
    while isinstance(error, ExceptionGroup):
        (error,) = error.exceptions
    return error


@pytest.mark.parametrize("on_error", ["stop", "continue"])
def test_a_call_that_fails_is_one_failure(engine, on_error):
    """Whose note names all of its elements."""
    process = engine.process(on_error=on_error)
    engine.map(process, but_13, range(30), batch=10)
    with pytest.raises(KeyError if on_error == "stop" else ExceptionGroup) as caught:
        process.execute()
    error = failure_in(caught)
    assert re.search(r"task \d \(map of but_13\w*\), elements 10 to 19, attempt 1", error.__notes__[-1])
    if on_error == "continue":
        assert re.search(r"10 of 30 elements of map of but_13\w* failed", str(caught.value.exceptions))


def test_all_elements_of_a_failed_call_have_failed_and_no_others(engine):
    """What follows from the others goes on."""
    process = engine.process(on_error="return")
    begun = engine.map(process, but_13, range(30), batch=10)
    ended = engine.map(process, tens, begun, batch=4)
    process.task(list, stream(ended))
    first, second, taken = process.execute()[-3:]
    assert all(isinstance(one, KeyError) and one is first[10] for one in first[10:20])
    assert first[:10] + first[20:] == [n for n in range(30) if not 10 <= n < 20]
    assert all(isinstance(one, TaskSkippedError) for one in second[10:20])
    assert taken == [10 * n for n in range(30) if not 10 <= n < 20]


@every_strategy
def test_a_call_is_attempted_again_as_a_whole(engine, strategy):
    """With all of its elements, whatever the attempt before has done to its lists; it says the first of them."""
    process = engine.process(strategy)
    engine.map(process, at_last, range(5), options={"retries": no_backoff(2)}, batch=3)
    assert process.execute()[-1] == [(0, 2, 3)] * 3 + [(3, 2, 2)] * 2


def test_retry_rules_see_the_function_and_its_lists(engine):
    """As those of any call."""
    seen = []
    rules = no_backoff(2, before_sleep=lambda state: seen.append((state.fn.__name__, len(state.args))))
    process = engine.process()
    engine.map(process, at_last, range(3), options={"retries": rules}, batch=3)
    process.execute()
    assert seen == [("at_last_later" if engine.name == "loop" else "at_last", 1)]


def test_a_limit_counts_a_call_once_and_weighs_its_lists(engine):
    """Its cost gets the arguments of the call."""
    weighed = []

    def cost(numbers):
        weighed.append(tuple(numbers))
        return len(numbers)

    process = engine.process()
    limit = Limit("weighed", rate=1000, per=1.0, cost=cost)
    engine.map(process, tens, range(10), options={"limit": limit}, batch=4)
    engine.map(process, tens, range(10), options={"limit": Limit("one", at_once=1), "retries": 1}, batch=4)
    assert process.execute()[-2:] == [[10 * n for n in range(10)]] * 2
    assert sorted(set(weighed)) == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9)]


@pytest.mark.parametrize("name", ["threads", "loop", "processes"])
def test_a_call_has_one_timeout(name):
    """All of its elements fail with it."""
    with hall() as at, engine_of(name) as engine:
        process = engine.process(on_error="return")
        engine.map(process, meet, [at("never", 9)] * 3, options={"timeout": 0.3}, batch=3)
        (results,) = process.execute()
        at.end()
    assert [type(result) for result in results] == [TaskTimeoutError] * 3


# Streams


def test_elements_go_on_one_by_one(engine):
    """To who iterates, to the caller, and to maps with other batches and without; kept or not."""
    process = engine.process()
    begun = engine.map(process, tens, range(100), options={"keep": False}, batch=8)
    ended = engine.map(process, tens, begun, batch=16)
    process.task(list, stream(ended))
    process.map(str, ended)
    expected = [100 * n for n in range(100)]
    with process.start(streams=[ended]) as run:
        assert list(run.stream(ended)) == expected
        results = run.result()[-4:]
    assert results == [NotKept(100), expected, expected, list(map(str, expected))]


def test_a_batch_of_another_map_is_not_waited_for(engine):
    """Element 0 is in the second stage while element 1 is still in the first, or they would not meet."""
    with hall() as at:
        meeting = at("both stages", 2)
        process = engine.process()
        begun = engine.map(process, attend, [[], [meeting]], options={"keep": False})
        ended = engine.map(process, attend_each, [[meeting], []], begun, batch=100)
        process.task(list, stream(ended))
        assert process.execute()[-1] == [2, 2]


@pytest.mark.parametrize("workers", [1, 4])
def test_a_long_pipeline_of_batches_ends_whatever_their_sizes(here, workers):
    """With other ones in each stage, and one stage without."""
    process = here.process(workers=workers)
    handle = here.map(process, tens, range(2000), options={"keep": False}, batch=300)
    handle = here.map(process, tens, handle, options={"keep": False}, batch=7)
    handle = process.map(task(keep=False)(abs), handle)
    handle = here.map(process, tens, handle, options={"keep": False}, batch=128)
    process.task(sum, stream(handle))
    assert process.execute()[-1] == sum(1000 * n for n in range(2000))


# What a call knows, and what is told of it


@pytest.mark.parametrize("name", ["threads", "loop", "mixed", "processes", "pool"])
def test_recorded_calls_in_it_are_refused(name):
    """When the call is made again, it may have other elements."""
    with engine_of(name) as engine:
        process = engine.process()
        engine.map(process, asks, range(4), batch=2)
        with pytest.raises(RuntimeError, match=r"a call of a map with batch=... makes no recorded calls"):
            process.execute()


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (lambda me: me.map(abs, [1]), "makes no recorded calls"),
        (lambda me: me.wait_for("approval"), "waits for no answer"),
        (lambda me: me.sleep(61), "does not sleep for more than a minute"),
        (lambda me: me.key, "has no key"),
    ],
)
def test_what_belongs_to_one_element_is_refused(use, said):
    """Plainly, in a run with a journal."""

    def uses(numbers):
        use(current_task())
        return numbers

    process = Process("refused")
    process.map(uses, range(4), batch=2)
    with memory_journal() as journal, pytest.raises(RuntimeError, match=said):
        process.execute(journal=journal)


def test_observers_are_told_of_each_element(here):
    """That it starts, and that it ends."""
    observer = Kept()
    observer.immediate = True
    process = here.process(observers=[observer])
    here.map(process, tens, range(10), batch=4)
    process.execute()
    for name in "element_started", "element_completed":
        assert sorted(event.element for event in observer.events if event.name == name) == list(range(10))


def test_progress_and_timeline_count_elements(engine):
    """Those that have ended, those that failed, and all that there are."""
    process = engine.process(on_error="return")
    before = len(process.tasks)
    engine.map(process, but_13, range(20), batch=8)
    process.execute()
    run = process.last_run
    assert (run.progress.ended, run.progress.failed, run.progress.total) == (20 + before, 8, 20 + before)
    spans = [span for span in run.timeline().spans if span.index == before]
    assert (sum(span.elements for span in spans), sum(span.failed for span in spans)) == (20, 8)


def test_called_directly_it_gives_the_list():
    """As the callable of any map."""
    process = Process("direct")
    process.map(tens, range(5), constants={"plus": 1}, batch=2)
    function, args, kwargs = process.tasks[0]
    assert function(*args, **kwargs) == [1, 11, 21, 31, 41]


# In recorded runs


@pytest.fixture
def sheet(tmp_path):
    """A folder where calls are noted."""
    folder = tmp_path / "sheet"
    folder.mkdir()
    return folder


def set_wrong(sheet, *numbers):
    """Have the calls of these elements fail, and of no others."""
    for file in sheet.glob("callswrong*"):
        file.unlink()
    for number in numbers:
        noted(sheet, f"wrong{number}")


def execute(engine, sheet, numbers, batch, **more):
    """Execute a run whose calls are noted; return the list of its map, and what a stream of it gave."""
    process = engine.process(on_error="return")
    handle = engine.map(process, counting, [str(sheet)] * len(numbers), numbers, batch=batch)
    process.task(list, stream(handle))
    return process.execute(run_id="one", journal=sheet.parent / "runs.db", **more)[-2:]


@pytest.mark.parametrize("again", [1, 3, 5, 100])
def test_a_run_is_gone_on_with_in_batches_of_another_size(engine, sheet, again):
    """Only elements that are not recorded are called, and a batch of which some are shrinks to the others."""
    missing = {2, 3, 6, 7, 8}
    set_wrong(sheet, *missing)
    results, taken = execute(engine, sheet, range(12), 1)
    assert {at for at, result in enumerate(results) if isinstance(result, KeyError)} == missing
    assert taken == [10 * number for number in range(12) if number not in missing]
    assert called(sheet) == 12
    set_wrong(sheet)
    expected = [10 * number for number in range(12)]
    assert execute(engine, sheet, range(12), again) == [expected, expected]
    assert [called(sheet, number) for number in range(12)] == [1 + (number in missing) for number in range(12)]
    assert called(sheet) - 12 == len({number // again for number in missing})
    assert execute(engine, sheet, range(12), 2) == [expected, expected]
    assert called(sheet) - 12 == len({number // again for number in missing})


def test_elements_of_a_failed_call_are_all_called_again(engine, sheet):
    """None of them is recorded as completed."""
    set_wrong(sheet, 5)
    results, _ = execute(engine, sheet, range(12), 4)
    assert [isinstance(result, KeyError) for result in results] == [False] * 4 + [True] * 4 + [False] * 4
    with Journal(sheet.parent / "runs.db") as journal:
        failed = journal.tasks("one", task=1 if engine.name == "mixed" else 0, state="failed")
    assert [one.index if one.element is None else one.element for one in failed] == [4, 5, 6, 7]
    set_wrong(sheet)
    execute(engine, sheet, range(12), 4)
    assert [called(sheet, number) for number in range(12)] == [1] * 4 + [2] * 4 + [1] * 4


def test_changed_elements_are_refused_or_called_again_alone(engine, sheet):
    """And those that are only at another place are not."""
    set_wrong(sheet, 9)
    execute(engine, sheet, [1, 2, 3, 4, 5, 9], 3)
    assert [called(sheet, number) for number in (1, 2, 3, 4, 5)] == [1] * 5
    with pytest.raises(PlanChangedError):
        execute(engine, sheet, [1, 2, 30, 4, 5, 9], 3)
    set_wrong(sheet)
    numbers = [3, 2, 30, 4, 5, 9]
    results, _ = execute(engine, sheet, numbers, 3, allow_changes=True)
    assert results == [10 * number for number in numbers]
    assert [called(sheet, number) for number in (2, 3, 30)] == [1, 1, 1]


def test_a_result_that_cannot_be_recorded_fails_the_whole_call(tmp_path):
    """None of its elements is recorded, and the error says which it was."""
    process = Process("recorded", on_error="return")
    process.map(lambda numbers: [threading.Lock() if n == 2 else n for n in numbers], range(6), batch=3)
    (results,) = process.execute(run_id="one", journal=tmp_path / "runs.db")
    assert [type(one) for one in results] == [ResultError] * 3 + [int] * 3
    assert "it is the result for element 2" in results[0].__notes__


def pausing(numbers):
    threading.Event().wait(0.1)
    return numbers


def test_elements_share_the_time_of_their_call(engine, tmp_path):
    """So it is not counted once for each."""
    process = Process("timed", executor=engine.executor)
    process.map(pausing, range(4), batch=4)
    process.execute(run_id="one", journal=tmp_path / "runs.db")
    with Journal(tmp_path / "runs.db") as journal:
        elements = journal.tasks("one", task=0)
        (whole,) = journal.tasks("one")
    assert len({one.started_at for one in elements}) == 4
    assert 0.09 <= sum(one.duration for one in elements) <= 1.5 * whole.duration


@pytest.mark.usefixtures("handler")
def test_what_a_call_has_logged_stands_at_its_first_element(here, sheet):
    """The first of those that it was called with."""

    def logs_and_fails(numbers):
        LOGGER.warning("called with %s", numbers)
        if any(called(sheet, f"wrong{number}") for number in numbers):
            raise KeyError
        return numbers

    async def logs_and_fails_later(numbers):
        return logs_and_fails(numbers)

    def logged(batch):
        process = Process("logged", on_error="return")
        function = logs_and_fails_later if here.name == "loop" else logs_and_fails
        process.map(task(name="logs")(function), range(4), batch=batch)
        process.execute(run_id="one", journal=sheet.parent / "runs.db")
        return logs(sheet.parent / "runs.db", "one", task=0)

    set_wrong(sheet, 1, 2)
    assert all(text.endswith(f"called with [{place}]") for place, text in logged(1).items())
    set_wrong(sheet)
    found = logged(4)
    assert found[1].endswith("called with [1, 2]")
    assert found[2] is None


@pytest.mark.timeout(170)
def test_a_crash_after_any_write_loses_nothing():
    """Nor is anything called again that was recorded."""
    report = crash_everywhere(piped)
    assert report.results == [[10 * n for n in range(7)], [100 * n for n in range(7)], 2100]
    assert report.crashes >= 5


# All at once


@settings(max_examples=80)
@given(
    numbers=st.lists(st.integers(0, 40), max_size=40),
    batches=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    wrong=st.sets(st.integers(0, 43), max_size=2),
    name=st.sampled_from(HERE),
    strategy=st.sampled_from(STRATEGIES),
    lazy=st.booleans(),
)
def test_any_pipeline_comes_to_what_plain_loops_do(numbers, batches, wrong, name, strategy, lazy):
    """Elements whose call fails, fail with it; what follows from the others is theirs."""

    def plus_one(values):
        if wrong & set(values):
            raise KeyError
        return [value + 1 for value in values]

    async def plus_one_later(values):
        return plus_one(values)

    process = Engine(name).process(strategy, workers=3, on_error="return")
    handle = iter(numbers) if lazy else numbers
    for batch in batches:
        handle = process.map(plus_one_later if name == "loop" else plus_one, handle, batch=batch)
    results = process.execute()[-len(batches) :]
    before = numbers
    for values in results:
        if isinstance(values, TaskSkippedError):  # in order, it takes the whole list, of which some have failed
            assert strategy == "sequential"
            return
        # Which elements are in a call may vary, but not what becomes of those that are called.
        assert len(values) == len(before)
        for value, taken in zip(values, before, strict=True):
            if isinstance(taken, Exception):
                assert isinstance(value, TaskSkippedError)
            elif isinstance(value, Exception):
                assert isinstance(value, KeyError)
                assert wrong & {one for one in before if not isinstance(one, Exception)}
            else:
                assert value == taken + 1
                assert taken not in wrong
        before = values
    if not lazy:
        size = batches[0]
        calls = [numbers[start : start + size] for start in range(0, len(numbers), size)]
        failed = [bool(wrong & set(call)) for call in calls for _ in call]
        assert [isinstance(value, KeyError) for value in results[0]] == failed
