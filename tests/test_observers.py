"""What observers are told of a run, and that they cannot harm it."""

import asyncio
import contextvars
import gc
import logging
import threading
import time
import weakref

import pytest
import tenacity

from procession import Event, Process, Progress, RunCancelledError, current_task, task
from procession._model.strategy import Parallel
from procession.observe import feed as feeds

STRATEGIES = ["sequential", "parallel", "hybrid"]
RULES = tenacity.Retrying(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_none())


def same(value):
    return value


def throw(error):
    raise error


class Kept:
    """An observer that keeps what it is told, as a user's own would be written."""

    def __init__(self):
        self.events = []

    def on_event(self, event):
        self.events.append(event)

    @property
    def said(self):
        return [(event.name, event.index, event.attempt) for event in self.events]


class Immediate(Kept):
    immediate = True


@pytest.fixture
def kept():
    return Kept()


@pytest.fixture
def told(caplog):
    """Return a function that gives what was logged under a name."""
    return lambda name: [record for record in caplog.records if record.getMessage() == name]


# What is told


def test_a_run_in_order_is_told_step_by_step(kept):
    """Each start and end in its turn."""
    process = Process("steps", observers=[kept])
    process.add_task(same, 1)
    process.add_task(same, 2)
    assert process.execute() == [1, 2]
    assert kept.said == [
        ("run_started", None, None),
        ("task_started", 0, 1),
        ("task_completed", 0, 1),
        ("task_started", 1, 1),
        ("task_completed", 1, 1),
        ("run_completed", None, None),
    ]


@pytest.mark.parametrize("kind", [Kept, Immediate])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_events_say_who_when_and_how_long(kind, strategy):
    """Seconds since the epoch and seconds, names and places, the thread, and what was raised."""
    kept, error, before = kind(), KeyError("no"), time.time()
    process = Process("fields", strategy, 1, on_error="return", observers=[kept])
    process.add_task(task(name="load")(same), 1)
    process.add_task(task(name="drop")(throw), error)
    process.execute()
    by = {(event.name, event.index): event for event in kept.events}
    assert list(by) == [
        ("run_started", None),
        ("task_started", 0),
        ("task_completed", 0),
        ("task_started", 1),
        ("task_failed", 1),
        ("run_completed", None),
    ]
    assert {(event.process_name, event.run_id) for event in kept.events} == {("fields", process.last_run.id)}
    times = [event.at for event in kept.events]
    assert times == sorted(times)
    assert before - 1 < times[0]
    assert times[-1] < time.time() + 1
    load, drop, start, end = by["task_completed", 0], by["task_failed", 1], by["run_started", None], kept.events[-1]
    assert (load.task_name, load.error, drop.task_name, drop.error) == ("load", None, "drop", error)
    assert load.duration_s == pytest.approx(load.at - by["task_started", 0].at, abs=0.05)
    assert end.duration_s == pytest.approx(end.at - start.at, abs=1e-5)
    assert (start.duration_s, start.progress, end.progress) == (None, Progress(0, 0, 2), Progress(2, 1, 2))
    assert load.worker == process.last_run.outcomes[0].worker
    assert end.dropped == (0 if kind is Kept else None)
    assert repr(load) == f"<Event task_completed of task 0 (load), process 'fields', run {process.last_run.id}>"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_task_is_told_of_after_all_that_it_waits_for(kept, strategy):
    """Its start after the end of each, its end after its start; the run's start first and its end last."""
    process = Process("order", strategy, 8, observers=[kept])
    handles = []
    needs = {}
    for index in range(300):
        chosen = [index - back for back in (1, 2, 7, 40) if index % (back + 1) and index >= back]
        needs[index] = chosen
        handles.append(process.task(lambda values, index=index: index, [handles[n] for n in chosen]))
    process.execute()
    place = {(event.name, event.index): number for number, event in enumerate(kept.events)}
    assert len(place) == len(kept.events) == 602
    assert kept.events[0].name == "run_started"
    assert kept.events[-1].name == "run_completed"
    for index in range(300):
        assert place["task_started", index] < place["task_completed", index]
        assert all(place["task_completed", need] < place["task_started", index] for need in needs[index])


