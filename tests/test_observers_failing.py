"""Observers that raise, are slow or never return: what they cannot harm."""

import gc
import logging
import threading
import time
import weakref

import pytest

from observing import RULES, STRATEGIES, Immediate, Kept, kept, same, throw, told
from procession import Event, Process, RunCancelledError, current_task, task
from procession._model.strategy import Parallel
from procession.observe import feed as feeds


@pytest.mark.parametrize("immediate", [False, True])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("error", [LookupError("broken"), SystemExit(3)], ids=["Exception", "SystemExit"])
def test_an_observer_that_raises_is_logged_and_then_switched_off(told, strategy, immediate, error):
    """After three times; the run is what it would have been, and other observers are told everything."""
    calls, other = [], Kept()

    class Broken:
        def on_event(self, event):
            calls.append(event)
            raise error

    Broken.immediate = immediate
    process = Process("harmless", strategy, 2, observers=[Broken(), other])
    for number in range(5):
        process.add_task(same, number)
    assert process.execute() == [0, 1, 2, 3, 4]
    assert process.status == "completed"
    assert 3 <= len(calls) <= 4  # two workers may come at the same time
    records = told("observer_failed")
    assert [record.switched_off for record in records][:3] == [False, False, True]
    assert {(record.observer, record.levelname, record.run_id) for record in records} == {
        ("Broken", "WARNING", process.last_run.id)
    }
    assert records[0].exc_info[1] is error
    assert len(other.events) == 12


def test_a_switched_off_observer_is_told_again_in_the_next_run(told):
    """Each run begins afresh."""

    class Broken:
        def on_event(self, event):
            raise LookupError

    process = Process("afresh", observers=[Broken()])
    process.add_task(same, 1)
    process.execute()
    process.execute()
    assert len(told("observer_failed")) == 6


