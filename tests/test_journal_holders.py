"""Who may record a run: its holder, for as long as it lives or its lease runs, and nobody beside it."""

import os
import platform
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from journals import HOLD, SIX, Child, done, execute, expire, failed, posix, values, wait_for
from procession import JournalError, Progress, RunInUseError
from procession._model.progress import Snapshot
from procession.journal import Journal, lease, recorder

pytestmark = pytest.mark.usefixtures("no_children")


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


@posix
def test_a_holder_that_lives_and_is_late_keeps_its_run(where):
    """Stopped, it renews nothing; on its own host it is neither taken over nor pruned, and goes on afterwards."""
    child = Child(HOLD, where)
    pid = int(child.line())
    os.kill(pid, signal.SIGSTOP)
    expire(where, 100.0, platform.node())
    with Journal(where) as journal:
        with pytest.raises(
            RunInUseError, match=rf"process {pid} .* lives, but has not been heard of for 1\d\d s.* end it"
        ):
            journal.begin("run", SIX)
        with pytest.raises(RunInUseError, match="lives"):
            journal.delete("run")
        assert journal.prune(time.time() + 10_000) == []
        with journal.reader() as reader:
            assert [found.run.pid for found in reader.runs(status="running")] == [pid]
            assert reader.counts().by_status["running"] == 1
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
def test_a_holder_that_was_taken_over_records_nothing_more(where, size, direct, monkeypatch):
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
        one.start_heartbeat(lambda: Snapshot(Progress(0, 0, 0), []), lambda: None, lambda error: lost.set())
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
recorder.start_heartbeat(lambda: Snapshot(Progress(1, 0, 6), []), lambda: None, lambda error: None)
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
def test_a_run_whose_end_could_not_be_written_is_free_though_its_process_lives(where, comes_true):
    """As after a disk that was full: a server, or a notebook, lives on. A moment later the run is nobody's."""
    child = Child(VANISH, where)
    pid = child.line()
    with Journal(where) as journal:
        with pytest.raises(RunInUseError, match=f"process {pid}"):
            journal.begin("run", SIX)
        child.popen.stdin.write("\n")
        child.popen.stdin.flush()
        assert child.line() == "could not say so"
        assert comes_true(lambda: journal.run("run").status == "interrupted")
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


def test_on_systems_without_proc_a_process_is_told_by_its_start():
    """What stands in for /proc elsewhere agrees about who lives."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = lease.started_elsewhere(child.pid)
    assert started == lease.started_elsewhere(child.pid) and abs(started - time.time()) < 60
    child.kill()
    wait_for(lambda: lease.started_elsewhere(child.pid) is None)
    child.communicate()
    assert lease.started_elsewhere(child.pid) is None
