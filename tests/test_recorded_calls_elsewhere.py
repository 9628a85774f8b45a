"""Calls that tasks make themselves in other processes: recorded by a round trip, or refused plainly."""

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from procession import JournalError, Process, current_task, task
from procession.journal import Journal
from procession.testing import failing_journal, memory_journal


@pytest.fixture
def journal():
    with memory_journal() as opened:
        yield opened


def double(number):
    return 2 * number


def counted(number, folder):
    """Note the call in a file, as it may be made in another process."""
    with Path(folder, f"{number}").open("a") as file:
        file.write("x")
    return 2 * number


def chain_elsewhere(folder):
    me = current_task()
    value = 1
    for _ in range(3):
        value = me.call(counted, value, folder)
    found = [value, *me.map(partial(counted, folder=folder), [10, 20]), me.key]
    if not Path(folder, "mended").exists():
        raise ConnectionError("the task has failed")
    return found


def made_in(folder):
    return {path.name: len(path.read_text()) for path in Path(folder).iterdir() if path.name.isdecimal()}


@pytest.mark.parametrize("codec", ["pickle", "json"])
def test_in_worker_processes_calls_are_recorded_by_the_program_that_runs_them(codec, tmp_path):
    """Also by elements of a map, and whatever makes bytes of their values."""
    folder = tmp_path / "made"
    folder.mkdir()

    def build():
        process = Process("elsewhere", "parallel", 1, executor="processes", on_error="continue")
        process.map(chain_elsewhere, [str(folder)])
        process.add_task(task(retries=1)(chain_elsewhere), str(folder))
        return process

    with Journal(tmp_path / "runs.db", codec=codec) as journal:
        with pytest.raises(ExceptionGroup):
            build().execute(run_id="a", journal=journal)
        assert made_in(folder) == {"1": 2, "2": 2, "4": 2, "10": 2, "20": 2}
        assert len(journal.calls("a", 0)) == len(journal.calls("a", 1)) == 5
        (folder / "mended").touch()
        [one], other = build().execute(run_id="a", journal=journal)
        assert one[:-1] == other[:-1] == [8, 20, 40]
        assert one[-1] != other[-1]
    assert made_in(folder) == {"1": 2, "2": 2, "4": 2, "10": 2, "20": 2}


def test_in_an_executor_recorded_calls_are_refused(journal):
    """The journal is out of reach there; without one, they are just made."""
    with ProcessPoolExecutor(1) as pool:
        process = Process("pool", "parallel", executor=pool)
        process.add_task(chain_in_pool)
        assert process.execute() == [16]
        with pytest.raises(RuntimeError, match=r"process 'pool', task 0 \(chain_in_pool\): a call cannot be recorded"):
            process.execute(run_id="a", journal=journal)


def make_do(number):
    try:
        return current_task().call(double, number)
    except RuntimeError:
        return "a fallback"


@pytest.mark.parametrize("options", [{}, {"retries": 1}, {"timeout": 30}], ids=["plain", "retried", "timed"])
@pytest.mark.parametrize("over", [None, [1, 2]], ids=["a task", "elements"])
@pytest.mark.parametrize("placed", [False, True])
def test_in_an_executor_a_task_that_catches_the_refusal_fails_with_it(placed, over, options, journal):
    """It is not recorded with what it made of that; without a journal it makes the call."""
    with ProcessPoolExecutor(1) as pool:
        process = Process("pool", "parallel", 2, on_error="continue", executor="threads" if placed else pool)
        function = task(executor=pool, **options)(make_do) if placed else task(**options)(make_do)
        if over is None:
            process.add_task(function, 3)
        else:
            process.map(function, over)
        assert process.execute() == [6 if over is None else [2, 4]]
        with pytest.raises(ExceptionGroup) as caught:
            process.execute(run_id="a", journal=journal)
    assert all("cannot be recorded" in str(one) for one in leaves(caught.value))
    assert journal.run("a").status == "failed"


def leaves(error):
    return [leaf for one in error.exceptions for leaf in (leaves(one) if isinstance(one, ExceptionGroup) else [one])]


def chain_in_pool():
    value = 1
    for _ in range(4):
        value = current_task().call(double, value)
    return value


def test_in_worker_processes_a_call_whose_record_cannot_be_written_stops_the_run(tmp_path, journal):
    """As in threads."""
    (tmp_path / "mended").touch()
    process = Process("elsewhere", "parallel", 1, executor="processes")
    process.add_task(chain_elsewhere, str(tmp_path))
    with failing_journal(2), pytest.raises(JournalError):
        process.execute(run_id="a", journal=journal)
    assert made_in(tmp_path) == {"1": 1, "2": 1}
    process.execute(run_id="a", journal=journal)
    assert made_in(tmp_path)["1"] == 1


def several(number):
    me = current_task()
    return me.call(double, number), me.map(double, [1, 2])


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("strategy", ["sequential", "parallel", "hybrid"])
def test_on_threads_and_in_a_pool_calls_are_made_by_tasks_and_elements_with_any_options(strategy, pool, journal):
    """Whichever thread makes the call of the task."""
    options = [
        {},
        {"retries": 1},
        *([{"timeout": 20}, {"timeout": 20, "retries": 1}] if strategy == "parallel" else []),
    ]
    with ThreadPoolExecutor(2) as executor:
        process = Process("options", strategy, 2, executor=executor if pool else "threads")
        for each in options:
            process.add_task(task(**each)(several), 3)
            process.map(task(**each)(several), [4, 5])
        assert process.execute(run_id="a", journal=journal) == [(6, [2, 4]), [(8, [2, 4]), (10, [2, 4])]] * len(options)
    assert [len(journal.calls("a", index)) for index in range(2 * len(options))] == [3, 6] * len(options)
