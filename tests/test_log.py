"""What the logger `procession` says of a run, what it keeps to itself, and that it cannot harm the run."""

import json
import logging
import sys
import threading
from collections import Counter

import pytest
import tenacity

from procession import Process, TaskTimeoutError, current_task, task

STRATEGIES = ["sequential", "parallel", "hybrid"]
LOGGER = logging.getLogger("procession")
NOTHING = logging.makeLogRecord({})


def same(value):
    return value


def throw(error):
    raise error


def fields(record):
    """Return what an event adds to a record. (Where Ray has been imported, every record has fields of its own.)"""
    others = {*vars(NOTHING), "message", "asctime", "_ray_timestamp_ns"}
    return {key: value for key, value in vars(record).items() if key not in others}


class Kept(logging.Handler):
    """A handler that keeps each record."""

    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)

    def said(self, *names):
        """Return event, place and attempt of each record, or of those of these names."""
        return [
            (record.getMessage(), getattr(record, "index", None), getattr(record, "attempt", None))
            for record in self.records
            if not names or record.getMessage() in names
        ]


@pytest.fixture
def listen():
    """Return a function that adds a handler to the logger and sets its level."""
    before, added = LOGGER.level, []

    def add(level=logging.DEBUG, handler=None):
        LOGGER.setLevel(level)
        added.append(Kept() if handler is None else handler)
        LOGGER.addHandler(added[-1])
        return added[-1]

    yield add
    LOGGER.setLevel(before)
    for handler in added:  # and no other: the library's own comes with the first run
        LOGGER.removeHandler(handler)


# What is said


def test_a_run_in_order_is_told_step_by_step(listen):
    """Each event in its turn, with its place and attempt."""
    kept = listen()
    process = Process("steps")
    process.add_task(same, 1)
    process.add_task(same, 2)
    process.execute()
    assert kept.said() == [
        ("run_started", None, None),
        ("task_started", 0, 1),
        ("task_completed", 0, 1),
        ("task_started", 1, 1),
        ("task_completed", 1, 1),
        ("run_completed", None, None),
    ]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_task_is_told_once_between_the_start_and_the_end_of_its_run(listen, strategy):
    """Under every strategy, for plain tasks, handles and maps alike; and so is each element of a map, under its own."""
    kept = listen()
    process = Process("each", strategy, 4)
    handle = process.task(same, [1, 2, 3])
    process.add_task(same, 2)
    mapped = process.map(same, handle)
    process.add_task(sum, mapped)
    process.add_task(task(timeout=50)(same), 4)
    process.execute()
    said = kept.said()
    assert said[0] == ("run_started", None, None)
    assert said[-1] == ("run_completed", None, None)
    expected = Counter((name, index, 1) for name in ("task_started", "task_completed") for index in range(5))
    expected |= {("element_started", 2, 1): 3, ("element_completed", 2, 1): 3}
    assert Counter(said[1:-1]) == expected
    for index in range(5):
        assert said.index(("task_started", index, 1)) < said.index(("task_completed", index, 1))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_records_have_the_fields_of_their_event(listen, strategy):
    """Names, ids and durations in seconds, under names that LogRecord does not take itself."""
    kept = listen()
    process = Process("fields", strategy, on_error="return")
    process.add_task(task(name="load")(same), 1)
    process.add_task(task(name="drop")(throw), KeyError("no"))
    process.execute()
    run = {"process_name": "fields", "run_id": process.last_run.id}
    load, drop = (
        {**run, "task_name": name, "index": place, "attempt": 1} for place, name in enumerate(["load", "drop"])
    )
    told = {(record.getMessage(), getattr(record, "task_name", None)): fields(record) for record in kept.records}
    durations = [more.pop("duration_s") for more in told.values() if "duration_s" in more]
    assert told == {
        ("run_started", None): run,
        ("task_started", "load"): load,
        ("task_completed", "load"): load,
        ("task_started", "drop"): drop,
        ("task_failed", "drop"): {**drop, "error_type": "KeyError"},
        ("run_completed", None): run,
    }
    assert len(durations) == 3  # of each end
    assert all(type(duration) is float and 0 <= duration < 20 for duration in durations)


