"""The journal itself: what is recorded, who may record it, and what becomes of it when things go wrong."""

import collections
import enum
import json
import os
import pickle
import platform
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
import traceback
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import psycopg
import numpy
import pytest
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import OperationalError
from sqlalchemy.schema import CreateTable

from procession import JournalError, PlanChangedError, Process, Progress, ResultError, RunInUseError, RunUnknownError
from procession._model.record import WHOLE, Record
from procession._plan.fingerprint import fingerprint_of
from procession.journal import Journal, access, codec, database, heartbeat, lease, recorder, schema
from procession.journal.origin import begun_by
from version_1 import make as make_version_1

posix = pytest.mark.skipif(os.name != "posix", reason="file modes and signals are POSIX's")
root = pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs to be root to act as another user")

SIX = fingerprint_of("six", [(len, ("a",), {})] * 6)

PRELUDE = """
import os, signal, sys, threading, time
from procession import JournalError, Progress, RunInUseError
from procession._model.record import WHOLE, Record
from procession._plan.fingerprint import fingerprint_of
from procession.journal import Journal
where, words = sys.argv[1], sys.argv[2:]
SIX = fingerprint_of("six", [(len, ("a",), {})] * 6)

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def done(recorder, task, value, element=WHOLE):
    data = recorder.encode(value)
    return Record(task, element, "completed", "builtins:len", b"", data, None, 1, 1e9, 0.5, "worker")
"""


class Child:
    """An interpreter that runs a script, read line by line, and is killed if it hangs."""

    def __init__(self, script, *arguments, **options):
        command = [sys.executable, "-c", PRELUDE + dedent(script), *map(str, arguments)]
        self.popen = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
        )
        children.append(self)
        self._watchdog = threading.Timer(50, self.popen.kill)
        self._watchdog.daemon = True
        self._watchdog.start()

    def line(self):
        return self.popen.stdout.readline().strip()

    def end(self):
        """Let it go on if it waits for a line, and return the rest of what it says."""
        out, err = self.popen.communicate("\n")
        self._watchdog.cancel()
        assert self.popen.returncode == 0, err
        return out.split("\n")[:-1]

    def kill(self):
        self._watchdog.cancel()
        self.popen.kill()
        for stream in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            stream.close()
        self.popen.wait()


children = []


@pytest.fixture(autouse=True)
def no_children():
    """Leave no child behind, not even by a test that failed."""
    yield
    while children:
        children.pop().kill()


def done(recorder, task, value, element=WHOLE):
    return Record(task, element, "completed", "builtins:len", b"", recorder.encode(value), None, 1, 1e9, 0.5, "worker")


def failed(task, text="ValueError: no", element=WHOLE):
    return Record(task, element, "failed", "builtins:len", b"", None, text, 3, 1e9, 0.5, "worker")


def values(recorder):
    return {task: recorded.value for task, recorded in recorder.recorded.items()}


def execute(where, sql, *parameters):
    """Do something to the database from outside."""
    if "://" in where:
        with psycopg.connect(where) as connection:
            cursor = connection.execute(sql.replace("?", "%s"), parameters)
            return cursor.fetchall() if cursor.description else None
    connection = sqlite3.connect(where)
    try:
        with connection:
            return connection.execute(sql, parameters).fetchall()
    finally:
        connection.close()


# What is recorded


def test_what_is_recorded_is_read_by_another_journal(where):
    """Values, attempts and durations of tasks that ended well come back; failed ones do not, and elements have their own place."""
    with Journal(where) as journal:
        recorder = journal.begin("run", SIX)
        assert (dict(recorder.recorded), recorder.elements(1), recorder.executions) == ({}, {}, 1)
        recorder.commit([done(recorder, 0, {"a": [1, None]}), failed(2)])
        recorder.commit([done(recorder, 1, place * 10, place)._replace(digest=b"d%d" % place) for place in (1, 0)])
        recorder.commit([Record(1, WHOLE, "completed", "builtins:len", b"", None, None, 2, 1e9, 0.25, "w")])
        recorder.close("failed", "no")
    with Journal(where) as journal:
        recorder = journal.begin("run", SIX)
        assert values(recorder) == {0: {"a": [1, None]}, 1: None}
        assert recorder.recorded[1][1:] == (2, 0.25, "w", b"")
        assert [(place, r.value, r.digest) for place, r in recorder.elements(1).items()] == [
            (0, 0, b"d0"),
            (1, 10, b"d1"),
        ]
        assert recorder.executions == 2
        recorder.close("completed")


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("size", [1, 2, 99, 100, 101, 250, 1000])
def test_groups_of_any_size_are_recorded_whole(where, size, direct, monkeypatch):
    """However many records come at once, each is there, through the driver and through SQLAlchemy alike."""
    if not direct:
        monkeypatch.setattr(recorder, "DIRECT", {})
    with Journal(where) as journal:
        one = journal.begin("run", SIX)
        one.commit([done(one, 1, str(place), place) for place in range(size)])
        assert [r.value for r in one.elements(1).values()] == [str(place) for place in range(size)]
        one.close("completed")


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("size", [1, 2, 150])
def test_a_group_is_recorded_whole_or_not_at_all(where, size, direct, monkeypatch):
    """A record of a call that has one is refused, with its whole group; and the recorder goes on."""
    if not direct:
        monkeypatch.setattr(recorder, "DIRECT", {})
    with Journal(where) as journal:
        one = journal.begin("run", SIX)
        one.commit([done(one, 1, "first", size - 1)])
        with pytest.raises(JournalError):
            one.commit([done(one, 1, "second", place) for place in range(size)])
        assert [r.value for r in one.elements(1).values()] == ["first"]
        one.commit([done(one, 1, "third", size)])
        one.close("completed")
        assert journal.run("run").status == "completed"


def test_a_failure_gives_way_to_what_comes_after_it(where):
    """A task that failed can be recorded again, in the same group as others, and only once."""
    with Journal(where) as journal:
        one = journal.begin("run", SIX)
        one.commit([failed(0), failed(1)])
        one.close("failed")
        two = journal.begin("run", SIX)
        two.commit([done(two, 0, "mended"), done(two, 2, "new")])
        with pytest.raises(JournalError):
            two.commit([done(two, 0, "again")])
        two.close("completed")
        assert [(task.task, task.state) for task in journal.tasks("run")] == [
            (0, "completed"),
            (1, "failed"),
            (2, "completed"),
        ]


def test_text_that_databases_refuse_is_recorded_escaped(where):
    """NUL and lone surrogates in names, errors and workers do not fail a run."""
    odd = "file\udcff\0\n\u202e"
    with Journal(where) as journal:
        one = journal.begin("run", fingerprint_of(odd, [(len, ("a",), {})]), origin={"argv": [odd]})
        one.commit([failed(0, odd)._replace(name=odd, worker=odd)])
        one.close("failed", odd)
        (task,), run = journal.tasks("run"), journal.run("run")
        assert {task.name, task.worker, task.error, run.process, run.error} == {"file\\udcff\\x00\n\u202e"}
        assert run.origin == {"argv": [odd]}


@pytest.mark.parametrize(
    "run_id", ["a/b", "../x", "a\nb", "' OR 1=1 --", '"', "🎉" * 100, "%s?:x", " ", "x" * 500, "a%2Fb"]
)
def test_odd_run_ids_are_ids_like_any_other(where, run_id):
    """Slashes, newlines, quotes and emoji neither break anything nor meet another run."""
    with Journal(where) as journal:
        for one_id, value in ((run_id, "odd"), (run_id[:-1] + "z", "other")):
            one = journal.begin(one_id, SIX)
            one.commit([done(one, 0, value)])
            one.close("completed")
        assert [run.id for run in journal.runs()] == [run_id[:-1] + "z", run_id]
        again = journal.begin(run_id, SIX)
        assert values(again) == {0: "odd"}
        again.close("completed")
        journal.delete(run_id)
        assert [run.id for run in journal.runs()] == [run_id[:-1] + "z"]


@pytest.mark.parametrize("run_id", ["", "x" * 501, "x" * 10_000, "a\0b", "\udcff"])
def test_run_ids_that_no_database_keeps_are_refused(where, run_id):
    """Empty, too long, or with characters that would be lost: a ValueError, short and harmless to show."""
    with Journal(where) as journal, pytest.raises(ValueError, match="run id") as caught:
        journal.begin(run_id, SIX)
    assert len(str(caught.value)) < 200 and str(caught.value).isprintable()
    with Journal(where) as journal, pytest.raises(TypeError, match="not int"):
        journal.begin(7, SIX)


