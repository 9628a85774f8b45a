"""A journal that is slow, or fails, beside calls that are made by worker processes and executors of others."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext

import pytest

from barriers import attend, hall
from counted_calls import _open_files, path, plus, same, work
from procession import JournalError, Process, RunCancelledError
from procession._engine.commit import GroupCommit
from procession.journal import Journal, Recorder

pytestmark = pytest.mark.usefixtures("nothing_is_left")

EXECUTORS = {"processes": lambda: nullcontext("processes"), "threads of others": lambda: ThreadPoolExecutor(2)}


MADE = []


def made_slowly(number):
    time.sleep(0.001)
    MADE.append(number)
    return number


@pytest.fixture(params=EXECUTORS)
def process_of(request):
    """Make a process of two workers that runs at once, on each executor."""
    with EXECUTORS[request.param]() as executor:

        def process_of(name="beside", strategy="parallel", **options):
            return Process(name, strategy, 2, executor=executor, **options)

        yield process_of


class Journals:
    """Holds up every commit until it is told to let them through, and notes in which order records come."""

    def __init__(self, monkeypatch):
        self.gate, self.reached, self.added, self.committed = threading.Event(), threading.Event(), [], []
        commit, add = Recorder.commit, GroupCommit.add

        def held(recorder, records, **again):
            self.reached.set()
            assert self.gate.wait(20), "nobody let the commit through"
            commit(recorder, records, **again)
            self.committed += [(record.index, record.element) for record in records]

        def adding(commits, record, then=None):
            self.added.append((record.index, record.element))
            add(commits, record, then)

        monkeypatch.setattr(Recorder, "commit", held)
        monkeypatch.setattr(GroupCommit, "add", adding)

    @contextmanager
    def hanging(self):
        """Let commits through at the end, whatever happens meanwhile."""
        try:
            yield
        finally:
            self.gate.set()


@pytest.fixture
def journals(monkeypatch):
    return Journals(monkeypatch)


def test_calls_go_on_while_a_commit_hangs_and_what_waits_for_it_waits(process_of, journals, path):
    """The last task is called though nothing is recorded; the one that takes a value is not until that is."""
    with hall() as at:
        process = process_of()
        first = process.task(work, 1)
        process.task(plus, first, 1)
        for _ in range(6):
            process.add_task(attend, [at("two", 2)])
        process.add_task(attend, [at("here", 2)])
        with journals.hanging():
            run = process.start(run_id="a", journal=path)
            attend([at("here", 2)])
            assert journals.reached.is_set()
            assert run.progress.ended == 0
            assert run.outcomes[1].state == "waiting"
        assert run.result() == [10, 11, *[1] * 7]


def test_records_are_committed_in_the_order_in_which_calls_ended(process_of, journals, path):
    """Those of tasks and of elements, and that of a map after all of its elements."""
    process = process_of()
    process.map(same, range(300))
    for number in range(300):
        process.add_task(same, number)
    with journals.hanging():
        run = process.start(run_id="a", journal=path)
        assert journals.reached.wait(20)
    run.result()
    assert journals.committed == journals.added
    assert sorted(journals.committed) == sorted(
        [*((0, element) for element in range(-1, 300)), *((index, -1) for index in range(1, 301))]
    )
    elements = [element for index, element in journals.committed if index == 0]
    assert elements.index(-1) == 300


@pytest.mark.parametrize("maps", [False, True], ids=["tasks", "elements"])
def test_no_more_calls_are_made_while_a_commit_hangs_than_a_crash_may_make_again(maps, monkeypatch, path):
    """At most 64 have ended, and each worker makes one."""
    room, commit, gate, counts = GroupCommit.room, Recorder.commit, threading.Event(), []

    def held(recorder, records, **again):
        assert gate.wait(20), f"{len(MADE)} calls were made before one was committed"
        commit(recorder, records, **again)

    def noted(commits, call_s, in_flight):
        left = room(commits, call_s, in_flight)
        if left < 1 and not in_flight and not gate.is_set():
            counts.append(len(MADE))
            gate.set()
        return left

    monkeypatch.setattr(Recorder, "commit", held)
    monkeypatch.setattr(GroupCommit, "room", noted)
    MADE.clear()
    process = Process("risk", "parallel", 4)
    if maps:
        process.map(made_slowly, range(600))
    for number in range(0 if maps else 600):
        process.add_task(made_slowly, number)
    with ThreadPoolExecutor(4) as process.executor:
        results = process.execute(run_id="a", journal=path)
    assert results == ([list(range(600))] if maps else list(range(600)))
    assert 64 < counts[0] <= 64 + 4


@pytest.mark.parametrize("strategy", ["sequential", "parallel", "hybrid"])
def test_a_failing_journal_fails_the_run_and_loses_nothing_recorded(process_of, strategy, monkeypatch, path):
    """Nothing is recorded after what could not be; the run can be gone on with."""
    commit, failures = Recorder.commit, []

    def full(recorder, records, **again):
        if not failures and any(record.index == 5 for record in records):
            failures.append(records)
        if failures:
            raise JournalError("the disk is full")
        commit(recorder, records, **again)

    def build():
        process = process_of("fails", strategy)
        for number in range(10):
            process.add_task(same, number)
        return process

    monkeypatch.setattr(Recorder, "commit", full)
    with pytest.raises(JournalError, match="the disk is full"):
        build().execute(run_id="a", journal=path)
    monkeypatch.undo()
    with Journal(path) as journal:
        recorded = {info.task for info in journal.tasks("a")}
        assert journal.run("a").status == "failed"
    assert 5 not in recorded
    if strategy == "sequential":
        assert recorded == set(range(5))
    assert build().execute(run_id="a", journal=path) == list(range(10))


def test_what_has_ended_when_a_run_is_cancelled_is_recorded(process_of, journals, path):
    """Though the commit hung when it was cancelled."""
    with hall() as at:
        process = process_of()
        for _ in range(6):  # which wait for nobody: calls that travel together begin one after another
            process.add_task(same, 1)
        for _ in range(2):
            process.add_task(attend, [at("here", 3), at("cancelled", 3)])
        process.add_task(same, 1)
        with journals.hanging():
            run = process.start(run_id="a", journal=path)
            attend([at("here", 3)])
            run.cancel()
            attend([at("cancelled", 3)])
        with pytest.raises(RunCancelledError):
            run.result()
    assert [outcome.state for outcome in run.outcomes] == [*["completed"] * 8, "cancelled"]
    with Journal(path) as journal:
        assert [info.task for info in journal.tasks("a", state="completed")] == list(range(8))


def test_a_run_goes_on_where_no_thread_can_be_started_to_commit(process_of, monkeypatch, path):
    """It commits between the calls then."""
    start = threading.Thread.start

    def refused(thread):
        if thread.name.endswith("-commits"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refused)
    process = process_of()
    handles = [process.task(same, number) for number in range(40)]
    process.task(plus, *handles)
    assert process.execute(run_id="a", journal=path)[-1] == sum(range(40))


def test_neither_threads_nor_files_are_left(process_of, path, comes_true):
    """After runs that complete, that fail and that are cancelled."""

    def build():
        process = process_of("left")
        for number in range(40):
            process.add_task(same, number)
        process.add_task(int, "no number")
        return process

    with pytest.raises(ValueError):
        build().execute(run_id="warm", journal=path)
    files, threads = _open_files(), set(threading.enumerate())
    for number in range(3):
        with pytest.raises(ValueError):
            build().execute(run_id=f"{number}", journal=path)
        run = build().start(run_id=f"cancelled {number}", journal=path)
        run.cancel()
        with pytest.raises((RunCancelledError, ValueError)):  # whichever comes first
            run.result()
    assert comes_true(lambda: set(threading.enumerate()) <= threads)  # one that was started ends after its result
    assert comes_true(lambda: _open_files() <= files)
