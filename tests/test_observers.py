"""What observers are told of a run, and when."""

import asyncio
import contextvars
import threading
import time

import pytest

from observing import RULES, STRATEGIES, Immediate, Kept, kept, same, throw, told
from procession import Process, Progress, RunCancelledError, current_task, task


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
    assert load.duration == pytest.approx(load.at - by["task_started", 0].at, abs=0.05)
    assert end.duration == pytest.approx(end.at - start.at, abs=1e-5)
    assert (start.duration, start.progress, end.progress) == (None, Progress(0, 0, 2), Progress(2, 1, 2))
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


@pytest.mark.parametrize("executor", ["threads", "loop", "processes", "processes for one"])
def test_attempts_of_elements_are_told_with_their_places(executor):
    """So who reads the log knows which of a thousand calls has to be tried again."""
    kept = Kept()

    def flaky(number):
        if number % 2 and current_task().attempt == 1:
            raise OSError
        return number

    async def flaky_async(number):
        return flaky(number)

    options = task(retries=RULES, executor="processes" if executor == "processes for one" else None)
    function = options(flaky_async if executor == "loop" else flaky)
    where = "processes" if executor == "processes" else "threads"
    process = Process("tries", "parallel", 2, executor=where, observers=[kept])
    process.map(function, range(5))
    assert process.execute() == [[0, 1, 2, 3, 4]]
    tries = [(event.index, event.element, event.attempt) for event in kept.events if event.name == "task_retrying"]
    assert sorted(tries) == [(0, 1, 1), (0, 3, 1)]


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


def test_a_run_that_goes_on_misses_no_event(tmp_path):
    """What is recorded has not happened in it."""
    kept, process = Kept(), Process("goes on")
    process.add_task(same, 1)
    process.add_task(task(name="mended")(throw), KeyError("no"))
    with pytest.raises(KeyError):
        process.execute(run_id="a", journal=tmp_path / "runs.db")
    process = Process("goes on", observers=[kept])
    process.add_task(same, 1)
    process.add_task(task(name="mended")(same), KeyError("no"))
    for _ in range(2):
        process.execute(run_id="a", journal=tmp_path / "runs.db")
        assert kept.events[-1].dropped == 0


def test_what_was_recorded_is_not_told_again(kept):
    """An observer that comes to a task that ended before is told of nothing."""
    from procession.observe.event_collector import EventCollector

    class Books:
        process_name, run_id = "books", "a"
        workers, attempts, maps, edges = [None] * 3, {}, {}, {}
        recheck = None

        class ledger:
            starts, ends = [None, None, None], [1.0, None, None]
            errors, stopped = {}, set()
            over = well = False

        def name(self, index):
            return "task"

        def moment(self, reading):
            return 100 + reading

    lookout = EventCollector(Books())
    Books.ledger.starts[1] = 2.0
    assert lookout.look() == 1
    assert [lookout.event(moment).name for moment in lookout.moments([])] == ["task_started"]
    Books.ledger.ends[1], Books.ledger.starts[2] = 3.0, 3.0
    assert lookout.look() == 2
    events = [lookout.event(moment) for moment in lookout.moments([])]
    assert [(event.name, event.index, event.at, event.duration) for event in events] == [
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
    from procession.observe.event_collector import EventCollector

    class Books:
        process_name, run_id = "books", "a"
        workers, attempts, maps, edges = [None] * 3000, {}, {}, {2000: (5,)}
        recheck = None

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

    ledger, lookout, said = Books.ledger, EventCollector(Books()), []
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
