"""An error in the machinery's own lines, on every engine: the run ends with it, and the next one is as ever.

Each line that some small processes come through raises once. How many of them in each case, a run of the tests says by
`PROCESSION_FAULTS`; 0 is all of them.
"""

import asyncio
import gc
import os
import random
import threading
from itertools import count
from concurrent.futures import ThreadPoolExecutor

import pytest
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from coroutines import STRATEGIES, awaited, executed, same, started, states
from faults import ended, faulty, leads_to, traced
from procession import Limit, NotKept, Process, RunInUseError, current_task, stream, task

SAMPLE = int(os.environ.get("PROCESSION_FAULTS", "4"))
NUMBERS = count()
AGAIN = Retrying(retry=retry_if_exception_type(ConnectionError), stop=stop_after_attempt(3), wait=wait_fixed(0.001))

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),  # of a run that was started
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # a loop that could not be closed
    pytest.mark.timeout(120 if SAMPLE else 3600),
]


async def same_async(value):
    await asyncio.sleep(0)
    return value


def total(*values):
    return sum(values)


async def total_async(*values):
    await asyncio.sleep(0)
    return sum(values)


def drained(values):
    return list(values)


async def drained_async(values):
    return [value async for value in values]


class FailsFirst:
    """Fails at every other call with a value."""

    def __init__(self):
        self._lock = threading.Lock()
        self._failed = set()

    def __call__(self, value):
        with self._lock:
            self._failed ^= {value}
            if value in self._failed:
                raise ConnectionError(value)
        return value

    def __reduce__(self):  # what it is known by in a journal
        return type(self), ()


class FailsFirstAsync(FailsFirst):
    async def __call__(self, value):
        await asyncio.sleep(0)
        return super().__call__(value)


class Lazy:
    """Values that are there, one after the other, for each who asks."""

    def __init__(self, count):
        self._count = count

    def __iter__(self):
        return iter(list(range(self._count)))


def plain_tasks(process):
    first, *_ = [process.task(same, number) for number in range(4)]
    second = process.task(total, first, 1)
    process.add_task(total, second, first)
    return [0, 1, 2, 3, 1, 1]


def coroutines(process):
    first, *_ = [process.task(same_async, number) for number in range(4)]
    second = process.task(total_async, first, 1)
    process.add_task(total_async, second, first)
    return [0, 1, 2, 3, 1, 1]


def options(process):
    process.add_task(task(retries=AGAIN)(FailsFirst()), 1)
    process.add_task(task(retries=2, timeout=5)(same), 2)
    process.add_task(task(timeout=5)(same), 3)
    return [1, 2, 3]


def options_of_coroutines(process):
    process.add_task(task(retries=AGAIN)(FailsFirstAsync()), 1)
    process.add_task(task(retries=2, timeout=5)(same_async), 2)
    return [1, 2]


def maps(process):
    first = process.map(same, Lazy(3))
    process.map(same, first)
    process.map(task(retries=AGAIN)(FailsFirst()), [1, 2, 3])
    process.map(task(timeout=5)(same), [1, 2])
    return [[0, 1, 2], [0, 1, 2], [1, 2, 3], [1, 2]]


def maps_of_coroutines(process):
    first = process.map(same_async, Lazy(3))
    process.map(same_async, first)
    process.map(task(retries=AGAIN)(FailsFirstAsync()), [1, 2, 3])
    process.map(task(timeout=5)(same_async), [1, 2])
    return [[0, 1, 2], [0, 1, 2], [1, 2, 3], [1, 2]]


def limits(process):
    """Two calls at a time are admitted, and the others held back."""
    limit = Limit(f"limit {next(NUMBERS)}", rate=2, per=0.01, cost=lambda _: 1)
    one = Limit(f"limit {next(NUMBERS)}", at_once=1)
    first = process.task(task(limit=(limit, one))(same), 1)
    process.add_task(task(limit=limit, retries=AGAIN)(FailsFirst()), 2)
    process.map(task(limit=limit, timeout=5)(same), [3, 4])
    process.add_task(task(limit=limit)(same), first)
    process.map(task(limit=one)(same), [5, 6])
    process.add_task(task(limit=one)(same), 7)
    return [1, 2, [3, 4], 1, [5, 6], 7]


def limits_of_coroutines(process):
    limit = Limit(f"limit {next(NUMBERS)}", rate=2, per=0.01, cost=lambda _: 1)
    one = Limit(f"limit {next(NUMBERS)}", at_once=1)
    first = process.task(task(limit=(limit, one))(same_async), 1)
    process.add_task(task(limit=limit, retries=AGAIN)(FailsFirstAsync()), 2)
    process.map(task(limit=limit, timeout=5)(same_async), [3, 4])
    process.add_task(task(limit=limit)(same_async), first)
    process.map(task(limit=one)(same_async), [5, 6])
    process.add_task(task(limit=one)(same_async), 7)
    return [1, 2, [3, 4], 1, [5, 6], 7]


