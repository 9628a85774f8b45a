"""Tasks that wait for an answer: they are left, the run ends as suspended, and it goes on when it is executed again."""

import asyncio
import json
import threading
import time

import pytest
import tenacity

from journals import Keyed
from procession import (
    Process,
    ResultError,
    RunCancelledError,
    RunSuspendedError,
    TaskSuspended,
    TaskTimeoutError,
    current_task,
    stream,
    task,
)
from procession.journal import Journal, schema
from procession.testing import memory_journal

MADE = []
GATE = threading.Event()


@pytest.fixture(autouse=True)
def fresh():
    MADE.clear()
    GATE.clear()


@pytest.fixture
def journal():
    with memory_journal() as opened:
        yield opened


def made():
    found, MADE[:] = sorted(MADE, key=repr), []
    return found


def note(value):
    MADE.append(value)
    return value


async def note_later(value):
    MADE.append(value)
    await asyncio.sleep(0)
    return value


def wait_for_approval():
    return current_task().wait_for("approval")


def approve(number):
    """Make a call, and wait for an approval."""
    me = current_task()
    try:
        paid = me.call(note, number)
        answer = me.wait_for("approval", timeout=3600)
    finally:
        MADE.append("left")
    return paid, answer


async def approve_later(number):
    me = current_task()
    try:
        paid = await me.call(note_later, number)
        answer = me.wait_for("approval", timeout=3600)
    finally:
        MADE.append("left")
    return paid, answer


def approve_element(number):
    return number, current_task().wait_for("approval") if number % 2 else None


async def approve_element_later(number):
    return number, current_task().wait_for("approval") if number % 2 else None


def three(function, strategy="sequential", **options):
    process = Process("three", strategy, 2, **options)
    process.add_task(note, 1)
    process.add_task(function, 5)
    process.add_task(note, 7)
    return process


def suspended(process, journal, match="approval"):
    with pytest.raises(RunSuspendedError, match=match):
        process.execute(run_id="a", journal=journal)
    assert process.status == "failed"
    assert process.last_run.status == "suspended"


def waiting(journal, run_id="a"):
    """Return what the tasks of a run wait for that are not answered."""
    return [(one.task, one.element, one.name) for one in journal.run(run_id).waits if not one.answered]


