"""Limits hold wherever calls are made, hold no worker, and others go on: one suite over every engine.

Where calls are made in threads of this program, they say when they begin and wait for events. A limit with a span of an
hour has room for so many calls in a test, and no more.
"""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count

import pytest
from tenacity import Retrying, stop_after_attempt, wait_none

from procession import Limit, Process, RetryAfter, RunCancelledError, TaskTimeoutError, current_task, task
from programs import program

HOUR = 3600.0
NAMES = map("everywhere {}".format, count())


def limit(**options):
    return Limit(next(NAMES), **options)


class Observer:
    immediate = True

    def on_event(self, event):
        pass


class Opaque:
    """Calls a function, of which a journal is to know nothing: what tests wait for has no digest."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *args):
        return self.function(*args)

    def __getstate__(self):
        return None

    def __setstate__(self, state):
        pass


class Way:
    """A way to run a process whose calls are made in threads of this program, or in its loop."""

    def __init__(self, name, tmp_path):
        self.name = name
        self.options = {}
        self.executor = {}
        self.open = ExitStack()
        if name == "recorded":
            self.options = {"journal": tmp_path / "runs.db", "run_id": "a"}
        elif name == "observed":
            self.options = {"observers": [Observer()]}
        elif name == "executor":
            self.executor = {"executor": self.open.enter_context(ThreadPoolExecutor(8))}

    def process(self, strategy="parallel", max_workers=2, **options):
        return Process("limited", strategy, max_workers, **self.executor, **options)

    def task(self, function, **options):
        """Return a function with options: a coroutine function, where such are what runs."""
        function = Opaque(function)
        if self.name != "coroutines":
            return task(name="limited", **options)(function)

        async def awaited(*args):
            try:
                return function(*args)
            except Wait as wait:
                while not wait.event.is_set():
                    await asyncio.sleep(0.001)
                return wait.value

        return task(name="limited", **options)(awaited)

    def wait(self, event, value=None):
        """Have a call wait for an event, and then return a value."""
        if self.name == "coroutines":
            raise Wait(event, value)
        assert event.wait(20)
        return value

    def fill(self, process, function, elements, *, maps):
        if maps:
            process.map(function, elements)
        else:
            for element in elements:
                process.add_task(function, element)
        if self.name == "beside a coroutine":
            process.add_task(nothing)


class Wait(Exception):
    def __init__(self, event, value):
        self.event, self.value = event, value


async def nothing():
    pass


@pytest.fixture(params=["threads", "recorded", "observed", "beside a coroutine", "coroutines", "executor"])
def way(request, tmp_path):
    way = Way(request.param, tmp_path)
    with way.open:
        yield way


each_shape = pytest.mark.parametrize("maps", [False, True], ids=["tasks", "elements"])


def cancelled(run):
    """Cancel a run, which then ends at once, and return its outcomes."""
    start = time.perf_counter()
    run.cancel()
    with pytest.raises(RunCancelledError):
        run.result(20)
    assert time.perf_counter() - start < 10
    return run.outcomes


@each_shape
def test_a_call_that_is_held_back_holds_no_worker(way, maps):
    """With two workers and a limit of one, four other calls are made while the first of three goes on."""
    made, others = [], threading.Event()
    under_way = []

    def limited(number):
        under_way.append(number)
        assert len(under_way) == 1
        under_way.remove(number)
        return way.wait(others, number)

    def other(number):
        made.append(number)
        if len(made) == 4:
            others.set()
        return number

    process = way.process()
    way.fill(process, way.task(limited, limit=limit(at_once=1)), range(3), maps=maps)
    for number in range(4):
        process.add_task(Opaque(other), number)
    results = process.execute(**way.options)
    assert results[:1] == [[0, 1, 2]] if maps else results[:3] == [0, 1, 2]
    assert sorted(made) == [0, 1, 2, 3]


@each_shape
@pytest.mark.parametrize("strategy", ["parallel", "sequential"])
def test_no_more_calls_begin_than_the_limit_allows(way, maps, strategy):
    """Three of six, and when the run is cancelled, it ends at once; the others have never started."""
    made, third = [], threading.Semaphore(0)

    def limited(number):
        made.append(number)
        third.release()

    process = way.process(strategy, 4)
    way.fill(process, way.task(limited, limit=limit(rate=3, per=HOUR)), range(6), maps=maps)
    run = process.start(**way.options)
    for _ in range(3):
        assert third.acquire(timeout=20)
    outcomes = cancelled(run)
    assert made == [0, 1, 2] if strategy == "sequential" else len(made) == 3
    if not maps:
        states = [(outcome.state, outcome.start is None) for outcome in outcomes[:6]]
        assert sorted(states) == [("cancelled", True)] * 3 + [("completed", False)] * 3


@each_shape
def test_each_attempt_is_admitted_anew(way, maps):
    """Of six attempts that its rules allow, a task makes as many as its limit does."""
    made, third = [], threading.Semaphore(0)

    def refused(number):
        made.append(current_task().attempt)
        third.release()
        raise ConnectionError

    retries = Retrying(stop=stop_after_attempt(6), wait=wait_none())
    process = way.process()
    way.fill(process, way.task(refused, retries=retries, limit=limit(rate=3, per=HOUR)), [0], maps=maps)
    run = process.start(**way.options)
    for _ in range(3):
        assert third.acquire(timeout=20)
    outcomes = cancelled(run)
    assert made == [1, 2, 3]
    assert (outcomes[0].state, outcomes[0].attempts) == ("failed", 3)


@each_shape
def test_to_wait_for_a_limit_takes_nothing_from_the_timeout(way, maps):
    """A call that waits for longer than its timeout, and is quick then, is in time."""
    for timeout in 0.2, 2.0, 10.0:  # a longer one only where the machine was held up
        go = threading.Event()
        one = limit(at_once=1)
        process = way.process("parallel", 4, on_error="return")
        process.add_task(way.task(lambda go=go: way.wait(go, "slow"), limit=one))
        way.fill(process, way.task(abs, limit=one, timeout=timeout), [-1, -2], maps=maps)
        if "run_id" in way.options:
            way.options["run_id"] = f"within {timeout}"
        run = process.start(**way.options)
        threading.Timer(1.5 * timeout, go.set).start()
        results = run.result(40)
        if not isinstance(results[1][1] if maps else results[2], TaskTimeoutError):
            break
    assert results[:2] == ["slow", [1, 2]] if maps else results[:3] == ["slow", 1, 2]


@each_shape
@pytest.mark.filterwarnings("ignore:.*is called in a thread of its own")
def test_a_call_that_was_abandoned_keeps_its_place_until_it_ends(way, maps):
    """Its task has failed at the timeout, and the next call begins only when it really ends."""
    if way.name == "coroutines":
        pytest.skip("a coroutine ends at its timeout")
    go, hangs, begun, failed = threading.Event(), threading.Event(), [], threading.Event()
    one = limit(at_once=1)

    def hang(number):
        hangs.set()
        assert go.wait(20)

    process = way.process("parallel", 4, on_error="return")
    way.fill(process, way.task(hang, limit=one, timeout=0.05), [0], maps=maps)

    def wait_failed():
        assert failed.wait(20)
        assert begun == []
        go.set()

    process.add_task(Opaque(wait_failed))
    begins = process.task(Opaque(lambda: hangs.wait(20) and "next"))
    process.add_task(way.task(begun.append, limit=one), begins)
    run = process.start(**way.options)
    for outcome in run:
        if outcome.index == 0:
            failed.set()
    result = run.result(20)
    error = result[0][0] if maps else result[0]
    assert isinstance(error, TaskTimeoutError)
    assert begun == ["next"]


@each_shape
@pytest.mark.parametrize("strategy", ["parallel", "sequential"])
@pytest.mark.parametrize("reads", [False, True], ids=["raised", "read"])
def test_a_call_that_its_service_puts_off_uses_up_no_attempt(way, maps, strategy, reads):
    """Whether the task says so, or its limit reads it off the exception."""
    made = []

    def busy(number):
        made.append((number, current_task().attempt))
        if len([one for one, _ in made if one == number]) < 3:
            raise ConnectionError("try again in 0") if reads else RetryAfter(0)
        return number

    def read(error):
        return float(str(error).split()[-1]) if isinstance(error, ConnectionError) else None

    process = way.process(strategy, 4)
    busy = way.task(busy, limit=limit(retry_after=read if reads else None, at_once=2))
    way.fill(process, busy, range(4), maps=maps)
    results = process.execute(**way.options)
    assert results[:1] == [[0, 1, 2, 3]] if maps else results[:4] == [0, 1, 2, 3]
    assert sorted(made) == [(number, 1) for number in range(4) for _ in range(3)]
    assert process.last_run.outcomes[0].attempts == 1


@each_shape
def test_a_pause_that_a_service_asks_for_holds_for_all_of_its_calls(way, maps):
    """And for no others; when the run is cancelled, the call that was told so ends as it did."""
    made, told, gone_on = [], threading.Event(), threading.Event()
    api = limit(at_once=1)

    def busy(number):
        made.append(number)
        told.set()
        raise RetryAfter(600)

    def other():
        assert told.wait(20)
        gone_on.set()

    process = way.process("parallel", 2, on_error="return")
    way.fill(process, way.task(busy, limit=api, retries=2), range(3), maps=maps)
    process.add_task(Opaque(other))
    run = process.start(**way.options)
    assert gone_on.wait(20)
    outcomes = cancelled(run)
    assert len(made) == 1  # whichever asked first
    if not maps:
        told_so, *others = sorted(outcomes[:3], key=lambda outcome: outcome.index != made[0])
        assert (told_so.state, told_so.attempts) == ("failed", 1)
        assert isinstance(told_so.error, RetryAfter)
        assert [outcome.state for outcome in others] == ["cancelled"] * 2


@each_shape
def test_a_pause_beyond_patience_fails_the_task(way, maps):
    """With what the service asked for, and what the limit would have waited."""

    def busy(number):
        raise RetryAfter(61)

    process = way.process()
    way.fill(process, way.task(busy, limit=limit(patience=60)), [0], maps=maps)
    with pytest.raises(RetryAfter, match="a pause of 61 s") as caught:
        process.execute(**way.options)
    assert "waits 60 s at most, and the service asks for 61 s" in "\n".join(caught.value.__notes__)


@each_shape
@pytest.mark.parametrize("strategy", ["parallel", "sequential"])
@pytest.mark.parametrize(
    ("cost", "error", "text"),
    [
        (lambda number: 11, ValueError, "the call costs 11, and Limit"),
        (lambda number: "11", TypeError, "is a number; got '11'"),
        (lambda number: -1, ValueError, "is a finite number of at least 0; got -1"),
        (lambda number: {}["tokens"], KeyError, "tokens"),
    ],
    ids=["too much", "no number", "negative", "raises"],
)
def test_a_cost_that_makes_no_sense_fails_the_task(way, maps, strategy, cost, error, text):
    """At once, without another attempt, and without a call."""
    made = []
    process = way.process(strategy)
    function = way.task(made.append, limit=limit(rate=10, per=HOUR, cost=cost), retries=5)
    way.fill(process, function, [0], maps=maps)
    with pytest.raises(error, match=text):
        process.execute(**way.options)
    assert made == []


@each_shape
def test_calls_are_weighed_by_their_arguments(way, maps):
    """What takes a value of another task is weighed by that value, and for each attempt anew."""
    weighed, made = [], []

    def cost(number):
        weighed.append(number)
        return number

    def fail_once(number):
        made.append(number)
        if made.count(number) == 1:
            raise ConnectionError
        return number

    retries = Retrying(stop=stop_after_attempt(2), wait=wait_none())
    process = way.process("parallel", 1)
    first = process.task(abs, -3)
    function = way.task(fail_once, limit=limit(rate=10, per=HOUR, cost=cost), retries=retries)
    if maps:
        process.map(function, [first])
    else:
        process.add_task(function, first)
    assert process.execute(**way.options) == [3, [3] if maps else 3]
    assert weighed == made == [3, 3]


def test_limits_hold_for_all_runs_of_a_program(way):
    """A call of another run waits until this one's has ended, though it has an object of its own for the limit."""
    begun, go, called = threading.Event(), threading.Event(), []
    name = next(NAMES)
    first, second = way.process(), way.process()

    def slow():
        begun.set()
        return way.wait(go)

    first.add_task(way.task(slow, limit=Limit(name, at_once=1)))
    second.add_task(way.task(lambda: called.append(go.is_set()), limit=Limit(name, at_once=1)))
    slow_run = first.start()
    assert begun.wait(20)
    quick_run = second.start()
    time.sleep(0.05)
    go.set()
    slow_run.result(20)
    quick_run.result(20)
    assert called == [True]


