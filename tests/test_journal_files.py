"""Files that fail as journals: missing, damaged, full, locked, read-only, of other versions."""

import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from sqlalchemy import inspect

from journals import HOLD, SIX, Child, done, execute, posix, root, values
from procession import JournalError
from procession._model.record import WHOLE, CallRecord
from procession.journal import Journal, access, schema
from version_1 import make as make_version_1

pytestmark = pytest.mark.usefixtures("no_children")


def test_a_journal_that_is_not_there_is_not_made_by_looking(where):
    """Reading says that there is none, and leaves none behind."""
    for ask in (Journal(where).runs, lambda: Journal(where).run("run"), lambda: Journal(where).cancel("run")):
        with pytest.raises(JournalError, match="there is no journal"):
            ask()
    if "://" not in where:
        assert not Path(where).exists()


def test_a_journal_whose_file_was_removed_begins_anew(tmp_path):
    """Between two runs the file can go, or be replaced by another; the journal object need not be."""
    file = tmp_path / "runs.db"
    with Journal(file) as journal:
        for number in range(2):
            one = journal.begin("run", SIX)
            assert (values(one), one.executions) == ({}, 1)
            one.commit([done(one, 0, number)])
            one.close("completed")
            file.unlink()
        with pytest.raises(JournalError, match="there is no journal"):
            journal.runs()


def test_a_missing_folder_is_named(tmp_path):
    """It is not created: a path that was mistyped should be seen."""
    with (
        Journal(tmp_path / "none" / "runs.db") as journal,
        pytest.raises(JournalError, match="none' .*does not exist; create it"),
    ):
        journal.begin("run", SIX)


def test_another_programs_file_is_left_as_it_is(tmp_path):
    """Text, another program's database, a folder: refused in words, with not a byte changed."""
    (tmp_path / "text").write_text("certainly not a database, and long enough to be mistaken for the header of one")
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE customers (name)")
    connection.commit()
    connection.close()
    (tmp_path / "folder").mkdir()
    for name, words in (("text", "not a database"), ("other.db", "'customers'"), ("folder", "no file")):
        file = tmp_path / name
        before = file.read_bytes() if file.is_file() else b""
        with Journal(file) as journal:
            for ask in (lambda: journal.begin("run", SIX), journal.runs):
                with pytest.raises(JournalError, match=words) as caught:
                    ask()
                assert name in str(caught.value)
        assert not file.is_file() or file.read_bytes() == before
        assert {path.name for path in tmp_path.iterdir()} == {"text", "other.db", "folder"}


def filled(where, count=2000):
    with Journal(where) as journal:
        one = journal.begin("run", SIX)
        for start in range(0, count, 500):
            one.commit([done(one, 1, "x" * 100, place) for place in range(start, start + 500)])
        one.close("completed")


@pytest.mark.parametrize("part", [0.9, 0.5, 0.01])
def test_a_file_that_was_cut_short_is_refused(tmp_path, part):
    """Plainly, with a hint; and it is not made worse."""
    file = tmp_path / "runs.db"
    filled(file)
    os.truncate(file, int(file.stat().st_size * part))
    before = file.read_bytes()
    with Journal(file) as journal:
        for ask in (lambda: journal.begin("run", SIX), journal.runs):
            with pytest.raises(JournalError, match=r"runs.db.*(damaged|cut short)"):
                ask()
    assert file.read_bytes() == before


def test_a_file_that_was_scribbled_over_is_refused(tmp_path):
    """A damaged page fails the run that meets it, in words."""
    file = tmp_path / "runs.db"
    filled(file)
    with file.open("r+b") as opened:
        opened.seek(4096)
        opened.write(b"\xff" * (file.stat().st_size - 8192))
    with Journal(file) as journal, pytest.raises(JournalError, match="damaged"):
        journal.begin("run", SIX).elements(1)


