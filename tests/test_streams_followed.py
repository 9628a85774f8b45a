"""The elements of a map for the caller of a run, while the run goes on: `run.stream`."""

import asyncio
import contextlib
import itertools
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from procession import HandleError, NotKept, Process, RunCancelledError, stream, task
from procession._engine.elements import Elements
from stream_kinds import WAIT_S, WINDOW, odd_only, twice, twice_async

KINDS = {"threads": twice, "coroutines": twice_async}


@pytest.fixture(params=KINDS)
def double(request):
    """The function of a map."""
    return KINDS[request.param]


def test_elements_come_while_the_map_goes_on():
    """The last element waits until the caller has had the first."""
    had = threading.Event()
    process = Process("followed", "parallel", 2)
    numbers = process.map(lambda number: number if number == 0 else had.wait(WAIT_S), [0, 1])
    run = process.start(streams=[numbers])
    elements = run.stream(numbers)
    assert next(elements) == 0
    had.set()
    assert list(elements) == [True]
    assert run.result(WAIT_S) == [[0, True]]


@pytest.mark.parametrize("ordered", [True, False])
def test_all_elements_come_however_often_they_are_asked_for(ordered, double):
    """While the run goes on, and when it has ended; named in the start, on their way to a task, or neither."""
    process = Process("followed", "parallel", 2)
    doubled = process.map(double, range(300))
    process.task(sum, stream(doubled))
    other = process.map(double, range(300))
    for named in [], [doubled, other]:
        run = process.start(streams=named)
        for _ in range(2):
            for handle in doubled, other:
                elements = list(run.stream(handle, ordered=ordered))
                assert (elements if ordered else sorted(elements)) == [2 * n for n in range(300)]
        assert run.result(WAIT_S)[1] == 2 * sum(range(300))
        assert list(run.stream(doubled)) == [2 * n for n in range(300)]


@pytest.mark.parametrize("ordered", [True, False])
def test_a_map_waits_for_the_caller_to_take_what_is_not_kept(ordered, double):
    """At most a window is drawn and not taken; leaving the block ends a map without an end."""
    drawn = itertools.count()
    source = (next(drawn) for _ in itertools.count())
    process = Process("followed", "parallel", 2)
    doubled = process.map(task(keep=False)(double), source)
    with process.start(streams=[doubled]) as run:
        for taken, _ in enumerate(run.stream(doubled, ordered=ordered), start=1):
            if taken == 500:
                break
    assert run.status in ("cancelled", "completed")
    if ordered:
        assert next(drawn) <= 500 + 3 * WINDOW


class Value:
    """What can be watched."""


def make(_):
    return Value()


async def make_async(_):
    return Value()


def same(value):
    return value


async def same_async(value):
    return value


@pytest.mark.parametrize("maps", [1, 2])
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("functions", [(make, same), (make_async, same_async)], ids=KINDS)
def test_nothing_holds_an_element_that_is_not_kept_once_the_caller_lets_go_of_it(functions, ordered, maps, comes_true):
    """While the run goes on; also one that has come through two maps."""
    first, second = functions
    process = Process("let go", "parallel", 2)
    values = process.map(task(keep=False)(first), itertools.count())
    if maps == 2:
        values = process.map(task(keep=False)(second), values)
    handed_out = []
    with process.start(streams=[values]) as run:
        elements = run.stream(values, ordered=ordered)
        for count in 1, WINDOW, 3 * WINDOW:
            while len(handed_out) < count:
                handed_out.append(weakref.ref(next(elements)))
            assert comes_true(lambda: not any(value() for value in handed_out))
        assert run.status == "running"


@pytest.mark.parametrize("maps", [1, 2])
@pytest.mark.parametrize("kind", ["threads", "coroutines", "an executor"])
def test_a_run_in_which_all_wait_for_the_caller_can_be_cancelled(kind, maps, comes_true):
    """Though the caller takes nothing more, and no worker is there any more to see it."""
    drawn = []

    def source():
        for number in itertools.count():
            drawn.append(number)
            yield number

    def nothing_goes_on():
        before, counts[0] = counts[0], len(drawn)
        return before == counts[0]

    counts = [0]
    with ThreadPoolExecutor(2) as executor:
        process = Process("waits", "parallel", 2, executor=executor if kind == "an executor" else "threads")
        function = KINDS.get(kind, twice)
        doubled = process.map(task(keep=False)(function), source())
        if maps == 2:
            doubled = process.map(task(keep=False)(function), doubled)
        run = process.start(streams=[doubled])
        with closing(run.stream(doubled)) as elements:
            assert next(elements) == 0
            assert comes_true(nothing_goes_on)
            run.cancel()
            assert run.wait(WAIT_S)
    assert run.status == "cancelled"