def test_levels_say_how_much_an_event_matters(listen, comes_true):
    """Steps are for debugging, runs for information, what went wrong is a warning or an error."""
    kept = listen()
    gate = threading.Event()

    @task(timeout=0.01)
    def hung():
        gate.wait(50)

    rules = tenacity.Retrying(stop=tenacity.stop_after_attempt(2), sleep=lambda _: None, wait=tenacity.wait_none())
    process = Process("levels", "parallel", 1, on_error="continue")
    process.add_task(same, 1)
    process.add_task(task(retries=rules)(throw), KeyError("no"))
    process.add_task(hung)
    with pytest.raises(ExceptionGroup):
        process.execute()
    gate.set()
    assert comes_true(lambda: "task_abandoned_ended" in {record.getMessage() for record in kept.records})
    well = Process("well")
    well.add_task(lambda: well.last_run.cancel())
    with pytest.raises(RuntimeError):
        well.execute()
    Process("empty").execute()
    assert {record.getMessage(): record.levelname for record in kept.records} == {
        "run_started": "INFO",
        "run_completed": "INFO",
        "run_failed": "ERROR",
        "run_cancelled": "WARNING",
        "task_started": "DEBUG",
        "task_completed": "DEBUG",
        "task_failed": "ERROR",
        "task_retrying": "WARNING",
        "task_abandoned_ended": "WARNING",
    }
    assert {record.name for record in kept.records} == {"procession"}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_attempts_are_told_by_their_number(listen, strategy):
    """Each that will be followed by another one, and the one it ended with."""
    kept = listen(logging.INFO)
    rules = tenacity.Retrying(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_none())

    @task(retries=rules)
    def flaky(until):
        if current_task().attempt < until:
            raise OSError

    process = Process("tries", strategy, 1, on_error="return")
    process.add_task(flaky, 3)
    process.add_task(flaky, 4)
    process.execute()
    retrying = [("task_retrying", place, attempt) for place in (0, 1) for attempt in (1, 2)]
    # At once, the other task is attempted while one of them pauses.
    said = kept.said("task_retrying", "task_failed")
    assert [event for event in said if event[1] == 0] == retrying[:2]
    assert [event for event in said if event[1] == 1] == [*retrying[2:], ("task_failed", 1, 3)]
    assert {record.error_type for record in kept.records if hasattr(record, "index")} == {"OSError"}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_failed_run_says_what_stopped_it(listen, strategy):
    """The type of the failure; KeyboardInterrupt makes it a cancelled one."""
    kept = listen(logging.INFO)
    for error, end in (
        (ValueError("no"), "run_failed"),
        (SystemExit(3), "run_failed"),
        (KeyboardInterrupt(), "run_cancelled"),
    ):
        kept.records.clear()
        process = Process("stopped", strategy)
        process.add_task(throw, error)
        with pytest.raises(type(error)):
            process.execute()
        assert kept.said() == [("run_started", None, None), ("task_failed", 0, 1), (end, None, None)]
        assert [record.error_type for record in kept.records[1:]] == [type(error).__name__] * 2


def test_a_nested_run_has_an_id_of_its_own(listen):
    """So that the records of two runs can be told apart."""
    kept = listen(logging.INFO)
    inner, outer = Process("inner"), Process("outer")
    outer.add_task(inner)
    outer.execute()
    assert [(record.getMessage(), record.process_name, record.run_id) for record in kept.records] == [
        ("run_started", "outer", outer.last_run.id),
        ("run_started", "inner", inner.last_run.id),
        ("run_completed", "inner", inner.last_run.id),
        ("run_completed", "outer", outer.last_run.id),
    ]


@pytest.mark.parametrize("late", ["value", "error"])
def test_what_a_hung_task_ends_with_later_is_told_once(listen, late, comes_true):
    """With its place and attempt, and the type of what it raised."""
    kept = listen(logging.INFO)
    release, threads = threading.Event(), []

    @task(timeout=0.01)
    def hung():
        threads.append(threading.current_thread())
        release.wait(50)
        if late == "error":
            raise KeyError("late")

    process = Process("late")
    process.add_task(hung)
    with pytest.raises(TaskTimeoutError):
        process.execute()
    assert kept.said("task_abandoned_ended") == []
    assert comes_true(lambda: threads)
    release.set()
    threads[0].join(20)
    assert kept.said("task_abandoned_ended") == [("task_abandoned_ended", 0, 1)]
    assert getattr(kept.records[-1], "error_type", None) == ("KeyError" if late == "error" else None)


