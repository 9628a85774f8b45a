"""Errors of the machinery's own in an event loop: none is lost, none ends a call twice, none leaves a run waiting."""

import asyncio
import threading
from unittest import mock

import pytest

from coroutines import awaited, executed, in_a_notebook, later, same, started, states
from faults import MemoryGone, ended
from procession import Process, WorkersUnavailableError, stream, task
from procession._engine.calls import TaskCalls
from procession._engine.map_state import MapState
from procession._engine.window import Window
from procession._engine.run_state import RunState
from procession._loop.parked_calls import ParkedCalls
from procession._loop.plain import PlainCalls
from procession._loop.slots import Slots
from procession._loop.stage import StageInLoop
from procession.testing import memory_journal

pytestmark = pytest.mark.usefixtures("nothing_is_left")
both_ways = pytest.mark.parametrize("way", [executed, awaited])


def once(function, *, where=lambda: True):
    """Return a function that raises the first time that it is called there, and then does as it did."""
    left = [True]

    def called(*args, **kwargs):
        if left and where():
            left.clear()
            raise MemoryGone
        return function(*args, **kwargs)

    return called


def beside():
    return "-side_" in threading.current_thread().name


class LoopWithoutMemory(asyncio.SelectorEventLoop):
    """A loop to which nothing can be handed over from beside it, three times."""

    left = 3

    def call_soon_threadsafe(self, *args, **kwargs):
        if self.left and beside():
            self.left -= 1
            raise MemoryGone
        return super().call_soon_threadsafe(*args, **kwargs)


@pytest.mark.parametrize("function", [same, later])
def test_a_value_is_handed_over_once_there_is_memory_again(function):
    """Of a plain function, of an iterable that is drawn from beside the loop, and of a commit."""

    async def main():
        process = Process("handed over", "parallel", 4, on_error="return")
        process.add_task(same, 1)
        process.add_task(later, 2)
        process.map(function, iter([1, 2, 3]))
        with memory_journal() as journal:
            return await process.execute_async(run_id="run", journal=journal)

    def run():
        with asyncio.Runner(loop_factory=LoopWithoutMemory) as runner:
            return runner.run(main())

    assert ended(run) == ([1, 2, [1, 2, 3]], None)


@both_ways
def test_an_error_after_the_end_of_a_task_ends_the_run(monkeypatch, way):
    """What waits for the task is not handed out as if it had run."""
    monkeypatch.setattr(RunState, "ended", once(RunState.ended))
    process = Process("after the end", "parallel", 4, on_error="return")
    process.task(same, process.task(later, 1))
    with pytest.raises(MemoryGone):
        way(process)
    assert states(process.last_run) == ["completed", "skipped"]


@both_ways
def test_a_plain_task_that_has_ended_is_not_made_again_for_an_error_that_is_not_its_own(monkeypatch, way):
    monkeypatch.setattr(RunState, "ended", once(RunState.ended, where=beside))
    calls = mock.Mock(return_value=1, __name__="calls")
    process = Process("once", "parallel", 4)
    process.add_task(later, 1)
    process.task(same, process.task(task(retries=3)(calls)))
    with pytest.raises(MemoryGone):
        way(process)
    assert calls.call_count == 1


@both_ways
@pytest.mark.parametrize("options", [{}, {"retries": 1}, {"timeout": 10}])
@pytest.mark.parametrize("at", range(1, 6))
def test_an_element_ends_once_though_the_look_at_its_map_raises(monkeypatch, way, options, at):
    looks = []

    def nothing_left(window):
        looks.append(window)
        if len(looks) == at:
            raise MemoryGone
        return window.stopped or (window.exhausted and not window.elements)

    monkeypatch.setattr(Window, "nothing_left", property(nothing_left))
    process = Process("looked at", "parallel", 2, on_error="return")
    process.map(task(**options)(later) if options else later, [1, 2, 3])
    process.add_task(later, 4)
    ending = ended(lambda: way(process))
    assert isinstance(ending.error, MemoryGone) or (ending == ([[1, 2, 3], 4], None) and len(looks) < at)
    ended_elements, failed, total = process.last_run.progress
    assert ended_elements <= total


@both_ways
@pytest.mark.parametrize(
    ("of", "name"),
    [
        *((StageInLoop, name) for name in ("finish_map", "_start_element", "_open_map", "_start_simple")),
        (ParkedCalls, "park"),
        (Slots, "give_back"),
    ],
)
def test_a_slot_that_is_lost_does_not_keep_the_run_waiting(monkeypatch, way, of, name):
    """Whatever raises between a call and the next one in its slot."""
    tries = []

    def fail_once():
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionError
        return 4

    async def fails_once():
        return fail_once()

    monkeypatch.setattr(of, name, once(getattr(of, name)))
    process = Process("slots", "parallel", 1)
    process.add_task(later, 1)
    process.map(later, [1, 2])
    process.add_task(task(retries=1)(fails_once))
    process.add_task(later, 2)
    ending = ended(lambda: way(process))
    assert isinstance(ending.error, MemoryGone)
    assert "running" not in states(process.last_run)


