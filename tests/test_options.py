"""Options of a task: what can have them, and which are refused."""

import math
import pickle
import threading
import warnings
from functools import partial
from unittest.mock import Mock

import pytest
import tenacity

from procession import Process, Sequential, current_task, task
from procession._model.where import usable_cores
from single_tasks import Flaky, no_backoff, outcome_of


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


def test_workers_without_a_strategy_are_warned_of_at_the_line_that_asks_for_them():
    """As one task runs at a time then; who names a strategy knows."""
    with pytest.warns(RuntimeWarning, match="max_workers=8 means nothing with the strategy 'sequential'") as warned:
        assert Process("x", max_workers=8).max_workers == 8
    assert warned[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for strategy in "sequential", Sequential(), "parallel", "hybrid":
            Process("x", strategy, 8)
        assert Process("x").strategy == Process("x", max_workers=1).strategy == "sequential"


def test_worker_processes_are_as_many_as_cores_unless_said_otherwise():
    """Since each of them keeps one busy."""
    assert Process("x", "parallel", executor="processes").max_workers == usable_cores()
    assert Process("x", "parallel", 7, executor="processes").max_workers == 7
