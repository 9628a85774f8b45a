"""One journal that is open for long: what its runs share, and what becomes of that when others come in between."""

import asyncio
import gc
import os
import sqlite3
import threading
import time
from datetime import timedelta

import psycopg
import pytest

from journals import SIX, Child, done, execute, posix, values, wait_for
from procession import JournalError, Process, Progress, RunInUseError, unrecorded
from procession._model.progress import Snapshot
from procession.journal import Journal, beginning, database

AT_ONCE = 64


def steps(name):
    process = Process("order")
    for number in range(5):
        process.add_task(f"{name}-{number}".upper)
    return process


def expected(name):
    return [f"{name}-{number}".upper() for number in range(5)]


def connections(where):
    """Return how many connections there are to a place: of this process to a file, or to a server."""
    if "://" in where:
        name = psycopg.conninfo.conninfo_to_dict(where)["options"]
        with psycopg.connect(where, autocommit=True) as other:
            count = "SELECT COUNT(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            return name and other.execute(count).fetchone()[0] - 1
    files = [os.path.join("/proc/self/fd", number) for number in os.listdir("/proc/self/fd")]
    return sum(os.path.exists(file) and os.path.realpath(file) == where for file in files)


def test_threads_share_a_journal(where):
    """64 at once, each with runs of its own: all are recorded whole, through a few connections."""
    together, errors, most = threading.Barrier(AT_ONCE, timeout=20), [], []

    def serve(number):
        try:
            together.wait()
            for name in (f"{number}-a", f"{number}-b"):
                assert steps(name).execute(run_id=name, journal=journal) == expected(name)
            assert steps(f"{number}-a").execute(run_id=f"{number}-a", journal=journal) == expected(f"{number}-a")
            if os.path.exists("/proc/self/fd") and number % 16 == 0:
                most.append(connections(where))
        except BaseException as error:
            errors.append(error)

    with Journal(where) as journal:
        threads = [threading.Thread(target=serve, args=(number,)) for number in range(AT_ONCE)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        runs = journal.runs(1000)
    assert {run.status for run in runs} == {"completed"}
    assert sorted(run.executions for run in runs) == [1] * AT_ONCE + [2] * AT_ONCE
    assert execute(where, "SELECT COUNT(*) FROM procession_records") == [(AT_ONCE * 10,)]
    counting = AT_ONCE // 16  # each of these may be counted by another one
    assert max(most, default=0) <= database.CONNECTIONS + counting


def test_coroutines_share_a_journal(where):
    """64 runs at once on one loop, all of them under way at the same time."""

    async def serve():
        arrived, everybody = [], unrecorded(asyncio.Event())  # for which others may wait already

        async def wait(number):
            arrived.append(number)
            if len(arrived) == AT_ONCE:
                everybody.set()
            await asyncio.wait_for(everybody.wait(), 30)
            return number

        async def run(number):
            process = Process("order")
            process.add_task(wait, number)
            return await process.execute_async(run_id=str(number), journal=journal)

        return await asyncio.gather(*map(run, range(AT_ONCE)))

    with Journal(where) as journal:
        assert asyncio.run(serve()) == [[number] for number in range(AT_ONCE)]
        assert {run.status for run in journal.runs(1000)} == {"completed"}


def test_what_a_journal_keeps_open_is_closed_with_it(tmp_path):
    """Between its runs the file and one thread stay; afterwards the file stands alone, and may be moved or copied."""
    path = tmp_path / "runs.db"
    before = threading.active_count()
    with Journal(path) as journal:
        for name in "ab":
            steps(name).execute(run_id=name, journal=journal)
        assert {file.name for file in tmp_path.iterdir()} == {"runs.db", "runs.db-wal", "runs.db-shm"}
    assert [file.name for file in tmp_path.iterdir()] == ["runs.db"]
    assert threading.active_count() <= before


@pytest.mark.parametrize("closed", ["by path", "let go"])
def test_nothing_is_left_of_a_journal_that_nobody_has(closed, tmp_path, comes_true):
    """A run by path closes what it has opened; of an object that is forgotten, the connection goes with it."""
    path = tmp_path / "runs.db"
    if closed == "by path":
        before = threading.active_count()
        steps("a").execute(run_id="a", journal=path)
        assert threading.active_count() <= before
    else:
        steps("a").execute(run_id="a", journal=Journal(path))
        gc.collect()
    assert comes_true(lambda: [file.name for file in tmp_path.iterdir()] == ["runs.db"])


@posix
def test_a_file_that_was_replaced_between_two_runs_is_the_journal(tmp_path):
    """The second run goes into the file that is there now, not into the one that is still open."""
    path = tmp_path / "runs.db"
    with Journal(path) as journal:
        steps("a").execute(run_id="a", journal=journal)
        path.rename(tmp_path / "old.db")
        for companion in ("-wal", "-shm"):
            (tmp_path / f"runs.db{companion}").rename(tmp_path / f"old.db{companion}")
        steps("b").execute(run_id="b", journal=journal)
        assert [run.id for run in journal.runs()] == ["b"]
    with Journal(tmp_path / "old.db") as old:
        assert [run.id for run in old.runs()] == ["a"]


def test_connections_that_a_server_has_closed_between_two_runs_are_replaced(postgres):
    """A server that was started anew, or closes what is idle, costs no run."""
    where = postgres.new_database()
    with Journal(where) as journal:
        steps("a").execute(run_id="a", journal=journal)
        execute(where, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        assert steps("b").execute(run_id="b", journal=journal) == expected("b")
        execute(where, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        journal.delete("a")
        assert [(run.id, run.executions) for run in journal.runs()] == [("b", 1)]


FORK = """
from procession import Process
process = Process("order")
process.add_task(len, "abc")
journal = Journal(where)
process.execute(run_id="before", journal=journal)
process.execute(run_id="before", journal=journal)
threads = threading.active_count()
if os.fork() == 0:
    process.execute(run_id="child", journal=journal)
    other = Process("order", journal=where)
    other.add_task(len, "abc")
    other.execute(run_id="grandchild")
    os._exit(0)
assert os.wait()[1] == 0
process.execute(run_id="after", journal=journal)
say(threads, threading.active_count())
journal.close()
say(threading.active_count())
"""


@posix
def test_both_sides_of_a_fork_go_on_with_an_open_journal(where):
    """What no run needs is closed before the fork: the child may use the file, and the parent opens it again."""
    assert Child(FORK, where).end() == ["2 2", "1"]
    with Journal(where) as journal:
        assert [(run.id, run.status) for run in journal.runs()] == [
            (name, "completed") for name in ("after", "grandchild", "child", "before")
        ]


BROKEN = """
journal = Journal(where)
other = journal.begin("other", SIX)
other.start_heartbeat(lambda: Snapshot(Progress(1, 0, 6), []), lambda: None, lambda error: None)
recorder = journal.begin("run", SIX)
recorder.commit([done(recorder, 0, "kept")])
try:
    recorder.close(object())
except JournalError:
    say("could not say so")
sys.stdin.readline()
other.close("completed")
"""


def test_a_run_whose_end_could_not_be_written_is_free_soon_though_others_go_on(where):
    """They keep the thread that its lease names; so the lease is given back as soon as that can be written."""
    child = Child(BROKEN, where)
    assert child.line() == "could not say so"
    with Journal(where) as journal:
        wait_for(lambda: journal.run("run").status == "interrupted")
        one = journal.begin("run", SIX)
        assert values(one) == {0: "kept"}
        one.close("completed")
        with pytest.raises(RunInUseError):
            journal.begin("other", SIX)
    assert child.end() == []


def test_a_run_that_is_soon_over_is_not_looked_at_and_a_long_one_is(where, monkeypatch):
    """The first look at a run comes when it has been there for a while; it says how far the run is."""
    monkeypatch.setattr("procession.journal.heartbeat.LOOK_S", 0.02)
    with Journal(where) as journal:
        one = journal.begin("run", SIX)
        one.start_heartbeat(lambda: Snapshot(Progress(2, 0, 6), []), lambda: None, lambda error: None)
        wait_for(lambda: journal.run("run").progress == Progress(2, 0, 6))
        one.close("completed")


def test_a_begin_whose_answer_is_lost_has_begun(postgres, monkeypatch):
    """The connection breaks after the commit: the run is this execution's, and not in use by somebody else."""
    where, entered = postgres.new_database(), []
    once = beginning.Beginning.enter

    def losing(begun, connection, held, now):
        found = once(begun, connection, held, now)
        entered.append(found)
        if len(entered) == 1:
            connection.exec_driver_sql("COMMIT")
            execute(where, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        return found

    with Journal(where) as journal:
        before = journal.begin("run", SIX)
        before.close("failed")
        monkeypatch.setattr(beginning.Beginning, "enter", losing)
        one = journal.begin("run", SIX)
        assert [key for key, _ in entered] == [one.key] * 2
        one.commit([done(one, 0, 1)])
        one.close("completed")
        assert (journal.run("run").status, journal.run("run").executions) == ("completed", 2)


def test_a_journal_that_another_program_locks_holds_up_its_runs_and_no_other_journal(tmp_path):
    """They wait in line for the one connection, and each is told when it has waited for too long."""
    where = tmp_path / "runs.db"
    with Journal(where) as journal:
        journal.database.busy_s = 0.2
        one, two = journal.begin("one", SIX), journal.begin("two", SIX)
        other = sqlite3.connect(where, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        for run in (one, two):
            with pytest.raises(JournalError, match="another program has locked it"):
                run.commit([done(run, 0, 1)])
        other.execute("ROLLBACK")
        other.close()
        for run in (one, two):
            run.commit([done(run, 0, 1)])
            run.close("completed")


def ended(where, run_id, days):
    """Have a run ended so many days ago."""
    execute(where, "UPDATE procession_runs SET ended_at = ended_at - ? WHERE id = ?", days * 86_400.0, run_id)


def test_a_journal_keeps_runs_for_as_long_as_it_is_told(where, monkeypatch):
    """As others begin, those that ended before are deleted; not the one that begins, nor one that goes on."""
    monkeypatch.setattr("procession.journal.store._PRUNING_S", 60)
    with Journal(where) as journal:
        for name in ("old", "older", "new", "again"):
            journal.begin(name, SIX).close("failed")
        one = journal.begin("again", SIX)
        one.commit([done(one, 0, "kept")])
        one.close("failed")
        for name in ("old", "older", "again"):
            ended(where, name, 31)
    with Journal(where, keep=timedelta(days=30)) as journal:
        two = journal.begin("again", SIX)
        assert values(two) == {0: "kept"}
        assert [run.id for run in journal.runs()] == ["again", "new"]
        ended(where, "new", 31)
        journal.begin("next", SIX).close("completed")
        journal.begin("last", SIX).close("completed")
        assert [run.id for run in journal.runs()] == ["last", "next", "again"]
        two.close("completed")


@pytest.mark.parametrize("keep", [timedelta(), timedelta(days=-1)])
def test_a_time_that_is_none_is_refused(keep):
    """At the construction of the journal, with what would be right."""
    with pytest.raises(ValueError, match=r"keep=timedelta\(days=30\)"):
        Journal(":memory:", keep=keep)


def test_pruning_gives_the_space_back(tmp_path):
    """The file shrinks at once, also while a run goes on, which loses nothing."""
    path = tmp_path / "runs.db"
    with Journal(path) as journal:
        for name in "abc":
            run = journal.begin(name, SIX)
            run.commit([done(run, 0, os.urandom(200_000))])
            run.close("completed")
        one = journal.begin("one", SIX)
        one.commit([done(one, 0, 1)])
        assert journal.prune(time.time() + 10) == ["a", "b", "c"]
        one.commit([done(one, 1, 2)])
        one.close("completed")
        assert len(journal.tasks("one")) == 2
    assert path.stat().st_size < 100_000


def test_space_that_is_in_use_by_a_reader_is_given_back_another_time(tmp_path):
    """Pruning does not wait for others, and succeeds all the same."""
    path = tmp_path / "runs.db"
    with Journal(path) as journal:
        journal.database.busy_s = 1000.0
        for name in "ab":
            run = journal.begin(name, SIX)
            run.commit([done(run, 0, os.urandom(200_000))])
            run.close("completed")
        reading = sqlite3.connect(path, isolation_level=None)
        reading.execute("BEGIN")
        reading.execute("SELECT COUNT(*) FROM procession_runs").fetchone()
        ended(str(path), "a", 31)
        assert journal.prune(time.time() - 86_400) == ["a"]
        reading.execute("COMMIT")
        reading.close()
        ended(str(path), "b", 31)
        assert journal.prune(time.time() - 86_400) == ["b"]
    assert path.stat().st_size < 100_000