# Values


class Trap:
    """Pickles, and does not unpickle."""

    def __reduce__(self):
        return refuse, ()


def refuse():
    raise RuntimeError("not again")


class Lost:
    """Can be unpickled as long as it is where it was."""


@pytest.mark.parametrize("value", [Trap(), [1, {"deep": Trap()}], lambda: None, threading.Lock(), (n for n in ())])
def test_a_value_that_could_not_be_read_back_is_refused_when_it_is_recorded(value):
    """The error names the type and says what to do, while the task can still fail for it."""
    with Journal(":memory:") as journal:
        one = journal.begin("run", SIX)
        with pytest.raises(ResultError, match="of type .*cannot be recorded.*codec 'pickle'.*Return something"):
            one.encode(value)
        one.close("failed")


@pytest.mark.parametrize(
    "value", [None, 0, -(10**30), "ü\x93c", b"\x93", 1.5, {1: {2, 3}}, [[]] * 3, Lost, Path("a"), Ellipsis]
)
def test_what_pickle_takes_is_recorded(value):
    """What comes back equals what was recorded."""
    with Journal(":memory:") as journal:
        one = journal.begin("run", SIX)
        one.commit([done(one, 0, value)])
        assert one.recorded[0].value == value
        one.close("completed")


def test_a_value_that_is_too_large_is_refused(monkeypatch):
    """A limit that every database keeps, with the way out."""
    monkeypatch.setattr(codec, "LIMIT", 1000)
    with Journal(":memory:") as journal:
        one = journal.begin("run", SIX)
        with pytest.raises(ResultError, match=r"of type bytes takes 1,\d\d\d bytes.*Write it to a file"):
            one.encode(b"x" * 1000)
        one.close("failed")


def test_a_value_whose_class_is_gone_is_named(where, monkeypatch):
    """Run, task and what is missing stand in the error; nothing is lost, and with the class back it reads."""
    with Journal(where) as journal:
        one = journal.begin("run", SIX)
        one.commit([done(one, 3, Lost())])
        one.close("completed")
        with monkeypatch.context() as patch:
            patch.delattr(sys.modules[__name__], "Lost")
            two = journal.begin("run", SIX)
            with pytest.raises(ResultError, match=r"run 'run', task 3 \(builtins:len\).*Lost.*Put back"):
                dict(two.recorded)
            two.close("failed")
        three = journal.begin("run", SIX)
        assert isinstance(three.recorded[3].value, Lost)
        three.close("completed")


class Named(str):
    __slots__ = ()


class Listed(list):
    pass


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((1, 2), "a tuple, which would come back as a list"),
        ({1: 2}, "a key of type int, which would come back as a str"),
        ({None: 2}, "a key of type NoneType"),
        (enum.StrEnum("Status", ["PAID"]).PAID, r"a test_journal_store.Status, which would come back as a str"),
        (enum.IntEnum("Level", ["LOW"]).LOW, "Level, which would come back as a int"),
        (enum.IntFlag("Access", ["READ"]).READ, "Access, which would come back as a int"),
        (collections.Counter("aab"), "collections.Counter, which would come back as a dict"),
        (collections.OrderedDict(b=1), "collections.OrderedDict, which would come back as a dict"),
        (collections.defaultdict(list, a=[1]), "collections.defaultdict, which would come back as a dict"),
        (collections.namedtuple("Pair", "a b")(1, 2), "Pair, which would come back as a list"),
        (Named("a"), "Named, which would come back as a str"),
        (Listed([1]), "Listed, which would come back as a list"),
        ({Named("a"): 1}, "a key of type test_journal_store.Named"),
        (numpy.float64(1.5), "numpy.float64, which would come back as a float"),
        (numpy.str_("a"), "numpy.str_, which would come back as a str"),
        (numpy.int64(1), "int64 is not JSON"),
        ({1, 2}, "set is not JSON"),
        (float("nan"), "not JSON compliant"),
        (b"x", "bytes is not JSON"),
        (object(), "object is not JSON"),
    ],
)
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: {"a": [1, {"b": value}]}])
def test_json_refuses_what_would_come_back_as_something_else(value, text, wrap):
    """At every depth: other types, keys that are no strings, and what JSON has no word for."""
    value = wrap(value)
    with Journal(":memory:", codec="json") as journal:
        one = journal.begin("run", SIX)
        with pytest.raises(ResultError, match=f"codec 'json'.*{text}"):
            one.encode(value)
        one.commit([done(one, 0, {"ü": [1, 1.5, None, True]})])
        assert values(one) == {0: {"ü": [1, 1.5, None, True]}}
        one.close("completed")


class Reversed:
    """A codec of a user's own."""

    name = "reversed"

    def encode(self, value):
        return value.encode()[::-1]

    def decode(self, data):
        return data[::-1].decode()


def test_a_run_is_read_with_the_codec_it_was_recorded_with(where):
    """Codecs of users work; another than the one of the run is refused with the name of the right one."""
    with Journal(where, codec=Reversed()) as journal:
        one = journal.begin("run", SIX)
        one.commit([done(one, 0, "abc")])
        assert values(one) == {0: "abc"}
        with pytest.raises(ResultError, match="type int"):
            one.encode(7)
        one.close("completed")
    with Journal(where) as journal, pytest.raises(JournalError, match="codec 'reversed' and not 'pickle'"):
        journal.begin("run", SIX)
    with pytest.raises(ValueError, match="'pickle', 'json'"):
        Journal(where, codec="yaml")


class Bomb:
    """Says so when it is unpickled."""

    def __reduce__(self):
        return explode, ()


exploded = []


def explode():
    exploded.append(1)


def test_nothing_but_a_recorder_reads_values(where):
    """Whoever shows, cancels or prunes runs cannot be made to run code by what stands in the journal."""
    with Journal(where) as journal:
        one = journal.begin("run", SIX)
        one.commit([done(one, 0, 1)._replace(value=pickle.dumps(Bomb()))])
        journal.runs(), journal.run("run"), journal.tasks("run"), journal.cancel("run")
        one.close("completed")
        journal.begin("run", SIX).close("completed")
        journal.runs(), journal.run("run"), journal.tasks("run"), journal.cancel("run"), journal.prune(time.time() + 9)
        assert exploded == []
        one = journal.begin("run", SIX)
        one.commit([done(one, 0, 1)._replace(value=pickle.dumps(Bomb()))])
        dict(one.recorded)
        assert exploded == [1]
        exploded.clear()
        one.close("completed")


# Who may record


def test_two_cannot_hold_one_run(where):
    """The second is told which process holds it, since when, and what to do; the first goes on undisturbed."""
    with Journal(where) as journal, Journal(where) as other:
        one = journal.begin("run", SIX)
        for second in (journal, other):
            with pytest.raises(RunInUseError, match=f"'run' .* process {os.getpid()} on .* since .* UTC.* cancel it"):
                second.begin("run", SIX)
        another = other.begin("another", SIX)
        one.commit([done(one, 0, 1)])
        another.commit([done(another, 0, 2)])
        one.close("completed")
        another.close("completed")
        two = other.begin("run", SIX)
        assert values(two) == {0: 1}
        two.close("completed")


HOLD = """
journal = Journal(where)
recorder = journal.begin("run", SIX)
recorder.commit([done(recorder, 0, "kept")])
say(os.getpid())
sys.stdin.readline()
recorder.close("completed")
journal.close()
"""


@posix
def test_a_living_holder_is_respected_and_a_dead_one_is_not(where):
    """While its process lives a run is refused; once that was killed it is taken over at once, with all it recorded."""
    child = Child(HOLD, where)
    pid = child.line()
    with Journal(where) as journal:
        with pytest.raises(
            RunInUseError, match=f"process {pid} .* once that process is gone, the run is free at once$"
        ):
            journal.begin("run", SIX)
        assert (journal.run("run").status, journal.run("run").pid) == ("running", int(pid))
        os.kill(int(pid), signal.SIGKILL)
        os.waitid(os.P_PID, int(pid), os.WEXITED | os.WNOWAIT)  # dead, and a zombie: nobody has asked how it ended
        assert journal.run("run").status == "interrupted"
        one = journal.begin("run", SIX)
        assert (values(one), one.executions) == ({0: "kept"}, 2)
        one.close("completed")
    child.kill()


