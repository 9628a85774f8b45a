"""A task with recorded calls that is called again takes the path that it took, or is refused."""

import asyncio
import sqlite3
import threading
from contextlib import closing, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procession import PlanChangedError, Process, ResultError, RunSuspendedError, current_task
from procession.journal import Journal
from procession.testing import memory_journal

MADE = []
FAILS = []
CUT = []
GATES = []
TOPIC = []
SENT = []


@pytest.fixture(autouse=True)
def clean():
    for state in (MADE, FAILS, CUT, GATES, SENT):
        state.clear()


def step(name):
    MADE.append(name)
    if name in FAILS:
        FAILS.remove(name)
        raise ValueError(name)
    return name


async def astep(name):
    MADE.append(name)
    if name in FAILS:
        FAILS.remove(name)
        raise ValueError(name)
    if FAILS:  # which cancels this one
        await asyncio.Event().wait()
    return name


class Locked(Exception):
    """No codec takes it."""

    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


def odd():
    if FAILS:
        FAILS.pop()
        raise Locked("odd")
    return "even"


def cut():
    if CUT:
        CUT.pop()
        raise ConnectionError("cut off")


def one(function, *args, strategy="sequential", **options):
    process = Process("one", strategy, **options)
    process.add_task(function, *args)
    return process


def execute(process, where, **options):
    return process.execute(run_id="a", journal=where, **options)


def cut_off(process, where):
    CUT.append(True)
    with pytest.raises(ConnectionError):
        execute(process, where)
    MADE.clear()


def suspend(process, where):
    with pytest.raises(RunSuspendedError):
        execute(process, where)


def answer(where, value, name="word", **place):
    with Journal(where) as journal:
        journal.answer("a", name, value, **place)


# Failures that the task knew of


@pytest.mark.parametrize("failing", ["a", "b", "c", "d"])
def test_a_failure_in_a_map_of_coroutines_is_raised_again_if_the_task_had_gone_on(tmp_path, failing):
    """Those beside it were cancelled, and so have no records: they do not hide that the task knew of the failure."""

    async def crawl():
        me = current_task()
        try:
            found = await me.map(astep, "abcd")
        except ValueError:
            found = "fallback"
        await me.call(astep, "end")
        cut()
        return found

    FAILS.append(failing)
    cut_off(one(crawl), tmp_path / "runs.db")
    assert execute(one(crawl), tmp_path / "runs.db") == ["fallback"]
    assert MADE == []


def test_a_failure_beside_a_call_that_goes_on_is_raised_again_if_the_task_had_gone_on(tmp_path):
    """The task goes on from it while a call that began before it has not ended."""

    async def crawl():
        GATES.append(asyncio.Event())
        me = current_task()
        beside = asyncio.ensure_future(me.call(held))
        try:
            found = await me.call(astep, "a")
        except ValueError:
            found = "fallback"
        end = await me.call(astep, "end")
        GATES[-1].set()
        await beside
        cut()
        return found, end

    FAILS.append("a")
    cut_off(one(crawl), tmp_path / "runs.db")
    assert execute(one(crawl), tmp_path / "runs.db") == [("fallback", "end")]
    assert MADE == []


async def held():
    await GATES[-1].wait()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_after_a_map_that_failed_is_raised_again_if_the_task_had_gone_on(tmp_path, workers):
    """Of the map, calls were left out: they are not waited for."""

    def crawl():
        me = current_task()
        path = []
        for call in (lambda: me.map(step, "abcdef"), lambda: me.call(step, "g"), lambda: me.call(step, "h")):
            try:
                path.append(call())
            except ValueError as error:
                path.append(f"no {error}")
        cut()
        return path

    FAILS.extend("ag")
    cut_off(one(crawl, max_workers=workers, strategy="parallel"), tmp_path / "runs.db")
    assert execute(one(crawl, max_workers=workers, strategy="parallel"), tmp_path / "runs.db") == [
        ["no a", "no g", "h"]
    ]
    assert MADE == []


