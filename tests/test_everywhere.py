"""Whole processes, generated, run for real in every way there is, beside a reference that makes one call after another.

    Spec ──built──▶ Process ──Way.run──▶ results or exception, outcomes, calls ──┐
      └──reference──▶ what each task comes to, calls ────────────────────────────┴──▶ the same

Another way to run joins by one line in `WAYS`. Where a failure stops tasks that run at once, which of them had started
by then is nobody's promise: there, what was seen must be one of the things that may happen.
"""

import asyncio
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from functools import cache, partial
from importlib.util import find_spec
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from clusters import dask_here, ray_here
from jobs import (
    AWAITED_CALLS,
    AWAITED_ELEMENT_CALLS,
    CALLS,
    ELEMENT_CALLS,
    Item,
    OwnError,
    noted_calls,
)
from procession import Hybrid, Parallel, Process, ProcessionError, RunCancelledError, Sequential, TaskSkippedError

# Dask's scheduler, which lives in this process, draws random numbers when it likes.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module:hypothesis.errors.HypothesisWarning")


class Way(NamedTuple):
    """A way to run a process."""

    name: str
    run: Callable[[Process], list[Any]]
    options: Callable[[], dict[str, Any]] = dict  # makes options for the process, such as its executor
    examples: int = 30  # processes tried for each strategy and policy: fewer where each takes long
    awaited: Callable[[int], Any] = lambda index: False  # whether the task in this place is a coroutine
    within: Callable[[], Any] = nullcontext
    needs: str | None = None  # what must be installed, and need not be

    def marks(self):
        missing = self.needs is not None and find_spec(self.needs) is None
        return [pytest.mark.skip(f'{self.name} is not here: pip install "procession[{self.needs}]"')] if missing else []


def awaited(process):
    try:
        return asyncio.run(process.execute_async())
    except RuntimeError as error:
        # No coroutine can raise StopIteration: the language makes it another exception on the way out.
        if isinstance(error.__cause__, StopIteration):
            raise error.__cause__ from None
        raise


OPEN = ExitStack()


def pool():
    return ThreadPoolExecutor(4)


@cache
def opened(context):
    """Return what was opened for the first test that needs it, and lasts as long as the tests."""
    return OPEN.enter_context(context())


@pytest.fixture(scope="module", autouse=True)
def _closing():
    """Leave nothing to later tests, some of which count what is open."""
    with OPEN:
        yield
    opened.cache_clear()


def values_apart():
    """Have even the smallest values stay on the cluster, and travel as references."""
    return patch("procession._remote.backends.cluster.SMALL_BYTES", 0)


def dask():
    return {"executor": opened(dask_here)}


def ray():
    return {"executor": opened(ray_here)}


WAYS = [
    Way("threads", Process.execute),
    Way("threads, started", lambda process: process.start().result(50), examples=10),
    Way("asyncio", awaited, examples=10),
    Way("processes", Process.execute, lambda: {"executor": "processes"}, examples=3),
    Way("an executor", Process.execute, lambda: {"executor": opened(pool)}, examples=10),
    Way("Dask", Process.execute, dask, examples=3),
    Way("Dask, values apart", Process.execute, dask, examples=3, within=values_apart),
    Way("Ray", Process.execute, ray, examples=20, needs="ray"),
    Way("Ray, values apart", Process.execute, ray, examples=20, needs="ray", within=values_apart),
    Way("coroutines", Process.execute, examples=10, awaited=lambda index: True),
    Way("coroutines and threads", Process.execute, examples=20, awaited=lambda index: index % 2),
    Way("coroutines and threads, asyncio", awaited, examples=20, awaited=lambda index: index % 3),
]


# What is run


class Ref(NamedTuple):
    """Stands for the value of an earlier task."""

    index: int


class Call(NamedTuple):
    fails: int
    error: type
    attempts: int  # at most
    args: tuple
    kwargs: dict


class Map(NamedTuple):
    source: Any  # a list, or the Ref of one
    lazy: bool
    attempts: int