@posix
def test_a_process_number_that_was_given_away_again_is_not_the_holder(where):
    """A living process that has the number of the dead one does not keep the run."""
    with Journal(where) as journal:
        one = journal.begin("run", SIX)
        holder = replace(lease.Holder.here(), pid=os.getppid(), started=1.0)
        execute(where, "UPDATE procession_runs SET holder = ?", holder.text)
        journal.begin("run", SIX).close("completed")
        with pytest.raises(RunInUseError):
            one.close("completed")


def expire(where, seconds=31.0, host="elsewhere"):
    """Let so much time pass for all leases, whose holders are processes of this host or, unless told so, of another."""
    for (holder,) in execute(where, "SELECT DISTINCT holder FROM procession_runs WHERE holder IS NOT NULL"):
        moved = replace(lease.Holder.read(holder), host=host).text
        execute(where, "UPDATE procession_runs SET holder = ? WHERE holder = ?", moved, holder)
    execute(where, "UPDATE procession_runs SET held_until = held_until - ?", seconds)


@posix
def test_a_holder_that_lives_and_is_late_keeps_its_run(where):
    """Stopped, it renews nothing; on its own host it is neither taken over nor pruned, and goes on afterwards."""
    child = Child(HOLD, where)
    pid = int(child.line())
    os.kill(pid, signal.SIGSTOP)
    expire(where, 100.0, platform.node())
    with Journal(where) as journal:
        with pytest.raises(
            RunInUseError, match=rf"process {pid} .* lives, but has not been heard of for 100 s.* end it"
        ):
            journal.begin("run", SIX)
        with pytest.raises(RunInUseError, match="lives"):
            journal.delete("run")
        assert journal.prune(time.time() + 10_000) == []
        with journal.reader() as reader:
            assert [found.run.pid for found in reader.runs(status="running")] == [pid]
            assert reader.kept().counts["running"] == 1
        assert journal.cancel("run")
        os.kill(pid, signal.SIGCONT)
        assert child.end() == []
        assert journal.run("run").status == "completed"


def test_a_holder_of_this_host_that_nobody_here_may_see_keeps_its_run_until_its_lease_has_run_out(where, monkeypatch):
    """Where the processes of others are hidden, the lease decides."""

    begin_of = lease.started

    def hidden(pid):
        if pid == os.getpid():
            return begin_of(pid)
        raise PermissionError(pid)

    with Journal(where) as journal:
        one = journal.begin("run", SIX)
        execute(where, "UPDATE procession_runs SET holder = ?", replace(lease.Holder.here(), pid=os.getppid()).text)
        monkeypatch.setattr(lease, "started", hidden)
        with pytest.raises(RunInUseError):
            journal.begin("run", SIX)
        expire(where, host=platform.node())
        journal.begin("run", SIX).close("completed")
        with pytest.raises(RunInUseError):
            one.close("completed")


def test_a_holder_elsewhere_keeps_the_run_until_its_lease_has_run_out(where, monkeypatch):
    """Of another host nobody can say whether a process lives, so its lease decides."""
    with Journal(where) as journal:
        with monkeypatch.context() as patch:
            patch.setattr(platform, "node", lambda: "elsewhere")
            one = journal.begin("run", SIX)
            one.commit([done(one, 0, 1)])
        with pytest.raises(RunInUseError, match=r"on elsewhere .* free (30|29) s from now"):
            journal.begin("run", SIX)
        expire(where)
        assert journal.run("run").status == "interrupted"
        two = journal.begin("run", SIX)
        assert values(two) == {0: 1}
        two.close("completed")
        with pytest.raises(RunInUseError):
            one.close("completed")


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("size", [1, 2, 150])
def test_whoever_was_taken_over_records_nothing_more(where, size, direct, monkeypatch):
    """A runner that was thought dead is told so by its next commit, its heartbeat and its close; the other's word stands."""
    if not direct:
        monkeypatch.setattr(recorder, "DIRECT", {})
    with Journal(where) as journal, Journal(where) as other:
        one = journal.begin("run", SIX)
        one.commit([failed(5)])
        expire(where)
        two = other.begin("run", SIX)
        with pytest.raises(RunInUseError, match="taken over by process .* at .* UTC"):
            one.commit([done(one, 1, "stale", place) for place in range(size)])
        with pytest.raises(RunInUseError, match="taken over"):
            one.commit([done(one, 5, "stale")])
        lost = threading.Event()
        one.start_heartbeat(lambda: (Progress(0, 0, 0), []), lambda: None, lambda error: lost.set())
        assert lost.wait(10)
        with pytest.raises(RunInUseError, match="taken over"):
            one.close("failed", "stale")
        assert (two.elements(1), values(two)) == ({}, {})
        two.commit([done(two, 5, "right")])
        two.close("completed")
        assert (journal.run("run").status, journal.run("run").error) == ("completed", None)


def test_a_clock_that_jumps_costs_no_more_than_the_run(tmp_path):
    """Forward, a runner elsewhere may take over and the first is told; back, nothing happens at all."""
    where = str(tmp_path / "runs.db")
    with Journal(where) as journal, Journal(where) as other:
        one = journal.begin("run", SIX)
        expire(where, 0)
        other.database.clock = lambda: time.time() + 3600
        two = other.begin("run", SIX)
        with pytest.raises(RunInUseError, match="taken over"):
            one.commit([done(one, 0, "stale")])
        other.database.clock = journal.database.clock = lambda: time.time() - 3600
        two.commit([done(two, 0, "right")])
        two.renew("{}")
        with pytest.raises(RunInUseError):
            journal.begin("run", SIX)
        two.close("completed")
        three = journal.begin("run", SIX)
        assert values(three) == {0: "right"}
        three.close("completed")


def test_a_runner_that_vanished_without_a_word_holds_nothing(where):
    """A recorder whose end could not be written gives its run free for others of the same process."""
    with Journal(where) as journal:
        one = journal.begin("run", SIX)
        one.commit([done(one, 0, 1)])
        with pytest.raises(JournalError):
            one.close(object())
        two = journal.begin("run", SIX)
        assert values(two) == {0: 1}
        two.close("completed")


VANISH = """
journal = Journal(where)
recorder = journal.begin("run", SIX)
recorder.commit([done(recorder, 0, "kept")])
recorder.start_heartbeat(lambda: (Progress(1, 0, 6), []), lambda: None, lambda error: None)
while journal.run("run").progress != Progress(1, 0, 6):
    time.sleep(0.01)
say(os.getpid())
sys.stdin.readline()
try:
    recorder.close(object())
except JournalError:
    say("could not say so")
sys.stdin.readline()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody can see the threads of another process")
def test_a_run_whose_end_could_not_be_written_is_free_though_its_process_lives(where):
    """As after a disk that was full: a server, or a notebook, lives on. Until then the run is its own."""
    child = Child(VANISH, where)
    pid = child.line()
    with Journal(where) as journal:
        with pytest.raises(RunInUseError, match=f"process {pid}"):
            journal.begin("run", SIX)
        child.popen.stdin.write("\n")
        child.popen.stdin.flush()
        assert child.line() == "could not say so"
        assert journal.run("run").status == "interrupted"
        one = journal.begin("run", SIX)
        assert values(one) == {0: "kept"}
        one.close("completed")
    assert child.end() == []


FORK = """
journal, memory = Journal(where), Journal(":memory:")
journal.begin("before", SIX).close("completed")
if os.fork() == 0:
    child = journal.begin("child", SIX)
    child.commit([done(child, 0, 2)])
    child.close("completed")
    os._exit(0)
os.wait()
recorder, hidden = journal.begin("parent", SIX), memory.begin("run", SIX)
recorder.commit([done(recorder, 0, 1)])
if os.fork() == 0:
    refused = [lambda: recorder.commit([done(recorder, 1, 3)]), lambda: recorder.close("failed")]
    refused += [lambda: memory.runs(), lambda: hidden.recorded]
    if "://" in where:
        second = journal.begin("second", SIX)
        second.commit([done(second, 0, 3)])
        second.close("completed")
    else:
        refused += [lambda: journal.begin("second", SIX), lambda: Journal(where).runs()]
    for use in refused:
        try:
            use()
        except JournalError as error:
            say("refused", error)
    sys.exit()