def test_events_come_while_the_run_goes_on(kept):
    """An observer learns of a task's end before the run's."""
    heard, go_on = threading.Event(), threading.Event()

    class Waiting(Kept):
        def on_event(self, event):
            super().on_event(event)
            if event.name == "task_completed":
                heard.set()

    process = Process("live", "parallel", 2, observers=[Waiting()])
    process.add_task(same, 1)
    process.add_task(go_on.wait, 50)
    run = process.start()
    assert heard.wait(50)
    assert run.status == "running"
    go_on.set()
    run.result()


@pytest.mark.parametrize("kind", [Kept, Immediate])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_attempts_are_told_by_their_number(kind, strategy):
    """Each that another one follows, with what it raised, between the start and the end of its task."""
    kept = kind()

    @task(retries=RULES)
    def flaky(until):
        if current_task().attempt < until:
            raise OSError

    process = Process("tries", strategy, 1, on_error="return", observers=[kept])
    process.add_task(flaky, 3)
    process.add_task(flaky, 4)
    process.execute()
    tries = [("task_retrying", 1), ("task_retrying", 2)]
    for index, end in (0, "task_completed"), (1, "task_failed"):
        mine = [(event.name, event.attempt) for event in kept.events if event.index == index]
        assert mine == [("task_started", 1), *tries, (end, 3)]
    assert {type(event.error) for event in kept.events if event.name == "task_retrying"} == {OSError}


@pytest.mark.parametrize("kind", [Kept, Immediate])
def test_a_task_that_stops_with_its_run_is_told_as_cancelled(kind):
    """Neither as failed nor as completed, and tasks that never started are not told of."""
    kept = kind()
    process = Process("stopped", "parallel", 1, observers=[kept])
    process.add_task(lambda: (process.last_run.cancel(), current_task().sleep(50)))
    process.add_task(same, 1)
    with pytest.raises(RunCancelledError):
        process.execute()
    assert kept.said == [
        ("run_started", None, None),
        ("task_started", 0, 1),
        ("task_cancelled", 0, 1),
        ("run_cancelled", None, None),
    ]


def test_a_failed_run_is_told_with_what_stopped_it(kept):
    """The end of the run has the failure."""
    error = ValueError("no")
    process = Process("failed", observers=[kept])
    process.add_task(throw, error)
    with pytest.raises(ValueError):
        process.execute()
    assert kept.said[1:] == [("task_started", 0, 1), ("task_failed", 0, 1), ("run_failed", None, None)]
    assert kept.events[-1].error is error


def test_a_map_tells_how_far_it_has_come(kept):
    """While it goes on, in elements; it is one task, whose start and end are told once."""
    heard, hold = threading.Event(), threading.Event()

    class Waiting(Kept):
        def on_event(self, event):
            super().on_event(event)
            if event.name == "task_progressed" and event.progress.ended == 9:
                heard.set()

    waiting = Waiting()
    process = Process("map", "parallel", 4, observers=[waiting])
    process.map(lambda number: hold.wait(50) if number == 9 else number, range(10))
    run = process.start()
    assert heard.wait(50)
    hold.set()
    run.result()
    names = [event.name for event in waiting.events]
    assert names[:2] == ["run_started", "task_started"]
    assert names[-2:] == ["task_completed", "run_completed"]
    assert set(names[2:-2]) == {"task_progressed"}
    told = [event.progress for event in waiting.events if event.name == "task_progressed"]
    assert told[-1] == Progress(9, 0, 10)
    assert sorted(told) == told


def test_what_was_recorded_is_not_told_again(kept):
    """An observer that comes to a task that ended before is told of nothing."""
    from procession.observe.lookout import Lookout

    class Books:
        process_name, run_id = "books", "a"
        workers, attempts, maps, edges = [None] * 3, {}, {}, {}

        class ledger:
            starts, ends = [None, None, None], [1.0, None, None]
            errors, stopped = {}, set()
            over = well = False

        def name(self, index):
            return "task"

        def moment(self, reading):
            return 100 + reading

    lookout = Lookout(Books())
    Books.ledger.starts[1] = 2.0
    assert lookout.look() == 1
    assert [lookout.event(moment).name for moment in lookout.moments([])] == ["task_started"]
    Books.ledger.ends[1], Books.ledger.starts[2] = 3.0, 3.0
    assert lookout.look() == 2
    events = [lookout.event(moment) for moment in lookout.moments([])]
    assert [(event.name, event.index, event.at, event.duration_s) for event in events] == [
        ("task_completed", 1, 103.0, 1.0),
        ("task_started", 2, 103.0, None),
    ]
    assert lookout.look() == 0


