"""Real crashes, at every point where one could matter and at random ones."""

import itertools
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import get_args

import psutil
import pytest

from crashing import (
    agent,
    asks,
    by_chance,
    chance,
    double,
    double_async,
    double_late,
    first,
    hang,
    one_more,
    small,
    waits_in_vain,
)
from journals import execute
from procession import Limit, Process, current_task, stream, task
from procession._model.record import WHOLE
from procession.errors import JournalError, PlanChangedError
from procession.journal import Journal
from procession.testing import Failure, crash_everywhere, fail_everywhere, failing_journal, recorded_calls

ROOT = Path(__file__).parents[1]


every_engine = pytest.mark.parametrize(
    ("executor", "function"),
    [("threads", double), ("threads", double_async), (ThreadPoolExecutor(2), double)],
    ids=["threads", "coroutines", "a coordinator"],  # which is the same one for every executor
)


@pytest.mark.timeout(170)
def test_a_crash_after_any_write_loses_nothing_and_repeats_nothing_recorded():
    """Resumed, the process has the results of an undisturbed run."""
    report = crash_everywhere(small)
    assert report.results == [[0, 1, 2], 8, [0, 2, 4], 6, [2, 4]]
    assert report.crashes >= 5


def test_what_differs_from_run_to_run_is_found():
    """A process whose results hang on chance, or on what it left behind, is no process to be resumed."""

    def build():
        process = Process("chance")
        process.add_task(chance)
        process.add_task(double, 1)
        return process

    with pytest.raises(
        AssertionError, match=r"after crash 1 a resumed run gave .*: task 0 \(chance\) was called twice, and differed"
    ):
        crash_everywhere(build)


def test_what_depends_on_the_order_of_a_set_is_found(monkeypatch):
    """Which is another one in each interpreter."""
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)  # which a Dask cluster sets for all

    def build():
        process = Process("set")
        process.add_task(lambda: list({f"name {number}" for number in range(50)}))
        process.add_task(double, 1)
        return process

    with pytest.raises(AssertionError, match="was called twice, and differed"):
        crash_everywhere(build)


def test_a_run_that_hangs_is_given_up(tmp_path):
    """In its time; it does not go on."""

    def build():
        process = Process("hangs")
        process.add_task(hang, tmp_path / "pid")
        return process

    with pytest.raises(TimeoutError, match="took more than 5 s"):
        crash_everywhere(build, timeout=5.0)
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_a_process_that_fails_is_told_with_its_traceback():
    """Not taken for a crash."""

    def build():
        process = Process("fails")
        process.add_task(int, "x")
        return process

    with pytest.raises(AssertionError, match="invalid literal for int"):
        crash_everywhere(build)


class Lookalike:
    def execute(self, **_):
        return [1]


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        (Process("built"), TypeError, "takes a function that builds .*; got an object of type Process.*def build"),
        (None, TypeError, "takes a function that builds .*; got None"),
        (dict, TypeError, "build_process is to return a Process; it returned an object of type dict"),
        (Lookalike, TypeError, "build_process is to return a Process; it returned an object of type Lookalike"),
        (partial(Process, "empty"), ValueError, "has no tasks, so no crash of it was tested"),
    ],
)
def test_what_builds_no_process_to_crash_is_told(wrong, error, said):
    """A test of nothing does not pass."""
    with pytest.raises(error, match=said):
        crash_everywhere(wrong)


@pytest.mark.timeout(170)
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_at_random_instants_nothing_is_lost_or_done_twice(where, tmp_path, rounds):
    """A short run of the script that anyone can run for longer."""
    command = [sys.executable, str(ROOT / "benchmarks" / "kill_loop.py"), str(rounds(8)), "--journal", where]
    done = subprocess.run(command, capture_output=True, text=True, timeout=max(160, rounds(0) * 10), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"with [1-9]\d* answers and [1-9]\d* reruns", done.stdout)
    assert "0 recorded calls lost, 0 recorded calls made again, journal corrupt after 0 kills" in done.stdout


# Journals that fail


def test_a_run_that_completes_though_its_journal_failed_is_found():
    """So a library that took no notice of a failed write would be told of."""

    def build():
        from procession._engine.run_state import RunState

        RunState.interrupt = lambda run_state, error: None
        process = Process("silent")
        process.add_task(double, 1)
        return process

    with pytest.raises(AssertionError, match="the process completed, or failed otherwise, though its journal failed"):
        fail_everywhere(build)