def test_a_newer_version_is_refused(where):
    """Its tables may mean something else, so they are neither read nor written."""
    with Journal(where) as journal:
        journal.begin("run", SIX).close("completed")
    execute(where, "UPDATE procession_schema SET version = 99")
    with Journal(where) as journal:
        for ask in (lambda: journal.begin("run", SIX), journal.runs):
            with pytest.raises(JournalError, match="newer version of Procession.*99.*upgrade"):
                ask()
    assert execute(where, "SELECT version, executions FROM procession_schema, procession_runs") == [(99, 1)]


@pytest.mark.parametrize("version", range(1, schema.VERSION))
def test_a_journal_of_an_earlier_version_is_gone_on_with(where, version):
    """Its runs are shown and resumed, and what comes new can hold what journals of then could not."""
    make_version_1(where, execute, SIX, pickle.dumps("kept"))
    for older in range(1, version):
        for statement in schema.MIGRATIONS[older]:
            execute(where, statement)
    execute(where, f"UPDATE procession_schema SET version = {version}")
    with Journal(where) as journal:
        assert [(one.task, one.state, one.error, one.log) for one in journal.tasks("run")] == [
            (0, "completed", None, None),
            (1, "failed", "ValueError: no", None),
        ]
        one = journal.begin("run", SIX)
        assert values(one) == {0: "kept"}
        one.commit([done(one, 1, "mended")._replace(log="it logged this")])
        call = CallRecord(0, WHOLE, 0, 0, "completed", "len", b"", b"", None, 1, 1e9, 0.5, "worker")
        one.calls.commit([call])
        assert one.calls.read(0, WHOLE) == [call]
        assert one.waits.begin(0, WHOLE, "answer", "approval", 60.0) == (None, 60.0)
        one.close("completed")
        assert [one.log for one in journal.tasks("run")] == [None, "it logged this"]
        assert journal.run("run").executions == 2
    assert execute(where, "SELECT version FROM procession_schema") == [(schema.VERSION,)]


@pytest.mark.parametrize("version", sorted(schema.MIGRATIONS))
def test_a_journal_of_each_earlier_version_becomes_one_of_now(where, version):
    """Its tables have the columns that new ones have, and what was recorded in it is there and is gone on with."""
    make_version_1(where, execute, SIX, pickle.dumps("kept"))
    for older in range(1, version):
        for statement in schema.MIGRATIONS[older]:
            execute(where, statement)
        execute(where, "UPDATE procession_schema SET version = ?", older + 1)
    with Journal(where) as journal:
        assert [(one.task, one.state) for one in journal.tasks("run")] == [(0, "completed"), (1, "failed")]
        one = journal.begin("run", SIX)
        assert values(one) == {0: "kept"}
        one.commit([done(one, 1, "mended")])
        one.close("completed")
        journal.begin("new", SIX).close("completed")
        with journal.database.reading() as old, Journal(":memory:") as fresh:
            fresh.begin("run", SIX).close("completed")
            with fresh.database.reading() as new:
                for table in schema.metadata.tables:
                    assert {one["name"] for one in inspect(old).get_columns(table)} == {
                        one["name"] for one in inspect(new).get_columns(table)
                    }
    assert execute(where, "SELECT version FROM procession_schema") == [(schema.VERSION,)]


def test_an_older_version_is_brought_up_to_date(where, monkeypatch):
    """In one transaction: after a failure half-way, the journal is as it was."""
    now = schema.VERSION
    with Journal(where) as journal:
        one = journal.begin("run", SIX)
        one.commit([done(one, 0, "kept")])
        one.close("completed")
    monkeypatch.setattr(schema, "VERSION", now + 2)
    steps = {now: ("ALTER TABLE procession_runs ADD COLUMN note TEXT",), now + 1: ("UPDATE nothing SET x = 1",)}
    monkeypatch.setattr(schema, "MIGRATIONS", steps)
    with Journal(where) as journal, pytest.raises(JournalError, match="nothing"):
        journal.begin("run", SIX)
    assert execute(where, "SELECT version FROM procession_schema") == [(now,)]
    steps[now + 1] = ("UPDATE procession_runs SET note = 'new'",)
    with Journal(where) as journal:
        one = journal.begin("run", SIX)
        assert values(one) == {0: "kept"}
        one.close("completed")
    assert execute(where, "SELECT version, note FROM procession_schema, procession_runs") == [(now + 2, "new")]


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
journal = Journal(where)
recorder = journal.begin("run", SIX)
place = 0
try:
    while True:
        recorder.commit([done(recorder, 1, os.urandom(3000), place)])
        place += 1