os.wait()
recorder.commit([done(recorder, 1, 1)])
recorder.close("completed")
journal.close()
"""


@posix
def test_a_forked_child_uses_connections_of_its_own(where):
    """A journal works in a child; a recorder, one in memory, and an SQLite file that was open say plainly that it does not."""
    lines = Child(FORK, where).end()
    assert [line.split()[0] for line in lines] == ["refused"] * (4 if "://" in where else 6)
    with Journal(where) as journal:
        second = ["second"] if "://" in where else []
        assert [run.id for run in journal.runs()] == [*second, "parent", "child", "before"]
        assert {run.status for run in journal.runs()} == {"completed"}
        assert len(journal.tasks("parent")) == 2


# Definitions


def test_a_changed_definition_is_refused_with_the_first_difference(where):
    """Nothing of the run is touched by the attempt."""
    other = fingerprint_of("six", [(len, ("a",), {})] * 3 + [(max, ("a",), {})] * 3)
    with Journal(where) as journal:
        one = journal.begin("run", SIX)
        one.commit([done(one, 0, 1)])
        one.close("failed", "no")
        before = journal.run("run")
        with pytest.raises(
            PlanChangedError, match=r"'run' of process 'six'.*task 3 was builtins:len, is builtins:max.*allow_changes"
        ):
            journal.begin("run", other)
        assert journal.run("run") == before
        two = journal.begin("run", SIX)
        assert values(two) == {0: 1}
        two.close("completed")


def test_changes_that_are_allowed_forget_what_has_changed(where):
    """Unchanged tasks keep their results, the others lose theirs, elements and nested runs included."""
    nested = fingerprint_of("inner", [(len, ("a",), {})])
    other = fingerprint_of("six", [(len, ("a",), {})] * 3 + [(max, ("a",), {})] * 2)
    with Journal(where) as journal:
        one = journal.begin("run", SIX)
        one.commit([done(one, task, task) for task in range(6)])
        one.commit([done(one, task, task, 0) for task in (2, 3)])
        for task in (2, 3):
            inner = journal.begin(f"run/{task}", nested, within=(one, task, 0))
            inner.commit([done(inner, 0, task)])
            inner.close("completed")
        one.close("completed")
        two = journal.begin("run", other, allow_changes=True)
        assert (values(two), len(two.elements(2)), two.elements(3)) == ({0: 0, 1: 1, 2: 2}, 1, {})
        assert [run.id for run in journal.runs(within="run")] == ["run/2.0"]
        two.commit([done(two, 2, "another element", 0)])
        assert two.elements(2)[0].value == "another element"
        two.close("completed")
        three = journal.begin("run", other)
        assert values(three) == {0: 0, 1: 1, 2: 2}
        three.close("completed")


def test_nested_runs_are_recorded_with_their_task(where):
    """They hang on the outer run's lease, keep their own results, go on when it does, and go when it goes."""
    inner_plan = fingerprint_of("inner", [(len, ("a",), {})] * 2)
    with Journal(where) as journal:
        outer = journal.begin("run", SIX)
        inner = journal.begin("run/4", inner_plan, within=(outer, 4, WHOLE))
        inner.commit([done(inner, 0, "inner")])
        innermost = journal.begin("run/4/1.7", inner_plan, within=(inner, 1, 7))
        innermost.commit([done(innermost, 0, "innermost")])
        assert (journal.run("run/4/1.7").status, journal.run("run/4/1.7").process) == ("running", "inner")
        innermost.close("completed")
        inner.close("failed", "no")
        outer.commit([done(outer, 4, "outer")])
        outer.close("failed")
        assert [run.id for run in journal.runs()] == ["run"]
        assert [(run.id, run.status, run.error) for run in journal.runs(within="run")] == [("run/4", "failed", "no")]
        assert [task.task for task in journal.tasks("run/4/1.7")] == [0]
        again = journal.begin("run", SIX)
        inner = journal.begin("run/4", inner_plan, within=(again, 4, WHOLE))
        assert (values(again), values(inner), inner.executions) == ({4: "outer"}, {0: "inner"}, 2)
        expire(where)
        with Journal(where) as other:
            taker = other.begin("run", SIX)
            for stale in (lambda: inner.commit([done(inner, 1, 1)]), lambda: inner.close("completed")):
                with pytest.raises(RunInUseError, match="'run' was taken over"):
                    stale()
            with pytest.raises(RunInUseError, match="'run' was taken over"):
                journal.begin("run/5", inner_plan, within=(again, 5, WHOLE))
            with pytest.raises(RunInUseError):
                again.close("completed")
            taker.close("completed")
        journal.delete("run")
        assert execute(where, "SELECT COUNT(*) FROM procession_runs") == [(0,)]
        assert execute(where, "SELECT COUNT(*) FROM procession_records") == [(0,)]


# The heartbeat


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
        one.start_heartbeat(lambda: tuple(state), lambda: None, lambda error: None)
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


def wait_for(condition):
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_run_is_cancelled_from_another_process(where):
    """The request reaches the runner once; of a run that nobody executes it is said that nobody does."""
    asked = []
    with Journal(where) as journal:
        one = journal.begin("run", SIX)
        one.start_heartbeat(lambda: (Progress(0, 0, 6), []), lambda: asked.append(1), lambda error: None)
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
        one.start_heartbeat(lambda: (Progress(ended[0], 0, 6), []), lambda: None, lambda error: None)
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
            lambda: (Progress(0, 0, 6), []), lambda: None, lambda error: (lost.append(error), told.set())
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


# Showing and pruning


@pytest.mark.parametrize("state", ["running", "fialed", "", "x" * 1000, 3])
def test_an_unknown_state_of_tasks_is_refused_with_those_that_are_known(where, state):
    """A word that means nothing does not find nothing."""
    with Journal(where) as journal:
        journal.begin("run", SIX).close("completed")
        with pytest.raises(ValueError, match="^unknown state .{1,220}; known are 'completed' and 'failed'$"):
            journal.tasks("run", state=state)


def test_a_task_of_which_a_part_is_recorded_was_interrupted(where):
    """Also where the run had not yet said that it began: an element is recorded, or the run that the task is."""
    with Journal(where) as journal:
        one = journal.begin("run", SIX)
        one.commit([done(one, 0, 0), failed(1), done(one, 2, 0, 5)])
        journal.begin("run/3", SIX, within=(one, 3, WHOLE))
        journal.begin("run/4", SIX, within=(one, 4, WHOLE))
        one.commit([done(one, 4, 0)])

        def states():
            with journal.reader() as reader:
                key = reader.key("run")
                return [stands.state for stands in reader.standings(key, reader.run(key), range(6))]

        assert states() == ["completed", "failed", "waiting", "waiting", "completed", "waiting"]
        expire(where)
        assert states() == ["completed", "failed", "interrupted", "interrupted", "completed", "never begun"]


def test_runs_and_tasks_are_shown_in_pages(where):
    """The newest run first, tasks by place, elements of a map of their own, failed ones alone if asked."""
    with Journal(where) as journal:
        for number in range(5):
            one = journal.begin(f"run{number}", SIX, origin={"target": "app:process"})
            one.commit([done(one, 0, "x"), failed(1), done(one, 2, None)])
            one.commit([done(one, 2, place, place) for place in range(4)] + [failed(2, element=4)])
            one.close("failed", "ValueError: no")
        assert [run.id for run in journal.runs(2)] == ["run4", "run3"]
        assert [run.id for run in journal.runs(2, 4)] == ["run0"]
        run = journal.run("run3")
        assert (run.process, run.status, run.executions, run.error) == ("six", "failed", 1, "ValueError: no")
        assert (run.origin, run.host, run.pid, run.cancelling) == ({"target": "app:process"}, None, None, False)
        assert run.created_at == run.started_at <= run.ended_at <= time.time() + 60
        tasks = journal.tasks("run3")
        assert [(task.task, task.element, task.state) for task in tasks] == [
            (0, None, "completed"),
            (1, None, "failed"),
            (2, None, "completed"),
        ]
        assert tasks[1].error == "ValueError: no" and tasks[1].attempts == 3 and tasks[1].size is None
        assert (tasks[0].name, tasks[0].worker, tasks[0].duration) == ("builtins:len", "worker", 0.5)
        assert tasks[0].size == len(pickle.dumps("x", 5))
        assert [task.element for task in journal.tasks("run3", 2, 1, task=2)] == [1, 2]
        assert [task.element for task in journal.tasks("run3", task=2, state="failed")] == [4]
        for ask in (
            journal.run,
            journal.tasks,
            journal.delete,
            journal.cancel,
            lambda run_id: journal.runs(within=run_id),
        ):
            for run_id in ("none", "run3/7", "none/7"):
                with pytest.raises(RunUnknownError, match=run_id):
                    ask(run_id)