class Spec(NamedTuple):
    """A process to be. Each of its tasks is a `Call`, a `Map`, or the `Spec` of a process inside of it."""

    name: str
    strategy: Any
    policy: str
    workers: int
    tasks: list

    @property
    def first(self):
        """How many tasks run in order."""
        count = len(self.tasks)
        if isinstance(self.strategy, Hybrid):
            return count // 2 if self.strategy.first is None else min(self.strategy.first, count)
        return count if isinstance(self.strategy, Sequential) else 0

    def takes_elements(self, index):
        """Whether a task is a map of another map in a stage at once, which goes on with each element as that ends."""
        job = self.tasks[index]
        return (
            isinstance(job, Map)
            and type(job.source) is Ref
            and isinstance(self.tasks[job.source.index], Map)
            and job.source.index >= self.first
        )

    def before(self, index, hands_on=True):
        """What must have succeeded before a task starts, where elements are handed on, or are not."""
        if hands_on and self.takes_elements(index):
            return self.before(self.tasks[index].source.index)
        return set(range(min(index, self.first))) | refs_of(self.tasks[index])


def refs_of(job):
    passed = (
        [*job.args, *job.kwargs.values()] if isinstance(job, Call) else [job.source] if isinstance(job, Map) else []
    )
    inside = [list(value.values()) if type(value) is dict else value for value in passed]
    flat = [item for value in inside for item in (value if type(value) in (list, tuple) else [value])]
    return {item.index for item in flat if type(item) is Ref}


