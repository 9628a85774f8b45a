"""Options of a task: how often it is attempted, how long one attempt may take, how it is called."""

import itertools
import math
import pickle
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from unittest.mock import Mock

import pytest
import tenacity

from procession import Hybrid, Process, Sequential, TaskTimeoutError, current_task, task

STRATEGIES = ["sequential", "parallel", "hybrid"]
AT_ONCE = {"wait": tenacity.wait_none(), "sleep": lambda _: None}


class Flaky:
    """Raises what it is given, one after the other, then returns the number of the attempt."""

    def __init__(self, *errors):
        self.errors = errors
        self.attempts = []

    def __call__(self):
        number = current_task().attempt
        self.attempts.append(number)
        if number <= len(self.errors):
            raise self.errors[number - 1]
        return number


def run_of(function, strategy="sequential", **options):
    process = Process("options", strategy, 2, on_error="return", **options)
    process.add_task(function)
    return process.start()


def no_backoff(number, **more):
    return tenacity.Retrying(stop=tenacity.stop_after_attempt(number), **AT_ONCE, **more)


def outcome_of(function, strategy="sequential"):
    run = run_of(function, strategy)
    run.wait(30)
    return run.outcomes[0]


# Retries


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("retries", "failures"), [(0, 0), (1, 0), (1, 1), (2, 1)])
def test_a_task_is_attempted_until_it_ends_well(strategy, retries, failures):
    """Each attempt knows its number, and the outcome counts them."""
    flaky = Flaky(*[OSError("no")] * failures)
    outcome = outcome_of(task(retries=retries)(flaky), strategy)
    assert (outcome.state, outcome.value, outcome.attempts) == ("completed", failures + 1, failures + 1)
    assert flaky.attempts == list(range(1, failures + 2))


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_retries_are_the_attempts_after_the_first(retries):
    """The last attempt's exception is raised, and the note says which attempt that was."""
    errors = [OSError(number) for number in range(retries + 1)]
    flaky = Flaky(*errors)
    process = Process("tries")
    process.add_task(task(retries=retries, name="flaky")(flaky))
    with pytest.raises(OSError) as caught:
        process.execute()
    assert caught.value is errors[-1]
    assert caught.value.__notes__ == [f"in process 'tries', task 0 (flaky), attempt {retries + 1}"]
    assert flaky.attempts == list(range(1, retries + 2))
    assert process.last_run.outcomes[0].attempts == retries + 1


def test_a_retried_exception_has_no_trace_of_the_retrying():
    """No wrapper, no cause, no context that the task did not make itself."""
    process = Process("plain")
    process.add_task(task(retries=1)(Flaky(ValueError("a"), KeyError("b"))))
    with pytest.raises(KeyError) as caught:
        process.execute()
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


@pytest.mark.parametrize("retry_on", [ConnectionError, (ConnectionError,), [KeyError, ConnectionError]])
def test_only_the_named_exceptions_are_retried(retry_on):
    """Subclasses included; the first other one ends the task."""
    flaky = Flaky(ConnectionResetError(), ValueError("no"), ConnectionError())
    outcome = outcome_of(task(retries=5, retry_on=retry_on)(flaky))
    assert isinstance(outcome.error, ValueError)
    assert outcome.attempts == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("retries", [3, no_backoff(3, retry=tenacity.retry_if_exception_type(BaseException))])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_is_no_exception_is_never_retried(error, retries, strategy):
    """Whatever the rules say."""
    flaky = Flaky(error())
    process = Process("base", strategy)
    process.add_task(task(retries=retries)(flaky))
    with pytest.raises(error):
        process.execute()
    assert flaky.attempts == [1]
    assert process.last_run.outcomes[0].attempts == 1


def test_a_retrying_brings_its_own_rules():
    """Its stop, its retry and its hooks hold; the exception is raised as itself."""
    seen = []
    rules = no_backoff(
        4,
        retry=tenacity.retry_if_exception_type(KeyError),
        before_sleep=lambda state: seen.append(state.attempt_number),
    )
    flaky = Flaky(*[KeyError("no")] * 9)
    outcome = outcome_of(task(retries=rules)(flaky))
    assert isinstance(outcome.error, KeyError)
    assert outcome.attempts == 4
    assert seen == [1, 2, 3]
    other = Flaky(ValueError("no"))
    assert outcome_of(task(retries=rules)(other)).attempts == 1


def fetch(url, page=1):
    raise ConnectionError(url)


