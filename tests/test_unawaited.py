"""Plain functions that return a coroutine: nobody would ever await it, so their task fails and says what to write."""

import asyncio
import functools
import gc
import inspect
import re
import types
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from coroutines import every_strategy, every_way, later, same, states
from procession import Process, TransferError, task

SAID = re.compile("it returned a coroutine, of later, that nobody awaits.*async def call")


@pytest.fixture(autouse=True, params=["INFO", "DEBUG"])
def level(request, caplog):
    """With and without somebody who follows each step of each task."""
    caplog.set_level(request.param, "procession")
    return request.param


@pytest.fixture(autouse=True)
def no_complaint():
    """What was said plainly is not said once more by the interpreter."""
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        yield
        gc.collect()
    assert not [complaint for complaint in complaints if "never awaited" in str(complaint.message)]


def logged(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)

    return wrapper


class Client:
    def get(self, value):
        return later(value)


FUNCTIONS = [lambda value: later(value), logged(later), Client().get, task(retries=0)(lambda value: later(value))]


@every_strategy
@every_way
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_task_that_returns_a_coroutine_fails(function, way, strategy):
    """However it is run; beside coroutine functions, too."""
    process = Process("slips", strategy)
    process.add_task(same, 1)
    process.add_task(function, 2)
    process.add_task(later, 3)
    with pytest.raises(TypeError, match=SAID) as caught:
        way(process)
    assert caught.value.__notes__[-1].startswith("in process 'slips', task 1 (")
    assert process.status == "failed"
    assert states(process.last_run)[:2] == ["completed", "failed"]


@pytest.mark.parametrize("policy", ["continue", "return"])
def test_the_others_are_what_they_are(policy):
    """Under each policy it is a failure like any other."""
    process = Process("slips", "parallel", on_error=policy)
    process.add_task(same, 1)
    process.add_task(lambda: later(2))
    if policy == "return":
        one, error = process.execute()
        assert one == 1
    else:
        with pytest.raises(ExceptionGroup) as caught:
            process.execute()
        (error,) = caught.value.exceptions
    assert SAID.search(str(error))


@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
def test_a_task_that_takes_the_value_is_not_called_with_a_coroutine(strategy, level):
    """It is told whose value it would have taken."""
    called = []
    process = Process("slips", strategy)
    slip = process.task(lambda: later(2))
    process.add_task(called.append, slip)
    with pytest.raises(TypeError, match="returned a coroutine, of later") as caught:
        process.execute()
    assert not called
    told = re.match(r"task 0 \(.*lambda.*\), whose value it takes, returned", str(caught.value))
    assert (bool(told), states(process.last_run)[0]) == (level == "INFO", "failed")


@every_way
def test_an_element_that_returns_a_coroutine_fails(way):
    """So a map never gives a list of them."""
    process = Process("slips", "parallel")
    process.map(lambda value: later(value), [1, 2])
    with pytest.raises(TypeError, match=SAID) as caught:
        way(process)
    assert "element" in caught.value.__notes__[-1]


def test_a_recorded_run_and_an_executor_say_the_same(tmp_path):
    """And not that it cannot be recorded or sent."""
    with ThreadPoolExecutor(1) as pool:
        for options in {"journal": tmp_path / "runs.db", "run_id": "once"}, {"executor": pool}:
            process = Process("slips", executor=options.pop("executor", "threads"))
            process.add_task(lambda: later(2))
            with pytest.raises(TypeError, match=SAID) as caught:
                process.execute(**options)
            assert not isinstance(caught.value, TransferError)


def test_a_worker_process_says_the_same():
    """It comes back as what it is."""
    process = Process("slips", executor="processes")
    process.add_task(Client().get, 2)
    with pytest.raises(TypeError, match=SAID):
        process.execute()


def test_what_goes_on_by_itself_is_a_value():
    """A future can be awaited, and nothing is lost if it is not."""

    async def call():
        future = asyncio.get_running_loop().create_future()
        future.set_result(1)
        process = Process("futures")
        process.add_task(lambda: future)
        return await process.execute_async() == [future]

    assert asyncio.run(call())


def test_a_marked_function_is_awaited():
    """As the message says."""
    if not hasattr(inspect, "markcoroutinefunction"):
        pytest.skip("inspect.markcoroutinefunction comes with 3.12")
    process = Process("marked")
    process.add_task(inspect.markcoroutinefunction(logged(later)), 2)
    assert process.execute() == [2]


def test_a_coroutine_that_somebody_awaits_already_is_left_to_them():
    """It is refused as a value, and not closed."""
    closed = []

    @types.coroutine
    def wait():
        try:
            yield
        finally:
            closed.append(True)

    async def waiting():
        await wait()

    coroutine = waiting()
    coroutine.send(None)
    process = Process("slips")
    process.add_task(same, coroutine)
    with pytest.raises(TypeError, match="of .*waiting, that nobody awaits"):
        process.execute()
    assert not closed
    coroutine.close()
