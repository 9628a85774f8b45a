"""What failed, at first glance: on the page of its run, and of the run around that."""

import re
from html import unescape

from procession import Process
from procession.journal import Journal
from procession.web.failures import GROUPS, Group
from web_pages import BROKEN, HOSTILE, _nothing_broken, numbers, opened, path, work


def misread(number):
    raise OSError(f"block {number} is damaged")


def look_up(number):
    try:
        return {}[number]
    except KeyError as error:
        raise LookupError(f"no rate for {number}") from error


def groups_of(page):
    """Return the words of each group of failures of a page, without its traceback."""
    found = re.findall(r'<div class="failure".*?(?:<details|</div>)', page, re.DOTALL)
    return [" ".join(re.sub(r"<[^>]*>", " ", group).split()) for group in found]


def test_failures_are_told_by_kind_and_place_with_message_and_line_of_code(where, opened):
    """Of those that are alike the first stands for all; the frame is the one of the user's own code."""
    process = Process("etl", "parallel", 2, on_error="continue")
    process.map(misread, range(14))
    process.add_task(look_up, 7)
    failing_anyhow(process, where)
    text = opened(where).get("/run/1").text
    first, second = groups_of(text)
    assert first.startswith(
        "misread #0, element 0 OSError × 14 OSError: block 0 is damaged test_web_failures.py , line "
    )
    assert 'in misread : raise OSError(f"block {number} is damaged")' in unescape(first)
    assert second.startswith("look_up #1 LookupError: no rate for 7 test_web_failures.py")
    assert 'href="/run/1/task/0/0"' in text
    assert "KeyError: 7" in text, "the traceback has its cause"
    assert text.count("Traceback (most recent call last)") == 3


def failing_anyhow(process, where):
    try:
        process.execute(journal=where, run_id="run")
    except ExceptionGroup:
        return
    raise AssertionError("it did not fail")


def test_what_failed_in_a_run_inside_is_told_where_the_outer_one_is(where, opened):
    """With the path that leads there; that the outer task failed of it is not told as well."""
    BROKEN.add(3)
    regions = Process("regions", "parallel", 2, on_error="continue")
    for name in "emea", "latam":
        inner = Process(f"transform_{name}", "parallel", 1, on_error="continue")
        inner.map(work, range(5))
        regions.add_task(inner)
    failing_anyhow(regions, where)
    page = opened(where)
    assert [group.partition(" web_pages")[0] for group in groups_of(page.get("/run/1").text)] == [
        "transform_emea › work #0, element 3 ValueError × 2 ValueError: number 3 is odd\\nand so is this line"
    ]
    assert groups_of(page.get("/run/3").text)[0].startswith("work #0, element 3 ValueError: number 3 is odd")


def test_the_panel_is_bounded_and_says_so(path, opened):
    """However many kinds of failures, and failures, there are."""
    process = Process("many", "parallel", 2, on_error="return")
    for number in range(GROUPS + 3):
        process.map(type(f"Task{number}", (), {"__call__": lambda self, number: misread(number)})(), range(150))
    process.execute(journal=path, run_id="run")
    text = opened(path).get("/run/1").text
    assert len(groups_of(text)) == GROUPS
    assert "Not all failures were looked at." in text


def test_a_run_that_failed_of_something_else_says_of_what(path, opened):
    """Where no task failed, or not of that, the run's own error stands first."""
    numbers(1).execute(journal=path, run_id="run")
    page = opened(path)
    assert "What failed" not in page.get("/run/1").text
    with Journal(path) as journal, journal.database.writing() as connection:
        connection.exec_driver_sql("UPDATE procession_runs SET status = 'failed', error = 'JournalError: it is full'")
    text = page.get("/run/1").text
    assert groups_of(text) == []
    assert "JournalError: it is full" in text


def test_the_frame_is_found_in_tracebacks_of_any_shape():
    """Groups of exceptions, code of other packages, code that has no file, none at all."""

    def frame(error):
        return Group("OSError", 1, ("work",), 1, 0, None, "", error, "").frame

    lines = [
        ("/home/me/jobs.py", "load", "    read(path)"),
        ("/usr/lib/python3.12/json/__init__.py", "load", "    raise"),
        ("/home/me/.venv/lib/python3.12/site-packages/pandas/io.py", "read", "    raise"),
    ]
    text = "OSError: no\n\nTraceback (most recent call last):\n" + "".join(
        f'  File "{file}", line {place}, in {name}\n  {code}\n' for place, (file, name, code) in enumerate(lines, 3)
    )
    assert (frame(text).file, frame(text).line, frame(text).code) == ("/home/me/jobs.py", 3, "read(path)")
    assert frame(text.replace("\n  ", "\n  |   ")).code == "read(path)"
    assert frame('\n  File "<stdin>", line 1, in f\n').function == "f"
    assert frame('\n  File "/usr/lib/python3.12/json/__init__.py", line 1, in f\n').line == 1
    assert frame("OSError (what it said is not kept)") is None
    assert frame(HOSTILE) is None