def told(ended, failed, total):
    """Return what a run says of itself once a second."""
    return heartbeat.text_of((Progress(ended, failed, total), []))


def progress_of(journal, run_id="run"):
    """Return what is shown of a run, which is the same everywhere."""
    with journal.reader() as reader:
        (found,) = [one for one in reader.runs() if one.run.id == run_id]
        assert journal.run(run_id) == found.run == reader.run(found.key)
    assert journal.runs()[0] == journal.run(run_id)
    return journal.run(run_id).progress


def test_of_a_run_that_was_interrupted_what_is_recorded_is_counted(where):
    """More than its last word a moment before, and elements of a map in place of the map."""
    with Journal(where) as journal:
        one = journal.begin("run", SIX)
        one.commit([done(one, 0, 0)])
        one.renew(told(1, 0, 8))
        assert progress_of(journal) == (1, 0, 8)
        one.commit([done(one, 1, place, place) for place in range(3)] + [done(one, 1, None)])
        one.commit([done(one, 2, 0, 0), failed(2, element=1), failed(2), failed(3)])
        assert progress_of(journal) == (1, 0, 8)
        expire(where)
        assert (journal.run("run").status, progress_of(journal)) == ("interrupted", (7, 2, 9))
        two = journal.begin("run", SIX)
        expire(where)
        # It had no time to say anything.
        assert progress_of(journal) == (7, 2, 9)
        with pytest.raises(RunInUseError):
            one.close("failed")


def test_pruning_takes_old_runs_whole_and_leaves_living_ones(where):
    """What ended before the given time goes with all its records; what is being executed stays, whatever the time."""
    with Journal(where) as journal:
        for name in ("old", "dead", "new", "alive"):
            one = journal.begin(name, SIX)
            one.commit([done(one, 0, name)])
            if name in ("old", "new"):
                one.close("completed")
            if name == "dead":
                vanished = one
        execute(where, "UPDATE procession_runs SET ended_at = 1000 WHERE id = 'old'")
        gone = replace(lease.Holder.here(), pid=os.getppid(), started=1.0).text
        execute(where, "UPDATE procession_runs SET held_until = 1000, holder = ? WHERE id = 'dead'", gone)
        with pytest.raises(RunInUseError, match="'alive'"):
            journal.delete("alive")
        assert journal.prune(999) == []
        assert journal.prune(2000) == ["old", "dead"]
        assert [run.id for run in journal.runs()] == ["alive", "new"]
        assert journal.prune(time.time() + 10_000) == ["new"]
        with pytest.raises(RunInUseError, match="'dead' was deleted"):
            vanished.close("completed")
        one.close("completed")
        assert execute(where, "SELECT COUNT(*) FROM procession_records") == [(1,)]
        fresh = journal.begin("old", SIX)
        assert (values(fresh), fresh.executions) == ({}, 1)
        fresh.close("completed")


@posix
def test_pruning_that_is_killed_half_way_leaves_the_run_whole(where):
    """An id that is used again never meets what is left of the run that had it before."""
    with Journal(where) as journal:
        one = journal.begin("run", SIX)
        one.commit([done(one, task, "old") for task in range(6)])
        one.close("completed")
        keys = execute(where, "SELECT key FROM procession_runs")
        script = """
        from sqlalchemy import event
        from procession.journal import store
        journal = Journal(where)
        remove = store.remove

        def half(connection, key):
            @event.listens_for(connection, "before_cursor_execute")
            def look(connection, cursor, statement, *rest):
                if statement.startswith("DELETE FROM procession_runs"):
                    os.kill(os.getpid(), signal.SIGKILL)

            remove(connection, key)

        store.remove = half
        journal.prune(time.time() + 10)
        """
        child = Child(script, where)
        child.popen.communicate()
        assert child.popen.returncode == -signal.SIGKILL
        assert (len(journal.tasks("run")), journal.run("run").status) == (6, "completed")
        assert journal.prune(time.time() + 10) == ["run"]
        fresh = journal.begin("run", SIX)
        assert values(fresh) == {}
        assert execute(where, "SELECT key FROM procession_runs") > keys
        fresh.close("completed")


# Many at a time


def test_writers_and_readers_do_not_get_in_each_others_way(where):
    """Two processes that record and one that reads meet no locked database and miss no record."""
    write = """
    journal = Journal(where)
    recorder = journal.begin(words[0], SIX)
    say("ready")
    sys.stdin.readline()
    for place in range(200):
        recorder.commit([done(recorder, 1, place, place)])
    recorder.close("completed")
    """
    with Journal(where) as journal:
        journal.begin("first", SIX).close("completed")
        writers = [Child(write, where, name) for name in ("a", "b")]
        assert [writer.line() for writer in writers] == ["ready"] * 2
        for writer in writers:
            writer.popen.stdin.write("\n")
            writer.popen.stdin.flush()
        seen = 0
        while any(writer.popen.poll() is None for writer in writers):
            assert [run.id for run in journal.runs()][-1] == "first"
            now = len(journal.tasks("a", 1000, task=1))
            assert now >= seen
            seen = now
        assert [writer.end() for writer in writers] == [[], []]
        assert [len(journal.tasks(name, 1000, task=1)) for name in ("a", "b")] == [200, 200]


def test_nobody_takes_a_journal_for_unused_that_is_in_use(where):
    """However often others open and close it, begin in it and fail to, what is recorded afterwards is there."""
    look = """
    for line in sys.stdin:
        journal = Journal(where)
        say(len(journal.tasks("run")))
        journal.close()
    """
    with Journal(where) as journal, Journal(where) as another:
        one = journal.begin("run", SIX)
        child = Child(look, where)

        def seen():
            child.popen.stdin.write("\n")
            child.popen.stdin.flush()
            return int(child.line())

        assert seen() == 0
        one.commit([done(one, 0, 1)])
        assert seen() == 1
        another.runs()
        assert seen() == 1
        one.commit([done(one, 1, 1)])
        with pytest.raises(RunInUseError):
            another.begin("run", SIX)
        assert seen() == 2
        one.commit([done(one, 2, 1)])
        another.begin("other", SIX).close("completed")
        assert seen() == 3
        one.commit([done(one, 3, 1)])
        assert seen() == 4
        assert child.end() == ["4"]
        one.close("completed")
    with Journal(where) as journal:
        assert len(journal.tasks("run")) == 4


def test_many_can_be_the_first_to_use_a_journal(where):
    """Processes that create it at the same time all find their tables, and only one of them gets a run that all want."""
    script = """
    journal = Journal(where)
    say("ready")
    sys.stdin.readline()
    journal.begin(words[0], SIX).close("completed")
    try:
        recorder = journal.begin("wanted", SIX)
        say("got")
    except RunInUseError:
        say("in use")
    sys.stdin.readline()
    """
    firsts = [Child(script, where, number) for number in range(3)]
    assert [child.line() for child in firsts] == ["ready"] * 3
    for child in firsts:
        child.popen.stdin.write("\n")
        child.popen.stdin.flush()
    assert sorted(child.line() for child in firsts) == ["got", "in use", "in use"]
    for child in firsts:
        child.end()
    with Journal(where) as journal:
        assert {run.id for run in journal.runs()} == {"0", "1", "2", "wanted"}


def test_threads_of_one_run_and_its_nested_ones_share_its_way_into_the_journal(where):
    """Nested runs in several threads record beside the outer one and lose nothing."""
    with Journal(where) as journal:
        outer = journal.begin("run", SIX)
        errors = []

        def nest(task):
            try:
                inner = journal.begin(f"run/{task}", SIX, within=(outer, task, WHOLE))
                for place in range(50):
                    inner.commit([done(inner, 1, place, place)])
                    outer.commit([done(outer, task, place, place)])
                inner.close("completed")
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=nest, args=(task,)) for task in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert [len(outer.elements(task)) for task in range(4)] == [50] * 4
        outer.close("completed")
        assert {run.status for run in journal.runs(within="run")} == {"completed"}