class Source:
    def __init__(self, drawn):
        self.drawn = Opaque(drawn.append)

    def __iter__(self):
        for number in count():
            self.drawn(number)
            yield number


def test_a_map_draws_no_more_while_a_limit_holds_its_elements_back(way):
    """Of a source without an end, at most 64 elements are drawn and have not ended; then what else is ready goes on."""
    drawn, gone_on = [], threading.Event()

    process = way.process()
    process.map(way.task(abs, limit=limit(rate=1, per=HOUR)), Source(drawn))
    process.add_task(Opaque(gone_on.set))
    run = process.start(**way.options)
    assert gone_on.wait(20)
    cancelled(run)
    assert len(drawn) <= 66


def instants(number):
    start = time.perf_counter()
    time.sleep(0.005)
    return start, time.perf_counter()


@each_shape
def test_no_more_calls_overlap_in_worker_processes_than_may(maps):
    """Of 20 calls on four workers, each begins after one of the two before it has ended."""
    process = Process("elsewhere", "parallel", 4, executor="processes")
    function = task(limit=limit(at_once=2, rate=1000, per=0.001))(instants)
    if maps:
        process.map(function, range(20))
    else:
        for number in range(20):
            process.add_task(function, number)
    results = process.execute()
    calls = sorted(results[0] if maps else results)
    assert all(third[0] >= min(first[1], second[1]) for first, second, third in zip(calls, calls[1:], calls[2:]))


