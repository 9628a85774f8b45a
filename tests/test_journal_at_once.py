"""Many threads and processes in one journal, and processes that are killed in it."""

import signal
import threading
import time

import pytest

from journals import SIX, Child, done, execute, posix, values
from procession import RunInUseError
from procession._model.record import WHOLE
from procession.journal import Journal

pytestmark = pytest.mark.usefixtures("no_children")


@posix
def test_pruning_that_is_killed_half_way_leaves_the_run_whole(where):
    """An id that is used again never meets what is left of the run that had it before."""
    with Journal(where) as journal:
        one = journal.begin("run", SIX)
        one.commit([done(one, task, "old") for task in range(6)])
        one.close("completed")
        keys = execute(where, "SELECT key FROM procession_runs")
        script = """
        from procession.journal import prepared
        journal = Journal(where)
        execute = prepared.Prepared.execute

        def half(self, connection, **values):
            if str(self._statement).startswith("DELETE FROM procession_runs"):
                os.kill(os.getpid(), signal.SIGKILL)
            return execute(self, connection, **values)

        prepared.Prepared.execute = half
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