def test_a_call_that_was_cancelled_does_not_hide_a_failure_after_it(tmp_path):
    async def crawl():
        me = current_task()
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                await me.call(asyncio.sleep, 0.0)
        try:
            found = await me.call(astep, "a")
        except ValueError:
            found = "fallback"
        await me.call(astep, "end")
        cut()
        return found

    FAILS.append("a")
    cut_off(one(crawl), tmp_path / "runs.db")
    assert execute(one(crawl), tmp_path / "runs.db") == ["fallback"]
    assert MADE == []


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_a_failure_after_which_the_task_has_waited_is_raised_again(tmp_path, executor):
    process = one(asks_after_failure, tmp_path / "failed", strategy="parallel", executor=executor, max_workers=1)
    suspend(process, tmp_path / "runs.db")
    answer(tmp_path / "runs.db", "stop")
    assert execute(process, tmp_path / "runs.db") == ["stop"]
    assert (tmp_path / "failed").read_text() == "x"


def fails_first(marks):
    with open(marks, "a") as file:
        file.write("x")
    if marks.read_text() == "x":
        raise ValueError("first")
    return "went well"


def asks_after_failure(marks):
    me = current_task()
    try:
        return me.call(fails_first, marks)
    except ValueError:
        return me.wait_for("word")


def test_a_failure_after_which_the_task_has_slept_is_raised_again(tmp_path):
    def sleeps():
        me = current_task()
        try:
            return me.call(step, "a")
        except ValueError:
            me.sleep(3600)
        return "slept"

    FAILS.append("a")
    suspend(one(sleeps), tmp_path / "runs.db")
    with closing(sqlite3.connect(tmp_path / "runs.db")) as connection, connection:
        connection.execute("UPDATE procession_waits SET due = 1")
    assert execute(one(sleeps), tmp_path / "runs.db") == ["slept"]
    assert MADE == ["a"]


@pytest.mark.parametrize("codec", ["pickle", "json"])
def test_a_failure_that_cannot_be_raised_again_is_refused_if_the_task_had_gone_on(tmp_path, codec):
    """Neither is the call made again, which might succeed now: what the task did next followed from its failure."""

    def goes_on():
        me = current_task()
        try:
            found = me.call(odd)
        except Locked:
            found = "fallback"
        me.call(step, "end")
        cut()
        return found

    FAILS.append("odd")
    with Journal(tmp_path / "runs.db", codec=codec) as journal:
        cut_off(one(goes_on), journal)
        with pytest.raises(ResultError, match=r"call 0 .*odd\) had failed \(Locked: odd\), and the task went on"):
            execute(one(goes_on), journal)
        assert MADE == []
        assert execute(one(goes_on), journal, allow_changes=True) == ["even"]
        assert MADE == ["end"]


# What is refused


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_a_task_fails_that_catches_what_refuses_its_call(tmp_path, executor):
    """Else it would succeed with what it makes of that, and be recorded so."""
    step_name = tmp_path / "step"
    process = one(catches_all, step_name, strategy="parallel", executor=executor, max_workers=1)
    step_name.write_text("a")
    (tmp_path / "cut").touch()
    with pytest.raises(ConnectionError):
        execute(process, tmp_path / "runs.db")
    step_name.write_text("b")
    for _ in range(2):
        with pytest.raises(PlanChangedError, match="call 0"):
            execute(process, tmp_path / "runs.db")
    step_name.write_text("a")
    assert execute(process, tmp_path / "runs.db") == ["a"]


def catches_all(path):
    try:
        found = current_task().call(step, path.read_text())
    except Exception:
        found = "fallback"
    if (path.parent / "cut").exists():
        (path.parent / "cut").unlink()
        raise ConnectionError("cut off")
    return found