def leave_mark(folder, number):
    (folder / str(number)).touch()


@pytest.mark.parametrize("strategy", ["parallel", "sequential"])
def test_no_more_calls_begin_in_worker_processes_than_may(strategy, tmp_path):
    """Five of 20, in the order of their places; the others have never started when the run is cancelled."""
    process = Process("elsewhere", strategy, 2, executor="processes")
    limited = task(limit=limit(rate=5, per=HOUR))(leave_mark)
    for number in range(20):
        process.add_task(limited, tmp_path, number)
    run = process.start()
    for _, outcome in zip(range(5), run):
        assert outcome.state == "completed"
    outcomes = cancelled(run)
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [0, 1, 2, 3, 4]
    assert [outcome.state for outcome in outcomes] == ["completed"] * 5 + ["cancelled"] * 15


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_a_coordinator_is_woken_when_another_run_makes_room(executor, monkeypatch):
    """It does not look for that now and then, which it would do here in ten minutes."""
    monkeypatch.setattr("procession._remote.coordinator.SLICE_S", 600.0)
    begun, go = threading.Event(), threading.Event()
    one = limit(at_once=1)
    holder = Process("holder")

    def hold():
        begun.set()
        assert go.wait(20)

    holder.add_task(task(limit=one)(hold))
    holding = holder.start()
    assert begun.wait(20)
    with ThreadPoolExecutor(2) as pool:
        waiting = Process("waiting", "parallel", 2, executor=pool if executor == "threads" else "processes")
        waiting.map(task(limit=one)(abs), [-1, -2])
        run = waiting.start()
        until = time.monotonic() + 20
        while not any(each.waiting for each in run._run_state.admission.held_back):
            assert time.monotonic() < until
            time.sleep(0.002)
        time.sleep(0.05)
        go.set()
        assert run.result(20) == [[1, 2]]
    holding.result(20)


