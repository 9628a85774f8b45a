"""The journal itself: changed definitions, what it shows and prunes, what it costs and leaves behind."""

import json
import os
import pickle
import threading
import time
from contextlib import suppress
from dataclasses import replace

import pytest

from journals import SIX, done, execute, expire, failed, values
from procession import PlanChangedError, Progress, RunInUseError, RunUnknownError
from procession._model.progress import Snapshot
from procession._model.record import WHOLE
from procession._plan.fingerprint import fingerprint_of
from procession.journal import Journal, heartbeat, lease


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
        assert values(three) == {0: 0, 1: 1}  # until it is recorded again, a map with a new element is not complete
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
                return [stands.state for stands in reader.statuses(key, reader.run(key), range(6))]

        assert states() == ["completed", "failed", "waiting", "waiting", "completed", "waiting"]
        expire(where)
        assert states() == ["completed", "failed", "interrupted", "interrupted", "completed", "not started"]


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
    return heartbeat.text_of(Snapshot(Progress(ended, failed, total), []))


def progress_of(journal, run_id="run"):
    """Return what is shown of a run, which is the same everywhere."""
    with journal.reader() as reader:
        (found,) = [one for one in reader.runs() if one.run.id == run_id]
        assert journal.run(run_id) == found.run == reader.run(found.key)
    assert journal.runs()[0] == journal.run(run_id)
    return journal.run(run_id).progress


def test_an_interrupted_runs_records_are_counted(where):
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


def test_nothing_is_left_open(where, comes_true):
    """Once it is closed, after runs that went well, failed and were refused: no file, connection or thread."""
    if not os.path.exists("/proc/self/fd"):
        pytest.skip("cannot count open files here")
    with Journal(where) as journal:
        journal.begin("run", SIX).close("completed")
        journal.runs()
    before = open_for(where), set(threading.enumerate())
    one = journal.begin("run", SIX)
    one.start_heartbeat(lambda: Snapshot(Progress(0, 0, 0), []), lambda: None, lambda error: None)
    with pytest.raises(RunInUseError):
        journal.begin("run", SIX)
    one.commit([done(one, 0, 1)])
    one.close("failed")
    with pytest.raises(PlanChangedError):
        journal.begin("run", fingerprint_of("other", []))
    journal.runs(), journal.tasks("run")
    journal.close()
    assert comes_true(lambda: open_for(where) <= before[0])
    assert comes_true(lambda: set(threading.enumerate()) <= before[1])


def open_for(where):
    """Return which files of a journal, or which sockets, this process has open: other tests may leave other things."""
    kind = "socket:" if "://" in where else os.path.dirname(where)
    links = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            links.append(os.readlink(f"/proc/self/fd/{number}"))
    return {link for link in links if link.startswith(kind)}


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