class Meddled(list):
    """A column in which something happens right after it was first looked at."""

    meddle = None

    def __getitem__(self, place):
        found = super().__getitem__(place)
        if isinstance(place, slice) and self.meddle:
            meddle, self.meddle = self.meddle, None
            meddle()
        return found


@pytest.mark.parametrize("column", ["starts", "ends"])
def test_a_start_is_not_told_before_the_end_that_it_waited_for_whenever_one_looks(column):
    """Task 2000 waits for task 5, and both get on while somebody looks at a part of the books."""
    from procession.observe.lookout import Lookout

    class Books:
        process_name, run_id = "books", "a"
        workers, attempts, maps, edges = [None] * 3000, {}, {}, {2000: (5,)}

        class ledger:
            starts, ends = Meddled([None] * 3000), Meddled([None] * 3000)
            errors, stopped = {}, set()
            over = well = False

        def name(self, index):
            return "task"

        def moment(self, reading):
            return 100 + reading

    def get_on():
        ledger.starts[5], ledger.ends[5], ledger.starts[2000] = 1.0, 2.0, 2.0

    ledger, lookout, said = Books.ledger, Lookout(Books()), []
    getattr(ledger, column).meddle = get_on
    for _ in range(2):
        lookout.look()
        said += [(event.name, event.index) for event in map(lookout.event, lookout.moments([]))]
    assert said == [("task_started", 5), ("task_completed", 5), ("task_started", 2000)]


def test_observers_of_a_process_and_of_one_execution_are_both_told():
    """The process's in every run, the execution's in that one only."""
    always, once = Kept(), Kept()
    process = Process("both", observers=[always])
    process.add_task(same, 1)
    process.execute(observers=[once])
    process.start().result()
    assert len(once.events) == 4
    assert len(always.events) == 8
    process.observers.clear()
    process.execute()
    assert len(always.events) == 8


@pytest.mark.parametrize("wrong", [Kept, print, object(), None])
def test_what_is_no_observer_is_refused_at_once(wrong):
    """A class instead of an instance, a plain function: the message says what is needed."""
    with pytest.raises(TypeError, match=r"process 'wrong': an observer has a method on_event\(event\); got"):
        Process("wrong", observers=[wrong])
    with pytest.raises(TypeError, match="observer"):
        Process("wrong").execute(observers=[wrong])


# Observers that are told at once


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_an_immediate_observer_sets_is_seen_by_the_task_alone(strategy):
    """It is called in the context in which the task runs, first attempts and timeouts and elements of maps included."""
    where = contextvars.ContextVar("where", default="nowhere")
    around = contextvars.ContextVar("around", default="nothing")

    class Tracer:
        immediate = True

        def on_event(self, event):
            if event.name == "run_started":
                around.set(event.process_name)
            if event.name == "task_started":
                where.set(event.index)

    def look(*_):
        return around.get(), where.get()

    process = Process("traced", strategy, 4, observers=[Tracer()])
    process.add_task(look)
    process.add_task(task(timeout=50)(look))
    process.add_task(task(retries=RULES)(look))
    process.map(look, range(20))
    process.add_task(look)
    assert process.execute() == [
        ("traced", 0),
        ("traced", 1),
        ("traced", 2),
        [("traced", 3)] * 20,
        ("traced", 4),
    ]
    assert look() == ("nothing", "nowhere")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_coroutines_see_what_an_immediate_observer_sets_and_no_other_task_does(strategy):
    """However they take turns: first attempts and later ones, with timeouts, and elements of maps."""
    where = contextvars.ContextVar("where", default="nowhere")

    class Tracer:
        immediate = True

        def on_event(self, event):
            if event.name == "task_started":
                where.set(event.index)

    async def look(*_):
        seen = [where.get()]
        for _ in range(3):
            await asyncio.sleep(0)
            seen.append(where.get())
        return set(seen)

    process = Process("traced", strategy, 4, observers=[Tracer()])
    process.add_task(look)
    process.add_task(task(timeout=50)(look))
    process.add_task(task(retries=RULES)(look))
    process.map(look, range(20))
    process.add_task(lambda: {where.get()})
    expected = [{0}, {1}, {2}, [{3}] * 20, {4}]
    assert process.execute() == expected
    assert asyncio.run(process.execute_async()) == expected


