"""What a process calls when a run has ended, however it ended."""

import asyncio
import threading

import pytest

from procession import Process, RunCancelledError, current_task


def process_of(function, *args, **options):
    seen = []
    process = Process("told", on_end=lambda run: seen.append((run.status, run.progress.ended)), **options)
    process.add_task(function, *args)
    return process, seen


def test_it_is_called_with_a_run_that_completed_failed_or_was_cancelled():
    """Once, when its status is known and results can be had."""
    process, seen = process_of(abs, -1)
    assert process.execute() == [1]
    assert asyncio.run(process.execute_async()) == [1]
    assert seen == [("completed", 1)] * 2

    called = threading.Event()
    process.on_end = lambda run: called.set()
    assert process.start().result(50) == [1]
    assert called.wait(50)

    process, seen = process_of(int, "x")
    with pytest.raises(ValueError, match="invalid literal"):
        process.execute()
    assert seen == [("failed", 1)]

    process, seen = process_of(lambda: (process.last_run.cancel(), current_task().sleep(50)))
    with pytest.raises(RunCancelledError):
        process.execute()
    assert seen == [("cancelled", 0)]


def test_it_can_ask_the_run_for_results_and_a_summary():
    """As all is over by then."""
    told = []
    process = Process("told", on_end=lambda run: told.append((run.result(), run.wait(0), run.summary())))
    process.add_task(abs, -1)
    process.execute()
    assert told[0][:2] == ([1], True) and told[0][2].startswith("told: completed in")


def test_what_it_raises_is_logged_and_changes_nothing(caplog):
    """It is a notice."""

    def broken(run):
        raise OSError("no mail")

    process = Process("told", on_end=broken)
    process.add_task(abs, -1)
    assert process.execute() == [1]
    assert [record.getMessage() for record in caplog.records] == ["on_end_failed"]
    assert caplog.records[0].exc_info[1].args == ("no mail",)


def test_it_can_be_set_later_and_is_checked():
    """As the other attributes of a process."""
    ended = threading.Event()
    process = Process("told")
    process.on_end = lambda run: ended.set()
    process.execute()
    assert ended.is_set()

    async def coroutine(run):
        """Return what nobody would await."""

    for wrong in "mail", coroutine:
        with pytest.raises(TypeError, match="on_end takes a plain function"):
            Process("told", on_end=wrong)
        process.on_end = wrong
        with pytest.raises(TypeError, match="on_end takes a plain function"):
            process.execute()
    process.on_end = None
    assert process.execute() == []