def streams(process):
    """A pipeline whose values are let go, and tasks that take its elements, or its values, as they end."""
    first = process.map(task(keep=False)(same), Lazy(3))
    second = process.map(same, first)
    process.add_task(task(retries=1)(drained), stream(second))
    process.add_task(drained, stream(first))
    process.add_task(total, process.task(task(keep=False)(same), 4), 1)
    return [NotKept(3), [0, 1, 2], [0, 1, 2], [0, 1, 2], NotKept(1), 5]


def streams_of_coroutines(process):
    first = process.map(task(keep=False)(same_async), Lazy(3))
    second = process.map(same_async, first)
    process.add_task(task(retries=1)(drained_async), stream(second))
    process.add_task(drained_async, stream(first))
    process.add_task(total_async, process.task(task(keep=False)(same_async), 4), 1)
    return [NotKept(3), [0, 1, 2], [0, 1, 2], [0, 1, 2], NotKept(1), 5]


def nested(process):
    for _ in range(2):
        inner = Process("inner", "parallel", 2)
        wanted = plain_tasks(inner) + coroutines(inner)
        process.add_task(inner)
    return [wanted] * 2


THREADS = [plain_tasks, options, maps, streams, limits]
LOOP = [coroutines, options_of_coroutines, maps_of_coroutines, streams_of_coroutines, limits_of_coroutines]


def cases():
    chance = random.Random(7)
    for parts in [[some] for some in THREADS + LOOP] + [[nested], THREADS + LOOP]:
        for strategy in STRATEGIES:
            yield parts, strategy, chance.choice([executed, awaited, started]), None
    for kind in "observed", "immediate", "recorded", "elsewhere":
        for parts in THREADS, LOOP, THREADS + LOOP:
            strategy = chance.choice(STRATEGIES)
            yield parts, strategy, chance.choice([executed, awaited, started]), kind


def named(case):
    parts, strategy, way, kind = case
    return "-".join(filter(None, ["+".join(part.__name__ for part in parts), strategy, way.__name__, kind]))


@pytest.fixture(scope="module")
def pool():
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.mark.parametrize("case", list(cases()), ids=named)
def test_whatever_a_line_of_the_machinery_raises_ends_the_run(case, pool, tmp_path):
    """It is raised, or the values are right; no thread stays; and the process can be executed again.

    What the run has recorded by then is right, too.
    """
    parts, strategy, way, kind = case
    chance = random.Random(named(case))

    def make(policy):
        settings = {
            "observed": {"observers": [Observer()]},
            "immediate": {"observers": [ImmediateObserver()]},
            "elsewhere": {"executor": pool},
        }
        process = Process("faulty", strategy, 2, on_error=policy, **settings.get(kind, {}))
        return process, [value for part in parts for value in part(process)]

    def run(process):
        if kind != "recorded":
            return way(process)
        return process.execute(run_id="run", journal=journal)

    journal = tmp_path / "undisturbed.db"
    process, wanted = make("stop")
    seen, ending = traced(lambda: run(process))
    assert ending == (wanted, None)
    places = sorted(seen)
    for number, place in enumerate(chance.sample(places, min(SAMPLE, len(places))) if SAMPLE else places):
        before = set(threading.enumerate())
        process, wanted = make(chance.choice(["stop", "continue", "return"]))
        journal = tmp_path / f"{number}.db"
        ending, fault = faulty(lambda: run(process), place, chance.randint(1, seen[place]))
        errors = [] if process.last_run is None else [outcome.error for outcome in process.last_run.outcomes]
        assert_raised_or_right(ending, wanted, fault, errors)
        del ending, fault, errors
        gc.collect()  # what an error holds may end with it
        if process.last_run is not None:
            assert process.last_run.wait(10)
            assert "running" not in [place, *states(process.last_run)]
        if not place.cleans_up:
            left = set(threading.enumerate()) - before
            for thread in left:
                thread.join(5)
            assert [str(place), *(thread.name for thread in left if thread.is_alive())] == [str(place)]
        # A run that is recorded is gone on with.
        value, error = ended(lambda: run(process))
        if place.cleans_up and isinstance(error, RunInUseError):
            continue  # nobody has said that it is over, and this program goes on
        assert error is None, f"{place}: {error!r}"
        assert [*map(without_count, value)] == [*map(without_count, wanted)], place


def without_count(value):
    """Return a value, but of what is not kept only that: what nobody takes any more is not made again."""
    return NotKept if isinstance(value, NotKept) else value


