"""Coroutines in runs that are recorded."""

import asyncio
import threading

import pytest

from coroutines import at_once, awaited, every_strategy, every_way, later, same, started, states
from procession import Process
from procession._engine.run_state import RunState
from procession._loop.coroutines import CoroutineEngine
from procession._model.strategy import strategy_of
from procession._plan.plan import plan_of

pytestmark = pytest.mark.usefixtures("nothing_is_left")


# Journals


class FakeRecorder:
    """Keeps records in memory, and the threads that brought them."""

    allow_changes = False
    executions = 1
    recorded = {}

    def __init__(self, broken=False):
        self.broken = broken
        self.records = []
        self.threads = set()
        self.gate = threading.Event()

    def elements(self, index):
        return {}

    def encode(self, value):
        if value is None:
            raise TypeError("cannot be encoded")
        return repr(value).encode()

    def commit(self, records):
        self.threads.add(threading.get_ident())
        assert self.gate.wait(30)
        if self.broken:
            raise OSError("disk full")
        self.records += records


def recorded_run(strategy, calls, recorder, workers=4):
    plan = plan_of([(f, a, {}) for f, a in calls], strategy_of(strategy), options={}, needs={}, handled=set())
    run_state = RunState(
        plan,
        process_name="recorded",
        run_id="r",
        max_workers=workers,
        on_error="stop",
        tell=lambda event: None,
        verbose=False,
        recorder=recorder,
    )
    return run_state, CoroutineEngine(run_state)


def test_a_loop_commits_by_itself_where_no_thread_can_be_started(monkeypatch, tmp_path):
    """What waits for a value is called once that is recorded."""

    def refused(thread):
        raise RuntimeError("can't start new thread")

    async def main():
        process = Process("alone", "parallel", 2)
        handles = [process.task(same, number) for number in range(5)]
        process.task(total, *handles)
        assert await process.execute_async(run_id="a", journal=tmp_path / "runs.db") == [0, 1, 2, 3, 4, 10]

    async def total(*numbers):
        return sum(numbers)

    start = threading.Thread.start
    monkeypatch.setattr(
        threading.Thread, "start", lambda thread: (refused if thread.name.endswith("-commits") else start)(thread)
    )
    asyncio.run(main())


@every_strategy
def test_commits_do_not_hold_up_the_loop(strategy):
    """While the journal is slow, the loop goes on; in order, the next task starts only once the last is recorded."""

    async def main():
        recorder, begun = FakeRecorder(), []

        async def begins(number):
            begun.append(number)
            return number

        run_state, engine = recorded_run(strategy, [(begins, (n,)) for n in range(20)] + [(same, (20,))], recorder)
        driving = asyncio.create_task(engine.drive_async())
        while not recorder.threads:
            await asyncio.sleep(0.001)
        await later(None, 20)
        assert begun == ([0] if strategy != "parallel" else list(range(20)))
        assert run_state.ledger.ends.count(None) == 21
        recorder.gate.set()
        await driving
        assert threading.get_ident() not in recorder.threads
        assert sorted(record.index for record in recorder.records) == list(range(21))
        assert run_state.ledger.values == list(range(21))

    asyncio.run(main())


@every_strategy
def test_what_cannot_be_recorded_fails(strategy):
    """A value that cannot be encoded fails its task, a journal that fails fails the run; neither hangs."""
    recorder = FakeRecorder()
    recorder.gate.set()
    run_state, engine = recorded_run(strategy, [(later, (1,)), (at_once, (None,)), (later, (2,))], recorder, 1)
    engine.drive()
    assert isinstance(run_state.ledger.failure, TypeError)
    assert list(run_state.ledger.errors) == [1]
    recorder = FakeRecorder(broken=True)
    recorder.gate.set()
    run_state, engine = recorded_run(strategy, [(later, (n,)) for n in range(4)], recorder)
    engine.drive()
    assert isinstance(run_state.ledger.failure, OSError)
    assert recorder.records == []


class Unready(Exception):
    pass


class Notes:
    """What recorded tasks have done, and may do: no part of them, or they would be others the next time."""

    calls = []
    ready = False


@pytest.fixture
def notes():
    pytest.importorskip("sqlalchemy")
    Notes.calls, Notes.ready = [], False
    return Notes


async def counts(value):
    Notes.calls.append(value)
    await asyncio.sleep(0)
    return value


async def fails_first(value):
    if not Notes.ready:
        raise Unready
    return await counts(value)


async def begins_and_waits():
    Notes.calls.append(asyncio.current_task())
    await asyncio.Event().wait()


@every_way
@every_strategy
def test_a_recorded_run_of_coroutines_goes_on_where_it_failed(strategy, way, tmp_path, notes):
    """Tasks and elements that have succeeded are not called again, those of a nested process neither."""
    inner = Process("inner", "parallel")
    inner.add_task(counts, 2)

    def executed(**how):
        process = Process("recorded", strategy, 1, journal=tmp_path / "runs.db")
        process.add_task(counts, 0)
        process.add_task(same, 1)
        process.add_task(inner.execute_async)
        process.map(counts, [3, 4])
        process.add_task(fails_first, 5)
        process.map(fails_first, iter([6]))
        if way is awaited:
            return asyncio.run(process.execute_async(run_id="r"))
        if way is started:
            return process.start(run_id="r").result(40)
        return process.execute(run_id="r")

    with pytest.raises(Unready):
        executed()
    assert sorted(notes.calls) == [0, 2, 3, 4]
    notes.ready = True
    assert executed() == [0, 1, [2], [3, 4], 5, [6]]
    assert sorted(notes.calls) == [0, 2, 3, 4, 5, 6]
    assert executed() == [0, 1, [2], [3, 4], 5, [6]]
    assert sorted(notes.calls) == [0, 2, 3, 4, 5, 6]


def test_a_cancelled_recorded_run_is_closed(tmp_path, notes):
    """Its journal says that it was cancelled, and another execution goes on with it."""

    async def main():
        process = Process("recorded", "parallel", journal=tmp_path / "runs.db")
        process.add_task(later, 1)
        process.add_task(begins_and_waits)
        for times in 1, 2:
            execution = asyncio.create_task(process.execute_async(run_id="r"))
            while len(notes.calls) < times and not execution.done():
                await asyncio.sleep(0.001)
            execution.cancel()
            with pytest.raises(asyncio.CancelledError):
                await execution
            assert process.last_run.status == "cancelled"
            assert states(process.last_run) == ["completed", "cancelled"]
        assert process.last_run.outcomes[0].recorded

    asyncio.run(main())


@pytest.mark.parametrize("times", [1, 2])
def test_a_caller_cancelled_while_a_run_begins_leaves_nothing_begun(times, tmp_path, notes):
    """Opening a journal takes time, and a thread."""

    async def main():
        process = Process("recorded", journal=tmp_path / "runs.db")
        process.add_task(counts, 1)
        execution = asyncio.create_task(process.execute_async())
        await asyncio.sleep(0)
        for _ in range(times):
            execution.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await execution
        while process.status in ("running", "initialized"):
            await asyncio.sleep(0.001)
        assert process.status == "failed"
        assert process.last_run.status == "cancelled"
        assert notes.calls == []

    asyncio.run(main())
