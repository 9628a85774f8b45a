"""Tasks that wait in other processes: by a round trip to the program that runs them, or refused plainly."""

import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest

from procession import Process, RunSuspendedError, task
from procession.journal import Journal, schema
from procession.testing import memory_journal
from waiting_tasks import approve, double, hold, late, nap, tell


@pytest.fixture
def journal():
    with memory_journal() as opened:
        yield opened


def suspended(process, journal, match="approval"):
    with pytest.raises(RunSuspendedError, match=match):
        process.execute(run_id="a", journal=journal)
    assert process.last_run.status == "suspended"


@pytest.mark.parametrize("codec", ["pickle", "json"])
@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
def test_in_worker_processes_a_task_waits_as_in_threads(codec, strategy, tmp_path):
    """What was recorded is not called again, elements of maps wait, too, and other tasks go on."""
    folder = tmp_path / "made"
    folder.mkdir()
    process = Process("elsewhere", strategy, 1, executor="processes")
    process.map(double, range(100))
    process.map(approve, [1, 2], [str(folder)] * 2)
    process.add_task(task(retries=2)(approve), 3, str(folder))
    with Journal(tmp_path / "runs.db", codec=codec) as journal:
        suspended(process, journal)
        suspended(process, journal)
        journal.answer("a", "approval", ["one"], task=1, element=0)
        journal.answer("a", "approval", ["two"], task=1)
        if strategy == "sequential":
            suspended(process, journal)
        journal.answer("a", "approval", ["three"], task=2)
        doubled, pair, single = process.execute(run_id="a", journal=journal)
    assert doubled == [2 * number for number in range(100)]
    assert [*pair, single] == [[2, ["one"]], [4, ["two"]], [6, ["three"]]]
    assert [path.read_text() for path in sorted(folder.iterdir())] == ["x", "x", "x"]


@pytest.mark.parametrize("function", [nap, late])
def test_in_worker_processes_a_wait_ends_when_it_is_due(function, journal):
    process = Process("elsewhere", "parallel", 1, executor="processes")
    process.add_task(function)
    suspended(process, journal, "sleeps until|approval")
    with journal.database.writing() as connection:
        connection.execute(schema.waits.update().values(due=1.0))
    assert process.execute(run_id="a", journal=journal) == ["rested" if function is nap else "nobody came"]


def test_in_worker_processes_an_answer_is_taken_while_the_run_goes_on(tmp_path):
    (tmp_path / "made").mkdir()
    path = str(tmp_path / "told")
    process = Process("elsewhere", "parallel", 2, executor="processes")
    process.add_task(hold, path)
    process.add_task(tell, path, str(tmp_path / "made"))
    with Journal(tmp_path / "runs.db") as journal:
        run = process.start(run_id="a", journal=journal)
        until = time.monotonic() + 20
        while run.outcomes[1].state != "suspended" and time.monotonic() < until:
            time.sleep(0.01)
        journal.answer("a", "approval", "yes")
        assert run.result() == [None, [2, "yes"]]
        assert journal.run("a").executions == 1


@pytest.mark.parametrize("function", [late, nap])
def test_in_an_executor_of_other_processes_waiting_is_refused(function, journal):
    with ProcessPoolExecutor(1) as pool:
        process = Process("pool", "parallel", executor=pool)
        process.add_task(function)
        with pytest.raises(
            RuntimeError, match=rf"process 'pool', task 0 \({function.__name__}\): .* nor can the task wait"
        ):
            process.execute(run_id="a", journal=journal)


@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
def test_in_an_executor_of_threads_a_task_waits(strategy, tmp_path, journal):
    with ThreadPoolExecutor(2) as pool:
        process = Process("pool", strategy, 2, executor=pool)
        process.map(approve, [1, 2], [str(tmp_path)] * 2)
        process.add_task(approve, 3, str(tmp_path))
        suspended(process, journal)
        for element in 0, 1:
            journal.answer("a", "approval", element, task=0, element=element)
        if strategy == "sequential":
            suspended(process, journal)
        journal.answer("a", "approval", 2)
        assert process.execute(run_id="a", journal=journal) == [[[2, 0], [4, 1]], [6, 2]]
    assert not [one for one in threading.enumerate() if one.name.startswith("procession-pool")]
