"""What is recorded has ended, and nothing else has; a journal that fails is said."""

import sqlite3
import threading

import pytest

from counted_calls import BROKEN, STRATEGIES, _nothing_called, _open_files, calls, path, plus, same, ten, work
from procession import JournalError, Process, ResultError
from procession.journal import Journal, Recorder


class Held:
    """Holds up commits until it is told to let them through."""

    def __init__(self, monkeypatch):
        self.reached, self.gate = threading.Event(), threading.Event()
        commit = Recorder.commit

        def held(recorder, records):
            self.reached.set()
            assert self.gate.wait(20)
            commit(recorder, records)

        monkeypatch.setattr(Recorder, "commit", held)


def test_workers_do_not_wait_for_each_others_commits(monkeypatch, path):
    """While one commit takes long, everything else that may run runs."""
    held, done = Held(monkeypatch), threading.Semaphore(0)
    process = Process("busy", "parallel", 2)
    for _ in range(20):
        process.add_task(same, 1)
    process.add_task(done.release)
    BROKEN.clear()
    run = process.start(run_id="a", journal=_undigested(monkeypatch, path))
    assert held.reached.wait(20)
    assert done.acquire(timeout=20)
    assert run.progress.ended == 0
    held.gate.set()
    assert len(run.result()) == 21


def _undigested(monkeypatch, path):
    # Semaphores cannot be told apart from others, and here need not be.
    from procession._plan import fingerprint

    real = fingerprint.fingerprint_of
    monkeypatch.setattr(fingerprint, "fingerprint_of", lambda name, calls: real(name, [(same, (), {})] * len(calls)))
    return path


def test_a_task_has_ended_when_it_is_recorded_and_not_before(monkeypatch, path):
    """What waits for it does not start, its outcome is not handed out, and it does not count as ended."""
    held = Held(monkeypatch)
    process = Process("waits", "parallel", 4)
    first = process.task(work, 1)
    process.task(plus, first, 1)
    run = process.start(run_id="a", journal=path)
    assert held.reached.wait(20)
    assert run.progress.ended == 0
    assert [outcome.state for outcome in run.outcomes] == ["running", "waiting"]
    held.gate.set()
    assert [outcome.index for outcome in run] == [0, 1]
    assert run.result() == [10, 11]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_in_order_each_task_is_recorded_before_the_next_one_starts(strategy, path):
    """Whoever reads the journal from a task finds all that came before it."""
    seen = []

    def look():
        connection = sqlite3.connect(path)
        seen.append(
            connection.execute("select count(*) from procession_records where state = 'completed'").fetchone()[0]
        )
        connection.close()

    LOOK[:] = [look]
    process = Process("look", strategy)
    for _ in range(6):
        process.add_task(looking)
    process.execute(run_id="a", journal=path)
    in_order = {"sequential": 6, "hybrid": 3, "parallel": 0}[strategy]
    assert seen[:in_order] == list(range(in_order))


LOOK: list[object] = []


def looking():
    LOOK[0]()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_result_that_cannot_be_recorded_fails_its_task(strategy, path):
    """When it ends, by the name of its type; what was recorded stays, and the run can be gone on with."""

    def build():
        process = Process("results", strategy, 1, on_error="return" if strategy == "parallel" else "stop")
        process.add_task(work, 1)
        process.add_task(unrecordable)
        process.add_task(work, 2)
        return process

    process = build()
    if strategy == "parallel":
        results = process.execute(run_id="a", journal=path)
        error = results[1]
        assert results[::2] == [10, 20]
    else:
        with pytest.raises(ResultError) as caught:
            process.execute(run_id="a", journal=path)
        error = caught.value
    assert "generator" in str(error)
    assert error.__notes__ == ["in process 'results', task 1 (unrecordable), attempt 1"]
    calls()
    BROKEN.add("recordable")
    assert build().execute(run_id="a", journal=path) == [10, 3, 20]
    assert 1 not in calls()


def unrecordable():
    return 3 if "recordable" in BROKEN else (number for number in range(3))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("policy", ["stop", "continue", "return"])
def test_a_failing_journal_fails_the_run(strategy, policy, monkeypatch, path):
    """Under every policy, with all that was recorded before still there."""
    commit, failures = Recorder.commit, []

    def full(recorder, records, **again):
        if not failures and any(record.index == 2 for record in records):
            failures.append(records)
            raise JournalError("the disk is full")
        commit(recorder, records, **again)

    monkeypatch.setattr(Recorder, "commit", full)
    process = ten(strategy, 1, on_error=policy)
    with pytest.raises(JournalError, match="the disk is full"):
        process.execute(run_id="a", journal=path)
    assert process.status == "failed"
    monkeypatch.undo()
    before = set(calls())
    assert process.execute(run_id="a", journal=path) == [number * 10 for number in range(10)]
    assert set(calls()) | before == set(range(10))


def test_nothing_is_left_open(path, comes_true):
    """After a recorded run there are no more threads and open files than before it."""
    ten("parallel").execute(run_id="warm", journal=path)
    threads, files = threading.active_count(), _open_files()
    for number in range(5):
        ten("parallel").execute(run_id=f"{number}", journal=path)
        BROKEN.add(5)
        with pytest.raises(ValueError):
            ten("hybrid").execute(run_id=f"failing {number}", journal=path)
        BROKEN.clear()
    assert comes_true(lambda: threading.active_count() <= threads)
    assert comes_true(lambda: _open_files() <= files)


def test_a_run_whose_begin_is_interrupted_is_free(path, monkeypatch):
    """Ctrl-C just when the lease was written."""

    def interrupted(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("procession.journal.store.Recorder", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ten().execute(run_id="a", journal=path)
    monkeypatch.undo()
    with Journal(path) as journal:
        assert (journal.run("a").status, journal.run("a").error) == ("failed", "KeyboardInterrupt")
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT token FROM procession_runs").fetchall() == [(None,)]
    connection.close()
