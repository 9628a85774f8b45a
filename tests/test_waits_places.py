"""Waits and answers wherever the journal is: in a file, or on a PostgreSQL server."""

import threading
import time

import pytest

from procession import JournalError, Process, ResultError, RunSuspendedError, RunUnknownError, current_task
from procession.journal import Journal, schema

MADE = []


@pytest.fixture(autouse=True)
def fresh():
    MADE.clear()


def pay(number):
    MADE.append(number)
    return number


def approve(number):
    me = current_task()
    return me.call(pay, number), me.wait_for("approval", timeout=3600)


def approve_element(number):
    return current_task().wait_for("approval")


def one():
    process = Process("one", "parallel", 2)
    process.add_task(approve, 1)
    return process


def suspended(process, where, run_id="a"):
    with pytest.raises(RunSuspendedError):
        process.execute(run_id=run_id, journal=where)


def test_a_run_waits_and_is_answered_by_another_connection(where):
    suspended(one(), where)
    suspended(one(), where)
    with Journal(where) as journal:
        [wait] = journal.run("a").waits
        assert (wait.run, wait.task, wait.element, wait.kind, wait.name) == ("a", 0, None, "answer", "approval")
        assert wait.due == pytest.approx(wait.since + 3600)
        journal.answer("a", "approval", {"by": "Ann"})
        with journal.reader() as reader:
            assert reader.ready("answered") == ["a"]
            assert reader.ready("due") == []
    assert one().execute(run_id="a", journal=where) == [(1, {"by": "Ann"})]
    assert MADE == [1]
    with Journal(where) as journal, journal.reader() as reader:
        assert reader.ready("answered") == []


def approve_twice():
    me = current_task()
    return me.wait_for("first"), me.wait_for("second")


def test_an_answer_that_the_task_has_taken_is_none_to_go_on_with(where):
    """The run waits for another one: it is not resumed in vain."""
    process = Process("twice")
    process.add_task(approve_twice)
    suspended(process, where)
    with Journal(where) as journal:
        journal.answer("a", "first", 1)
        suspended(process, journal)
        with journal.reader() as reader:
            assert reader.ready("answered") == []
        journal.answer("a", "second", 2)
        with journal.reader() as reader:
            assert reader.ready("answered") == ["a"]
        assert process.execute(run_id="a", journal=journal) == [(1, 2)]


def test_who_is_due_is_found(where):
    suspended(one(), where)
    suspended(one(), where, "b")
    with Journal(where) as journal:
        with journal.database.writing() as connection:
            connection.execute(schema.waits.update().values(due=1.0))
        with journal.reader() as reader:
            assert reader.ready("due") == ["a", "b"]
    with pytest.raises(TimeoutError):
        one().execute(run_id="a", journal=where)
    with Journal(where) as journal, journal.reader() as reader:
        assert reader.ready("due") == ["b"]
        with pytest.raises(ValueError, match="waits for 'approval' no longer: its time is up"):
            journal.answer("a", "approval", 1)


def test_of_two_who_answer_at_once_one_is_refused(where):
    """And whatever the other one said stands."""
    suspended(one(), where)
    barrier, said, refused = threading.Barrier(4), [], []

    def answer(number):
        with Journal(where) as journal:
            journal.run("a")
            barrier.wait(20)
            try:
                journal.answer("a", "approval", number)
                said.append(number)
            except ValueError:
                refused.append(number)

    threads = [threading.Thread(target=answer, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (len(said), len(refused)) == (1, 3)
    assert one().execute(run_id="a", journal=where) == [(1, said[0])]


def test_an_answer_is_taken_while_the_run_goes_on(where):
    process = one()

    def hold():
        until = time.monotonic() + 20
        while not gate_is_open() and time.monotonic() < until:
            time.sleep(0.01)

    def gate_is_open():
        return "open" in MADE

    process.add_task(hold)
    run = process.start(run_id="a", journal=where)
    until = time.monotonic() + 10
    while run.outcomes[0].state != "suspended" and time.monotonic() < until:
        time.sleep(0.01)
    with Journal(where) as journal:
        assert journal.run("a").status == "running"
        journal.answer("a", "approval", "yes")
    while run.outcomes[0].state != "completed" and time.monotonic() < until:
        time.sleep(0.01)
    MADE.append("open")
    assert run.result() == [(1, "yes"), None]


def test_elements_and_nested_runs_have_their_answers_while_the_run_goes_on(where):
    inner = Process("inner", "parallel", 2)
    inner.map(approve_element, [1, 2])
    between = Process("between")
    between.add_task(inner)
    process = Process("outer", "parallel", 3)
    process.map(approve_element, [1, 2])
    process.add_task(between)

    def hold():
        until = time.monotonic() + 20
        while "open" not in MADE and time.monotonic() < until:
            time.sleep(0.01)

    process.add_task(hold)
    run = process.start(run_id="a", journal=where)

    def until_both_are(state):
        until = time.monotonic() + 10
        while {outcome.state for outcome in run.outcomes[:2]} != {state} and time.monotonic() < until:
            time.sleep(0.01)

    until_both_are("suspended")
    with Journal(where) as journal:
        for run_id in "a/1/0", "a":  # by its own id first: then the others are meant
            for element in 0, 1:
                journal.answer(run_id, "approval", element, task=0, element=element)
    until_both_are("completed")
    MADE.append("open")
    assert run.result() == [[0, 1], [[[0, 1]]], None]


def test_each_element_is_answered_by_itself(where):
    process = Process("map", "parallel", 2)
    process.map(approve_element, [1, 2, 3])
    suspended(process, where)
    with Journal(where) as journal:
        with pytest.raises(
            ValueError, match=r"several in run 'a' wait for 'approval': task 0\.0 of run 'a', .*; say which"
        ):
            journal.answer("a", "approval", 1)
        for element in range(3):
            journal.answer("a", "approval", element, element=element)
    assert process.execute(run_id="a", journal=where) == [[0, 1, 2]]


def test_an_answer_is_recorded_with_the_codec_of_its_run(where):
    """Whatever the codec of the journal that is answered through; what it does not take is refused."""
    with Journal(where, codec="json") as journal:
        process = Process("one")
        process.add_task(approve_element, 1)
        suspended(process, journal)
    with Journal(where) as journal:
        with pytest.raises(ResultError):
            journal.answer("a", "approval", object())
        journal.answer("a", "approval", [1])
    with Journal(where, codec="json") as journal:
        assert process.execute(run_id="a", journal=journal) == [[1]]


class Own:
    name = "own"

    def encode(self, value):
        return repr(value).encode()

    def decode(self, data):
        return data.decode()


def test_a_run_of_a_codec_that_is_not_at_hand_is_not_answered(where):
    with Journal(where, codec=Own()) as journal:
        process = Process("one")
        process.add_task(approve_element, 1)
        suspended(process, journal)
    with Journal(where) as journal, pytest.raises(JournalError, match="with codec 'own' and not 'pickle'"):
        journal.answer("a", "approval", 1)


def test_an_unknown_run_is_not_answered(where):
    suspended(one(), where)
    with Journal(where) as journal, pytest.raises(RunUnknownError, match="no run 'b'"):
        journal.answer("b", "approval", 1)