async def fetch_later(url, page=1):
    raise ConnectionError(url)


@pytest.mark.parametrize("executor", ["threads", "processes", "given"])
@pytest.mark.parametrize("function", [fetch, fetch_later])
@pytest.mark.parametrize("timeout", [None, 30])
def test_the_callbacks_of_a_retrying_see_the_function_and_the_arguments_of_the_task(function, executor, timeout):
    """Wherever it is called: whoever logs the retry, or gives another value up for it, goes by them."""
    seen = []
    rules = no_backoff(
        2,
        before=lambda state: seen.append(("before", state.fn.__name__, state.args, state.kwargs)),
        before_sleep=lambda state: seen.append(("pause", state.fn.__name__, state.args, state.kwargs)),
        retry_error_callback=lambda state: f"gave up on {state.args[0]}, {state.kwargs}",
    )
    with ThreadPoolExecutor(1) as pool:
        process = Process("told", executor=pool if executor == "given" else executor)
        process.add_task(task(retries=rules, timeout=timeout)(function), "a", page=2)
        process.map(task(retries=rules, timeout=timeout)(function), ["b"])
        assert process.execute() == ["gave up on a, {'page': 2}", ["gave up on b, {}"]]
    name = function.__name__
    assert seen == [
        (when, name, *call) for call in ((("a",), {"page": 2}), (("b",), {})) for when in ("before", "pause", "before")
    ]


@pytest.mark.parametrize("strategy", ["sequential", Sequential(), Hybrid(first=2), "hybrid"])
@pytest.mark.parametrize("add", [Process.add_task, Process.task, lambda *given: Process.map(*given, [])])
def test_a_timeout_among_tasks_in_order_warns_that_the_thread_is_another(strategy, add):
    """Where it is added, or in halves, executed; with the process, the task and what to do."""
    process = Process("connected", strategy)
    process.add_task(int)
    said = r"process 'connected', task 1 \((map of )?fetch\): .* a thread of its own.*leave the timeout out"
    with pytest.warns(RuntimeWarning, match=said) as warned:
        add(process, task(timeout=5, name="fetch")(int))
        process.add_task(int)
        process.add_task(int)
        if strategy == "hybrid":
            assert not warned
            process.execute()
    assert [warning.filename for warning in warned] == [__file__]


@pytest.mark.parametrize(
    "definition",
    [
        {"strategy": "parallel"},
        {"strategy": Hybrid(first=0)},
        {"executor": "processes"},
        {"function": task(timeout=5)(fetch_later)},
        {"function": task(retries=5)(fetch)},
    ],
)
def test_nothing_is_warned_of_where_the_thread_is_as_expected(definition):
    """At once, elsewhere, awaited, or without a timeout."""
    function = definition.pop("function", task(timeout=5)(fetch))
    process = Process("connected", **definition)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        process.add_task(function, "a")


def test_a_retrying_can_retry_on_results():
    """A value that is not wanted is another reason to try again."""

    @task(retries=no_backoff(5, retry=tenacity.retry_if_result(lambda value: value < 3)))
    def counted():
        return current_task().attempt

    outcome = outcome_of(counted)
    assert (outcome.value, outcome.attempts) == (3, 3)


def test_a_retrying_is_shared_by_tasks_at_once():
    """Many tasks under the same rules count for themselves."""
    rules = no_backoff(3)
    barrier = threading.Barrier(4)

    @task(retries=rules)
    def meet():
        barrier.wait(20)
        if current_task().attempt < 3:
            raise OSError
        return current_task().attempt

    process = Process("shared", "parallel", 4)
    for _ in range(4):
        process.add_task(meet)
    assert process.execute() == [3] * 4
    assert [outcome.attempts for outcome in process.last_run.outcomes] == [3] * 4


def test_each_element_of_a_map_has_its_own_attempts():
    """An element that fails is tried again, the others are not."""
    calls = []

    @task(retries=no_backoff(3))
    def each(number):
        calls.append(number)
        if number == 1 and current_task().attempt < 3:
            raise OSError
        return current_task().attempt

    process = Process("map")
    process.map(each, [0, 1, 2])
    assert process.execute() == [[1, 3, 1]]
    assert calls == [0, 1, 1, 1, 2]