def test_a_run_is_told_to_have_ended_before_its_result_is_there(listen):
    """Who has the result finds the records complete."""
    kept = listen(logging.INFO)
    process = Process("order", "parallel")
    process.add_task(same, 1)
    process.start().result(20)
    assert kept.said() == [("run_started", None, None), ("run_completed", None, None)]


# What is not said


class Secret:
    """Something whose text must not be read."""

    def __repr__(self):
        raise AssertionError("nobody asked for it")

    __str__ = __format__ = __repr__


class Telling(Exception):
    """An exception that says too much."""


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_record_holds_an_argument_a_value_or_the_text_of_an_error(listen, strategy):
    """Whatever the level and however tasks end; each record is plain data that any formatter can write."""
    kept = listen()
    word = "hunter2"
    process = Process("secrets", strategy, 2, on_error="continue")
    handle = process.task(same, word)
    process.add_task(lambda *_, **__: Secret(), Secret(), word, handle, password=word)
    process.map(lambda value: value, [Secret(), word])
    process.add_task(task(retries=1)(same), Secret(), *[])
    process.add_task(throw, Telling(word))
    with pytest.raises((Telling, ExceptionGroup)):
        process.execute()
    assert len(kept.said()) == 16
    for record in kept.records:
        assert word not in json.dumps(vars(record))


STRANGE = "name\r\nERROR forged \x1b[31m\x00\x07\u202e<script>\ud800" + "x" * 100_000


class Strange(Exception):
    pass


Strange.__name__ = STRANGE.replace("\ud800", "").replace("\x00", "")  # of which the name of a class has none


def test_names_reach_the_log_on_one_short_line(listen):
    """Newlines, control characters, escapes, half characters and marks that turn the writing, of any length."""
    kept = listen()
    process = Process(STRANGE)
    process.add_task(task(name=STRANGE)(throw), Strange())
    with pytest.raises(Strange):
        process.execute()
    texts = [text for record in kept.records for text in fields(record).values() if isinstance(text, str)]
    assert len(texts) > 6
    for text in texts:
        assert text.isprintable()
        assert len(text) < 500
        text.encode()


def test_callables_that_hide_their_name_can_be_told(listen):
    """They go by their type; what their own code raises when they are asked does not matter."""

    class Shy:
        @property
        def name(self):
            raise LookupError("not now")

        def __call__(self):
            raise KeyError("no")

    kept = listen()
    process = Process("shy")
    process.add_task(Shy())
    with pytest.raises(KeyError) as caught:
        process.execute()
    assert caught.value.__notes__ == ["in process 'shy', task 0 (Shy), attempt 1"]
    assert {record.task_name for record in kept.records if hasattr(record, "index")} == {"Shy"}
    assert "Shy" in process.last_run.summary()


def test_nothing_is_shown_until_an_application_asks(capfd):
    """Not even failures, which Python shows of a logger without handlers."""
    LOGGER.propagate = False  # pytest listens at the root
    try:
        process = Process("quiet")
        process.add_task(throw, KeyError("no"))
        with pytest.raises(KeyError):
            process.execute()
    finally:
        LOGGER.propagate = True
    assert LOGGER.level == logging.NOTSET
    assert capfd.readouterr() == ("", "")


def test_the_level_and_handlers_of_the_root_are_enough(caplog):
    """An application that sets up logging as usual sees everything."""
    caplog.set_level(logging.DEBUG)
    process = Process("root")
    process.add_task(same, 1)
    process.execute()
    assert [record.getMessage() for record in caplog.records] == [
        "run_started",
        "task_started",
        "task_completed",
        "run_completed",
    ]


# What it costs


def calls_into_logging(strategy, count):
    """Return the calls that a run of so many tasks makes of what logs, and of the question whether anyone listens."""
    calls = []  # appended to by several threads

    def watch(frame, event, _):
        name = frame.f_code.co_name
        if event == "call" and (name == "isEnabledFor" or frame.f_globals["__name__"].startswith("procession.observe")):
            calls.append(name)

    process = Process("silent", strategy, 2)
    for _ in range(count):
        process.add_task(int)
    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        process.execute()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return calls


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_task_costs_nothing_while_nobody_listens(listen, strategy):
    """The log is asked a few times a run, however many its tasks, and makes no record."""
    kept = listen(logging.WARNING)
    few, many = calls_into_logging(strategy, 2), calls_into_logging(strategy, 500)
    assert many == few != []
    assert kept.records == []