def test_the_end_of_a_chain_that_is_not_kept_is_handed_out(double):
    """The run ends when the caller has had the last element."""
    process = Process("followed", "parallel", 2)
    doubled = process.map(task(keep=False)(double), process.map(task(keep=False)(double), range(300)))
    run = process.start(streams=[doubled])
    assert list(run.stream(doubled)) == [4 * n for n in range(300)]
    assert run.result(WAIT_S) == [NotKept(300), NotKept(300)]


@pytest.mark.parametrize("function", [twice, twice_async])
def test_a_cancelled_run_ends_though_its_caller_keeps_the_iterator(function):
    """The map waited for the caller to take elements, and no worker was left to see the cancel."""
    for _ in range(10):
        process = Process("kept", "parallel", 2)
        doubled = process.map(task(keep=False)(function), itertools.count())
        with process.start(streams=[doubled]) as run:
            elements = run.stream(doubled)
            assert list(itertools.islice(elements, 321)) == list(range(0, 642, 2))
        assert run.status == "cancelled"
        with pytest.raises(RunCancelledError):
            list(elements)


# In a coroutine


def in_own_loop(process, **options):
    """Begin a run in the loop of the caller."""
    return process.start_async(**options)


@contextlib.asynccontextmanager
async def in_a_thread(process, **options):
    """Begin a run in a thread, and follow it from a loop."""
    with process.start(**options) as run:
        yield run


follows = pytest.mark.parametrize("begin", [in_own_loop, in_a_thread])


@follows
def test_a_coroutine_gets_elements_while_the_map_goes_on(begin):
    """The last element waits until the coroutine has had the first, and the loop is free meanwhile."""

    async def main():
        had = threading.Event()

        def waits(number):
            return number if number == 0 else had.wait(WAIT_S)

        process = Process("followed", "parallel", 2)
        numbers = process.map(waits, [0, 1])
        async with begin(process, streams=[numbers]) as run:
            taken = []
            async for element in run.stream(numbers):
                taken.append(element)
                had.set()
            return taken, await run

    assert asyncio.run(main()) == ([0, True], [[0, True]])


@follows
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("keep", [True, False])
def test_a_coroutine_gets_all_elements(begin, ordered, keep, double):
    """Named in the start, also those that are not kept, more than a map may draw ahead of it."""

    async def main():
        process = Process("followed", "parallel", 2)
        doubled = process.map(task(keep=keep)(double), range(5 * WINDOW))
        async with begin(process, streams=[doubled]) as run:
            elements = [element async for element in run.stream(doubled, ordered=ordered)]
            return elements, await run

    elements, results = asyncio.run(main())
    assert (elements if ordered else sorted(elements)) == [2 * n for n in range(5 * WINDOW)]
    assert results == [
        elements if keep and ordered else [2 * n for n in range(5 * WINDOW)] if keep else NotKept(5 * WINDOW)
    ]


@follows
def test_a_coroutine_gets_what_nobody_has_named_when_the_map_has_ended(begin, double):
    """And once more when all is over."""

    async def main():
        process = Process("followed", "parallel", 2)
        doubled = process.map(double, range(100))
        async with begin(process) as run:
            first = [element async for element in run.stream(doubled)]
            await run
            return first, [element async for element in run.stream(doubled)]

    assert asyncio.run(main()) == ([2 * n for n in range(100)],) * 2


@follows
@pytest.mark.parametrize("on_error", ["stop", "continue", "return"])
def test_a_coroutine_gets_good_elements_first_and_then_the_failure(begin, on_error):
    """As a thread does."""

    async def main(elements):
        process = Process("failing", "parallel", 1, on_error=on_error)
        odd = process.map(odd_only, [1, 3, 4, 5])
        async with begin(process, streams=[odd]) as run:
            async for element in run.stream(odd):
                elements.append(element)

    elements = []
    with contextlib.nullcontext() if on_error == "return" else pytest.raises((ValueError, ExceptionGroup)):
        asyncio.run(main(elements))
    assert elements == ([1, 3] if on_error == "stop" else [1, 3, 5])