def test_the_wait_for_another_attempt_ends_when_the_run_is_cancelled():
    """However long it would have been, and however often the rules would try again."""
    waiting = threading.Event()
    rules = tenacity.Retrying(wait=tenacity.wait_fixed(3600), before_sleep=lambda _: waiting.set())
    flaky = Flaky(*[OSError(number) for number in range(9)])
    for strategy in STRATEGIES:
        waiting.clear()
        flaky.attempts.clear()
        run = run_of(task(retries=rules)(flaky), strategy)
        assert waiting.wait(20)
        run.cancel()
        assert run.wait(20)
        assert run.status == "cancelled"
        assert flaky.attempts == [1]


def test_the_wait_for_another_attempt_ends_when_another_task_fails():
    """Nothing new starts after a failure, another attempt included."""
    waiting = threading.Event()
    rules = tenacity.Retrying(wait=tenacity.wait_fixed(3600), before_sleep=lambda _: waiting.set())
    flaky = Flaky(*[OSError(number) for number in range(9)])

    def fail():
        assert waiting.wait(20)
        raise KeyError("no")

    process = Process("two", "parallel", 2)
    process.add_task(task(retries=rules)(flaky))
    process.add_task(fail)
    with pytest.raises(KeyError):
        process.execute()
    assert flaky.attempts == [1]
    assert isinstance(process.last_run.outcomes[0].error, OSError)


# Timeouts


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_attempt_that_takes_too_long_fails_on_time(strategy):
    """With an error that names the task and the timeout, and is a TimeoutError."""
    release = threading.Event()
    process = Process("late", strategy)
    process.add_task(task(timeout=0.1, name="slow")(release.wait), 50)
    begin = time.monotonic()
    try:
        with pytest.raises(TaskTimeoutError, match=r"slow.*0\.1 s") as caught:
            process.execute()
        assert time.monotonic() - begin < 5
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.__notes__ == ["in process 'late', task 0 (slow), attempt 1"]
        assert process.status == "failed"
    finally:
        release.set()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_timeout_is_told_within_50_ms(strategy):
    """Measured from the start of the attempt; more than one measurement only where the machine was held up."""
    release = threading.Event()
    timeout, late = 0.2, []
    for _ in range(5):
        outcome = outcome_of(task(timeout=timeout)(release.wait), strategy)
        assert isinstance(outcome.error, TaskTimeoutError)
        assert outcome.duration >= timeout
        late.append(outcome.duration - timeout)
        if late[-1] <= 0.05:
            break
    release.set()
    assert min(late) <= 0.05, late


def test_hung_tasks_at_once_are_all_told_in_time():
    """One that hangs delays no other, nor the end of the run."""
    release = threading.Event()
    timeout, late = 0.2, []
    for _ in range(5):
        process = Process("hung", "parallel", 8, on_error="return")
        for _ in range(8):
            process.add_task(task(timeout=timeout)(release.wait))
        begin = time.monotonic()
        errors = process.execute()
        late.append(time.monotonic() - begin - timeout)
        assert [type(error) for error in errors] == [TaskTimeoutError] * 8
        if late[-1] <= 0.05:
            break
    release.set()
    assert min(late) <= 0.05, late


def test_a_clock_that_is_set_back_or_forth_changes_nothing(monkeypatch):
    """Starts, durations, timeouts and sleeps go by a clock that only goes on."""
    clock = itertools.cycle([0.0, 4e9, -4e9])
    monkeypatch.setattr(time, "time", lambda: next(clock))
    for strategy in STRATEGIES:
        process = Process("clock", strategy, 2)
        process.add_task(time.time)
        process.add_task(task(timeout=50)(lambda: current_task().sleep(0.001)))
        process.add_task(task(timeout=50, retries=1)(time.time))
        process.execute()
        run = process.last_run
        assert 0 < run.duration < 20
        for outcome in run.outcomes:
            assert 0 <= outcome.start < 20
            assert 0 <= outcome.duration < 20


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_task_within_its_timeout_is_like_any_other(strategy):
    """Its value, its exception and its context are its own."""
    error = KeyError("no")

    def fail():
        raise error

    process = Process("quick", strategy, on_error="return")
    process.add_task(task(timeout=50)(lambda: 7))
    process.add_task(task(timeout=50)(lambda: current_task().index))
    process.add_task(task(timeout=50)(fail))
    assert process.execute() == [7, 1, error]