except JournalError as error:
    say(place, error)
try:
    recorder.close("failed", "no")
except JournalError as error:
    say("close", error)
journal.close()
say(len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else "", threading.active_count())
"""


@posix
def test_a_file_that_may_not_grow_fails_plainly_and_keeps_what_it_has(tmp_path):
    """At a limit of the file's size, as on a full disk: an error in words, and every earlier record is read."""
    where = tmp_path / "runs.db"
    lines = Child(LIMITED, where).end()
    recorded = int(lines[0].split()[0])
    assert recorded > 5 and "runs.db" in lines[0] and "full" in lines[0]
    with Journal(where) as journal:
        one = journal.begin("run", SIX)
        assert list(one.elements(1)) == list(range(recorded))
        one.close("completed")
    assert execute(str(where), "PRAGMA integrity_check") == [("ok",)]


NO_ROOM = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
slept = []
time.sleep = slept.append
try:
    Journal(where).begin("run", SIX)
except JournalError as error:
    say(len(slept), error)
"""


@posix
def test_a_journal_without_any_room_is_not_waited_for(tmp_path):
    """Only a file that others are at is: that passes."""
    (said,) = Child(NO_ROOM, tmp_path / "runs.db").end()
    assert said.startswith("0 ")
    assert "runs.db" in said


@root
@pytest.mark.skipif(sys.platform != "linux", reason="tmpfs is Linux's")
def test_a_disk_that_is_full_fails_plainly_and_keeps_what_it_has(tmp_path):
    """On a disk of one megabyte: an error that says so, and every earlier record is read."""
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", tmp_path], capture_output=True
    ).returncode:
        pytest.skip("may not mount a small disk here")
    try:
        with Journal(tmp_path / "runs.db") as journal:
            one = journal.begin("run", SIX)
            place = 0
            with pytest.raises(JournalError, match="no room left on its disk"):
                while True:
                    one.commit([done(one, 1, os.urandom(20_000), place)])
                    place += 1
            assert list(one.elements(1)) == list(range(place))
            with pytest.raises(JournalError):
                one.close("failed", "x" * 100_000)
            assert journal.begin("other", SIX) if place < 0 else True
        with Journal(tmp_path / "runs.db") as journal:
            assert len(journal.tasks("run", 1000, task=1)) == place
            assert journal.run("run").status == "interrupted"
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)  # a child of another test may have it open still


READ_ONLY = """
Journal(":memory:").begin("run", SIX)  # whatever is imported late
if os.geteuid() == 0:
    # Nothing is read-only for root, so somebody else tries.
    os.chown("runs.db", 65534, 65534)
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for name in ("runs.db", "new.db"):
    try:
        Journal(name).begin("run", SIX).close("completed")
        say("written")
    except JournalError as error:
        say(error)
"""


@posix
def test_a_folder_that_is_read_only_is_named():
    """A journal in it, or one to be made there, fails plainly."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Journal(folder / "runs.db") as journal:
            journal.begin("run", SIX).close("completed")
        folder.chmod(0o555)
        lines = Child(READ_ONLY, "-", cwd=folder).end()
        folder.chmod(0o755)
        assert lines[0] != "written" and "runs.db" in lines[0] and "folder" in lines[0]
        assert "cannot be created" in lines[1] and "new.db" in lines[1]
        assert {path.name for path in folder.iterdir()} == {"runs.db"}