def test_neither_processes_nor_tasks_have_loggers_of_their_own():
    """A program that makes many of them does not grow."""
    before = set(logging.root.manager.loggerDict)
    for number in range(20):
        process = Process(f"process {number}")
        process.add_task(task(name=f"task {number}")(same), 1)
        process.execute()
    assert set(logging.root.manager.loggerDict) == before


def test_a_level_that_changes_during_a_run_counts_from_the_next(listen):
    """Whether steps are told is decided once a run."""
    kept = listen(logging.INFO)
    process = Process("level", on_error="return")
    process.add_task(LOGGER.setLevel, logging.DEBUG)
    process.add_task(same, 1)
    process.execute()
    assert kept.said("task_started", "task_completed") == []
    process.execute()
    assert len(kept.said("task_started", "task_completed")) == 4


# What it cannot harm


class Broken(logging.Handler):
    """A handler whose filter raises, where logging has no guard."""

    def __init__(self, when, error):
        super().__init__()
        self.when = when
        self.error = error

    def filter(self, record):
        if record.getMessage() in self.when:
            raise self.error
        return False


EVENTS = ["run_started", "task_started", "task_completed", "task_retrying", "task_failed", "run_completed"]


@pytest.mark.parametrize("when", [[name] for name in EVENTS] + [EVENTS], ids=[*EVENTS, "all"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_handler_that_raises_harms_no_run(listen, capsys, strategy, when):
    """It is told on the standard error stream, as logging does, and the run is what it would have been."""
    listen(handler=Broken(when, LookupError("broken handler")))
    rules = tenacity.Retrying(stop=tenacity.stop_after_attempt(2), wait=tenacity.wait_none())
    process = Process("harmless", strategy, 2, on_error="return")
    handle = process.task(same, 1)
    process.add_task(same, handle)
    process.map(same, [1, 2])
    process.add_task(task(retries=rules)(lambda: 7 // (current_task().attempt - 1)))
    error = KeyError("no")
    process.add_task(throw, error)
    assert process.execute() == [1, 1, [1, 2], 7, error]
    assert process.status == process.last_run.status == "completed"
    assert [outcome.state for outcome in process.last_run.outcomes] == ["completed"] * 4 + ["failed"]
    told = capsys.readouterr().err
    assert "LookupError: broken handler" in told
    assert "Traceback" in told


def test_a_handler_that_raises_is_not_told_where_logging_is_not_to_tell(listen, capsys, monkeypatch):
    """`logging.raiseExceptions` says so for a whole program."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    listen(handler=Broken(EVENTS, LookupError("broken handler")))
    process = Process("quiet")
    process.add_task(same, 1)
    assert process.execute() == [1]
    assert capsys.readouterr().err == ""


def test_a_program_without_an_error_stream_is_not_harmed_either(listen, monkeypatch):
    """As one without a console."""
    listen(handler=Broken(EVENTS, LookupError("broken handler")))
    process = Process("no stream")
    process.add_task(same, 1)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", None)
        assert process.execute() == [1]


def test_records_that_a_program_has_its_own_fields_in_are_told_all_the_same(listen):
    """Even under one of our names: ours is what the event is about."""
    kept, make = listen(), logging.getLogRecordFactory()

    def factory(*args, **kwargs):
        record = make(*args, **kwargs)
        record.run_id = record.tenant = "theirs"
        return record

    process = Process("factory")
    process.add_task(same, 1)
    logging.setLogRecordFactory(factory)
    try:
        process.execute()
    finally:
        logging.setLogRecordFactory(make)
    assert len(kept.records) == 4
    assert {(record.run_id, record.tenant) for record in kept.records} == {(process.last_run.id, "theirs")}


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize(
    "when", ["run_started", "task_started", "task_completed", "task_failed", "run_completed", "run_failed"]
)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_ctrl_c_while_an_event_is_told_leaves_no_run_running(listen, strategy, when, error):
    """Wherever it comes: process and run have ended, and the process can be used again."""
    handler = listen(handler=Broken([when], error()))
    process = Process("interrupted", strategy, 2)
    process.add_task(same, 1)
    process.add_task(throw, KeyError("no")) if "failed" in when else process.add_task(same, 2)
    with pytest.raises((error, KeyError)):
        process.execute()
    LOGGER.removeHandler(handler)
    run = process.last_run
    assert process.status in ("failed", "completed")
    assert run.status != "running"
    assert "running" not in [outcome.state for outcome in run.outcomes]
    assert run.wait(0)
    if "failed" not in when:
        assert process.execute() == [1, 2]
