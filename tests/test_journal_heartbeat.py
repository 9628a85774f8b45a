"""The heartbeat of a run that is recorded: what it says, whom it hears, and what becomes of it without its journal."""

import os
import sqlite3
import threading

import pytest

from journals import SIX, Child, execute, expire, posix, wait_for
from procession import JournalError, Process, Progress, RunUnknownError
from procession._model.progress import Snapshot
from procession.journal import Journal

pytestmark = pytest.mark.usefixtures("no_children")


def test_the_heartbeat_renews_the_lease_and_says_how_far_the_run_is(where, monkeypatch):
    """Whoever looks sees the progress and what runs; the thread ends with the recorder."""
    monkeypatch.setattr("procession.journal.heartbeat.RENEWAL_S", 0.2)
    monkeypatch.setattr("procession.journal.heartbeat.WRITE_S", 0.1)
    monkeypatch.setattr("procession.journal.heartbeat.LOOK_S", 0.05)
    state = [Progress(1, 0, 6), [(3, "app:fetch", "worker", 5.0)]]
    before = threading.active_count()
    with Journal(where) as journal:
        one = journal.begin("run", SIX)
        expire(where, 20.0)
        (first,) = execute(where, "SELECT held_until FROM procession_runs")[0]
        one.start_heartbeat(lambda: Snapshot(*state), lambda: None, lambda error: None)
        wait_for(lambda: journal.run("run").progress == Progress(1, 0, 6))
        assert [(task.task, task.name) for task in journal.run("run").running] == [(3, "app:fetch")]
        state[0] = Progress(2, 1, 6)
        wait_for(lambda: journal.run("run").progress == Progress(2, 1, 6))
        (renewed,) = execute(where, "SELECT held_until FROM procession_runs")[0]
        assert renewed > first + 15
        wait_for(lambda: execute(where, "SELECT held_until FROM procession_runs")[0][0] > renewed)
        state[:] = Progress(6, 1, 6), []
        one.close("completed")
        assert (journal.run("run").progress, journal.run("run").running) == (Progress(6, 1, 6), ())
    assert threading.active_count() <= before


def test_a_run_is_cancelled_from_another_process(where):
    """The request reaches the runner once; of a run that nobody executes it is said that nobody does."""
    asked = []
    with Journal(where) as journal:
        one = journal.begin("run", SIX)
        one.start_heartbeat(lambda: Snapshot(Progress(0, 0, 6), []), lambda: asked.append(1), lambda error: None)
        assert Child("say(Journal(where).cancel('run'))", where).end() == ["True"]
        wait_for(lambda: asked)
        assert journal.run("run").cancelling
        one.close("cancelled")
        assert asked == [1]
        assert not journal.cancel("run")
        with pytest.raises(RunUnknownError, match="'none'"):
            journal.cancel("none")
        two = journal.begin("run", SIX)
        assert not two.cancelling()
        two.close("completed")


def test_a_heartbeat_outlives_a_database_that_fails_for_a_while(tmp_path, monkeypatch):
    """What it cannot write now it writes later; the run is the business of its commits."""
    monkeypatch.setattr("procession.journal.heartbeat.WRITE_S", 0.05)
    monkeypatch.setattr("procession.journal.heartbeat.LOOK_S", 0.02)
    ended = [0]
    with Journal(tmp_path / "runs.db") as journal:
        journal.database.busy_s = 0.05
        one = journal.begin("run", SIX)
        blocker = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        tried = threading.Event()
        renew = one.renew

        def renewing(text):
            try:
                return renew(text)
            except JournalError:
                tried.set()
                raise

        monkeypatch.setattr(type(one), "renew", lambda self, text: renewing(text))
        one.start_heartbeat(lambda: Snapshot(Progress(ended[0], 0, 6), []), lambda: None, lambda error: None)
        assert tried.wait(10)
        blocker.execute("ROLLBACK")
        blocker.close()
        ended[0] = 4
        wait_for(lambda: journal.run("run").progress == Progress(4, 0, 6))
        one.close("completed")


def removed(path):
    path.unlink()


def moved(path):
    path.rename(path.with_suffix(".old"))


def replaced(path):
    moved(path)
    Journal(path).begin("other", SIX).close("completed")


@posix
@pytest.mark.parametrize("goes", [removed, moved, replaced])
def test_a_journal_that_is_gone_is_told_by_the_heartbeat(goes, tmp_path, monkeypatch):
    """Though nothing is recorded and all could still be written: nobody would find it."""
    monkeypatch.setattr("procession.journal.heartbeat.RENEWAL_S", 0.05)
    monkeypatch.setattr("procession.journal.heartbeat.LOOK_S", 0.02)
    lost, told = [], threading.Event()
    path = tmp_path / "runs.db"
    with Journal(path) as journal:
        one = journal.begin("run", SIX)
        goes(path)
        one.start_heartbeat(
            lambda: Snapshot(Progress(0, 0, 6), []), lambda: None, lambda error: (lost.append(error), told.set())
        )
        assert told.wait(10)
        with pytest.raises(JournalError, match=r"runs\.db' was deleted, moved or replaced while it was in use"):
            one.close("completed")
    assert [type(error) for error in lost] == [JournalError]
    assert "was deleted, moved or replaced" in str(lost[0])


@posix
@pytest.mark.parametrize("goes", [removed, moved])
@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
def test_a_run_whose_journal_is_gone_fails(goes, strategy, tmp_path):
    """At its end at the latest. Nothing is left open, and the process can be executed again."""
    path = tmp_path / "runs.db"
    process = Process("gone", strategy)
    process.add_task(goes, path)
    process.map(str, range(250))
    files = len(os.listdir("/dev/fd"))
    with pytest.raises(JournalError, match="deleted, moved or replaced"):
        process.execute(run_id="a", journal=path)
    assert process.status == "failed"
    assert len(os.listdir("/dev/fd")) <= files  # others, of tests before this one, may be closed meanwhile
    process.tasks[0] = (str, (), {})
    assert process.execute(run_id="b", journal=tmp_path / "other.db")[0] == ""
