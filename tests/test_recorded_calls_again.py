"""Calls that a task makes itself, when it is called again: where they differ, and where they had failed."""

import json
import threading
from functools import partial

import pytest
from sqlalchemy import select

from calling_tasks import (  # noqa: F401 - fixtures among them
    MADE,
    STATE,
    at_once,
    chain,
    chain_later,
    double,
    fail,
    fresh,
    gone_on_with,
    journal,
    made,
    one,
    recorded,
)
from journals import Keyed
from procession import (
    DigestError,
    JournalError,
    PlanChangedError,
    Process,
    ResultError,
    current_task,
)
from procession.journal import Journal, schema
from procession.testing import failing_journal


# What differs


@pytest.mark.parametrize("where", ["name", "argument"])
def test_a_call_that_differs_from_the_recorded_one_is_refused_by_name(where, journal):
    """And so are all that follow, should the task go on; what had been recorded stays."""

    def changed():
        me = current_task()
        me.call(double, 1)
        try:
            me.call(abs if where == "name" and not STATE["fails"] else double, 2 if STATE["fails"] else 3)
        except PlanChangedError:
            pass
        me.call(double, 4)
        fail()

    process = one(changed)
    with pytest.raises(ConnectionError):
        process.execute(run_id="a", journal=journal)
    STATE["fails"] = False
    said = r"call 1 was double, is abs" if where == "name" else r"call 1 \(double\) has other arguments"
    with pytest.raises(PlanChangedError, match=said) as caught:
        process.execute(run_id="a", journal=journal)
    assert "task 0 (" in str(caught.value)
    assert made() == [1, 2, 4]
    STATE["fails"] = True
    with pytest.raises(ConnectionError):
        process.execute(run_id="a", journal=journal)
    assert made() == []


def test_with_allow_changes_a_call_that_differs_is_forgotten_with_those_after_it(journal):
    """Those before it are kept, and from now on what was called instead is recorded."""

    def changed():
        me = current_task()
        numbers = [me.call(double, 1), me.call(double, 2 if STATE.get("before", True) else 7), me.call(double, 3)]
        fail()
        return numbers

    process = one(changed)
    with pytest.raises(ConnectionError):
        process.execute(run_id="a", journal=journal)
    assert made() == [1, 2, 3]
    STATE["before"] = False
    with pytest.raises(ConnectionError):
        process.execute(run_id="a", journal=journal, allow_changes=True)
    assert made() == [7, 3]
    STATE["fails"] = False
    assert process.execute(run_id="a", journal=journal) == [[2, 14, 6]]
    assert made() == []


def test_a_task_that_is_forgotten_takes_its_calls_with_it(journal):
    """As it has other arguments, which its calls may have seen otherwise than as their own."""

    def load(number):
        value = current_task().call(double, 1)
        fail()
        return number + value

    def build(number):
        process = Process("forgotten")
        process.add_task(load, number)
        return process

    with pytest.raises(ConnectionError):
        build(1).execute(run_id="a", journal=journal)
    STATE["fails"] = False
    assert build(2).execute(run_id="a", journal=journal, allow_changes=True) == [4]
    assert made() == [1, 1]
    assert len(recorded(journal)) == 1
    journal.delete("a")
    with journal.database.reading() as connection:
        assert connection.execute(select(schema.calls)).all() == []


def test_two_lambdas_in_one_place_are_told_apart_by_their_code(journal):
    """A value never belongs to another function, as far as can be told."""

    def swapped():
        functions = [lambda: MADE.append("one"), lambda: MADE.append("two")]
        current_task().call(functions[0 if STATE["fails"] else 1])
        fail()

    process = one(swapped)
    with pytest.raises(ConnectionError):
        process.execute(run_id="a", journal=journal)
    STATE["fails"] = False
    with pytest.raises(PlanChangedError, match="call 0 "):
        process.execute(run_id="a", journal=journal)
    assert made() == ["one"]


def note(found, number):
    MADE.append(number)
    found.append(number)


async def note_later(found, number):
    note(found, number)


def note_and_fail(found, number):
    note(found, number)
    raise KeyError(number)


def noting(how):
    """Return a task that hands a list to calls, which change it."""

    async def later():
        found = []
        await current_task().call(note_later, found, 1)
        fail()
        return found

    def plain():
        me, found = current_task(), []
        if how == "a call":
            me.call(note, found, 1)
        elif how == "a process":
            process = Process("noting")
            process.add_task(note, found, 1)
            me.call(process)
        elif how == "calls at once":
            me.map(partial(note, found), [1])
        else:
            with pytest.raises(KeyError):
                me.call(note_and_fail, found, 1)
            me.call(double, 4)
        fail()
        return found

    return later if how == "a coroutine" else plain