def filled(value, values):
    """Return an argument with something in place of each `Ref`, one level deep, as the handles are."""
    if type(value) is Ref:
        return values[value.index]
    if type(value) is dict:
        return {key: values[item.index] if type(item) is Ref else item for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(values[item.index] if type(item) is Ref else item for item in value)
    return value


def built(spec, sheet, options, awaited, prefix=""):
    """Return the process."""
    process = Process(spec.name, spec.strategy, spec.workers, on_error=spec.policy, **options)
    wanted = set().union(*map(refs_of, spec.tasks))
    handles = []
    for index, job in enumerate(spec.tasks):
        key = f"{prefix}{index}"
        calls, element_calls = (AWAITED_CALLS, AWAITED_ELEMENT_CALLS) if awaited(index) else (CALLS, ELEMENT_CALLS)
        if isinstance(job, Map):
            source = filled(job.source, handles)
            function = partial(element_calls[job.attempts], sheet, key)
            handles.append(process.map(function, (item for item in source) if job.lazy else source))
            continue
        if isinstance(job, Call):
            args, kwargs = filled_call(job, handles)
            call = (calls[job.attempts], sheet, key, job.fails, job.error, *args)
        else:
            inside = built(job, sheet, {}, awaited, f"{key}-")
            call, kwargs = (inside.execute_async if awaited(index) else inside,), {}
        handles.append(process.task(*call, **kwargs) if index in wanted else process.add_task(*call, **kwargs))
    return process


def filled_call(job, values):
    return [filled(arg, values) for arg in job.args], {key: filled(arg, values) for key, arg in job.kwargs.items()}


# The reference


class End(NamedTuple):
    state: str
    value: Any
    error: BaseException | None
    attempts: int


def reference(spec, sheet, prefix=""):
    """Return what each task comes to, if no failure stops tasks that run at once."""
    ends = []
    for index, job in enumerate(spec.tasks):
        if spec.takes_elements(index) and ends[job.source.index].value is not None:
            ends.append(beside(job, spec.policy, sheet, f"{prefix}{index}", ends[job.source.index]))
        elif all(ends[n].state == "completed" for n in spec.before(index, hands_on=False)):
            ends.append(alone(job, spec.policy, sheet, f"{prefix}{index}", [end.value for end in ends]))
        else:
            interrupted = any(isinstance(end.error, KeyboardInterrupt) for end in ends)
            ends.append(End("cancelled" if interrupted else "skipped", None, None, 0))
    return ends


def beside(job, policy, sheet, key, source):
    """Return what a map of another map comes to, of which some elements may have failed: only these are left out."""
    good = [item for item in source.value if not isinstance(item, BaseException)]
    end = alone(job._replace(source=good), policy, sheet, key, [])
    if end.value is None or len(good) == len(source.value):
        return end
    parts = iter(end.value)
    values = [TaskSkippedError() if isinstance(item, BaseException) else next(parts) for item in source.value]
    return end._replace(value=values, state="skipped" if end.state == "completed" else end.state)


def alone(job, policy, sheet, key, values):
    if isinstance(job, Spec):
        return persistent(lambda: concluded(job, reference(job, sheet, f"{key}-")), 1)
    if isinstance(job, Call):
        args, kwargs = filled_call(job, values)
        return persistent(partial(CALLS[1], sheet, key, job.fails, job.error, *args, **kwargs), job.attempts)
    parts, errors = [], []
    for item in filled(job.source, values):
        part = persistent(partial(ELEMENT_CALLS[1], sheet, key, item), job.attempts)
        parts.append(part)
        errors += [part.error] if part.error else []
        if errors and stops(part.error, policy):
            break
    attempts = max((part.attempts for part in parts), default=1)
    if errors and stops(errors[-1], policy):
        return End("failed", None, errors[-1], attempts)
    values = [part.error or part.value for part in parts]
    if errors:
        return End("failed", values, BaseExceptionGroup("", errors), attempts)
    return End("completed", values, None, attempts)


def persistent(call, attempts):
    attempt = 1
    while True:
        try:
            return End("completed", call(), None, attempt)
        except BaseException as error:
            if attempt == attempts or not isinstance(error, Exception):
                return End("failed", None, error, attempt)
            attempt += 1


def stops(error, policy):
    return error is not None and (policy == "stop" or not isinstance(error, Exception))


def concluded(spec, ends):
    """Return the results, or raise what the process raises."""
    errors = [end.error for end in ends if end.error]
    for error in errors:
        if stops(error, spec.policy):
            raise error
    if errors and spec.policy == "continue":
        raise BaseExceptionGroup("", errors)
    return [in_place(end) for end in ends]


def in_place(end):
    """Return what stands for a task in the results of "return"; a map that failed has its list there."""
    if end.state == "skipped" and end.value is None:
        return TaskSkippedError()
    return end.value if end.state == "completed" or end.value is not None else end.error


# What was seen


class Seen(NamedTuple):
    process: Process
    ending: Any  # the results, or what was raised
    outcomes: list
    calls: dict


def seen(spec, way, run):
    with tempfile.TemporaryDirectory() as sheet:
        process = built(spec, sheet, way.options(), way.awaited)
        try:
            with way.within():
                ending = run(process)
        except BaseException as error:
            ending = error
        return Seen(process, ending, list(process.last_run.outcomes), noted_calls(sheet))


def expected(spec):
    with tempfile.TemporaryDirectory() as sheet:
        return reference(spec, sheet), noted_calls(sheet)


def told(value):
    """Return a value as something that can be compared, with the exceptions in it, wherever they were raised."""
    if isinstance(value, BaseExceptionGroup):
        return type(value).__name__, [told(error) for error in value.exceptions]
    if isinstance(value, ProcessionError):
        return type(value).__name__
    if isinstance(value, RuntimeError) and isinstance(value.__cause__, StopIteration):
        value = value.__cause__  # which Python keeps from leaving a coroutine
    if isinstance(value, StopAsyncIteration):
        return "StopIteration", value.args  # as which it began: see `jobs`
    if isinstance(value, BaseException):
        return type(value).__name__, value.args
    if isinstance(value, dict):
        return {key: told(item) for key, item in value.items()}
    return type(value)(map(told, value)) if type(value) in (list, tuple) else value


def assert_the_same(spec, what, ends, calls):
    """Every task came to what it comes to in the reference, by as many calls."""
    try:
        ending = concluded(spec, ends)
    except BaseException as error:
        ending = error
    assert told(what.ending) == told(ending)
    assert [(outcome.state, told(outcome.error), outcome.attempts) for outcome in what.outcomes] == [
        (end.state, told(end.error), end.attempts) for end in ends
    ]
    if isinstance(ending, BaseException):  # else the values are the caller's, and are the results
        assert [told(outcome.value) for outcome in what.outcomes if outcome.state == "completed"] == [
            told(end.value) for end in ends if end.state == "completed"
        ]
    assert what.calls == calls
    assert [bool(outcome.worker) for outcome in what.outcomes] == [bool(end.attempts) for end in ends]
    well = isinstance(ending, list)
    assert what.process.status == ("completed" if well else "failed")
    interrupted = isinstance(ending, KeyboardInterrupt)
    assert what.process.last_run.status == ("completed" if well else "cancelled" if interrupted else "failed")


def assert_possible(spec, what, ends, way, *, cancelled=False):
    """A run that was stopped somewhere on its way: what it did is right, and nothing follows from what it did not."""
    interrupted = cancelled or any(isinstance(outcome.error, KeyboardInterrupt) for outcome in what.outcomes)
    for index, (job, outcome, end) in enumerate(zip(spec.tasks, what.outcomes, ends, strict=True)):
        key = str(index)
        assert outcome.state in ("completed", "failed", "skipped", "cancelled")
        begun_early = spec.takes_elements(index)
        assert outcome.state != "cancelled" or interrupted or begun_early or (outcome.attempts and isinstance(job, Map))
        if outcome.state == "skipped" and outcome.attempts:
            assert begun_early
            continue
        if outcome.state == "skipped" or not outcome.attempts:
            assert outcome.state in ("skipped", "cancelled")
            assert outcome.attempts == 0
            called = any(name == key or name.startswith(f"{key}-") for name in what.calls)
            assert not called
            continue
        assert all(what.outcomes[n].state == "completed" for n in spec.before(index))
        if outcome.state == "cancelled" and interrupted and way.awaited(index):
            continue  # a coroutine, which ended at its next wait: it has one before its call
        if isinstance(job, Call):
            # A retry is given up once the run is stopped.
            assert what.calls[key] == outcome.attempts <= end.attempts
            if outcome.state == "failed":
                assert told(outcome.error) == (job.error.__name__, (key, outcome.attempts))
                assert outcome.attempts == end.attempts or outcome.attempts <= job.fails
            else:
                assert (outcome.state, outcome.attempts) == ("completed", end.attempts)
        elif isinstance(job, Map):
            assert outcome.attempts <= job.attempts
        else:
            cut_short = interrupted and isinstance(outcome.error, RunCancelledError)
            assert cut_short or (outcome.state, told(outcome.error)) == (end.state, told(end.error))
        if outcome.state == "completed":
            assert end.state == "completed"
            assert isinstance(what.ending, list) or told(outcome.value) == told(end.value)
    assert isinstance(what.ending, list) == (what.process.status == "completed")
    if isinstance(what.ending, BaseException) and not (cancelled and isinstance(what.ending, RunCancelledError)):
        errors = [outcome.error for outcome in what.outcomes if outcome.error]
        assert told(what.ending) in map(told, errors) or (
            isinstance(what.ending, BaseExceptionGroup) and list(what.ending.exceptions) == errors
        )


def assert_in_order(spec, what):
    """Nothing started before what it waits for had ended, and never were there more at once than workers."""
    times = {
        index: (outcome.start, outcome.start + outcome.duration)
        for index, outcome in enumerate(what.outcomes)
        if outcome.start is not None
    }
    rounding = 1e-6
    for index, (start, _) in times.items():
        assert all(times[n][1] <= start + rounding for n in spec.before(index))
    # Between the attempts of a task, and the elements of a map, there may be others.
    one_call = [n for n, job in enumerate(spec.tasks) if not isinstance(job, Map) and what.outcomes[n].attempts == 1]
    times = {index: times[index] for index in one_call if index in times}
    steps = sorted([(start, 1) for start, _ in times.values()] + [(end - rounding, -1) for _, end in times.values()])
    at_once = [sum(step for _, step in steps[:count]) for count in range(1, len(steps) + 1)]
    assert max(at_once, default=0) <= spec.workers


def assert_noted(spec, what):
    """Each exception says where it comes from."""
    for index, outcome in enumerate(what.outcomes):
        if outcome.error is not None:
            start = f"in process {spec.name!r}, task {index} ("
            (noted,) = [note for note in outcome.error.__notes__ if note.startswith(start)]
            assert isinstance(spec.tasks[index], Map) or noted.endswith(f"), attempt {outcome.attempts}")


# Generated processes. Strategies are made once, for making them is slower than to draw from them.

NO_ERRORS = ()
ORDINARY = (KeyError, OSError, StopIteration, OwnError)
ALL_ERRORS = (*ORDINARY, KeyboardInterrupt, SystemExit)
STRATEGIES = {
    "sequential": st.just(Sequential()),
    "parallel": st.just(Parallel()),
    "hybrid": st.builds(Hybrid, st.sampled_from([None, 1, 2, 3, 4])),
}
POLICIES = ["stop", "continue", "return"]
ATTEMPTS = st.sampled_from([1, 1, 2, 3])
ATOMS = st.none() | st.integers(-9, 9) | st.text(max_size=3) | st.just(())
COUNTS = [st.integers(0, 2), st.integers(0, 3), st.sampled_from([4, 5, 6, 7, 3, 2, 1, 0])]  # of tasks, by depth
NAMES = ["innermost", "inner", "outer"]


@cache
def troubles(errors):
    """How often a call fails, and with what."""
    return st.tuples(st.sampled_from([0, 0, 0, 1, 2, 9]), st.sampled_from(errors)) if errors else st.just((0, OwnError))


@cache
def refs(index):
    return st.builds(Ref, st.integers(0, index - 1))


@cache
def values(index):
    """Arguments of a task."""
    one = ATOMS | refs(index) if index else ATOMS
    return one | st.lists(one, max_size=3) | st.tuples(one, one) | st.fixed_dictionaries({"k": one, "l": one})


@cache
def calls(index, errors):
    trouble = troubles(errors)
    args = st.lists(values(index), max_size=3).map(tuple)
    kwargs = st.dictionaries(st.sampled_from(["name", "self"]), values(index))
    item = trouble.map(lambda trouble: (Item("item", *trouble),))  # for a map over what the call returns
    return st.builds(
        lambda trouble, attempts, args, item, kwargs: Call(*trouble, attempts, args + item, kwargs),
        trouble,
        ATTEMPTS,
        args,
        st.just(()) | item,
        kwargs,
    )


@cache
def maps(index, errors):
    items = st.builds(
        lambda troubles, more: (
            [Item(str(place), *trouble) for place, trouble in enumerate(troubles)] + list(range(more))
        ),
        st.lists(troubles(errors), max_size=4),
        st.sampled_from([0, 5, 200]),
    )
    over_items = st.builds(Map, items, st.booleans(), ATTEMPTS)
    return over_items | st.builds(Map, refs(index), st.just(False), ATTEMPTS) if index else over_items


@cache
def inside(depth, errors):
    """Processes inside of another: what one of them comes to must not depend on who is faster."""
    return st.one_of(
        specs(
            strategy,
            policy,
            depth,
            errors if strategy == "sequential" else NO_ERRORS if policy == "stop" else errors and ORDINARY,
        )
        for strategy in STRATEGIES
        for policy in POLICIES
    )


@cache
def specs(strategy, policy, depth, errors):
    kinds = st.sampled_from(
        [calls, calls, calls, maps, maps] + [lambda _, errors: inside(depth - 1, errors)] * (depth > 0)
    )

    @st.composite
    def drawn(draw):
        tasks = [draw(draw(kinds)(index, errors)) for index in range(draw(COUNTS[depth]))]
        return Spec(NAMES[depth], draw(STRATEGIES[strategy]), policy, draw(st.integers(1, 4)), tasks)

    return drawn()


def outer(strategy, policy):
    return st.sampled_from([ORDINARY, ORDINARY, ALL_ERRORS, NO_ERRORS]).flatmap(
        lambda errors: specs(strategy, policy, 2, errors)
    )


def search(way, strategy, policy, rounds):
    """Try the same examples every time, and others for each strategy and policy."""
    bounds = settings(deadline=None, database=None, max_examples=rounds(way.examples))
    return lambda check: seed(f"{strategy} {policy}")(bounds(check))


def every_way(test):
    for parameter in [
        pytest.mark.parametrize("policy", POLICIES),
        pytest.mark.parametrize("strategy", STRATEGIES),
        pytest.mark.parametrize("way", [pytest.param(way, id=way.name, marks=way.marks()) for way in WAYS]),
    ]:
        test = parameter(test)
    return test


@every_way
def test_a_process_comes_to_the_same_everywhere(way, strategy, policy, rounds):
    """Results, order, failures, attempts and states are those of one call after another."""

    @search(way, strategy, policy, rounds)
    @given(outer(strategy, policy))
    def check(spec):
        ends, calls = expected(spec)
        what = seen(spec, way, way.run)
        if any(stops(end.error, spec.policy) for end in ends[spec.first :]):
            assert_possible(spec, what, ends, way)
            assert isinstance(what.ending, BaseException)
            assert stops(what.ending, spec.policy)
        else:
            assert_the_same(spec, what, ends, calls)
        assert_in_order(spec, what)
        assert_noted(spec, what)

    check()


@every_way
def test_a_cancelled_process_has_done_right_whatever_it_did(way, strategy, policy, rounds):
    """Cancelled when so many tasks have ended, it ends, tells of every task once, and can say what became of each."""

    @search(way, strategy, policy, rounds)
    @given(outer(strategy, policy), st.integers(0, 7))
    def check(spec, when):
        told_of = []

        def run(process):
            run = process.start()
            if when == 0:
                run.cancel()
            for outcome in run:
                told_of.append(outcome.index)
                if len(told_of) == when:
                    run.cancel()
            return run.result(50)

        ends, _ = expected(spec)
        what = seen(spec, way, run)
        assert sorted(told_of) == list(range(len(spec.tasks)))
        assert_possible(spec, what, ends, way, cancelled=True)
        assert_in_order(spec, what)
        status = what.process.last_run.status
        assert isinstance(what.ending, RunCancelledError | KeyboardInterrupt) == (status == "cancelled")

    check()