def put_off(path):
    if not path.exists():
        path.touch()
        raise RetryAfter(0)
    return current_task().attempt


def test_a_worker_process_is_told_by_its_service_to_wait(tmp_path):
    """The exception comes back, and the call is made again as the same attempt."""
    process = Process("elsewhere", "parallel", 2, executor="processes")
    process.add_task(task(limit=limit())(put_off), tmp_path / "told")
    assert process.execute() == [1]


def hang_once(path):
    if not path.exists():
        path.touch()
        time.sleep(600)
    return "done"


def test_a_worker_process_that_is_ended_at_its_timeout_gives_back_its_place(tmp_path):
    """As nothing of its call goes on."""
    retries = Retrying(stop=stop_after_attempt(9), wait=wait_none())
    process = Process("elsewhere", "parallel", 2, executor="processes")
    process.add_task(task(limit=limit(at_once=1), timeout=2, retries=retries)(hang_once), tmp_path / "hung")
    assert process.execute() == ["done"]


def test_a_function_with_a_limit_is_an_ordinary_function():
    """Called directly, it waits for nothing."""
    fetch = task(limit=limit(rate=1, per=HOUR))(abs)
    assert [fetch(-1), fetch(-2)] == [1, 2]


def fail_first(path, number):
    if not path.exists():
        path.touch()
        raise ConnectionError
    return number


