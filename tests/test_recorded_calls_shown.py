"""Where the calls are shown that tasks make themselves: in the journal, command line, page, log, and as spans."""

import asyncio
import json
import logging

import pytest

from procession import Process, current_task
from procession.cli.as_json import print_run_json
from procession.cli.recorded import print_run
from procession.journal import CallInfo, Journal
from procession.testing import memory_journal
from test_otel import Traced
from web_pages import HOSTILE, opened, rows_of


def ask(question):
    return question.upper()


def use(tool):
    raise KeyError(tool)


def agent(goal):
    me = current_task()
    answer = me.call(ask, goal)
    try:
        me.call(use, "hammer")
    except KeyError:
        return answer


def element(number):
    return current_task().call(abs, number)


def agents():
    process = Process("agents", "parallel", 2)
    process.add_task(len, "abc")
    process.add_task(agent, "goal")
    process.map(element, [-1, -2])
    return process


def test_a_journal_tells_how_the_calls_of_a_task_ended():
    """Their names, their places, and what they raised, without a value being read."""
    with memory_journal() as journal:
        agents().execute(run_id="a", journal=journal)
        assert journal.calls("a", 0) == []
        one, other = journal.calls("a", 1)
        assert isinstance(one, CallInfo)
        assert (one.task, one.element, one.call, one.name, one.state, one.error) == (
            1,
            None,
            0,
            "ask",
            "completed",
            None,
        )
        assert one.size > 0
        assert one.duration < 10
        assert (other.call, other.name, other.state) == (1, "use", "failed")
        assert other.error.startswith("KeyError: 'hammer'\n\nTraceback")
        assert [(each.element, each.call, each.name) for each in journal.calls("a", 2)] == [
            (0, 0, "abs"),
            (1, 0, "abs"),
        ]
        assert [each.element for each in journal.calls("a", 2, element=1)] == [1]


def test_show_has_the_calls_below_their_task(tmp_path, capsys):
    """Each with its task's number and its own, as many as the limit says."""
    path = str(tmp_path / "runs.db")
    agents().execute(run_id="a", journal=path)
    print_run(path, "a", 10, failed=False)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    places = [line[:3] for line in lines if line and line[0][0].isdecimal()]
    assert places == [
        ["0", "len", "completed"],
        ["1", "agent", "completed"],
        ["1#0", "ask", "completed"],
        ["1#1", "use", "failed"],
        ["2", "map", "of"],
        ["2.0#0", "abs", "completed"],
        ["2.1#0", "abs", "completed"],
    ]
    print_run_json(path, "a", 10, failed=False)
    calls = json.loads(capsys.readouterr().out)["calls"]
    assert [(call["task"], call["element"], call["call"], call["name"]) for call in calls[:3]] == [
        (1, None, 0, "ask"),
        (1, None, 1, "use"),
        (2, 0, 0, "abs"),
    ]
    print_run(path, "a", 3, failed=False)
    assert "and more calls that tasks made: see --limit" in capsys.readouterr().out


def test_the_page_has_the_calls_below_their_task_and_on_its_own_page(tmp_path, opened):
    """Harmless, whatever they are called."""

    def hostile():
        raise ValueError(HOSTILE)

    def swallows():
        with pytest.raises(ValueError, match="script"):
            current_task().call(hostile)

    path = tmp_path / "runs.db"
    process = agents()
    process.add_task(swallows)
    process.execute(run_id="a", journal=path)
    page = opened(path)
    rows = rows_of(page.get("/run/1").text)
    assert [" ".join(row.split()[:3]) for row in rows[1:4]] == [
        "1 agent completed",
        "1#0 ask completed",
        "1#1 use failed",
    ]
    own = page.get("/run/1/task/1").text
    assert [row.split()[0] for row in rows_of(own)] == ["1#0", "1#1"]
    assert [row.split()[0] for row in rows_of(page.get("/run/1/task/2/1").text)] == ["2.1#0"]
    assert "<script>alert" not in page.get("/run/1/task/3").text


def test_a_task_that_was_cut_off_after_a_call_is_interrupted(tmp_path):
    """Not one that never began."""
    path = tmp_path / "runs.db"

    class Killed(BaseException):
        pass

    def cut_off():
        current_task().call(abs, -1)
        raise Killed

    process = Process("cut", "parallel", 1)
    process.add_task(cut_off)
    with pytest.raises(Killed):
        process.execute(run_id="a", journal=path)
    with Journal(path) as journal, journal.database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM procession_records")
    with Journal(path) as journal, journal.reader() as reader:
        key = reader.key("a")
        assert reader.status(key, reader.run(key), 0).state == "interrupted"


def test_calls_are_logged_and_without_arguments(caplog):
    """With their places and names, at the level of starts and ends."""
    caplog.set_level(logging.DEBUG, "procession")
    agents().execute()
    said = [
        (record.message, record.index, getattr(record, "element", None), record.call, record.call_name)
        for record in caplog.records
        if record.message.startswith("call_")
    ]
    assert [one for one in said if one[1] == 1] == [
        ("call_started", 1, None, 0, "ask"),
        ("call_completed", 1, None, 0, "ask"),
        ("call_started", 1, None, 1, "use"),
        ("call_failed", 1, None, 1, "use"),
    ]
    assert sum(one[:2] == ("call_completed", 2) for one in said) == 2
    assert not any("goal" in str(vars(record)) for record in caplog.records)


def test_calls_are_spans_within_the_span_of_their_task():
    """And what a call does itself is within its own span."""
    traced = Traced()

    async def later(number):
        with traced.tracer.start_as_current_span(f"inside {number}"):
            await asyncio.sleep(0)

    async def several():
        await current_task().map(later, [1, 2])

    process = Process("traced", "parallel", 2, observers=[traced.observer])
    process.add_task(agent, "goal")
    process.add_task(several)
    process.execute()
    parents = traced.parents()
    assert parents["ask"] == parents["use"] == {"agent"}
    assert parents["inside 1"] == parents["inside 2"]
    [name] = parents["inside 1"]
    assert name.endswith("later")
    assert [one.endswith("several") for one in parents[name]] == [True]
    assert traced.named("ask").attributes["procession.call"] == 0
    assert traced.named("use").attributes["procession.state"] == "failed"