def until_it_waits(journal, run_id="a"):
    """Return once a task of a run that goes on waits."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with journal.reader() as reader:
            if reader.waits(reader.key(run_id)):
                return
        time.sleep(0.01)
    raise AssertionError("nothing waits")


@pytest.mark.parametrize("function", [approve, approve_later])
@pytest.mark.parametrize(("strategy", "first"), [("sequential", ["left", 1, 5]), ("parallel", ["left", 1, 5, 7])])
def test_a_run_waits_and_goes_on_when_it_is_answered(function, strategy, first, journal):
    """Without the answer it is suspended each time; with it, only what has not ended is called, and no call again."""
    process = three(function, strategy)
    suspended(process, journal)
    assert made() == first
    suspended(process, journal)
    assert made() == ["left"]
    assert waiting(journal) == [(1, None, "approval")]
    assert journal.run("a").status == "suspended"
    journal.answer("a", "approval", {"by": "Ann"})
    assert waiting(journal) == []
    assert process.execute(run_id="a", journal=journal) == [1, (5, {"by": "Ann"}), 7]
    assert made() == (["left"] if 7 in first else ["left", 7])
    assert process.status == "completed"
    assert journal.run("a").waits == ()
    assert process.execute(run_id="a", journal=journal) == [1, (5, {"by": "Ann"}), 7]
    assert made() == []


def test_the_states_say_who_waits(journal):
    """The task that was left is suspended, and whatever takes its value is waiting."""
    process = Process("taken", "parallel", 2)
    approval = process.task(approve, 5)
    process.add_task(note, approval)
    process.add_task(note, 1)
    suspended(
        process, journal, r"run 'a' of process 'taken' is suspended: task 0 \(approve\) waits for 'approval' until"
    )
    run = process.last_run
    assert [outcome.state for outcome in run.outcomes] == ["suspended", "waiting", "completed"]
    with pytest.raises(RunSuspendedError, match="task 0"):
        _ = run[approval]
    journal.answer("a", "approval", True)
    assert process.execute(run_id="a", journal=journal) == [(5, True), (5, True), 1]


def test_nothing_is_held_by_a_run_that_waits(journal):
    """Its lease is let go, and no thread is left but that of the journal."""
    suspended(three(approve, "parallel"), journal)
    with journal.database.reading() as connection:
        assert connection.execute(schema.runs.select()).one().token is None
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("procession-three")]


@pytest.mark.parametrize("function", [approve, approve_later])
@pytest.mark.parametrize("retries", [0, 2])
def test_an_answer_is_taken_while_the_run_goes_on(function, retries, journal):
    """The task is called again as soon as another task, which goes on, gives it the time."""

    def hold():
        assert GATE.wait(10)
        return "held"

    function = task(retries=retries)(function)
    process = Process("two", "parallel", 2)
    process.add_task(function, 5)
    process.add_task(hold)
    run = process.start(run_id="a", journal=journal)
    until_it_waits(journal)
    assert run.status == "running"
    journal.answer("a", "approval", "yes")
    until = time.monotonic() + 10
    while run.outcomes[0].state != "completed" and time.monotonic() < until:
        time.sleep(0.01)
    GATE.set()
    assert run.result() == [(5, "yes"), "held"]
    assert journal.run("a").executions == 1


def test_a_failure_outranks_a_wait(journal):
    """The run has failed, and waits for what it waited for when it is executed again."""

    def fail():
        assert GATE.wait(10)
        raise ValueError("no")

    process = Process("failing", "parallel", 2)
    process.add_task(approve, 5)
    process.add_task(fail)
    run = process.start(run_id="a", journal=journal)
    until_it_waits(journal)
    GATE.set()
    with pytest.raises(ValueError, match="no"):
        run.result()
    assert run.status == "failed"
    assert journal.run("a").status == "failed"
    journal.answer("a", "approval", 1)  # it is kept for the next time


def test_a_run_with_failures_among_its_results_waits(journal):
    """What failed under on_error="return" is a result, and the run is suspended all the same."""

    def fail():
        raise ValueError("no")

    process = Process("failing", "parallel", 2, on_error="return")
    process.add_task(fail)
    process.add_task(approve, 5)
    suspended(process, journal)
    journal.answer("a", "approval", 1)
    error, value = process.execute(run_id="a", journal=journal)
    assert isinstance(error, ValueError)
    assert value == (5, 1)


@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_a_map_of_which_an_element_has_failed_and_another_waits_has_not_ended(strategy, executor, journal):
    """Under on_error="return", too, no value stands for the element that waits, and its answer is taken."""
    process = Process("failing", strategy, 2, on_error="return", executor=executor)
    process.map(fail_or_approve, range(3))
    suspended(process, journal, "element 1 waits for 'approval'")
    journal.answer("a", "approval", "yes")
    [[first, *others]] = process.execute(run_id="a", journal=journal)
    assert isinstance(first, ValueError)
    assert others == ["yes", 2]


def fail_or_approve(number):
    if number == 0:
        raise ValueError("no")
    return current_task().wait_for("approval") if number == 1 else number


def test_a_cancelled_run_is_not_suspended(journal):
    def hold():
        current_task().sleep(30)

    process = Process("cancelled", "parallel", 2)
    process.add_task(approve, 5)
    process.add_task(hold)
    run = process.start(run_id="a", journal=journal)
    until_it_waits(journal)
    run.cancel()
    with pytest.raises(RunCancelledError):
        run.result()


@pytest.mark.parametrize("function", [approve_element, approve_element_later])
@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
@pytest.mark.parametrize("on_error", ["stop", "return"])
def test_each_element_of_a_map_has_an_answer_of_its_own(function, strategy, on_error, journal):
    """All of them are asked for at once; the elements that do not wait have ended."""
    process = Process("map", strategy, 2, on_error=on_error)
    process.map(function, range(5))
    suspended(process, journal, r"element [13] waits for 'approval' \(and 1 more\)")
    assert waiting(journal) == [(0, 1, "approval"), (0, 3, "approval")]
    assert {one.element for one in journal.tasks("a", task=0)} == {0, 2, 4}
    assert process.last_run.progress.failed == 0
    journal.answer("a", "approval", "one", element=1)
    suspended(process, journal, "element 3 waits for 'approval'")
    journal.answer("a", "approval", "three")
    assert process.execute(run_id="a", journal=journal) == [[(0, None), (1, "one"), (2, None), (3, "three"), (4, None)]]


def test_who_takes_elements_as_they_end_is_not_told_that_there_are_no_more(journal):
    """A sink is left where an element waits, and is called again with all of them."""

    def write(rows):
        written = list(rows)
        MADE.append(len(written))
        return written

    process = Process("sink", "parallel", 3)
    rows = process.map(approve_element, range(300))
    doubled = process.map(note, rows)
    process.add_task(write, stream(doubled))
    suspended(process, journal)
    assert [outcome.state for outcome in process.last_run.outcomes] == ["suspended"] * 3
    while (end := executed(process, journal)) is None:
        assert not [one for one in made() if isinstance(one, int)]
        for _, element, name in waiting(journal):
            journal.answer("a", name, "yes", element=element)
    assert end[0] == end[1] == end[2] == [(number, "yes" if number % 2 else None) for number in range(300)]
    assert [one for one in made() if isinstance(one, int)] == [300]


def executed(process, journal):
    try:
        return process.execute(run_id="a", journal=journal)
    except RunSuspendedError:
        return None


@pytest.mark.parametrize("call", ["task", "call"])
def test_a_run_waits_with_a_run_that_is_nested_in_it(call, journal):
    """The answer is for the nested run, and is given through the run around it, or by its own id."""
    inner = Process("inner")
    inner.add_task(approve, 5)
    outer = Process("outer", "parallel", 2)
    if call == "task":
        outer.add_task(inner)
    else:
        outer.add_task(lambda: current_task().call(inner))
    outer.add_task(note, 1)
    suspended(outer, journal, r"run 'a/0(#0)?', in which task 0 \(approve\) waits for 'approval'")
    nested = "a/0" if call == "task" else "a/0#0"
    assert [(one.run, one.name) for one in journal.run("a").waits] == [(nested, "approval")]
    assert journal.run(nested).status == "suspended"
    journal.answer("a", "approval", "yes")
    assert outer.execute(run_id="a", journal=journal) == [[(5, "yes")], 1]


def test_a_wait_with_a_timeout_ends_with_an_error(journal):
    """The task learns of it when it is called again, and each time after that; an answer comes too late."""

    def ask():
        me = current_task()
        try:
            return me.wait_for("approval", timeout=3600)
        except TimeoutError as error:
            MADE.append(type(error))
            return "nobody came"

    process = Process("asked")
    process.add_task(ask)
    suspended(process, journal)
    pass_time(journal)
    with pytest.raises(ValueError, match="waits for 'approval' no longer: its time is up"):
        journal.answer("a", "approval", 1)
    assert process.execute(run_id="a", journal=journal) == ["nobody came"]
    assert made() == [TaskTimeoutError]


def pass_time(journal):
    """Have all that anybody waits for be due."""
    with journal.database.writing() as connection:
        connection.execute(schema.waits.update().values(due=1.0))


def test_several_waits_of_a_task_have_names_of_their_own(journal):
    def ask():
        me = current_task()
        return [me.wait_for(f"approval {number}") for number in range(3)]

    process = Process("asked")
    process.add_task(ask)
    for number in range(3):
        suspended(process, journal)
        assert waiting(journal) == [(0, None, f"approval {number}")]
        journal.answer("a", f"approval {number}", number)
    assert process.execute(run_id="a", journal=journal) == [[0, 1, 2]]


def test_a_wait_uses_up_no_attempt(journal):
    """A task with retries is not tried again where it waits, and has all of them afterwards."""
    failed = []

    @task(retries=1)
    def ask():
        answer = current_task().wait_for("approval")
        if not failed:
            failed.append(current_task().attempt)
            raise ConnectionError("once")
        return answer

    process = Process("retried", "parallel", 2)
    process.add_task(ask)
    suspended(process, journal)
    suspended(process, journal)
    journal.answer("a", "approval", "yes")
    assert process.execute(run_id="a", journal=journal) == ["yes"]
    assert failed == [1]


@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
@pytest.mark.parametrize("own", [False, True])
def test_a_task_that_was_tried_again_waits_too(strategy, own, journal):
    """By rules of its own or not: it is told of once, and succeeds with its answer."""
    told = []

    class Told:
        immediate = True

        def on_event(self, event):
            if event.name == "task_suspended":
                told.append((event.index, event.attempt))

    once = tenacity.Retrying(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_none())

    @task(retries=once if own else 1)
    def ask():
        if current_task().attempt == 1:
            raise ConnectionError("once")
        return current_task().attempt, current_task().wait_for("approval")

    process = Process("retried", strategy, 2, observers=[Told()])
    process.add_task(ask)
    suspended(process, journal)
    assert told == [(0, 2)]
    journal.answer("a", "approval", "yes")
    assert process.execute(run_id="a", journal=journal) == [(2, "yes")]


def test_who_swallows_exceptions_does_not_swallow_the_signal(journal):
    def ask():
        try:
            return current_task().wait_for("approval")
        except Exception:
            return "swallowed"

    process = Process("asked")
    process.add_task(ask)
    suspended(process, journal)
    assert not issubclass(TaskSuspended, Exception)


def swallow(_=None):
    try:
        return current_task().wait_for("approval")
    except BaseException:
        return "swallowed"


async def swallow_later(_=None):
    return swallow()


def swallow_sleep(_=None):
    try:
        current_task().sleep(3600)
    except BaseException:
        return "swallowed"


@pytest.mark.parametrize(
    ("function", "executor"),
    [
        (swallow, "threads"),
        (swallow_later, "threads"),
        (swallow_sleep, "threads"),
        (swallow, "processes"),
        (task(retries=1)(swallow), "threads"),
        (task(executor="processes")(swallow), "threads"),
    ],
)
@pytest.mark.parametrize("is_map", [False, True])
def test_who_swallows_the_signal_is_left_all_the_same(function, executor, is_map, journal):
    """What such a task or element returns is no value of it: else a run with a task that waits would complete."""
    process = Process("asked", "parallel", 2, executor=executor)
    if is_map:
        process.map(function, [1])
    else:
        process.add_task(function)
    suspended(process, journal, "waits for|sleeps")
    suspended(process, journal, "waits for|sleeps")
    if function is not swallow_sleep:
        journal.answer("a", "approval", "yes")
        assert process.execute(run_id="a", journal=journal) == [["yes"] if is_map else "yes"]


def test_the_id_of_a_forgotten_task_is_waited_for_anew(journal):
    """Where changes are allowed, a changed task has no answers of the one before."""
    suspended(three(approve), journal)
    journal.answer("a", "approval", "old")
    changed = three(approve_later)
    with pytest.raises(RunSuspendedError):
        changed.execute(run_id="a", journal=journal, allow_changes=True)
    assert waiting(journal) == [(1, None, "approval")]


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_an_answer_that_cannot_be_read_is_waited_for_anew_where_changes_are_allowed(executor, tmp_path):
    """Without that the run fails plainly, and the answer stays."""
    process = Process("unreadable", "parallel", executor=executor, max_workers=1)
    process.add_task(wait_for_approval)
    with Journal(tmp_path / "runs.db", codec=Keyed("one")) as journal:
        with pytest.raises(RunSuspendedError):
            process.execute(run_id="a", journal=journal)
        journal.answer("a", "approval", "yes")
    with Journal(tmp_path / "runs.db", codec=Keyed("two")) as journal:
        with pytest.raises(ResultError, match="answer 'approval'"):
            process.execute(run_id="a", journal=journal)
        with pytest.raises(RunSuspendedError):
            process.execute(run_id="a", journal=journal, allow_changes=True)
        journal.answer("a", "approval", "no")
        assert process.execute(run_id="a", journal=journal) == ["no"]


def test_a_deleted_run_leaves_nothing_behind(journal):
    suspended(three(approve), journal)
    journal.delete("a")
    with journal.database.reading() as connection:
        assert connection.execute(schema.waits.select()).all() == []


@pytest.mark.parametrize("function", [approve, approve_later])
def test_a_run_without_a_journal_cannot_wait(function):
    process = Process("unrecorded")
    process.add_task(function, 1)
    with pytest.raises(RuntimeError, match=r"task 0 \(approve.*waits for 'approval', and its run has no journal"):
        process.execute()


def test_a_recorded_call_cannot_wait(journal):
    def ask():
        return current_task().wait_for("approval")

    process = Process("inside")
    process.add_task(lambda: current_task().call(ask))
    with pytest.raises(RuntimeError, match=r"call 0 \(.*ask\) of .* waits itself, which only a task may"):
        process.execute(run_id="a", journal=journal)


@pytest.mark.parametrize(
    ("name", "timeout", "error", "match"),
    [
        (3, None, TypeError, "which is a str; got 3"),
        ("", None, ValueError, "1 to 200 characters"),
        ("x" * 201, None, ValueError, "1 to 200 characters"),
        ("a\0b", None, ValueError, "all printable"),
        ("a", "3", TypeError, "a number of seconds"),
        ("a", 0, ValueError, "above 0"),
        ("a", float("inf"), ValueError, "finite"),
    ],
)
def test_what_is_no_name_or_timeout_is_refused(name, timeout, error, match, journal):
    process = Process("refused")
    process.add_task(lambda: current_task().wait_for(name, timeout=timeout))
    with pytest.raises(error, match=match):
        process.execute(run_id="a", journal=journal)