def test_the_place_of_a_hung_task_is_filled():
    """Even the only one; and the one that hangs is told to stop."""
    release, stopped = threading.Event(), threading.Event()

    @task(timeout=0.05)
    def hung():
        me = current_task()
        release.wait(50)
        if me.cancelled:
            stopped.set()

    process = Process("goes on", "parallel", 1, on_error="return")
    process.add_task(hung)
    process.add_task(lambda: "next")
    results = process.execute()
    assert isinstance(results[0], TaskTimeoutError)
    assert results[1] == "next"
    release.set()
    assert stopped.wait(20)


def test_in_order_only_the_task_with_a_timeout_leaves_the_callers_thread():
    """And the next one still starts after it has ended."""
    seen = []

    def note():
        seen.append(threading.current_thread())

    process = Process("threads")
    process.add_task(note)
    process.add_task(task(timeout=50)(note))
    process.add_task(note)
    process.execute()
    assert seen[0] is seen[2] is threading.current_thread()
    assert seen[1] is not seen[0]


def test_a_hung_attempt_is_not_tried_again_beside_itself():
    """Attempts of one task never overlap."""
    release = threading.Event()
    lock, running, most, calls = threading.Lock(), 0, 0, 0

    def hung():
        nonlocal running, most, calls
        with lock:
            calls += 1
            running += 1
            most = max(most, running)
        release.wait(50)
        with lock:
            running -= 1

    try:
        outcome = outcome_of(task(timeout=0.05, retries=no_backoff(5))(hung))
        assert isinstance(outcome.error, TaskTimeoutError)
        assert (outcome.attempts, calls, most) == (1, 1, 1)
    finally:
        release.set()


def test_a_timed_out_attempt_that_has_ended_is_tried_again():
    """Once the thread that was left behind has gone, there is nothing to overlap with."""
    ended, before = threading.Event(), threading.enumerate()

    def wait_until_gone(_):
        assert ended.wait(20)
        for thread in threading.enumerate():
            if thread.name.endswith("-attempt") and thread not in before:
                thread.join(20)

    @task(timeout=0.05, retries=tenacity.Retrying(stop=tenacity.stop_after_attempt(3), before_sleep=wait_until_gone))
    def slow_once():
        me = current_task()
        if me.attempt == 1:
            while not me.cancelled:
                ended.wait(0.01)
            ended.set()
        return me.attempt

    outcome = outcome_of(slow_once)
    assert (outcome.value, outcome.attempts) == (2, 2)


