"""What a failure means in a map: of an element, of an iterable, of what it waits for."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from failing_tasks import POLICIES, STRATEGIES, caught_from, same, states, throw
from procession import Process, TaskSkippedError, stream, task


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_map_stops_at_its_first_failure(strategy):
    """Nothing new starts, and the note names the element."""
    begun = []

    def each(number):
        begun.append(number)
        if number == 3:
            raise KeyError("no")

    process = Process("map", strategy, 1)
    process.map(each, range(100))
    error = caught_from(process)
    assert error.__notes__ == [f"in process 'map', task 0 (map of {each.__qualname__}), element 3, attempt 1"]
    assert begun == [0, 1, 2, 3]
    assert states(process) == ["failed"]


@pytest.mark.parametrize("workers", [1, 4])
def test_a_map_that_continues_raises_the_failures_of_its_elements_in_order(workers):
    """As a group inside the group of the process; the elements that are well still ran."""
    done = []

    def each(number):
        if number % 3 == 0:
            raise KeyError(number)
        done.append(number)

    process = Process("map", "parallel", workers, on_error="continue")
    process.map(each, range(10))
    process.add_task(done.append, "beside")
    group = caught_from(process)
    assert type(group) is ExceptionGroup
    (inner,) = group.exceptions
    assert type(inner) is ExceptionGroup
    assert [error.args for error in inner.exceptions] == [(0,), (3,), (6,), (9,)]
    assert "element 3," in inner.exceptions[1].__notes__[0]
    assert "4 of 10 elements" in str(inner)
    assert set(done) == {1, 2, 4, 5, 7, 8, "beside"}


@pytest.mark.parametrize("workers", [1, 4])
def test_a_map_that_returns_has_the_exceptions_in_their_places(workers):
    """The map itself has failed, so that what waits for it is skipped: nothing gets an error for a value."""
    errors = {number: KeyError(number) for number in (1, 4)}

    def each(number):
        if number in errors:
            raise errors[number]
        return number

    process = Process("map", "parallel", workers, on_error="return")
    mapped = process.map(each, range(6))
    process.add_task(len, mapped)
    results, skipped = process.execute()
    assert results == [0, errors[1], 2, 3, errors[4], 5]
    assert isinstance(skipped, TaskSkippedError)
    assert "element 4," in errors[4].__notes__[0]
    assert states(process) == ["failed", "skipped"]
    with pytest.raises(ExceptionGroup, match=r"2 of 6 elements of .*each failed") as caught:
        process.last_run[mapped]
    assert list(caught.value.exceptions) == [errors[1], errors[4]]
    assert process.status == "completed"


def test_tasks_in_order_do_not_go_on_from_a_map_that_returns_exceptions():
    """It has not succeeded, as no task has that failed."""
    process = Process("map", "hybrid", on_error="return")
    process.map(throw, [KeyError("no")])
    for _ in range(3):
        process.add_task(same, 1)
    first, *rest = process.execute()
    assert type(first[0]) is KeyError
    assert [type(result) for result in rest] == [TaskSkippedError] * 3


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_element_that_raises_no_exception_stops_the_run(policy, error):
    """Under every policy, as itself."""
    raised, begun = error("now"), []

    def each(number):
        begun.append(number)
        if number == 2:
            raise raised

    process = Process("map", "parallel", 1, on_error=policy)
    process.map(each, range(50))
    assert caught_from(process) is raised
    assert begun == [0, 1, 2]
    assert process.status == "failed"


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("place", [0, 1, 70])
def test_an_iterable_that_raises_midway_fails_its_map(strategy, workers, place):
    """As itself; the elements before the error may have run, none after."""
    raised, seen = LookupError("source"), []

    def source():
        yield from range(place)
        raise raised

    process = Process("source", strategy, workers)
    process.map(seen.append, source())
    assert caught_from(process) is raised
    assert raised.__notes__[0].startswith("in process 'source', task 0 (map of list.append)")
    assert set(seen) <= set(range(place))
    assert process.status == "failed"


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_lazy_iterables_of_unequal_length_are_told_when_the_shortest_ends(strategy, workers):
    """A ValueError that names process, task and how far it came."""
    process = Process("uneven", strategy, workers)
    process.map(max, iter(range(100)), (number for number in range(90)))
    with pytest.raises(ValueError, match=r"process 'uneven', task 0 \(map of max\).*equally long.*90") as caught:
        process.execute()
    assert "zip" not in str(caught.value)
    assert process.status == "failed"


def test_a_map_over_what_a_handle_turned_out_to_be_is_told_plainly():
    """No iterable, or one of another length."""
    process = Process("late")
    number = process.task(same, 3)
    process.map(same, number)
    with pytest.raises(TypeError, match="cannot be iterated: int"):
        process.execute()
    process = Process("late")
    three = process.task(same, [1, 2, 3])
    process.map(max, three, [1, 2])
    with pytest.raises(ValueError, match="equally long; got lengths 2, 3"):
        process.execute()


class Table:
    """Iterated, it gives its columns; its length is the number of its rows."""

    def __len__(self):
        return 90

    def __iter__(self):
        return iter("ab")


class Stream(Table):
    def __len__(self):
        raise TypeError("the length is unknown")


class Broken(Table):
    def __len__(self):
        raise RuntimeError("the connection is gone")


class Endless(Table):
    __len__ = None


class Record(Sequence):
    """A sequence whose length can be asked only once it is open."""

    def __len__(self):
        raise OSError("closed")

    def __getitem__(self, place):
        return "ab"[place]


@pytest.mark.parametrize("kind", [Table, Stream, Broken, Endless, Record])
@pytest.mark.parametrize("executor", ["threads", "given"])
def test_a_length_that_is_unknown_or_of_something_else_stands_in_no_maps_way(kind, executor):
    """Only sequences, sets and mappings say by their length how many elements they have."""
    with ThreadPoolExecutor(2) as pool:
        process = Process("tables", "parallel", 2, executor=pool if executor == "given" else "threads")
        process.map("{}{}".format, kind(), [1, 2])
        process.map(str.upper, process.task(kind))
        assert process.execute()[::2] == [["a1", "b2"], ["A", "B"]]
        assert process.last_run.progress == (5, 0, 5)


@pytest.mark.parametrize("policy", ["continue", "return"])
def test_a_map_of_a_failed_handle_is_skipped(policy):
    """Its function is never called."""
    called = []
    process = Process("fed", "parallel", on_error=policy)
    broken = process.task(throw, KeyError("no"))
    process.map(called.append, broken)
    process.start().wait(20)
    assert called == []
    assert states(process) == ["failed", "skipped"]


class Unusable:
    """Cannot be iterated."""

    def __iter__(self):
        raise OSError("the source is gone")


async def same_async(value):
    return value


def drained(elements):
    return list(elements)


async def drained_async(elements):
    return [element async for element in elements]


@pytest.mark.parametrize("sink", [drained, drained_async])
@pytest.mark.parametrize("function", [same, same_async])
def test_who_takes_elements_of_a_map_that_cannot_begin_is_skipped(function, sink):
    """Nobody waits for them, and a map has not completed without any."""
    process = Process("map", "parallel", 2, on_error="return")
    begun = process.map(function, Unusable())
    process.map(function, begun)
    process.add_task(sink, stream(begun))
    error, *taken = process.execute()
    assert [type(error), *map(type, taken)] == [OSError, TaskSkippedError, TaskSkippedError]
    assert states(process) == ["failed", "skipped", "skipped"]


def fail_at_three(number):
    if number == 3:
        raise ValueError("three")
    return number


def first(*values):
    return values[0]


@pytest.mark.parametrize(
    ("where", "placed", "keep", "beside", "by_element"),
    [
        ("threads", None, True, None, True),
        ("threads", "processes", True, None, True),
        ("processes", None, False, None, True),
        ("processes", None, True, None, True),
        ("threads", None, True, "generator", False),
        ("threads", None, True, "value", False),
        ("threads", None, True, "list", True),
    ],
)
def test_what_follows_from_a_failed_element_is_skipped_or_all_where_whole_lists_go(
    where, placed, keep, beside, by_element
):
    """Whole lists go to a map that draws from a generator or a value, too."""
    process = Process("skips", "parallel", 2, executor=where, on_error="return")
    value = process.task(list, range(5))
    options = task(executor=placed)
    numbers = process.map(task(keep=keep)(options(fail_at_three)), range(5))
    others = {"generator": (number for number in range(5)), "list": [*range(5)], "value": value}
    rows = [numbers] if beside is None else [numbers, others[beside]]
    process.map(options(first), *rows)
    result = process.execute()[-1]
    if by_element:
        assert [type(one) for one in result] == [int, int, int, TaskSkippedError, int]
    else:
        assert isinstance(result, TaskSkippedError)
