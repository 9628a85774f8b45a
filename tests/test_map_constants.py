"""`map(..., constants=...)`: keyword arguments of every call, on every engine."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec

import pytest

from clusters import dask_here, ray_here
from constant_calls import counted, fail_of, length_of, loaded, scaled, scaled_later
from errands import called
from procession import HandleError, Limit, PlanChangedError, Process, TaskSkippedError, WorkerProcesses, stream, task

EVERYWHERE = "threads", "loop", "processes", "workers", "pool", "own", "dask", "ray"


@contextmanager
def process_on(engine, strategy="parallel", **options):
    """Return a process on an engine, with what makes a function one that is called there."""
    executors = {
        "processes": lambda: "processes",
        "workers": lambda: WorkerProcesses(2),
        "pool": lambda: ThreadPoolExecutor(2),
        "dask": dask_here,
        "ray": ray_here,
    }
    if engine in ("dask", "ray") and find_spec("distributed" if engine == "dask" else engine) is None:
        pytest.skip(f"{engine} is not installed")
    if engine in ("threads", "loop", "own"):
        yield Process("constants", strategy, 2, **options)
        return
    executor = executors[engine]()
    if isinstance(executor, str):
        yield Process("constants", strategy, 2, executor=executor, **options)
        return
    with executor as entered:
        yield Process("constants", strategy, 2, executor=entered, **options)


def on(engine, function):
    if engine == "loop":
        return {scaled: scaled_later}[function]
    return task(executor="processes")(function) if engine == "own" else function


@pytest.mark.parametrize("engine", EVERYWHERE)
@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
def test_each_call_gets_them(strategy, engine):
    """A value, and the value of a handle, which is waited for."""
    with process_on(engine, strategy) as process:
        factor = process.task(loaded, 10)
        numbers = process.map(on(engine, scaled), range(30), constants={"factor": factor, "offset": 1})
        process.add_task(sum, numbers)
        assert process.execute()[1:] == [[10 * n + 1 for n in range(30)], sum(10 * n + 1 for n in range(30))]


@pytest.mark.parametrize("engine", ["threads", "loop", "processes", "own"])
def test_pipelines_go_on_with_them(engine):
    """A map takes elements of another as they end, and whole values as constants."""
    with process_on(engine) as process:
        factors = process.map(loaded, [1, 2, 3])
        total = process.task(sum, factors)
        first = process.map(on(engine, scaled), range(100), constants={"factor": 2})
        second = process.map(on(engine, scaled), first, constants={"factor": total})
        process.add_task(sum, stream(second))
        assert process.execute()[-1] == sum(12 * n for n in range(100))


def test_a_map_can_be_elements_and_constant_at_once():
    """Then its list is taken as a whole."""
    process = Process("both", "parallel")
    numbers = process.map(loaded, [1, 2])
    process.map(lambda number, other, whole: (number, other, whole), numbers, numbers, constants={"whole": numbers})
    assert process.execute()[1] == [(1, 1, [1, 2]), (2, 2, [1, 2])]


@pytest.mark.parametrize("engine", ["threads", "loop", "processes", "own"])
def test_limits_retries_and_timeouts_hold(engine):
    """As for calls without them."""
    with process_on(engine) as process:
        options = task(limit=Limit("few", at_once=1), retries=1, timeout=20.0)
        process.map(options(on(engine, scaled)), range(5), constants={"factor": 3})
        assert process.execute() == [[0, 3, 6, 9, 12]]


@pytest.mark.parametrize("engine", ["processes", "workers", "own"])
def test_elsewhere_no_call_sees_what_another_changes(engine):
    """Each has its own."""
    with process_on(engine) as process:
        seen = []
        process.map(on(engine, length_of), range(100), constants={"seen": seen})
        assert process.execute() == [[1] * 100]
        assert seen == []


def test_a_map_whose_constant_failed_is_skipped():
    """As any task that takes the value."""
    process = Process("failed", "parallel", on_error="return")
    factor = process.task(int, "no")
    process.map(scaled, [1], constants={"factor": factor})
    error, skipped = process.execute()
    assert isinstance(error, ValueError)
    assert isinstance(skipped, TaskSkippedError)


def test_a_direct_call_and_another_call_of_an_outcome_have_them():
    """So has the entry among the tasks."""
    process = Process("direct")
    process.map(scaled, [1, 2], constants={"factor": 5})
    function, args, kwargs = process.tasks[0]
    assert function(*args, **kwargs) == [5, 10]
    process.execute()
    assert process.last_run.outcomes[0].call_again() == [5, 10]


# In recorded runs


def recorded(folder, factor, *, fails=(), handle=False):
    process = Process("recorded", "parallel", 2)
    value = process.task(loaded, factor) if handle else factor
    process.map(counted, [folder] * 4, range(4), constants={"factor": value})
    process.map(fail_of, range(4), constants={"wrong": fails})
    return process


def test_a_run_that_goes_on_calls_no_element_again(tmp_path):
    """They are part of what is compared."""
    for handle in False, True:
        where = {"journal": tmp_path / "runs.db", "run_id": f"{handle}"}
        folder = tmp_path / where["run_id"]
        folder.mkdir()
        recorded(folder, 2, handle=handle).execute(**where)
        assert recorded(folder, 2, handle=handle).execute(**where)[-2] == [0, 2, 4, 6]
        assert [called(folder, number) for number in range(4)] == [1] * 4


@pytest.mark.parametrize("handle", [False, True])
def test_another_constant_is_another_definition(handle, tmp_path):
    """Refused, or, where changes are allowed, called again with it."""
    where = {"journal": tmp_path / "runs.db", "run_id": "a"}
    recorded(tmp_path, 2, handle=handle).execute(**where)
    with pytest.raises(PlanChangedError):
        recorded(tmp_path, 3, handle=handle).execute(**where)
    assert recorded(tmp_path, 3, handle=handle).execute(**where, allow_changes=True)[-2] == [0, 3, 6, 9]
    assert [called(tmp_path, number) for number in range(4)] == [2] * 4


# What is refused


def test_what_cannot_be_a_constant_is_refused():
    """By name, where the map is added."""
    process = Process("wrong")
    with pytest.raises(
        TypeError, match=r"task 0 \(scaled\): map\(constants=\.\.\.\) takes a mapping from names .* got 3"
    ):
        process.map(scaled, [1], constants=3)
    with pytest.raises(TypeError, match=r"takes a mapping from names to values; got an object of"):
        process.map(scaled, [1], constants={1: 2})
    with pytest.raises(
        TypeError, match=r"task 0 \(scaled\): the function takes no argument 'facto', which is among the"
    ):
        process.map(scaled, [1], constants={"facto": 2})
    other = Process("other")
    factor = other.task(loaded, 1)
    with pytest.raises(HandleError, match="is of another process"):
        process.map(scaled, [1], constants={"factor": factor})
    assert not process.tasks