@pytest.mark.parametrize("late", ["value", "error"])
def test_what_a_hung_task_ends_with_later_is_ignored(late):
    """The results and the outcome stay what they were."""
    release, ended = threading.Event(), threading.Event()

    @task(timeout=0.05)
    def hung():
        release.wait(50)
        ended.set()
        if late == "error":
            raise KeyError("late")
        return "late"

    run = run_of(hung)
    (error,) = run.result(20)
    release.set()
    assert ended.wait(20)
    assert isinstance(error, TaskTimeoutError)
    assert run.outcomes[0].error is error
    assert run.result()[0] is error


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_interpreter_does_not_wait_for_a_hung_task(strategy):
    """Neither does execute()."""
    script = f"""
import threading
from procession import Process, task
process = Process("hung", {strategy!r}, on_error="return")
process.add_task(task(timeout=0.1)(threading.Event().wait))
process.add_task(task(timeout=0.1)(threading.Event().wait))
print([type(error).__name__ for error in process.execute()], flush=True)
"""
    # That the thread is another is warned of in order.
    command = [sys.executable, "-W", "ignore::RuntimeWarning", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0
    assert done.stderr == ""
    if strategy == "sequential":
        assert done.stdout == "['TaskTimeoutError', 'TaskSkippedError']\n"
    else:
        assert done.stdout.startswith("['TaskTimeoutError', ")


def test_a_timeout_holds_for_each_element_of_a_map():
    """The hung element fails, the others have their values."""
    release = threading.Event()

    @task(timeout=0.05)
    def each(number):
        if number == 1:
            release.wait(50)
        return number

    process = Process("map", "parallel", 2, on_error="return")
    process.map(each, [0, 1, 2])
    try:
        ((first, second, third),) = process.execute()
        assert (first, third) == (0, 2)
        assert isinstance(second, TaskTimeoutError)
    finally:
        release.set()


# What can have options


def test_the_decorated_original_stays_without_options():
    """Only what the decorator returned has them, and both are ordinary functions."""

    def original(number, *, more=1):
        """Say something."""
        return number + more

    original.mark = "kept"
    decorated = task(name="other")(original)
    assert decorated(1) == original(1) == 2
    assert decorated(1, more=2) == 3
    assert decorated.__wrapped__ is original
    assert (decorated.__name__, decorated.__doc__, decorated.mark) == ("original", "Say something.", "kept")
    process = Process("names")
    process.add_task(original, 1)
    process.add_task(decorated, 1)
    process.execute()
    names = [outcome.name for outcome in process.last_run.outcomes]
    assert names[0].endswith("original")
    assert names[1] == "other"


def test_decorating_twice_changes_only_what_is_named():
    """The outer options win, the others stay; the inner function keeps its own."""
    flaky = Flaky(OSError(), OSError())
    inner = task(retries=no_backoff(2), name="inner")(lambda: flaky())
    outer = task(retries=no_backoff(3))(inner)
    renamed = task(name="renamed")(outer)
    for function, name, attempts in (inner, "inner", 2), (outer, "inner", 3), (renamed, "renamed", 3):
        outcome = outcome_of(function)
        assert (outcome.name, outcome.attempts) == (name, attempts)


class Service:
    def __init__(self):
        self.calls = []

    @task(retries=no_backoff(2), name="fetch")
    def method(self, value):
        self.calls.append(current_task().attempt)
        if len(self.calls) < 2:
            raise OSError
        return value

    @classmethod
    @task(name="made")
    def made(cls, value):
        return cls, value

    @staticmethod
    @task(name="still")
    def still(value):
        return value


def test_methods_have_options():
    """Bound to an instance, to a class, and static."""
    service = Service()
    process = Process("methods")
    process.add_task(service.method, 7)
    process.add_task(Service.made, 8)
    process.add_task(Service.still, 9)
    assert process.execute() == [7, (Service, 8), 9]
    assert [outcome.name for outcome in process.last_run.outcomes] == ["fetch", "made", "still"]
    assert service.calls == [1, 2]


class Instance:
    def __call__(self):
        return "instance"


@pytest.mark.parametrize(
    ("function", "args", "value"),
    [
        (lambda: "lambda", (), "lambda"),
        (partial(pow, 2), (3,), 8),
        (Instance(), (), "instance"),
        (len, ("abc",), 3),
        (Service().still, (1,), 1),
        (dict, (), {}),
        ("a-b".split, ("-",), ["a", "b"]),
        (Mock(return_value=5), (), 5),
    ],
    ids=["lambda", "partial", "instance", "builtin", "method", "class", "builtin method", "mock"],
)
def test_any_callable_can_have_options(function, args, value):
    """The result is called like it, and as a task goes by its options."""
    marked = task(name="named", timeout=50)(function)
    assert marked(*args) == value
    process = Process("any")
    process.add_task(marked, *args)
    process.add_task(function, *args)
    assert process.execute() == [value, value]
    assert process.last_run.outcomes[0].name == "named"
    assert process.last_run.outcomes[1].name != "named"


def test_a_partial_of_a_function_with_options_has_them():
    """At any depth."""
    flaky = Flaky(OSError())
    fetch = task(retries=no_backoff(2), name="fetch")(lambda *_: flaky())
    outcome = outcome_of(partial(partial(fetch, 1), 2))
    assert (outcome.value, outcome.name, outcome.attempts) == (2, "fetch", 2)


def test_an_option_that_is_given_counts_where_it_equals_the_default_too():
    """Each can be taken back, and those that are not given stay."""

    def fail():
        raise OSError(threading.current_thread())

    def ended(function):
        process = Process("taken_back")
        process.add_task(function)
        with pytest.raises(OSError) as caught:
            process.execute()
        outcome = process.last_run.outcomes[0]
        return outcome.name, outcome.attempts, caught.value.args[0] is threading.current_thread()

    fetch = task(retries=1, timeout=30.0, name="fetch", retry_on=ValueError)(fail)
    assert ended(fetch) == ("fetch", 1, False)
    assert ended(task(timeout=None)(fetch)) == ("fetch", 1, True)
    assert ended(task(name=None)(fetch)) == (fail.__qualname__, 1, False)
    again = task(retry_on=Exception)(fetch)
    assert ended(again) == ("fetch", 2, False)
    assert ended(task(retries=0)(again)) == ("fetch", 1, False)


def test_retries_that_are_switched_off_take_along_what_was_worth_one():
    """So the other options can still be changed, and retries that are switched on again are for any exception."""
    fetch = task(retries=3, retry_on=ConnectionError)(Flaky(OSError()))
    off = task(retries=0)(fetch)
    assert outcome_of(off).attempts == 1
    assert outcome_of(task(name="fetch")(off)).name == "fetch"
    assert outcome_of(task(retries=1)(off)).attempts == 2
    with pytest.raises(ValueError, match=r"retry_on.*retries=0"):
        task(retry_on=ConnectionError)(off)


@task(name="global")
def at_top(value):
    return value


def test_a_decorated_function_can_be_pickled():
    """It is found again under its name."""
    assert pickle.loads(pickle.dumps(at_top)) is at_top


# What is refused


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"retries": -1}, ValueError, r"retries.*at least 0.*-1"),
        ({"retries": True}, TypeError, r"retries.*True"),
        ({"retries": 1.5}, TypeError, r"retries.*1\.5"),
        ({"retries": "3"}, TypeError, r"retries.*'3'"),
        ({"retries": None}, TypeError, r"retries.*None"),
        ({"retries": tenacity.AsyncRetrying()}, TypeError, r"retries.*tenacity\.Retrying"),
        ({"timeout": 0}, ValueError, r"timeout.*above 0.*0"),
        ({"timeout": -1}, ValueError, r"timeout.*above 0.*-1"),
        ({"timeout": math.nan}, ValueError, r"timeout.*nan"),
        ({"timeout": math.inf}, ValueError, r"timeout.*inf"),
        ({"timeout": "3"}, TypeError, r"timeout.*'3'"),
        ({"timeout": 10**400}, ValueError, r"timeout.*finite"),
        ({"timeout": 10**5000}, ValueError, r"timeout.*finite.*int"),
        ({"retries": -(10**5000)}, ValueError, r"retries.*at least 0.*int"),
        ({"timeout": False}, TypeError, r"timeout.*False"),
        ({"name": 3}, TypeError, r"name.*3"),
        ({"retry_on": KeyboardInterrupt}, TypeError, r"retry_on.*Exception.*KeyboardInterrupt"),
        ({"retry_on": (OSError, int)}, TypeError, r"retry_on.*Exception.*int"),
        ({"retry_on": [OSError()]}, TypeError, r"retry_on.*Exception.*OSError"),
        ({"retry_on": "OSError"}, TypeError, r"retry_on.*Exception.*'OSError'"),
        ({"retry_on": 3}, TypeError, r"retry_on.*Exception.*3"),
        ({"retry_on": None}, TypeError, r"retry_on.*Exception.*None"),
        ({"retries": tenacity.Retrying(), "retry_on": OSError}, TypeError, r"retry_on.*retry="),
        ({"retries": 0, "retry_on": OSError}, ValueError, r"retry_on.*retries=0"),
    ],
)
def test_options_that_cannot_be_meant_are_refused_at_once(options, error, match):
    """The message names the option and what was given."""
    with pytest.raises(error, match=match):
        task(**options)


