"""How a run begins, is driven and is finished, whatever drives it."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from procession import Process
from procession._engine.commit import GroupCommit
from procession._engine.run_state import RunState
from procession.errors import RunCancelledError


class Failure(Exception):
    """What a task raises here."""


def fail():
    raise Failure


async def slept():
    await asyncio.sleep(0)


def executed(process, **how):
    return process.execute(**how)


def awaited(process, **how):
    return asyncio.run(process.execute_async(**how))


def started(process, **how):
    return process.start(**how).result()


WAYS = pytest.mark.parametrize("way", [executed, awaited, started])


@pytest.fixture
def closed(monkeypatch):
    """The run states that were closed, each as often as it was."""
    states, close = [], RunState.close

    def counted(run_state):
        states.append(run_state)
        close(run_state)

    monkeypatch.setattr(RunState, "close", counted)
    return states


@pytest.fixture(params=["threads", "coroutines", "processes", "executor"])
def process(request):
    """A process for each engine that drives runs."""
    with ThreadPoolExecutor(2) as pool:
        where = {"processes": "processes", "executor": pool}.get(request.param, "threads")
        process = Process("once", "hybrid", 2, executor=where)
        for _ in range(4):
            process.add_task(slept if request.param == "coroutines" else os.getpid)
        yield process


@WAYS
@pytest.mark.parametrize("ending", ["completed", "failed", "cancelled"])
def test_the_books_of_a_run_are_closed_once(process, closed, way, ending):
    """On every engine, however the run ends and whoever waits for it."""
    if ending == "failed":
        process.tasks[1] = (fail, (), {})
    if ending == "cancelled":
        process.tasks[1] = (lambda: process.last_run.cancel(), (), {})
        process.executor = "threads"
    try:
        way(process)
    except (Failure, RunCancelledError):
        pass
    assert process.last_run.status == ending
    assert closed == [process.last_run._run_state]


@WAYS
def test_a_recorded_run_is_closed_once(process, closed, way, tmp_path):
    """A journal is told of the end once, too."""
    way(process, run_id="once", journal=tmp_path / "journal.db")
    assert process.last_run.status == "completed"
    assert closed == [process.last_run._run_state]


def test_a_run_whose_thread_cannot_be_started_is_closed_once(closed, monkeypatch):
    """It has failed, nobody waits for it in vain, and its process can be executed again."""

    def start(_):
        raise RuntimeError("can't start new thread")

    process = Process("no thread")
    process.add_task(len, "abc")
    with monkeypatch.context() as patched:
        patched.setattr("threading.Thread.start", start)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            process.start()
    run = process.last_run
    assert (process.status, run.status, run.wait(0)) == ("failed", "failed", True)
    assert closed == [run._run_state]
    assert process.execute() == [3]


def test_an_interrupted_last_commit_is_made_all_the_same():
    """Ctrl-C while the books are closed leaves when everything that has ended is committed."""
    written, lost = [], []

    def write(records, *, again=False):
        if not again:
            raise KeyboardInterrupt
        written.extend(records)

    commits = GroupCommit(write, lambda error: None, lambda error, records: lost.append(records))
    record = type("Record", (), {"duration": 0.0})()
    ended = []
    commits.add(record, lambda: ended.append(True))
    with pytest.raises(KeyboardInterrupt):
        commits.close()
    assert (written, ended, lost) == ([record], [True], [])
