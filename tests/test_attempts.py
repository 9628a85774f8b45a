"""What is kept and shown of attempts that failed: when each was, its error, and the pause after it."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tenacity import Retrying, retry_if_result, stop_after_attempt, wait_fixed

from procession import Process, current_task, task
from procession._model.attempt import FailedAttempt
from procession._model.log_head import head_of, with_head, without_head
from procession.cli.main import main
from procession.journal import Journal
from tried_tasks import ask, ask_awaited
from web_pages import _nothing_broken, opened, path, rows_of

GONE_ON, HOLD = threading.Event(), threading.Event()
LONG = Retrying(stop=stop_after_attempt(2), wait=wait_fixed(60))


@pytest.fixture(params=["threads", "loop", "executor", "processes"])
def process(request):
    """Two tasks, of which the first succeeds at its third attempt, and a map of two such elements."""
    with ThreadPoolExecutor(2) as pool:
        executor = {"executor": pool, "processes": "processes"}.get(request.param, "threads")
        process = Process("tried", "parallel", 2, executor=executor, on_error="return")
        function = ask_awaited if request.param == "loop" else ask
        for what in "once", "never":
            process.add_task(function, what)
        process.map(function, ["x", "never"])
        yield process


@task(retries=Retrying(retry=retry_if_result(lambda value: value < 2), stop=stop_after_attempt(3), wait=wait_fixed(0)))
def poll():
    return current_task().attempt


def go_on():
    GONE_ON.set()
    HOLD.wait(30)


def said_of(found):
    return [one.error for one in found.failed_attempts]


def refused(what):
    return [f"ConnectionError: {what} refused, attempt {attempt}" for attempt in (1, 2)]


def test_a_journal_keeps_each_failed_attempt(process, path):
    """With its error and its time, and the pause after it: of tasks and of elements, on every engine."""
    process.execute(journal=path, run_id="run")
    with Journal(path) as journal, journal.reader() as reader:
        key = reader.key("run")
        found = [reader.task(key, *place) for place in [(0, None), (1, None), (2, 0), (2, 1)]]
    assert list(map(said_of, found)) == [refused("once"), refused("never"), refused("x"), refused("never")]
    for one in found:
        first, second = one.failed_attempts
        assert first.start == 0.0
        assert min(first.pause, second.pause) > 0.09
        assert second.start >= first.duration + first.pause - 0.02
        assert second.start + second.duration + second.pause <= one.duration + 0.001
        assert one.log is None


def test_the_timeline_draws_each_attempt(process):
    """With its error. On threads and event loops pauses are hollow; elsewhere attempts have marks of their own."""
    run = process.start()
    run.wait(50)
    timeline = run.timeline()
    svg = timeline.svg()
    if process.executor == "threads":
        for attempt, error in enumerate(refused("once"), start=1):
            assert f"attempt {attempt} of 3: {error}" in svg
        assert '<rect class="pause"' in svg
    else:
        assert [span.error for span in timeline.spans if span.index == 0] == [*refused("once"), ""]


def test_the_page_shows_each_attempt(path, opened):
    """In a table of the task, and in the timeline, where pauses are hollow."""
    process = Process("tried", on_error="return")
    process.add_task(ask, "once")
    process.execute(journal=path, run_id="run")
    page = opened(path)
    rows = [row for row in rows_of(page.get("/run/1/task/0").text) if "refused" in row or "none" in row]
    assert [re.sub(r"[\d.]+ [mµ]?s", "T", row) for row in rows] == [
        "1 +T T ConnectionError: once refused, attempt 1",
        "2 +T T ConnectionError: once refused, attempt 2",
        "3 +T T none",
    ]
    drawn = page.get("/run/1/time").text
    assert '<rect class="pause"' in drawn
    assert "attempt 2 of 3: ConnectionError: once refused, attempt 2, " in drawn
    assert "pause between attempts" in drawn


def test_a_value_that_the_rules_refuse_is_no_error(path, opened):
    """The attempt is there, and says so."""
    process = Process("polls")
    process.add_task(poll)
    process.execute(journal=path, run_id="run")
    rows = " ".join(rows_of(opened(path).get("/run/1/task/0").text))
    assert "it returned a value that its retry rules refuse" in rows


def test_the_first_twenty_are_kept(path):
    """Of a task that is tried again and again, what is kept does not grow without end."""
    process = Process("tried", on_error="return")
    rules = Retrying(stop=stop_after_attempt(50), wait=wait_fixed(0))
    process.add_task(task(retries=rules)(int), "x" * 10_000)
    process.execute(journal=path, run_id="run")
    with Journal(path) as journal:
        (found,) = journal.tasks("run")
    assert found.attempts == 50
    assert len(found.failed_attempts) == 20
    assert max(map(len, said_of(found))) < 200


@pytest.mark.parametrize("kind", ["threads", "loop", "executor"])
def test_a_task_that_pauses_waits(kind, path, opened, capsys):
    """On the page and in the terminal it is neither running nor failed."""
    GONE_ON.clear()
    HOLD.clear()

    @task(retries=LONG, name="refuse {what}")
    def refuse(what):
        raise ConnectionError(what)

    @task(retries=LONG, name="refuse {what}")
    async def refuse_awaited(what):
        raise ConnectionError(what)

    with ThreadPoolExecutor(1) as pool, Journal(path) as journal:
        process = Process("pausing", "parallel", 1, executor=pool if kind == "executor" else "threads")
        process.add_task(refuse_awaited if kind == "loop" else refuse, "again")
        process.add_task(go_on)
        run = process.start(journal=journal, run_id="run")
        try:
            assert GONE_ON.wait(20)
            assert [outcome.state for outcome in run.outcomes] == ["waiting", "running"]
            assert "1 waiting" in run.summary()
            assert run.timeline().spans[0].failed_attempts[0].error == "ConnectionError: again"
            assert "attempt 1 of 1: ConnectionError: again" in run.timeline().svg()
            page = opened(path)
            while "waits for its next attempt" not in (text := page.get("/run/1").text):
                assert run.status == "running"
            assert "0 refuse again waiting" in " ".join(rows_of(text))
            assert "waiting" in page.get("/run/1/task/0").text
            assert "0 refuse again waiting" in " ".join(rows_of(page.get("/run/1?state=waiting").text))
            assert main(["show", "run", "--journal", path]) == 0
            shown = capsys.readouterr().out
            assert "waiting for its next attempt: 0 refuse again" in shown
            assert re.search(r"0 +refuse again +waiting", shown)
        finally:
            HOLD.set()
            run.cancel()
            assert run.wait(20)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "a log",
        "\x1e[[0.0, 1",
        "\x1enull\nlog",
        '\x1e[[1], "x", [0, 0, 0, 0], [null, 1, 2, "e"], {}]\n',
        "\x1e" + "[" * 100_000,
    ],
)
def test_what_stands_before_a_log_may_be_anything(text):
    """A journal may be damaged, or forged."""
    assert head_of(text) == (None, ())


def test_what_stands_before_a_log_comes_back():
    """Without a log, and before one."""
    attempts = (FailedAttempt(0.0, 0.5, 1.25, "OSError: «no»"), FailedAttempt(1.75, 0.5, 0.0, ""))
    for label in None, "fetch a":
        for log in None, "INFO one\n    two":
            text = with_head(label, attempts, log)
            assert head_of(text) == (label, attempts)
            assert without_head(text) == log