@pytest.mark.parametrize("kind", [Kept, Immediate])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_coroutines_are_told_of_like_calls(kind, strategy):
    """Starts, ends, retries and failures, in `execute()` and in a loop of the caller's."""

    async def ok():
        await asyncio.sleep(0)

    @task(retries=RULES)
    async def flaky():
        raise OSError

    process = Process("coroutines", strategy, 1, on_error="return")
    process.add_task(ok)
    process.add_task(flaky)

    def told(execute):
        kept = kind()
        execute(observers=[kept])
        return kept.said

    expected = [
        ("run_started", None, None),
        ("task_started", 0, 1),
        ("task_completed", 0, 1),
        ("task_started", 1, 1),
        ("task_retrying", 1, 1),
        ("task_retrying", 1, 2),
        ("task_failed", 1, 3),
        ("run_completed", None, None),
    ]
    assert told(process.execute) == expected
    assert told(lambda **options: asyncio.run(process.execute_async(**options))) == expected


@pytest.mark.parametrize("kind", [Kept, Immediate])
def test_what_runs_on_worker_processes_is_told_of_like_the_rest(kind):
    """Once each, an end after its start, and the start after the end of what it waits for."""
    kept = kind()
    process = Process("away", "parallel", 2, executor="processes", on_error="return", observers=[kept])
    handle = process.task(abs, -1)
    process.add_task(abs, handle)
    process.add_task(int, "x")
    process.map(abs, range(5))
    process.execute()
    said = [entry for entry in kept.said if entry[0].startswith("task_") and entry[0] != "task_progressed"]
    ends = {0: "task_completed", 1: "task_completed", 2: "task_failed", 3: "task_completed"}
    assert sorted(said) == sorted((name, index, 1) for index, end in ends.items() for name in ("task_started", end))
    for index, end in ends.items():
        assert said.index(("task_started", index, 1)) < said.index((end, index, 1))
    assert said.index(("task_completed", 0, 1)) < said.index(("task_started", 1, 1))


def test_a_slow_observer_does_not_hold_up_the_loop_of_the_caller():
    """At the end of a run others go on while it catches up."""
    ticks, waiting = [], threading.Event()

    class Slow:
        def on_event(self, event):
            if event.name == "run_completed":
                waiting.wait(50)

    async def main():
        process = Process("loop", observers=[Slow()])
        process.add_task(asyncio.sleep, 0)
        running = asyncio.ensure_future(process.execute_async())
        while not process.last_run or process.last_run.status == "running":
            await asyncio.sleep(0)
        ticks.append(running.done())
        waiting.set()
        await running

    asyncio.run(main())
    assert ticks == [False]


def test_a_run_that_is_started_has_the_context_of_who_started_it():
    """So that a tracer finds what is around."""
    around = contextvars.ContextVar("around", default="nothing")
    seen = []

    class Tracer:
        immediate = True

        def on_event(self, event):
            seen.append(around.get())

    around.set("caller")
    process = Process("started", observers=[Tracer()])
    process.add_task(same, 1)
    process.start().result()
    assert seen == ["caller"] * 4


# What they cannot harm


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
    monkeypatch.setattr(feeds, "PATIENCE_S", 0.2)
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
    monkeypatch.setattr(feeds, "PATIENCE_S", 0.2)

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
    monkeypatch.setattr(feeds, "PATIENCE_S", 0.1)
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
    before, during = threading.active_count(), []
    process = Process("threads", on_error="return")
    process.add_task(lambda: during.append(threading.active_count()))
    process.add_task(throw, KeyError())
    process.execute()
    assert during == [before]
    process.execute(observers=[kept, Kept(), Immediate()])
    assert during == [before, before + 2]
    process.start(observers=[kept]).result()
    assert threading.active_count() <= before + 1  # the driver of start() may be ending
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("procession-observer")]


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
    process.add_task(same, 1)
    process.execute()
    run = process.last_run
    assert run._engine._calls is run._plan.calls
    assert not run._run_state.attentive


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