def test_an_element_fails_that_catches_what_refuses_its_call(tmp_path):

    def catches(_):
        try:
            found = current_task().call(step, TOPIC[-1])
        except Exception:
            found = "fallback"
        cut()
        return found

    process = Process("one", "parallel", 1)
    process.map(catches, [0])
    TOPIC[:] = ["a"]
    cut_off(process, tmp_path / "runs.db")
    TOPIC[:] = ["z"]
    with pytest.raises(PlanChangedError, match="call 0"):
        execute(process, tmp_path / "runs.db")
    TOPIC[:] = ["a"]
    assert execute(process, tmp_path / "runs.db") == [["a"]]


# What follows from a call


def publish():
    me = current_task()
    me.wait_for("go")
    text = me.call(step, TOPIC[-1])
    me.sleep(1e-6)
    if not me.wait_for("word"):
        return "dropped"
    cut()
    SENT.append(text)
    return "sent"


def test_an_answer_is_forgotten_with_the_call_that_came_before_it(tmp_path):
    """What was approved was another text. What was answered before the call stays."""
    where = tmp_path / "runs.db"
    TOPIC[:] = ["rain"]
    suspend(one(publish), where)
    answer(where, True, name="go")
    suspend(one(publish), where)
    answer(where, True)
    cut_off(one(publish), where)
    TOPIC[:] = ["snow"]
    with pytest.raises(PlanChangedError, match="call 0"):
        execute(one(publish), where)
    with pytest.raises(RunSuspendedError, match="waits for 'word'"):
        execute(one(publish), where, allow_changes=True)
    assert SENT == []
    answer(where, True)
    assert execute(one(publish), where) == ["sent"]
    assert SENT == ["snow"]


# What was recorded within an element


def approved(page):
    me = current_task()
    found = me.call(step, "draft")
    return page, found, me.wait_for("word")


def approval_of(pages):
    process = Process("one", "parallel", 1)
    process.map(approved, (page for page in pages))
    return process


def test_an_answer_for_one_element_is_not_taken_for_another(tmp_path):
    """Nor is a recorded call: what a generator gives another time need not be what it gave at first."""
    where = tmp_path / "runs.db"
    suspend(approval_of("ab"), where)
    for element in range(2):
        answer(where, True, element=element)
    with pytest.raises(PlanChangedError, match="element 1 is not the one that was recorded"):
        execute(approval_of("ac"), where)
    MADE.clear()
    with pytest.raises(RunSuspendedError, match="element 1 waits for 'word'"):
        execute(approval_of("ac"), where, allow_changes=True)
    assert MADE == ["draft"]
    answer(where, False)
    assert execute(approval_of("ac"), where) == [[("a", "draft", True), ("c", "draft", False)]]


def test_an_answer_for_an_element_that_had_ended_is_not_taken_for_another(tmp_path):
    where = tmp_path / "runs.db"
    suspend(approval_of("ab"), where)
    answer(where, True, element=0)
    suspend(approval_of("ab"), where)
    with pytest.raises(RunSuspendedError, match=r"element 0 waits for 'word' \(and 1 more\)"):
        execute(approval_of("cb"), where, allow_changes=True)


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_calls_of_an_element_are_not_those_of_another(tmp_path, executor):
    """On worker processes, the coordinator knows which element it is."""

    def process(pages):
        found = Process("one", "parallel", 1, executor=executor)
        found.map(drafted, [(page, tmp_path / "cut") for page in pages])
        return found

    (tmp_path / "cut").touch()
    where = tmp_path / "runs.db"
    with pytest.raises(ConnectionError):
        execute(process("a"), where)
    (tmp_path / "cut").unlink()
    assert [call.state for call in calls_of(where)] == ["completed"]
    before = calls_of(where)
    assert execute(process("b"), where, allow_changes=True) == [["draft"]]
    assert calls_of(where) != before


def drafted(given):
    found = current_task().call(step, "draft")
    if given[1].exists():
        raise ConnectionError("cut off")
    return found


def calls_of(where):
    with Journal(where) as journal:
        return journal.calls("a", 0)


# Any path