@every_engine
@pytest.mark.parametrize("way", get_args(Failure))
def test_on_every_engine_a_failing_journal_hands_out_nothing_that_was_not_recorded(executor, function, way, where):
    """Each write fails in turn: of tasks in groups, chains, maps, a map over a map, a nested run, and of their ends."""

    def build():
        inner = Process("inner", "parallel", 2, executor=executor)
        inner.add_task(function, 1)
        inner.map(function, [1, 2])
        process = Process("all", "parallel", 3, executor=executor)
        first = process.map(function, range(5))
        process.map(function, first)
        last = process.task(function, 1)
        for _ in range(3):
            last = process.task(function, last)
        process.add_task(inner)
        process.task(sum, process.map(function, iter([7, 8])))
        return process

    expected = build().execute()
    for at in range(1, 40):
        run_id = f"run {at}"
        with failing_journal(at, way) as has_failed:
            try:
                results = build().execute(run_id=run_id, journal=where)
            except JournalError:
                assert has_failed()
            else:
                assert not has_failed()
                assert results == expected
                return
        with Journal(where) as journal:
            recorded = recorded_calls(journal)
            process, calls = build(), []
            results = process.execute(run_id=run_id, journal=journal, observers=[Calls(calls)])
        assert results == expected, f"write {at} failed"
        assert recorded.isdisjoint(calls)
    raise AssertionError("more writes than there can be")


class Calls:
    """Notes each call that is begun."""

    immediate = True

    def __init__(self, calls):
        self.calls = calls

    def on_event(self, event):
        if event.name in ("task_started", "element_started"):
            self.calls.append((event.run_id, event.index, WHOLE if event.element is None else event.element))


@pytest.mark.parametrize("source", ["a list", "a task's value", "a map's values", "a generator"])
@pytest.mark.parametrize("older", [False, True])
def test_a_map_that_is_recorded_with_elements_missing_is_refused_by_name(source, older, where):
    """Whichever version left it so; with allow_changes=True, what is missing and what follows is called again."""
    calls = []

    def build():
        process = Process("gaps", "parallel", 2)
        numbers = {
            "a list": lambda: [1, 2, 3, 4],
            "a task's value": lambda: process.task(list, (1, 2, 3, 4)),
            "a map's values": lambda: process.map(int, ["1", "2", "3", "4"]),
            "a generator": lambda: (number for number in (1, 2, 3, 4)),
        }[source]()
        process.task(sum, process.map(double, numbers))
        return process

    results = build().execute(run_id="a", journal=where)
    place = len(results) - 2
    missing = 1 if source == "a generator" else 3  # of the last one of a generator, an older version left no trace
    execute(where, "DELETE FROM procession_records WHERE task = ? AND element = ?", place, missing)
    if older:
        execute(where, "UPDATE procession_records SET value = NULL WHERE task = ? AND element = -1", place)
    with pytest.raises(
        PlanChangedError, match=rf"task {place} \(.*double\) is recorded as completed, but 3 elements of 4"
    ):
        build().execute(run_id="a", journal=where)
    with Journal(where) as journal:
        assert journal.run("a").status == "failed"
        observers = [Calls(calls)]
        assert build().execute(run_id="a", journal=journal, allow_changes=True, observers=observers) == results
    assert [call for call in calls if call[2] != WHOLE] == [("a", place, missing)]
    assert ("a", place + 1, WHOLE) in calls


@pytest.mark.timeout(170)
def test_a_crash_after_any_recorded_call_loses_nothing_and_repeats_nothing_recorded():
    """Each record of a call is a write of its own, and after a crash only the others are made."""

    def build():
        process = Process("agents")
        process.add_task(agent, 1)
        return process

    report = crash_everywhere(build)
    assert (report.results, report.crashes) == ([3], 2)


def test_a_task_that_is_not_fit_to_be_called_again_is_named():
    """It makes other calls when it is called a second time, as chance has it."""

    def build():
        def gambles():
            return current_task().call(double, chance())

        process = Process("gambler")
        process.add_task(gambles)
        return process

    said = r"after crash 1, a task was called twice, and differed: .* task 0 \(.*gambles\): call 0 \(double\) has other"
    with pytest.raises(AssertionError, match=said):
        crash_everywhere(build)