@pytest.mark.parametrize(
    "how", ["a call", "a process", "calls at once", "a failure that is raised again", "a coroutine"]
)
def test_a_call_that_changed_its_arguments_is_refused_when_it_would_be_recalled(how, journal):
    """The task would go on with what stood there before the call, and come to another result."""
    process = one(noting(how))
    with pytest.raises(ConnectionError):
        process.execute(run_id="a", journal=journal)
    STATE["fails"] = False
    with pytest.raises(PlanChangedError, match=r"call 0 \(.*\) changed its arguments when it was made"):
        process.execute(run_id="a", journal=journal)
    made()
    assert process.execute(run_id="a", journal=journal, allow_changes=True) == [[1]]
    assert made()[0] == 1


def test_a_recorded_call_whose_value_cannot_be_read_is_made_again_where_changes_are_allowed(tmp_path):
    """Without that, the task fails with the name of the call, and nothing is lost."""

    def both():
        me = current_task()
        found = [me.call(double, 1), me.call(double, 2)]
        fail()
        return found

    process, codec = one(both), Keyed("one")
    with Journal(tmp_path / "runs.db", codec=codec) as journal:
        with pytest.raises(ConnectionError):
            process.execute(run_id="a", journal=journal)
        STATE["fails"] = False
        codec.key = "two"
        with pytest.raises(ResultError, match=r"call 0 \(double\)"):
            process.execute(run_id="a", journal=journal)
        assert made() == [1, 2]
        assert process.execute(run_id="a", journal=journal, allow_changes=True) == [[2, 4]]
        assert made() == [1, 2]


# Failures


def test_the_last_call_is_made_again_if_it_failed(journal):
    """The task has not gone on from it."""

    def broken(number):
        MADE.append(number)
        fail()
        return number

    def calls():
        return current_task().call(double, 1) + current_task().call(broken, 2)

    assert gone_on_with(one(calls), journal) == ([1, 2], 4, [2])


def test_a_failure_that_the_task_has_gone_on_from_is_raised_again(journal):
    """What followed was called because of it."""

    def refused(number):
        MADE.append(number)
        raise KeyError(number)

    def calls():
        me = current_task()
        try:
            me.call(refused, 1)
        except KeyError as error:
            value = me.call(double, error.args[0])
        fail()
        return value

    assert gone_on_with(one(calls), journal) == ([1, 1], 2, [])


def test_of_calls_at_once_those_that_failed_are_made_again(journal):
    """The others, which had begun before that was known, are not; the first failure by place is raised."""
    STATE["both"] = threading.Barrier(2)

    def broken(number):
        STATE["both"].wait(10)
        MADE.append(number)
        if number == 1:
            fail()
        return number

    def calls():
        return current_task().map(broken, [1, 2])

    process = one(calls, max_workers=2, strategy="parallel")
    with pytest.raises(ConnectionError):
        process.execute(run_id="a", journal=journal)
    assert sorted(made()) == [1, 2]
    STATE["fails"] = False
    STATE["both"] = threading.Barrier(1)
    assert process.execute(run_id="a", journal=journal) == [[1, 2]]
    assert made() == [1]


def test_a_value_that_cannot_be_recorded_fails_the_call_by_name(journal):
    """Before the task can go on with it."""

    def lock():
        return threading.Lock()

    def calls():
        return current_task().call(lock)

    with pytest.raises(ResultError, match="_thread.lock") as caught:
        one(calls).execute(run_id="a", journal=journal)
    assert any("call 0 (" in note for note in caught.value.__notes__)


def test_an_argument_that_cannot_be_compared_is_refused_by_name(journal):
    """Where a journal is to tell whether it is the same in the next execution."""

    def calls():
        return current_task().call(str, threading.Lock())

    with pytest.raises(DigestError, match=r"task 0 .*call 0 \(str\), argument 1 is"):
        one(calls).execute(run_id="a", journal=journal)


def test_items_that_have_no_order_are_refused(journal):
    """A set comes in another order in the next interpreter, and its calls would have other places."""
    with pytest.raises(DigestError, match=r"task 0 .* is a set"):
        one(lambda: current_task().map(double, {1, 2})).execute(run_id="a", journal=journal)
    assert sorted(one(lambda: current_task().map(double, {1, 2})).execute()[0]) == [2, 4]


@pytest.mark.parametrize("function", [chain, chain_later, at_once])
@pytest.mark.parametrize("way", ["once", "unanswered", "for good"])
def test_a_call_whose_record_cannot_be_written_stops_the_run(function, way, journal):
    """The task does not go on; executed again, the run makes no call that was recorded."""
    STATE["fails"] = False
    whole = one(function, strategy="parallel", max_workers=2).execute()
    made()
    for at in range(1, 20):
        process = one(function, strategy="parallel", max_workers=2)
        with failing_journal(at, way) as has_failed:
            try:
                assert process.execute(run_id=f"{at}", journal=journal) == whole
            except JournalError:
                assert has_failed()
            else:
                assert not has_failed()
                break
        made()
        before = len(recorded(journal, f"{at}"))
        assert process.execute(run_id=f"{at}", journal=journal) == whole
        assert len(made()) == len(recorded(journal, f"{at}")) - before
    assert at > 4