@follows
def test_a_coroutine_that_leaves_the_iterator_goes_on_without_it(begin, double):
    """A map without an end waits for nobody then, and ends with the block."""

    async def main():
        process = Process("followed", "parallel", 2)
        doubled = process.map(task(keep=False)(double), itertools.count())
        async with begin(process, streams=[doubled]) as run:
            async for element in run.stream(doubled):
                if element == 2 * 5 * WINDOW:
                    break
        return run.status

    assert asyncio.run(main()) in ("cancelled", "completed")


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("on_error", ["stop", "continue", "return"])
def test_good_elements_come_first_and_then_the_failure(on_error, late):
    """What `result()` raises is raised, and nothing where failures stand in the results; also when all is over."""
    process = Process("failing", "parallel", 1, on_error=on_error)
    odd = process.map(odd_only, [1, 3, 4, 5])
    run = process.start(streams=[odd])
    if late:
        assert run.wait(WAIT_S)
    elements = []
    if on_error == "return":
        elements += run.stream(odd)
    else:
        with pytest.raises((ValueError, ExceptionGroup)):
            elements.extend(run.stream(odd))
    assert elements == ([1, 3] if on_error == "stop" else [1, 3, 5])
    if on_error == "return":
        assert list(run.stream(odd)) == [1, 3, 5]  # once more


def test_leaving_the_block_ends_the_run():
    """Early, it is cancelled; afterwards, nothing happens."""
    begun = threading.Event()
    process = Process("left", "parallel", 1)
    process.map(lambda _: begun.set(), itertools.count())
    with process.start() as run:
        assert begun.wait(WAIT_S)
    assert run.status == "cancelled"
    ended = Process("ended")
    ended.add_task(len, "a")
    with ended.start() as run:
        assert run.result(WAIT_S) == [1]
    assert run.status == "completed"


def test_what_cannot_be_followed_is_refused():
    """No handle, the handle of a task or of another process, and values that are not kept and were not asked for."""
    process, other = Process("bad", "parallel"), Process("other", "parallel")
    doubled, length = process.map(twice, [1]), process.task(len, "a")
    unkept, foreign = process.map(task(keep=False)(twice), [1]), other.map(twice, [1])
    for wrong in [1], length, foreign:
        with pytest.raises(HandleError, match=r"start\(streams=...\) takes handles of maps"):
            process.start(streams=[wrong])
    run = process.start(streams=[doubled])
    for wrong in [1], length, foreign, unkept:
        with pytest.raises(HandleError):
            run.stream(wrong)
    run.wait(WAIT_S)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_sink_is_called_once_however_often_it_waits_for_a_worker(workers):
    """Also where it has ended before all workers have seen that it waited."""
    calls = []

    def slow(number):
        time.sleep(0.002)
        return number

    def first(number, elements):
        calls.append(number)
        return next(elements)

    process = Process("once", "parallel", workers)
    numbers = process.map(slow, range(20))
    for number in range(10):
        process.task(first, number, stream(numbers))
    assert process.execute()[1:] == [0] * 10
    assert sorted(calls) == list(range(10))


@pytest.mark.parametrize("ordered", [True, False])
def test_a_late_element_of_a_map_before_keeps_the_caller_waiting_only_for_itself(ordered):
    """In order the caller waits for it, and then gets it and all others; else the others are handed out meanwhile."""
    go_on, called = threading.Event(), []

    def late(number):
        if number == 3:
            assert go_on.wait(WAIT_S)
        return number

    def note(number):
        called.append(number)
        if ordered and len(called) == WINDOW:  # as many as may be drawn before it
            go_on.set()
        return number

    process = Process("late", "parallel", 4)
    numbers = process.map(task(keep=False)(late), range(5 * WINDOW))
    noted = process.map(task(keep=False)(note), numbers)
    with process.start(streams=[noted]) as run:
        taken = []
        for element in run.stream(noted, ordered=ordered):
            taken.append(element)
            if not ordered and len(taken) == 5 * WINDOW - 1:
                go_on.set()
    assert (taken if ordered else sorted(taken)) == list(range(5 * WINDOW))
    assert ordered or taken[-1] == 3


def test_a_caller_that_leaves_elements_to_gather_is_woken_as_the_run_is_cancelled(monkeypatch):
    """And does not wait until it would look again by itself."""
    rest, go_on, woken = Elements.rest, threading.Event(), []

    def cancelled(elements, due):
        run.cancel()
        woken.append(due.is_open)
        go_on.set()
        return rest(elements, due)

    def source():
        yield 1
        assert go_on.wait(WAIT_S)
        yield 2

    process = Process("cancelled", "parallel", 2)
    numbers = process.map(twice, source())
    run = process.start(streams=[numbers])
    elements = run.stream(numbers)
    assert next(elements) == 2
    monkeypatch.setattr(Elements, "rest", cancelled)
    with pytest.raises(RunCancelledError):
        next(elements)
    assert woken[0]