LOOK = """
Journal(":memory:").begin("run", SIX)  # whatever is imported late
if os.geteuid() == 0:
    for name in os.listdir("."):
        os.chown(name, 65534, 65534)
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for name in words:
    with Journal(name) as journal:
        try:
            with journal.reader() as reader:
                found = [(one.run.id, one.run.status) for one in reader.runs()]
            say(found, len(journal.tasks("run")))
        except JournalError as error:
            say(error)
        try:
            say(journal.cancel("run"), journal.delete("run"))
        except JournalError as error:
            say(error)
"""


@posix
@pytest.mark.parametrize(("folder_mode", "mode"), [(0o555, 0o600), (0o755, 0o400), (0o555, 0o400)])
@pytest.mark.parametrize("crashed", [False, True])
def test_a_journal_that_is_read_only_can_be_looked_at(folder_mode, mode, crashed):
    """Be it the file or its folder, and be it left by a run that ended or by one that was killed; nothing is changed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "a?b#c%20.db"
        if crashed:
            child = Child(HOLD, file)
            child.line()
            os.kill(child.popen.pid, signal.SIGKILL)
            child.popen.wait()
        else:
            with Journal(file) as journal:
                one = journal.begin("run", SIX)
                one.commit([done(one, 0, "kept")])
                one.close("completed")
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert len(before) == (3 if crashed else 1)
        file.chmod(mode)
        folder.chmod(folder_mode)
        lines = Child(LOOK, "-", file.name, cwd=folder).end()
        folder.chmod(0o755)
        assert lines[0] == f"[('run', '{'interrupted' if crashed else 'completed'}')] 1"
        assert "is read-only" in lines[1]
        assert {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith("-shm")} == {
            name: data for name, data in before.items() if not name.endswith("-shm")
        }


@posix
def test_a_journal_of_an_older_version_that_is_read_only_is_told_plainly():
    """Only by writing to it can it become one that is understood."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_version_1(str(folder / "runs.db"), execute, SIX, pickle.dumps("kept"))
        (folder / "runs.db").chmod(0o600)
        folder.chmod(0o555)
        lines = Child(LOOK, "-", "runs.db", cwd=folder).end()
        folder.chmod(0o755)
        assert "was written by an older version of Procession, and it, or its folder, is read-only" in lines[0]


def test_a_database_that_another_program_locks_is_waited_for_and_then_named(tmp_path):
    """A lock that is let go in time costs only time; one that is not becomes an error, and nothing is lost."""
    where = tmp_path / "runs.db"
    lock = """
    import sqlite3
    connection = sqlite3.connect(where, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    say("locked")
    sys.stdin.readline()
    connection.execute("ROLLBACK")
    """
    with Journal(where) as journal:
        journal.database.busy_s = 0.3
        one = journal.begin("run", SIX)
        one.commit([done(one, 0, "before")])
        child = Child(lock, where)
        assert child.line() == "locked"
        for size in (1, 150):
            with pytest.raises(JournalError, match="another program has locked it"):
                one.commit([done(one, 1, place, place) for place in range(size)])
        assert [run.status for run in journal.runs()] == ["running"]
        child.end()
        one.commit([done(one, 1, "after")])
        one.close("completed")
    with Journal(where) as journal:
        journal.database.busy_s = 20
        one = journal.begin("run", SIX)
        child = Child(lock, where)
        assert child.line() == "locked"
        waited = threading.Thread(target=lambda: one.commit([done(one, 2, "in the end")]))
        waited.start()
        child.end()
        waited.join()
        assert values(one) == {0: "before", 1: "after", 2: "in the end"}
        one.close("completed")


def test_access_says_why_a_file_cannot_be_used(tmp_path):
    """What the system says is passed on."""
    with pytest.raises(JournalError, match="cannot be created: Is a directory|does not exist"):
        access.enter(tmp_path / "none" / "x", create=True)
    with pytest.raises(JournalError, match="cannot be opened"):
        access.check(tmp_path / ("x" * 300))
    with Journal(tmp_path / ("x" * 300)) as journal:
        for ask in (lambda: journal.begin("run", SIX), journal.runs):
            with pytest.raises(JournalError, match="cannot be created|there is no journal"):
                ask()
