"""Recorded runs with tasks that have an executor of their own: the journal is none the wiser."""

import pytest

from errands import called, note_and_return
from logging_tasks import fail, say
from placed_jobs import ask, awaited
from procession import Process, WorkerProcesses, stream, task
from procession.journal import Journal
from task_logs import handler, logs, path  # noqa: F401 - fixtures

ENGINES = "threads", "loop"


def process_on(engine, **options):
    process = Process("placed", "parallel", 2, **options)
    if engine == "loop":
        process.add_task(awaited, 0)
    return process


def counted(engine, folder, executor, count=50):
    """Return a process whose elements leave a mark for each call; the last stage fails once."""
    process = process_on(engine)
    numbers = process.map(task(executor=executor)(note_and_return), [folder] * count, range(count))

    def total(elements):
        found = sum(elements)
        if not (folder / "again").exists():
            (folder / "again").touch()
            raise OSError("once")
        return found

    process.add_task(total, stream(numbers))
    return process


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_that_goes_on_calls_nothing_again_wherever_it_is_called_now(engine, tmp_path):
    """Where a call is made is no part of the definition."""
    with WorkerProcesses(2) as executor:
        with pytest.raises(OSError, match="once"):
            counted(engine, tmp_path, executor).execute(journal=tmp_path / "runs.db", run_id="a")
        assert [called(tmp_path, number) for number in range(50)] == [1] * 50
        found = counted(engine, tmp_path, None).execute(journal=tmp_path / "runs.db", run_id="a")
    assert found[-2:] == [list(range(50)), sum(range(50))]
    assert [called(tmp_path, number) for number in range(50)] == [1] * 50


class Caller:
    def call(self, value):
        return value


@pytest.mark.parametrize("function", [Caller().call, len])
def test_the_executor_of_any_callable_is_no_part_of_the_definition(function, tmp_path):
    """Also of a bound method, and of a builtin."""
    for executor in None, "processes":
        process = Process("any")
        process.add_task(task(executor=executor)(function), "abc")
        process.execute(journal=tmp_path / "runs.db", run_id="a")


@pytest.mark.parametrize("kind", ["processes", "workers"])
@pytest.mark.parametrize("engine", ENGINES)
def test_recorded_calls_make_a_round_trip(engine, kind, tmp_path):
    """A call that a task makes itself is recorded, and not made again when the task is."""
    with WorkerProcesses(1) as workers:
        process = process_on(engine)
        function = task(executor="processes" if kind == "processes" else workers, retries=1)(ask)
        process.add_task(function, tmp_path, 5)
        assert process.execute(journal=tmp_path / "runs.db", run_id="a")[-1] == 5
    assert called(tmp_path, "asked") == 2
    assert called(tmp_path, "counted") == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_what_a_task_logs_there_is_in_its_record(engine, path, handler):  # noqa: F811
    """Of a task, of elements, and of a task that failed."""
    process = process_on(engine, on_error="return")
    process.add_task(task(executor="processes")(say), "one")
    process.add_task(task(executor="processes")(fail), "two")
    process.map(task(executor="processes")(say), ["a", "b"])
    process.execute(journal=path, run_id="run")
    first = len(process.tasks) - 3
    texts = logs(path)
    assert (texts[first], texts[first + 1]) == ("INFO tests.shop: one", "INFO tests.shop: two")
    assert logs(path, task=first + 2) == {0: "INFO tests.shop: a", 1: "INFO tests.shop: b"}


def test_a_worker_that_records_nothing_else_shows_the_run_as_completed(tmp_path):
    """As any run."""
    process = Process("shown")
    process.add_task(task(executor="processes")(len), "abc")
    process.execute(journal=tmp_path / "runs.db", run_id="a")
    with Journal(tmp_path / "runs.db") as journal:
        assert journal.run("a").status == "completed"