@pytest.mark.timeout(170)
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize(
    ("doubles", "options"),
    [(double, {}), (double_late, {}), (double, {"limit": Limit("roomy", at_once=8, rate=1000, per=0.1)})],
    ids=["threads", "a coroutine", "a limit"],
)
def test_a_crash_in_a_pipeline_loses_nothing_and_repeats_nothing_recorded(doubles, options, keep):
    """Maps are chained, with values that are kept or let go, into a task that takes them in order, and into a map."""

    def build():
        process = Process("pipeline", "parallel", 2)
        more = process.map(task(keep=keep)(one_more), [1, 2])
        doubled = process.map(task(keep=keep, **options)(doubles), more)
        process.task(sum, stream(doubled))
        process.map(one_more, doubled)
        return process

    report = crash_everywhere(build)
    assert report.results[2:] == [10, [5, 7]]
    assert report.crashes >= 3


@pytest.mark.timeout(170)
def test_how_much_of_a_map_was_drawn_that_nobody_takes_does_not_count():
    """A task that stops early has its map cancelled, sooner or later."""

    def build():
        process = Process("early", "parallel", 1)
        process.add_task(first, stream(process.map(task(keep=False)(double), itertools.count(4))))
        return process

    assert crash_everywhere(build).results[1] == 8


@pytest.mark.timeout(170)
def test_what_was_called_again_because_something_failed_is_none_of_a_crash():
    """The task with the stream is to have what failed; and failures that are alike are no difference."""

    def build():
        process = Process("partial", "parallel", 1, on_error="return")
        process.add_task(sum, stream(process.map(int, ["1", "x"])))
        return process

    [numbers, total] = crash_everywhere(build).results
    assert (numbers[0], str(numbers[1]), total) == (1, "invalid literal for int() with base 10: 'x'", 1)


@pytest.mark.timeout(170)
def test_an_element_that_differs_is_named_though_only_what_took_it_is_seen_to():
    """Its values are let go, and the task at the end is not to blame."""

    def build():
        process = Process("chance", "parallel", 1)
        process.add_task(sum, stream(process.map(task(keep=False)(by_chance), [1])))
        return process

    said = r"after crash 1 a .*: element 0 of task 0 \(map of by_chance\) was called twice, and differed"
    with pytest.raises(AssertionError, match=said):
        crash_everywhere(build)


@pytest.mark.timeout(170)
def test_a_crash_around_a_wait_asks_for_nothing_twice():
    """The call before it is not made again, and neither is the answer asked for."""

    def build():
        process = Process("waits")
        process.add_task(asks, 3)
        return process

    report = crash_everywhere(build, answers={"approval": True})
    assert report.results == [7]
    assert report.crashes == 5  # a call, the wait, the answer, a call, the task


@pytest.mark.timeout(170)
def test_a_write_that_fails_around_a_wait_changes_no_result():
    """Whichever it is, and in whatever way it fails."""

    def build():
        process = Process("waits")
        process.add_task(lambda: current_task().wait_for("approval"))
        return process

    report = fail_everywhere(build, answers={"approval": "yes"})
    assert report.results == ["yes"]
    assert report.failures >= 3  # the wait, the task, the end


@pytest.mark.timeout(170)
def test_long_sleeps_and_timeouts_are_over_at_once():
    """Of elements here, each of which waits by itself."""

    def build():
        process = Process("waits", "parallel", 2)
        process.map(waits_in_vain, [0, 1])
        return process

    assert crash_everywhere(build).results == [["too late", None]]


def test_an_answer_that_nobody_gives_is_told():
    """Rather than to wait for it without end."""

    def build():
        process = Process("waits")
        process.add_task(asks, 3)
        return process

    with pytest.raises(ValueError, match=r"task 0 waits for 'approval', and no answer .*: answers=\{'approval': ...\}"):
        crash_everywhere(build)


@pytest.mark.timeout(170)
def test_what_is_waited_for_again_though_it_was_answered_is_found():
    """As by a journal that loses answers."""

    def build():
        from procession.journal.waits import WaitRecords

        def begin(waits, *args):
            found = begun(waits, *args)
            if found.value is not None:
                with waits._held.channel.transaction() as connection:
                    connection.exec_driver_sql("UPDATE procession_waits SET state = 'waiting' WHERE value IS NOT NULL")
            return found

        begun, WaitRecords.begin = WaitRecords.begin, begin
        process = Process("waits")
        process.add_task(asks, 3)
        return process

    with pytest.raises(
        AssertionError, match="after crash [0-9]+, these were waited for again though they were answered"
    ):
        crash_everywhere(build, answers={"approval": True})