@posix
def test_what_a_killed_process_has_committed_is_there(where):
    """Whenever the process is killed, all that it said was recorded is, in whole groups, and the run can go on."""
    script = """
    journal = Journal(where)
    recorder = journal.begin("run", SIX)
    start = len(recorder.elements(1))
    say(start)
    for group in range(100_000):
        first = start + group * 3
        recorder.commit([done(recorder, 1, place, place) for place in range(first, first + 3)])
        say(first + 3)
    """
    said = 0
    for number in range(4):
        child = Child(script, where)
        assert int(child.line()) >= said
        for _ in range(number * 13):
            said = int(child.line())
        child.popen.send_signal(signal.SIGKILL)
        rest = child.popen.communicate()[0].split("\n")[:-1]
        said = int(rest[-1]) if rest else said
    with Journal(where) as journal:
        one = journal.begin("run", SIX)
        places = list(one.elements(1))
        assert places == list(range(len(places)))
        assert said <= len(places) and len(places) % 3 == 0
        one.close("completed")
    if "://" not in where:
        assert execute(where, "PRAGMA integrity_check") == [("ok",)]


# Databases that fail


@pytest.mark.parametrize("where", ["nowhere://x", "://", "", "sqlite+none:///x", "postgresql+none://x/y"])
def test_a_place_that_means_nothing_is_refused(where, tmp_path, monkeypatch):
    """At once, and nothing is made."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError):
        Journal(where)
    with pytest.raises(ValueError, match="'process' and 'power'"):
        Journal("x", durability="paper")
    assert list(tmp_path.iterdir()) == []


SECRETS = [
    "postgresql://user:s3cret@127.0.0.1:1/name",
    "postgresql://user@127.0.0.1:1/name?password=s3cret",
    "postgresql://user@127.0.0.1:1/name?sslmode=disable&sslpassword=s3cret",
    "postgresql://user:s3%40cret@127.0.0.1:1/name",
    "postgresql://user:s3cret@more@127.0.0.1:1/name",
    "postgresql://user:more@s3cret@127.0.0.1:1/name",
    "postgresql://user:s3cret/more@127.0.0.1:1/name",
    "postgresql://user:more#s3cret@127.0.0.1:1/name",
    "postgresql://user:more?s3cret@127.0.0.1:1/name",
    "postgresql://user:s3cret@127.0.0.1:port/name",
    "nothing://user:s3cret@127.0.0.1/name?password=s3cret",
]


@pytest.mark.parametrize("url", SECRETS)
def test_a_password_is_not_shown(url):
    """Wherever it stands in the address of a database: errors say which was meant, or what one looks like."""
    with pytest.raises((JournalError, ValueError)) as caught:
        Journal(url).begin("run", SIX)
    said = "".join(traceback.format_exception(caught.value))
    assert "user" in str(caught.value)
    assert "s3cret" not in said and "s3%40cret" not in said


@pytest.mark.parametrize("url", SECRETS)
def test_a_password_on_the_command_line_is_not_recorded(url, tmp_path, monkeypatch):
    """How a run was begun is shown, and kept."""
    monkeypatch.setattr("sys.argv", ["program", "--database", url, f"--other={url}", "plain"])
    with Journal(tmp_path / "runs.db") as journal:
        Process("p").execute(run_id="run", journal=journal)
        with begun_by(["procession", "run", f"pipeline.py:{url}"]):
            Process("p").execute(run_id="other", journal=journal)
        argv, command = (journal.run(run_id).origin["argv"] for run_id in ("run", "other"))
    assert (argv, command[:2]) == (["program"], ["procession", "run"])
    assert "s3cret" not in (tmp_path / "runs.db").read_bytes().decode("utf-8", "replace")


def test_what_is_no_secret_of_an_address_is_shown():
    """Which server, database and user is meant."""
    with pytest.raises(JournalError, match=r"user@127.0.0.1:1/name\?passfile=\*\*\*&sslmode=disable"):
        Journal("postgresql://user@127.0.0.1:1/name?sslmode=disable&passfile=/none").runs()


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


def test_a_journal_of_version_1_is_gone_on_with(where):
    """Its runs are shown and resumed, and what comes new can hold what journals of then could not."""
    make_version_1(where, execute, SIX, pickle.dumps("kept"))
    with Journal(where) as journal:
        assert [(one.task, one.state, one.error, one.log) for one in journal.tasks("run")] == [
            (0, "completed", None, None),
            (1, "failed", "ValueError: no", None),
        ]
        one = journal.begin("run", SIX)
        assert values(one) == {0: "kept"}
        one.commit([done(one, 1, "mended")._replace(log="it logged this")])
        one.close("completed")
        assert [one.log for one in journal.tasks("run")] == [None, "it logged this"]
        assert journal.run("run").executions == 2
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
        subprocess.run(["umount", tmp_path], check=True)


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


def drop_clients(where):
    """Have the server end all its other connections, as when it restarts."""
    with psycopg.connect(where, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            " AND datname = current_database()"
        )


@pytest.mark.parametrize("size", [1, 150])
def test_a_server_that_drops_its_clients_costs_nothing(postgres, size):
    """Whatever is asked next is asked of a new connection: reading, recording, forgetting, renewing, nesting, ending."""
    where = postgres.new_database()
    with Journal(where) as journal:
        one = journal.begin("run", SIX)
        drop_clients(where)
        one.commit([done(one, 0, place, place) for place in range(size)] + [done(one, 0, None)])
        drop_clients(where)
        assert one.elements(0).keys() == set(range(size))
        drop_clients(where)
        one.forget_elements(0, 1)
        drop_clients(where)
        inner = journal.begin("run/2", SIX, within=(one, 2, WHOLE))
        drop_clients(where)
        inner.close("completed")
        drop_clients(where)
        with pytest.raises(JournalError):
            one.renew("{}")
        one.renew("{}")
        drop_clients(where)
        one.close("completed")
        two = journal.begin("run", SIX)
        drop_clients(where)
        assert two.elements(0).keys() == {0}
        drop_clients(where)
        assert two.last_element(0) == 0
        two.close("completed")
        assert (journal.run("run").status, journal.run("run/2").status) == ("completed", "completed")


def test_an_answer_that_is_lost_with_its_connection_does_no_harm(postgres, monkeypatch):
    """What was asked is done, and asked again: a record is there once, and a run that has ended has ended."""
    where = postgres.new_database()
    open_once, transaction_once = database.Channel.open, database.Channel.transaction
    losing = []

    def losing_its_answer(method):
        @contextmanager
        def lost(channel):
            with method(channel) as connection:
                yield connection
            if losing:
                losing.pop()
                drop_clients(where)
                with open_once(channel) as connection:
                    connection.exec_driver_sql("SELECT 1")

        return lost

    with Journal(where) as journal:
        before = journal.begin("run", SIX)
        before.commit([failed(3)])
        before.close("failed")
        one = journal.begin("run", SIX)
        monkeypatch.setattr(database.Channel, "open", losing_its_answer(open_once))
        losing.append(1)
        one.commit([done(one, 0, 1)])
        losing.append(1)
        one.commit([done(one, 3, 3)])
        monkeypatch.setattr(database.Channel, "open", open_once)
        monkeypatch.setattr(database.Channel, "transaction", losing_its_answer(transaction_once))
        losing.append(1)
        one.commit([done(one, 1, place, place) for place in range(150)])
        losing.append(1)
        one.close("completed")
        assert losing == []
        assert (journal.run("run").status, len(journal.tasks("run")), len(journal.tasks("run", 200, task=1))) == (
            "completed",
            2,
            150,
        )


def test_a_server_that_stays_away_for_longer_than_the_lease_fails_the_run_with_its_first_error(postgres, monkeypatch):
    """Until then it is asked again and again; the run can be executed again at once."""
    where, asked = postgres.new_database(), []

    def refused():
        asked.append(1)
        if len(asked) == 3:
            one.held.renewed = float("-inf")
        raise OperationalError("connect", None, psycopg.OperationalError("connection refused"))

    monkeypatch.setattr(recorder, "PAUSES_S", (0.001, 0.001))
    with Journal(where) as journal:
        one = journal.begin("run", SIX)
        one.commit([done(one, 0, 1)])
        monkeypatch.setattr(one.held.channel, "_connect", refused)
        drop_clients(where)
        with pytest.raises(JournalError, match="cannot be used: terminating connection due to administrator command"):
            one.commit([done(one, 1, 1)])
        assert len(asked) == 3
        with pytest.raises(JournalError, match="connection refused"):
            one.close("failed")
        two = journal.begin("run", SIX)
        assert values(two) == {0: 1}
        two.close("completed")


@pytest.mark.parametrize(("durability", "told"), [("process", "off"), ("power", "on")])
def test_a_server_is_told_for_each_write_how_durable_it_is_and_keeps_nothing_in_its_session(postgres, durability, told):
    """Behind a pooler the next transaction of the session is another program's, and prepared statements are too."""
    where = postgres.new_database()
    with Journal(f"{where}&prepare_threshold=0", durability=durability) as journal:
        journal.begin("before", SIX).close("completed")
        execute(where, "CREATE TABLE settings (setting TEXT)")
        note = "INSERT INTO settings VALUES (current_setting('synchronous_commit')); RETURN NEW;"
        execute(where, f"CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {note} END $$")
        for table in ("procession_runs", "procession_records"):
            event = f"BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION note()"
            execute(where, f"CREATE TRIGGER noted_{table} {event}")
        one = journal.begin("run", SIX)
        for place in range(10):
            one.commit([done(one, place, 1)])
        one.commit([done(one, 11, place, place) for place in range(150)])
        one.renew("{}")
        with one.held.channel.open() as connection:
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
            assert connection.exec_driver_sql("SELECT COUNT(*) FROM pg_prepared_statements").scalar() == 0
        one.close("completed")
    assert execute(where, "SELECT DISTINCT setting FROM settings") == [(told,)]
    assert execute(where, "SELECT COUNT(*) FROM settings") == [(163,)]


