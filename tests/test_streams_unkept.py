"""Elements through stages whose values are not kept: let go as soon as all have taken them, and not before."""

import gc
import itertools
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from procession import (
    NotKept,
    Process,
    stream,
    task,
)
from stream_kinds import PLAIN, WAIT_S, WINDOW, kinds, made, pair, twice  # noqa: F401 - a fixture


def test_values_that_are_not_kept_are_let_go(kinds):
    """At most a window of them is there at any time, and the results say how many there were."""
    first, second, last = kinds

    class Value:
        alive = weakref.WeakSet()

        def __init__(self, number):
            self.number = number
            Value.alive.add(self)

    most = []

    def make(number):
        most.append(len(Value.alive))
        return Value(number)

    def number_of(value):
        return value.number

    process = Process("let go", "parallel", 2)
    values = process.map(task(keep=False)(made(first, make)), range(500))
    numbers = process.map(task(keep=False)(made(second, number_of)), values)
    process.task(last["sink"], stream(numbers))
    assert process.execute() == [NotKept(500), NotKept(500), list(range(500))]
    assert max(most) <= 2 * WINDOW + 4
    gc.collect()
    assert not Value.alive


def test_failures_among_values_that_are_not_kept_are_among_the_results(kinds):
    """There is no list in which they could stand."""
    first, _, last = kinds

    def odd_fails(number):
        if number % 2:
            raise ValueError(number)
        return number

    process = Process("not kept", "parallel", 2, on_error="return")
    numbers = process.map(task(keep=False)(made(first, odd_fails)), range(5))
    process.task(last["sink"], stream(numbers))
    failed, taken = process.execute()
    assert [error.args for error in failed.exceptions] == [(1,), (3,)]
    assert taken == [0, 2, 4]


def test_a_sink_may_return_while_an_element_has_failed_in_one_map_and_is_missing_in_another(kinds):
    """Nothing is left of that element to be let go."""
    first, second, last = kinds
    failed, go_on = threading.Event(), threading.Event()

    def fails(number):
        if number == 0:
            raise ValueError(number)
        failed.set()  # those that have ended before are handed on in one go
        return number

    def late(number):
        assert number or go_on.wait(WAIT_S)
        return number

    def none(_):
        assert failed.wait(WAIT_S)
        return None

    process = Process("early", "parallel", 3, on_error="return")
    numbers = process.map(task(keep=False)(made(first, fails)), range(3))
    others = process.map(task(keep=False)(made(first, late)), range(3))
    pairs = process.map(task(keep=False)(second["pair"]), numbers, others)
    process.task(lambda _: go_on.set(), process.task(made(last, none), stream(pairs)))
    failure, _, _, *nothing = process.execute()
    assert [error.args for error in failure.exceptions] == [(0,)]
    assert nothing == [None, None]


def test_an_early_return_cancels_what_feeds_only_that_sink(kinds):
    """Of a source without an end, too; what is kept, or has other takers, goes on."""
    first, second, last = kinds

    def two(elements):
        return next(elements), next(elements)

    async def two_async(elements):
        return await anext(elements), await anext(elements)

    take = two if last is PLAIN else two_async
    process = Process("early", "parallel", 2)
    endless = process.map(task(keep=False)(first["map"]), itertools.count())
    process.task(take, stream(process.map(task(keep=False)(second["map"]), endless)))
    kept = process.map(first["map"], range(200))
    process.task(take, stream(kept))
    closed, also_closed, pair_of_endless, all_of_them, pair_of_kept = process.execute()
    assert isinstance(closed, NotKept)
    assert isinstance(also_closed, NotKept)
    assert (pair_of_endless, pair_of_kept) == ((0, 4), (0, 2))
    assert all_of_them == [2 * n for n in range(200)]
    outcomes = process.last_run.outcomes
    assert [outcomes[0].state, outcomes[1].state, outcomes[3].state] == ["cancelled", "cancelled", "completed"]


@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
@pytest.mark.parametrize("executor", ["threads", "executor"])
def test_what_is_taken_as_a_whole_is_let_go_after_that(executor, strategy):
    """Of a map and of a task; a task that nobody takes anything of leaves a marker, too."""
    with ThreadPoolExecutor(2) as pool:
        process = Process("whole", strategy, 2, executor=pool if executor == "executor" else executor)
        doubled = process.map(task(keep=False)(twice), range(5))
        total = process.task(task(keep=False)(sum), doubled)
        process.task(str, total)
        process.add_task(task(keep=False)(len), "ab")
        process.map(task(keep=False)(twice), range(100))
        assert process.execute() == [NotKept(5), NotKept(1), "20", NotKept(1), NotKept(100)]
