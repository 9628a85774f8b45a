"""Retries: how often a task is attempted, and what is waited for in between."""

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import tenacity

from procession import Hybrid, Process, ResultError, Sequential, current_task, task
from procession.testing import memory_journal
from single_tasks import STRATEGIES, Flaky, no_backoff, outcome_of, run_of


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


MADE = []


def lock_of(_=None):
    """Return what no journal records, often: each attempt more would be a call more."""
    MADE.append(True)
    return threading.Lock() if len(MADE) < 5 else "another attempt"


async def lock_of_later(_=None):
    return lock_of()


@pytest.mark.parametrize("function", [lock_of, lock_of_later])
@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
@pytest.mark.parametrize("retries", [2, tenacity.Retrying(stop=tenacity.stop_after_attempt(3))])
@pytest.mark.parametrize("is_map", [False, True])
def test_a_value_that_cannot_be_recorded_is_not_tried_again(function, strategy, retries, is_map):
    """The call has succeeded, and would return no other kind of value."""
    MADE.clear()
    process = Process("locks", strategy, 2)
    if is_map:
        process.map(task(retries=retries)(function), [1])
    else:
        process.add_task(task(retries=retries)(function))
    with memory_journal() as journal, pytest.raises(ResultError):
        process.execute(run_id="a", journal=journal)
    assert len(MADE) == 1