# Trust


@posix
def test_a_journal_is_its_owners_alone(tmp_path):
    """Whatever the umask, the file and those beside it can be read and written by the owner and nobody else."""
    umask = os.umask(0)
    try:
        with Journal(tmp_path / "runs.db") as journal:
            one = journal.begin("run", SIX)
            one.commit([done(one, 0, 1)])
            modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
            assert modes == {"runs.db": 0o600, "runs.db-wal": 0o600, "runs.db-shm": 0o600}
            one.close("completed")
    finally:
        os.umask(umask)


@posix
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
@pytest.mark.parametrize("companion", ["", "-wal", "-journal"])
def test_a_journal_that_others_can_write_to_is_refused(tmp_path, mode, companion):
    """They could have it run their code. What may only be read by others is fine."""
    file = tmp_path / "runs.db"
    with Journal(file) as journal:
        journal.begin("run", SIX).close("completed")
    beside = Path(f"{file}{companion}")
    if companion:
        beside.touch()
    beside.chmod(mode)
    with Journal(file) as journal:
        for ask in (lambda: journal.begin("run", SIX), journal.runs):
            with pytest.raises(JournalError, match="others can write to"):
                ask()
    beside.chmod(0o644)
    with Journal(file) as journal:
        assert [run.id for run in journal.runs()] == ["run"]


@root
@pytest.mark.parametrize("companion", ["", "-wal"])
def test_a_journal_of_another_user_is_refused(tmp_path, companion):
    """Whoever owns it can write to it."""
    file = tmp_path / "runs.db"
    with Journal(file) as journal:
        journal.begin("run", SIX).close("completed")
    beside = Path(f"{file}{companion}")
    beside.touch()
    os.chown(beside, 65534, 65534)
    with Journal(file) as journal:
        for ask in (lambda: journal.begin("run", SIX), journal.runs):
            with pytest.raises(JournalError, match="belongs to user 65534"):
                ask()


@posix
@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o703])
@pytest.mark.parametrize("linked", [False, True])
def test_a_journal_beside_which_others_can_put_files_is_refused(tmp_path, mode, linked):
    """SQLite would read them; sticky or not, since they come and go. Whatever name leads there."""
    shared = tmp_path / "shared"
    shared.mkdir(0o700)
    with Journal(shared / "runs.db") as journal:
        journal.begin("run", SIX).close("completed")
    (tmp_path / "link.db").symlink_to(shared / "runs.db")
    where = tmp_path / "link.db" if linked else shared / "runs.db"
    shared.chmod(mode)
    with Journal(where) as journal:
        for ask in (lambda: journal.begin("run", SIX), journal.runs):
            with pytest.raises(JournalError, match="others can write to the folder .*shared'"):
                ask()
    with Journal(shared / "new.db") as journal, pytest.raises(JournalError, match="others can write to the folder"):
        journal.begin("run", SIX)
    assert [path.name for path in shared.iterdir()] == ["runs.db"]
    shared.chmod(0o755)
    with Journal(where) as journal:
        assert [run.id for run in journal.runs()] == ["run"]


@posix
@pytest.mark.parametrize(("mode", "refused"), [(0o777, True), (0o1777, False), (0o755, False)])
def test_a_folder_that_others_can_replace_is_refused(tmp_path, mode, refused):
    """One further up, that is; a sticky one keeps what is in it where it is."""
    folder = tmp_path / "up" / "own"
    folder.mkdir(parents=True)
    folder.parent.chmod(mode)
    with Journal(folder / "runs.db") as journal:
        if refused:
            with pytest.raises(JournalError, match="others can write to the folder .*up'"):
                journal.begin("run", SIX)
        else:
            journal.begin("run", SIX).close("completed")


@posix
def test_a_group_that_is_the_users_alone_is_nobody_else(tmp_path, monkeypatch):
    """Many systems make one for each user, and folders that it can write to."""
    import grp
    import pwd

    user = pwd.getpwuid(os.geteuid())
    os.chown(tmp_path, -1, user.pw_gid)
    tmp_path.chmod(0o770)
    for members, fine in ([], True), ([user.pw_name], True), ([user.pw_name, "other"], False):
        group = grp.struct_group((user.pw_name, "x", user.pw_gid, members))
        monkeypatch.setattr(grp, "getgrgid", lambda _, group=group: group)
        with Journal(tmp_path / "runs.db") as journal:
            if fine:
                journal.begin("run", SIX).close("completed")
            else:
                with pytest.raises(JournalError, match="others can write to the folder"):
                    journal.begin("run", SIX)


@root
def test_a_folder_of_another_user_is_refused(tmp_path):
    """Whoever owns it can put files there."""
    os.chown(tmp_path, 65534, 65534)
    with Journal(tmp_path / "runs.db") as journal, pytest.raises(JournalError, match="belongs to user 65534"):
        journal.begin("run", SIX)
    assert list(tmp_path.iterdir()) == []


@posix
@pytest.mark.parametrize("companion", ["-wal", "-shm", "-journal"])
def test_of_a_journal_that_is_reached_by_a_link_the_files_beside_it_are_checked(tmp_path, companion):
    """Not those beside the link, which SQLite does not open."""
    (tmp_path / "real").mkdir()
    with Journal(tmp_path / "real" / "runs.db") as journal:
        journal.begin("run", SIX).close("completed")
    (tmp_path / "link.db").symlink_to(tmp_path / "real" / "runs.db")
    beside = tmp_path / "real" / f"runs.db{companion}"
    beside.touch()
    beside.chmod(0o666)
    with Journal(tmp_path / "link.db") as journal, pytest.raises(JournalError, match=f"others can write .*{companion}"):
        journal.begin("run", SIX)
    beside.unlink()
    beside.symlink_to(__file__)
    with Journal(tmp_path / "link.db") as journal, pytest.raises(JournalError, match=f"{companion}' is a link"):
        journal.begin("run", SIX)


@posix
def test_a_link_is_followed_to_the_journal_and_news_of_it(tmp_path):
    """By either name it is one journal; a link that leads nowhere makes none."""
    (tmp_path / "real").mkdir()
    file, link = tmp_path / "real" / "runs.db", tmp_path / "link.db"
    link.symlink_to(file)
    with Journal(link) as journal, pytest.raises(JournalError, match="is a link that leads elsewhere, or nowhere"):
        journal.begin("run", SIX)
    with Journal(file) as journal:
        recorder = journal.begin("run", SIX)
        with Journal(link) as other:
            assert [run.id for run in other.runs()] == ["run"]
            assert other.database.trace() == journal.database.trace() != []
        recorder.close("completed")
    assert sorted(path.name for path in tmp_path.rglob("*db*")) == ["link.db", "runs.db"]


@posix
def test_a_file_planted_while_the_journal_is_opened_is_found(tmp_path, monkeypatch):
    """What appears beside the journal between the look and the opening is looked at afterwards."""
    file = tmp_path / "runs.db"
    with Journal(file) as journal:
        journal.begin("run", SIX).close("completed")
    connected = database.Database._connected

    def planting(self, **options):
        channel = connected(self, **options)
        wal = Path(f"{file}-wal")
        wal.touch()
        wal.chmod(0o666)
        return channel

    monkeypatch.setattr(database.Database, "_connected", planting)
    with Journal(file) as journal, pytest.raises(JournalError, match="others can write to .*-wal"):
        journal.begin("run", SIX)