@pytest.mark.parametrize("known", [False, True], ids=["another program", "the same program"])
def test_a_resumed_run_begins_without_a_burst(tmp_path, known):
    """What another program has called before is not known, so all that is allowed counts as spent; else it is known."""
    api = limit(rate=2, per=HOUR)
    journal = tmp_path / "runs.db"
    first, second = Process("resumed", "parallel", 1), Process("resumed", "parallel", 1)
    first.add_task(task(limit=api)(fail_first), tmp_path / "told", 1)
    with pytest.raises(ConnectionError):
        first.execute(run_id="a", journal=journal)
    # A limit that nothing was called under in this program yet, as in one that has just begun.
    second.add_task(task(limit=api if known else limit(rate=2, per=HOUR))(fail_first), tmp_path / "told", 1)
    run = second.start(run_id="a", journal=journal)
    if known:
        assert run.result(20) == [1]
    else:
        time.sleep(0.2)
        assert [outcome.state for outcome in cancelled(run)] == ["cancelled"]


CRASHING = """
    import sys
    from pathlib import Path
    from procession import Limit, Process, task

    def leave_mark(folder, number):
        (folder / str(number)).touch()

    if __name__ == "__main__":
        process = Process("crashing", "parallel", 2)
        limited = task(limit=Limit("crashing", rate=2, per=3600.0), name="call")(leave_mark)
        process.map(limited, [Path(sys.argv[1])] * 4, range(4))
        process.execute(run_id="a", journal=sys.argv[2])
"""


def test_there_is_no_burst_after_a_crash(tmp_path, comes_true):
    """Of a program that is killed while its limit holds calls back, another that goes on makes none of them at once."""
    marks, journal = tmp_path / "marks", str(tmp_path / "runs.db")
    marks.mkdir()
    popen = program(tmp_path, CRASHING, str(marks), journal)
    assert comes_true(lambda: len(list(marks.iterdir())) == 2), popen.poll()
    popen.kill()
    popen.communicate()
    process = Process("crashing", "parallel", 2)
    process.map(task(limit=limit(rate=2, per=HOUR), name="call")(leave_mark), [marks] * 4, range(4))
    run = process.start(run_id="a", journal=journal)
    time.sleep(0.2)
    cancelled(run)
    assert len(list(marks.iterdir())) == 2


@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
def test_a_map_goes_on_after_an_element_whose_cost_cannot_be_paid(strategy):
    """Its error is in the results, and nothing of the map is cut short."""
    process = Process("costs", strategy, 2, on_error="return")
    process.map(task(limit=limit(rate=5, per=HOUR, cost=abs))(abs), [1, 9, 2])
    [[one, error, two]] = process.execute()
    assert (one, str(error).partition(",")[0], two) == (1, "the call costs 9", 2)