@both_ways
@pytest.mark.parametrize("on_error", ["continue", "return"])
def test_a_map_whose_journal_cannot_be_read_fails_alone(monkeypatch, way, on_error):
    """The tasks beside it go on in every slot."""
    monkeypatch.setattr(MapState, "__init__", once(MapState.__init__))
    process = Process("unread", "parallel", 1, on_error=on_error)
    process.map(later, [1, 2])
    process.add_task(later, 3)
    ending = ended(lambda: way(process))
    assert states(process.last_run) == ["failed", "completed"]
    if on_error == "return":
        failure, value = ending.value
        assert (type(failure), value) == (MemoryGone, 3)
    else:
        assert isinstance(ending.error.exceptions[0], MemoryGone)


@both_ways
@pytest.mark.parametrize("broken", [(TaskCalls, "failed"), (RunState, "raised"), (PlainCalls, "_next")])
def test_an_error_beside_the_loop_that_is_not_from_a_call_ends_the_run(monkeypatch, way, broken):
    def throw():
        raise ConnectionError

    monkeypatch.setattr(*broken, once(getattr(*broken), where=beside))
    process = Process("beside", "parallel", 2, on_error="return")
    process.add_task(throw)
    process.add_task(later, 1)
    ending = ended(lambda: way(process))
    assert isinstance(ending.error, MemoryGone)


@both_ways
@pytest.mark.parametrize(
    ("of", "name"),
    [
        *((StageInLoop, name) for name in ("_end_loan", "_next_batch", "_look", "fill")),
        (ParkedCalls, "_resume"),
    ],
)
def test_what_a_callback_of_the_loop_raises_ends_the_run(monkeypatch, way, of, name):
    """The loop itself would only log it."""
    entered = once(lambda: None)
    body = getattr(of, name)
    body = getattr(body, "__wrapped__", body)

    def called(self, *args):
        entered()
        return body(self, *args)

    from procession._engine.callbacks import breaks_down

    monkeypatch.setattr(of, name, breaks_down(called))
    tries = []

    async def fails_once():
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionError

    process = Process("callbacks", "parallel", 2, on_error="continue")
    process.add_task(same, 1)
    process.add_task(task(retries=1)(fails_once))
    for number in range(100):
        process.add_task(later, number)
    process.add_task(lambda: process.last_run.cancel()) if name == "_look" else None
    ending = ended(lambda: way(process))
    assert isinstance(ending.error, MemoryGone)


def test_a_run_is_finished_though_no_thread_can_be_started_for_that(monkeypatch):
    """Its observers are told of the end."""
    events = []

    class Observer:
        def on_event(self, event):
            events.append(event.name)

    def no_more(thread):
        raise RuntimeError("can't start new thread")

    async def main():
        process = Process("last", "parallel", 2, observers=[Observer()])

        async def last():
            monkeypatch.setattr(threading.Thread, "start", no_more)
            return 1

        process.add_task(last)
        return await process.execute_async()

    try:
        assert asyncio.run(main()) == [1]
    finally:
        monkeypatch.undo()
    assert (events[0], events[-1]) == ("run_started", "run_completed")


@pytest.mark.parametrize("way", [executed, started, in_a_notebook])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of a run that was started
def test_an_exit_in_an_asyncio_task_of_a_coroutines_own_ends_the_run(way):
    """It goes through the loop, which goes on until what runs has ended."""

    async def leave():
        raise SystemExit(3)

    async def leave_beside():
        beside = asyncio.create_task(leave())
        await asyncio.sleep(0.01)
        # Else asyncio formats its traceback whenever it is collected. Within ast.parse, as pytest calls it for the
        # traceback of a failure, that raises SystemError on Python 3.11.
        return beside.exception()

    process = Process("left", "parallel", 4)
    process.add_task(leave_beside)
    process.add_task(later, 1, turns=5)
    ending = ended(lambda: way(process))
    assert isinstance(ending.error, SystemExit)
    assert states(process.last_run) == ["completed", "completed"]


async def same_later(number):
    return number


def test_a_sink_that_waits_in_the_only_thread_there_is_ends_the_run(monkeypatch):
    """What it waits for would be drawn by another thread, which cannot be started: that is told."""
    start = threading.Thread.start

    def start_one(thread):
        if "-side_" in thread.name and not thread.name.endswith("-side_0"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_one)
    process = Process("starved", "parallel", 4)
    process.task(sum, stream(process.map(same_later, (number for number in range(1_000)))))
    with pytest.raises(WorkersUnavailableError, match="no thread could be started"):
        process.execute()