# Other roles of a server


@pytest.fixture
def roles(postgres):
    """Return a schema in which two roles may create tables, as a URL for each; they are no superusers."""
    url = postgres.new_database()
    place = url.rpartition("%3D")[2]
    with psycopg.connect(url, autocommit=True) as connection:
        for role in "owner", "stranger":
            if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone():
                connection.execute(f"CREATE ROLE {role} LOGIN")
            connection.execute(f"GRANT CREATE, USAGE ON SCHEMA {place} TO {role}")
    return [url.replace("//procession@", f"//{role}@") for role in ("owner", "stranger")]


def share(url):
    execute(url, "GRANT ALL ON ALL TABLES IN SCHEMA " + url.rpartition("%3D")[2] + " TO PUBLIC")


def test_tables_of_another_role_are_not_executed_from(roles):
    """Values in them would be read; what they show may be looked at, for nothing runs then."""
    owner, stranger = roles
    with Journal(stranger) as journal:
        one = journal.begin("run", SIX)
        one.commit([done(one, 0, "kept")])
        one.close("completed")
    share(stranger)
    with Journal(owner) as journal:
        assert [run.id for run in journal.runs()] == ["run"]
        for change in (
            lambda: journal.begin("run", SIX),
            lambda: journal.begin("new", SIX),
            lambda: journal.cancel("run"),
            lambda: journal.delete("run"),
        ):
            with pytest.raises(JournalError, match="belongs to the role 'stranger' and not to 'owner'"):
                change()
        assert [run.id for run in journal.runs()] == ["run"]


@pytest.mark.parametrize("table", ["procession_records", "procession_definitions", "procession_schema"])
def test_one_table_that_another_role_has_made_is_enough_to_refuse(roles, table):
    """It may have been there before the others."""
    owner, stranger = roles
    with psycopg.connect(stranger, autocommit=True) as connection:
        made = CreateTable(schema.metadata.tables[table]).compile(dialect=postgresql.dialect())
        connection.execute(str(made))
        connection.execute(f"GRANT ALL ON {table} TO PUBLIC")
        if table == "procession_schema":
            connection.execute(f"INSERT INTO procession_schema VALUES ({schema.VERSION})")
    with Journal(owner) as journal:
        for _ in range(2):
            with pytest.raises(JournalError, match=f"table '{table}' belongs to the role 'stranger'"):
                journal.begin("run", SIX)


@pytest.mark.parametrize(
    "trap",
    [
        "ALTER TABLE procession_runs ENABLE ROW LEVEL SECURITY",
        "CREATE RULE trap AS ON UPDATE TO procession_runs DO ALSO SELECT 1",
        "ALTER TABLE procession_runs RENAME TO kept; CREATE VIEW procession_runs AS SELECT * FROM kept",
    ],
)
def test_a_look_at_tables_of_another_role_runs_none_of_its_code(roles, trap):
    """Such as a policy, a rule or a view would."""
    owner, stranger = roles
    with Journal(stranger) as journal:
        journal.begin("run", SIX).close("completed")
    for statement in trap.split("; "):
        execute(stranger, statement)
    share(stranger)
    with Journal(owner) as journal, pytest.raises(JournalError, match="'procession_runs' belongs to the role 'stra"):
        journal.runs()


def test_tables_of_a_superuser_are_used(postgres, roles):
    """Who has the server can have anything run anyway."""
    with Journal(postgres.new_database()) as journal:
        journal.begin("run", SIX).close("completed")
    owner, _ = roles
    with Journal(owner.replace("//owner@", "//procession@")) as journal:
        journal.begin("run", SIX).close("completed")
    share(owner.replace("//owner@", "//procession@"))
    with Journal(owner) as journal:
        journal.begin("run", SIX).close("completed")


def test_a_lock_of_a_stranger_does_not_hold_up_the_first_use(roles, monkeypatch):
    """Whatever number it is of; and one that is at the same tables does so for a time, and is told."""
    owner, stranger = roles
    with psycopg.connect(stranger, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(1886548835)")
        with Journal(owner) as journal:
            journal.begin("run", SIX).close("completed")
    execute(owner, "DROP TABLE procession_schema, procession_runs, procession_records, procession_definitions")
    with psycopg.connect(stranger) as other:
        other.execute("CREATE TABLE procession_schema (version INTEGER)")
        monkeypatch.setattr(database, "BUSY_S", 0.1)
        with Journal(owner) as journal, pytest.raises(JournalError, match="lock timeout"):
            journal.begin("run", SIX)


# What it costs and leaves behind


def test_nothing_is_left_open(where, comes_true):
    """After a run that went well, one that failed and one that was refused: no file, connection or thread."""
    if not os.path.exists("/proc/self/fd"):
        pytest.skip("cannot count open files here")
    journal = Journal(where)
    journal.begin("run", SIX).close("completed")
    journal.runs()
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    one = journal.begin("run", SIX)
    one.start_heartbeat(lambda: (Progress(0, 0, 0), []), lambda: None, lambda error: None)
    with pytest.raises(RunInUseError):
        journal.begin("run", SIX)
    one.commit([done(one, 0, 1)])
    one.close("failed")
    with pytest.raises(PlanChangedError):
        journal.begin("run", fingerprint_of("other", []))
    journal.runs(), journal.tasks("run")
    assert comes_true(lambda: len(os.listdir("/proc/self/fd")) <= before[0])
    assert comes_true(lambda: threading.active_count() <= before[1])
    journal.close()


def test_a_journal_in_memory_lasts_as_long_as_it_is_open():
    """Everything works in it, and with its close it is gone."""
    journal = Journal(":memory:")
    one = journal.begin("run", SIX)
    one.commit([done(one, 0, 1)])
    assert [(run.id, run.status) for run in journal.runs()] == [("run", "running")]
    one.close("completed")
    two = journal.begin("run", SIX)
    assert values(two) == {0: 1}
    two.close("completed")
    journal.close()
    assert journal.runs() == []
    journal.close()


def test_a_task_takes_at_most_200_bytes_beyond_its_result(tmp_path):
    """On disk, with names as real ones are, recorded one by one in order."""
    where, count = tmp_path / "runs.db", 3000
    with Journal(where) as journal:
        one = journal.begin("run", fingerprint_of("many", [(json.dumps, (number,), {}) for number in range(count)]))
        size = 0
        for number in range(count):
            record = done(one, number, number)._replace(
                name="application.pages:fetch_page", worker="ThreadPoolExecutor-0_31"
            )
            size += len(record.value)
            one.commit([record._replace(started_at=1.7e9 + number / 7, duration=0.0123)])
        one.close("completed")
    assert (where.stat().st_size - size) / count < 200


@pytest.mark.parametrize("durability", ["process", "power"])
def test_durability_is_what_the_database_is_told(tmp_path, durability):
    """Each commit is synced for `power`, and for `process` it need not be."""
    with Journal(tmp_path / "runs.db", durability=durability) as journal:
        one = journal.begin("run", SIX)
        with one.held.channel.open() as connection:
            told = connection.exec_driver_sql("PRAGMA synchronous").scalar()
            assert told == {"process": 1, "power": 2}[durability]
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        one.close("completed")


@pytest.mark.parametrize("missing", ["sqlalchemy", "psycopg"])
def test_a_missing_extra_is_named(tmp_path, missing):
    """Without what the extra brings, the error says what to install."""
    script = f"""
    import sys
    sys.modules[{missing!r}] = None
    try:
        from procession.journal import Journal
        Journal(sys.argv[1])
    except ImportError as error:
        print(error)
    """
    command = [sys.executable, "-c", dedent(script), "postgresql://nobody@127.0.0.1:1/none"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=40, check=True).stdout
    assert 'pip install "procession[journal]"' in said


def test_on_systems_without_proc_a_process_is_told_by_its_start():
    """What stands in for /proc elsewhere agrees about who lives."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = lease.started_elsewhere(child.pid)
    assert started == lease.started_elsewhere(child.pid) and abs(started - time.time()) < 60
    child.kill()
    wait_for(lambda: lease.started_elsewhere(child.pid) is None)
    child.communicate()
    assert lease.started_elsewhere(child.pid) is None


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