class Observer:
    def on_event(self, event):
        pass


class ImmediateObserver(Observer):
    immediate = True


def assert_raised_or_right(ending, wanted, fault, errors):
    """Assert that a run has ended with a fault, or has it in the place of a value, or that its values are right.

    `errors` are those of its tasks: what is not kept has none in its place.
    """
    if ending.error is not None:
        assert leads_to(ending.error, fault)
    elif ending.value != wanted:
        assert fault is not None
        assert any(_holds(value, fault) for value in [*ending.value, *errors])
        for value, right in zip(ending.value, wanted, strict=True):
            assert value == right or isinstance(value, Exception | list | NotKept)


def _holds(value, fault):
    return (
        leads_to(value, fault)
        if isinstance(value, BaseException)
        else (isinstance(value, list) and any(_holds(one, fault) for one in value))
    )


RECORDING = (
    "commit.py",
    "coordinator.py",
    "element_calls.py",
    "element_ends.py",
    "feed.py",
    "map.py",
    "map_state.py",
    "outlet.py",
    "recording.py",
    "run_streams.py",
    "settlement.py",
    "window.py",
)
"""Where elements and their records are between the call and the journal."""


def elements(process):
    """Maps of plain functions and of coroutine functions, one by one, by two, and with somebody who takes them."""
    first = process.map(same, [1, 2, 3])
    process.map(same_async, [4, 5])
    process.map(drained, [6, 7, 8], batch=2)
    process.add_task(drained, stream(first))
    return [[1, 2, 3], [4, 5], [6, 7, 8], [1, 2, 3]]


@pytest.mark.timeout(170)
@pytest.mark.parametrize("where", ["sequential", "parallel", "elsewhere"])
def test_a_fault_between_a_call_and_its_record_loses_no_element(where, tmp_path, pool):
    """Whatever such a line raises, the run can be gone on with, and all values are right then."""
    chance = random.Random(where)

    def make(policy):
        if where == "elsewhere":
            process = Process("faulty", "parallel", 2, on_error=policy, executor=pool)
        else:
            process = Process("faulty", where, 2, on_error=policy)
        return process, elements(process)

    process, wanted = make("stop")
    seen, ending = traced(lambda: process.execute(run_id="run", journal=tmp_path / "undisturbed.db"))
    assert ending == (wanted, None)
    places = sorted(place for place in seen if place.path.endswith(RECORDING))
    for number, place in enumerate(chance.sample(places, 10 * SAMPLE) if SAMPLE else places):
        process, wanted = make(chance.choice(["stop", "continue", "return"]))
        path = tmp_path / f"{number}.db"
        faulty(lambda: process.execute(run_id="run", journal=path), place, chance.randint(1, seen[place]))
        value, error = ended(lambda: process.execute(run_id="run", journal=path))
        assert error is None, f"{place}: {error!r}"
        assert value == wanted, place


BETWEEN = ("calls.py", "element_calls.py", "call_attempts.py", "timed_call.py")
"""Where calls lie between what their limits admit and their beginning."""


def under_a_limit(process):
    """Tasks, elements and calls within a task that come one after another, each within its time and without."""
    one = Limit(f"limit {next(NUMBERS)}", at_once=1)
    for options in {"timeout": 5}, {"retries": 1}, {"retries": AGAIN, "timeout": 5}:
        process.add_task(task(limit=one, **options)(same), 1)
    for options in {"timeout": 5}, {"retries": 1}:
        process.map(task(limit=one, **options)(same), [2, 3])
    process.add_task(task(limit=one)(drained), stream(process.map(same, [4])))
    inner = Limit(f"limit {next(NUMBERS)}", at_once=1)
    process.add_task(calls, task(limit=inner)(same), task(limit=inner, timeout=5)(same))
    return [1, 1, 1, [2, 3], [2, 3], [4], [4], [5, 6]]


def calls(*functions):
    return [current_task().call(function, number) for number, function in enumerate(functions, 5)]


@pytest.mark.timeout(170)
@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
def test_a_fault_between_admission_and_call_leaves_its_place_to_others(strategy):
    """The others of the run are called, or the run ends; and another run under the limit has all of it."""
    chance = random.Random(strategy)

    def make(policy):
        process = Process("faulty", strategy, 2, on_error=policy)
        return process, under_a_limit(process)

    process, wanted = make("stop")
    seen, ending = traced(process.execute)
    assert ending == (wanted, None)
    for place in sorted(place for place in seen if place.path.endswith(BETWEEN)):
        process, wanted = make(chance.choice(["continue", "return"]))
        faulty(process.execute, place, chance.randint(1, seen[place]))
        assert (str(place), *ended(process.execute)) == (str(place), wanted, None)