def test_only_callables_can_have_options():
    """Said when decorating, without reading too much of what was given."""
    with pytest.raises(TypeError, match="callable"):
        task(retries=1)("x" * 10_000)
    with pytest.raises(TypeError, match="callable; got 3"):
        task(3)
    with pytest.raises(TypeError):
        task(unknown=1)


def test_a_decorator_without_brackets_gives_no_options():
    """The function is as good as before, here and as a task."""

    @task
    def fetch(url):
        """Fetch."""
        return url

    process = Process("plain")
    process.add_task(fetch, "a")
    assert (fetch("b"), fetch.__doc__, process.execute()) == ("b", "Fetch.", ["a"])


def test_what_is_worth_a_retry_is_refused_where_none_is_made():
    """When decorating, with the name of the function; one whose retries were said before may have it."""

    def fetch():
        raise OSError

    for undecided in fetch, task(timeout=3)(fetch), task(name="fetch")(len):
        with pytest.raises(ValueError, match=r"retry_on.*'.*fetch'.*retries=0.*retries=3"):
            task(retry_on=OSError)(undecided)
    with pytest.raises(TypeError, match=r"retry_on.*'.*fetch'.*retry="):
        task(retry_on=OSError)(task(retries=tenacity.Retrying())(fetch))
    process = Process("decided")
    process.add_task(task(retry_on=OSError)(task(retries=1)(fetch)))
    with pytest.raises(OSError):
        process.execute()
    assert process.last_run.outcomes[0].attempts == 2