def test_a_slow_observer_misses_what_it_has_no_time_for_and_is_told_how_much(monkeypatch, told):
    """Failures and retries come through before starts and ends; the last event and the log have the number."""
    monkeypatch.setattr(feeds, "PATIENCE_S", 5.0)
    gate = threading.Event()

    class Slow(Kept):
        def on_event(self, event):
            super().on_event(event)
            if event.name == "run_started":
                gate.wait(50)

    slow, fast = Slow(), Kept()
    process = Process("slow", "parallel", 4, on_error="return", observers=[slow])
    for number in range(5_000):
        process.add_task(throw if number == 4_000 else same, KeyError(number))
    process.add_task(task(retries=RULES)(lambda: 1 // (current_task().attempt - 1)))
    process.add_task(lambda: (time.sleep(0.01), gate.set()))
    process.execute(observers=[fast])
    assert len(fast.events) == 2 * 5_002 + 3 or fast.events[-1].dropped
    assert [event.name for event in slow.events][0] == "run_started"
    assert {event.name for event in slow.events[1:-1]} == {"task_failed", "task_retrying"}
    assert [event.index for event in slow.events[1:-1]] == [4_000, 5_000]
    end = slow.events[-1]
    assert (end.name, end.dropped) == ("run_completed", 2 * 5_002 - 1)
    (record,) = [record for record in told("events_dropped") if record.observer == "Slow"]
    assert record.dropped == end.dropped


def test_an_observer_that_becomes_slow_delays_the_end_of_a_run_by_no_more_than_its_patience(monkeypatch):
    """What it has not been told of by then is dropped and counted."""
    monkeypatch.setattr(feeds, "PATIENCE_S", 2.0)

    class Tiring(Kept):
        def on_event(self, event):
            super().on_event(event)
            if len(self.events) > 3:
                time.sleep(0.05)

    tiring = Tiring()
    process = Process("tiring", observers=[tiring])
    for number in range(500):
        process.add_task(same, number)
    process.execute()
    assert tiring.events[-1].name == "run_completed"
    assert tiring.events[-1].dropped == 1002 - len(tiring.events)
    assert tiring.events[-1].dropped > 900


def test_a_blocked_observer_holds_up_neither_the_run_nor_other_observers(monkeypatch, told, kept):
    """It is left behind in a daemon thread, which is logged, and told nothing more than the end."""
    monkeypatch.setattr(feeds, "PATIENCE_S", 1.5)
    release = threading.Event()

    class Blocked:
        def on_event(self, event):
            release.wait(50)

    process = Process("blocked", "parallel", 2, observers=[Blocked(), kept])
    process.add_task(same, 1)
    assert process.execute() == [1]
    assert len(kept.events) == 4
    assert [record.observer for record in told("observer_left_behind")] == ["Blocked"]
    (left,) = [thread for thread in threading.enumerate() if thread.name == "procession-observer-Blocked"]
    assert left.daemon
    release.set()
    left.join(50)
    assert not left.is_alive()


def test_no_thread_of_an_observer_is_left_and_none_is_made_without(kept):
    """After `execute()` and after `result()`, in success and failure."""
    during, those = [], set(threading.enumerate())
    process = Process("threads", on_error="return")
    process.add_task(lambda: during.append(len(set(threading.enumerate()) - those)))
    process.add_task(throw, KeyError())
    process.execute()
    assert during == [0]
    process.execute(observers=[kept, Kept(), Immediate()])
    assert during == [0, 2]
    process.start(observers=[kept]).result()
    begun = set(threading.enumerate()) - those
    assert len(begun) <= 1  # the driver of start() may be ending
    assert not [thread for thread in begun if thread.name.startswith("procession-observer")]


def test_without_a_thread_for_an_observer_the_run_goes_on(monkeypatch, told, kept):
    """It is logged that the observer is told nothing."""
    start = threading.Thread.start

    def refuse(thread):
        if thread.name.startswith("procession-observer"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    process = Process("scarce", "parallel", 2, observers=[kept])
    process.add_task(same, 1)
    assert process.execute() == [1]
    assert kept.events == []
    assert [record.switched_off for record in told("observer_failed")] == [True]


def test_observers_keep_nothing_alive():
    """An exception and a result are freed when the caller lets go of them and of the process."""

    class Value:
        pass

    class Counting:
        count = 0

        def on_event(self, event):
            self.count += 1

    observer = Counting()
    gc.collect()
    gc.disable()
    try:
        process = Process("freed", "parallel", 2, on_error="return", observers=[observer])
        process.add_task(Value)
        process.add_task(int, "x")
        value, error = process.execute()
        refs = weakref.ref(value), weakref.ref(process.last_run)
        del value, error, process
        assert [ref() for ref in refs] == [None, None]
    finally:
        gc.enable()
    assert observer.count == 6


def test_workers_run_the_same_calls_whether_observed_or_not(kept):
    """An observer that is not immediate changes nothing in the loop of the workers."""
    process = Process("plain", "parallel", 2, observers=[kept])
    process.add_task(lambda: process.last_run._execution.engine._calls.calls is process.last_run._plan.calls)
    assert process.execute() == [True]
    assert not process.last_run._run_state.attentive


def test_an_observer_may_be_a_class_of_any_kind():
    """Only the method counts."""
    seen = []

    class Slotted:
        __slots__ = ()

        def on_event(self, event: Event, /) -> None:
            seen.append(event.name)

    process = Process("kinds", Parallel(), observers=(observer for observer in [Slotted()]))
    process.execute()
    assert seen == ["run_started", "run_completed"]


def test_a_run_cancelled_by_its_observer_ends(told):
    """It may use the run as anybody may."""

    class Canceller:
        def on_event(self, event):
            if event.name == "task_completed":
                process.last_run.cancel()

    process = Process("cancelled", "parallel", 1, observers=[Canceller()])
    process.add_task(same, 1)
    process.add_task(lambda: current_task().sleep(50))
    with pytest.raises(RunCancelledError):
        process.execute()
    assert told("observer_failed") == []


def test_the_log_stays_silent_about_observers_that_behave(caplog, kept):
    """Nothing but the run is logged."""
    caplog.set_level(logging.INFO)
    process = Process("quiet", observers=[kept])
    process.add_task(same, 1)
    process.execute()
    assert [record.getMessage() for record in caplog.records] == ["run_started", "run_completed"]