OPS = []
RETURNED = []
FAILED = set()
CRASH_AT = []


def work(place, number, fails):
    if fails and (place, number) not in FAILED:
        FAILED.add((place, number))
        raise ValueError(place, number)
    RETURNED.append((place, number))
    return number


async def work_later(place, number, fails):
    await asyncio.sleep(0)
    return work(place, number, fails)


def work_on(item):
    return work(*item)


async def work_on_later(item):
    return await work_later(*item)


def crash_before(place):
    if place in CRASH_AT:
        CRASH_AT.remove(place)
        raise ConnectionError("cut off")


def walk():
    me, path = current_task(), []
    for place, op in enumerate(OPS):
        crash_before(place)
        if op == "wait":
            path.append(me.wait_for(f"word {place}"))
            continue
        try:
            items = [(place, number, fails) for number, fails in enumerate(op)]
            path.append(me.call(work, *items[0]) if len(op) == 1 else me.map(work_on, items))
        except ValueError as error:
            path.append(f"failed {error.args[0]}")
    crash_before(len(OPS))
    return path


async def walk_later():
    me, path = current_task(), []
    for place, op in enumerate(OPS):
        crash_before(place)
        if op == "wait":
            path.append(me.wait_for(f"word {place}"))
            continue
        try:
            items = [(place, number, fails) for number, fails in enumerate(op)]
            path.append(await (me.call(work_later, *items[0]) if len(op) == 1 else me.map(work_on_later, items)))
        except ValueError as error:
            path.append(f"failed {error.args[0]}")
    crash_before(len(OPS))
    return path


def first_way(place, op, crashes):
    """Return how a step ends whose calls fail once: its failure stays, unless the run is cut off before the next one."""
    if op == "wait":
        return "yes"
    if any(op) and place + 1 not in crashes:
        return f"failed {place}"
    return 0 if len(op) == 1 else list(range(len(op)))


@settings(max_examples=60)
@given(
    st.lists(st.just("wait") | st.lists(st.booleans(), min_size=1, max_size=4), min_size=1, max_size=6),
    st.sets(st.integers(0, 6), max_size=3),
    st.sampled_from([walk, walk_later]),
    st.integers(1, 3),
)
def test_a_task_that_is_cut_off_anywhere_goes_the_way_that_it_had_gone(ops, crashes, function, workers):
    """Whatever has failed on it, and whatever it has waited for; and no call that had returned is made again."""
    for state in (RETURNED, FAILED):
        state.clear()
    # A step of which several fail may fail once for each where it is cut off: one failure says all that matters.
    OPS[:] = [op if op == "wait" else [fails and True not in op[:at] for at, fails in enumerate(op)] for op in ops]
    CRASH_AT[:] = [place for place in crashes if place <= len(ops)]
    process = one(function, strategy="parallel", max_workers=workers)
    with memory_journal() as journal:
        for _ in range(20):
            try:
                [path] = execute(process, journal)
                break
            except ConnectionError:
                pass
            except RunSuspendedError:
                [wait] = journal.run("a").waits
                journal.answer("a", wait.name, "yes")
    assert path == [first_way(place, op, crashes) for place, op in enumerate(OPS)]
    assert len(RETURNED) == len(set(RETURNED))


# Keys


def ask(question):
    MADE.append((question, current_task().key))
    cut()
    return question


def test_a_changed_call_has_another_key(tmp_path):
    """Else a service that knows requests by their keys would give it the answer to the one before."""

    def asks():
        return current_task().call(ask, TOPIC[-1])

    for TOPIC[:], options in ((["rain"], {}), (["rain"], {}), (["snow"], {"allow_changes": True})):
        CUT.append(True)
        with pytest.raises(ConnectionError):
            execute(one(asks), tmp_path / "runs.db", **options)
    assert [question for question, _ in MADE] == ["rain", "rain", "snow"]
    assert MADE[0] == MADE[1]
    assert MADE[1][1] != MADE[2][1]
