"""What the page of a run says of what can be done next, and of when it was last heard of."""

import re
import subprocess
import sys
import shlex
from html import unescape

import pytest

from procession import Process
from procession.cli.main import main
from procession.journal import Journal
from procession.journal.origin import begun_by
from web_pages import BEGUN, BROKEN, HELD, _nothing_broken, failing, hold, numbers, opened, path, work


def command_of(text, name="command"):
    found = re.search(rf'<code id="{name}">(.*?)</code>', text)
    return found and unescape(found[1])


def test_a_run_begun_by_the_command_line_is_resumed_by_it(path, opened):
    """The command can be copied into a shell, whatever the id is."""
    BROKEN.add(1)
    with begun_by(["procession", "run", "nightly.py:build"]):
        failing(numbers(2), path, "it's <1>")
    assert command_of(opened(path).get("/run/1").text) == f"""procession resume --journal {path} 'it'"'"'s <1>'"""


def test_a_run_begun_by_a_script_is_resumed_by_the_command_line(path, opened, tmp_path):
    """Which runs the script again; not where that had arguments, which are not kept."""
    script = tmp_path / "job.py"
    script.write_text(
        "import sys\n"
        "from procession import Process\n"
        "process = Process('job')\n"
        "process.add_task(int, 'x')\n"
        f"process.execute(journal={path!r}, run_id=f'run-{{len(sys.argv)}}')\n"
    )
    for arguments in [], ["more"]:
        done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, timeout=60)
        assert "invalid literal" in done.stderr
    page = opened(path)
    assert command_of(page.get("/run/1").text) == f"procession resume --journal {path} run-1"
    assert command_of(page.get("/run/2").text) == f"process.execute(journal={path!r}, run_id='run-2')"


def test_a_run_begun_by_a_program_is_executed_again_by_that(path, opened):
    """The page says with what; a completed run needs nothing."""
    BROKEN.add(1)
    failing(numbers(2), path, "a")
    numbers(1).execute(journal=path, run_id="b")
    page = opened(path)
    assert command_of(page.get("/run/1").text) == f"process.execute(journal={path!r}, run_id='a')"
    assert command_of(page.get("/run/2").text) is None


def test_a_run_inside_another_one_is_resumed_with_that(path, opened):
    """The id is that of the outermost run."""
    BROKEN.add(0)
    outer = Process("outer")
    outer.add_task(numbers(1))
    failing(outer, path, "a")
    assert command_of(opened(path).get("/run/2").text) == f"process.execute(journal={path!r}, run_id='a')"


def test_what_failed_can_be_called_again(path, opened):
    """By a command that can be copied, also where the run completed all the same; not where nothing failed."""
    BROKEN.add(1)
    failing(numbers(2), path, "it's <1>")
    numbers(2, on_error="return").execute(journal=path, run_id="b")
    numbers(1).execute(journal=path, run_id="c")
    page = opened(path)
    text = page.get("/run/1").text
    assert command_of(text, "rerun") == f"""procession rerun --failed --journal {path} 'it'"'"'s <1>'"""
    assert 'data-copy="rerun"' in text
    text = page.get("/run/2").text
    assert (command_of(text), command_of(text, "rerun")) == (None, f"procession rerun --failed --journal {path} b")
    assert command_of(page.get("/run/3").text, "rerun") is None


def test_a_task_that_has_ended_can_be_called_again(path, opened):
    """An element of a map, too: by commands that can be copied. What has not begun is called in any case."""
    BROKEN.add(1)
    process = Process("mapped", "parallel", 2, on_error="return")
    process.map(work, range(3))
    process.add_task(work, 5)
    process.execute(journal=path, run_id="it's <1>")
    in_order = Process("in order")
    for number in range(3):
        in_order.add_task(work, number)
    failing(in_order, path, "b")
    page = opened(path)
    run_id = """'it'"'"'s <1>'"""
    text = page.get("/run/1/task/1").text
    assert command_of(text, "rerun") == f"procession rerun --from 1 --journal {path} {run_id}"
    assert 'data-copy="rerun"' in text
    assert "--dry-run" in text
    again = f"procession rerun --element 0:1 --journal {path} {run_id}"
    assert command_of(page.get("/run/1/task/0/1").text, "rerun") == again
    assert command_of(page.get("/run/1/task/0").text, "rerun") == f"procession rerun --from 0 --journal {path} {run_id}"
    assert command_of(page.get("/run/2/task/1").text, "rerun") == f"procession rerun --from 1 --journal {path} b"
    assert command_of(page.get("/run/2/task/2").text, "rerun") is None, "it has not begun"
    assert main([*shlex.split(again)[1:], "--dry-run"]) == 0, "the command line knows these words"


def test_a_task_is_not_called_again_while_its_run_goes_on_nor_apart_from_the_outer_run(path, opened, comes_true):
    """The run is in use, and a nested one is executed with the one around it."""
    process = Process("outer", "parallel", 1)
    process.add_task(numbers(1))
    process.add_task(work, 1)
    process.add_task(hold)
    run = process.start(journal=path, run_id="run")
    BEGUN.acquire(timeout=30)
    page = opened(path)
    try:
        assert comes_true(lambda: "Took" in page.get("/run/1/task/1").text), "it has ended"
        assert command_of(page.get("/run/1/task/1").text, "rerun") is None
    finally:
        HELD.release()
        run.wait(30)
    assert command_of(page.get("/run/1/task/1").text, "rerun") == f"procession rerun --from 1 --journal {path} run"
    assert command_of(page.get("/run/1/task/0").text, "rerun") == f"procession rerun --from 0 --journal {path} run"
    nested = page.get("/run/2/task/0").text
    assert "Took" in nested
    assert command_of(nested, "rerun") is None


def test_an_interrupted_run_says_when_it_was_last_heard_of(where, opened):
    """Nobody knows when it ended, but the lease knows when it was renewed."""
    numbers(1).execute(journal=where, run_id="a")
    with Journal(where) as journal, journal.database.writing() as connection:
        connection.exec_driver_sql(
            "UPDATE procession_runs SET status = 'running', ended_at = NULL, token = 't', held_until = 1000000030.0"
        )
    page = opened(where)
    assert 'last heard of <time datetime="2001-09-09T' in page.get("/run/1").text
    assert 'last heard of <time datetime="2001-09-09T' in page.get("/").text
    assert ":46:40" in re.search('last heard of <time datetime="([^"]*)"', page.get("/run/1").text)[1]
    with Journal(where) as journal:
        assert journal.run("a").heard_at == pytest.approx(1_000_000_000.0)
