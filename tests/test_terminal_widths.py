"""A run of the command line on narrow and wide terminals, while it goes on and when it has failed."""

import re

import pytest

from terminals import terminal

JOB = """
import sys
from procession import Limit, Process, task

LONG = "a_name_that_is_far_too_long_for_a_bar_" * 3
SCARCE = Limit("a limit with a name too long for a bar", at_once=1)

@task(name="fetch {what}")
def fetch(what):
    if what.endswith("3"):
        raise OSError("nothing there")

def press():
    sys.stdin.readline()

def build():
    process = Process(f"nightly_{LONG}", "parallel", 4, on_error="continue")
    process.map(fetch, [f"page {number}" for number in range(40)])
    process.add_task(fetch, "file 3")
    inner = Process("inner")
    inner.add_task(press)
    inner.add_task(press)
    process.add_task(inner)
    process.map(task(name=LONG, limit=SCARCE)(lambda number: press()), range(3))
    return process
"""

COMMAND = "import sys; from procession.cli.main import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(params=[40, 80, 200])
def seen(request, terminal, tmp_path, monkeypatch):
    """The job on a terminal, as soon as it waits for keys."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.py").write_text(JOB)
    started = terminal(COMMAND, "run", "job.py:build", "--journal", "runs.db", columns=request.param)
    started.until(lambda rows: sum("━" in row for row in rows[-4:]) == 4 and "2 held" in rows[-1])
    return started


def finish(seen):
    for _ in range(5):
        seen.key()
    seen.end(status=1)


def test_bars_have_their_figures_whole_while_the_run_goes_on(seen):
    """However long names and limits are: each part has a bar, how far it is, and what is wrong, as far as there is room."""
    rows = seen.rows[-4:]
    finish(seen)
    columns = seen.screen.columns
    found = [re.fullmatch(r"(.+?) +(━+) +(\d+/\d+) *(.*)", row) for row in rows]
    assert all(found), rows
    assert [match[3] for match in found] == ["41/46", "40/40", "0/2", "0/3"]
    assert "5 failed" in found[0][4]
    assert "4 failed" in found[1][4]
    assert ("held back by a limit with a name too long" in found[3][4]) == (columns == 200)
    assert len({match.start(2) for match in found}) == len({match.end(2) for match in found}) == 1
    assert len(found[0][2]) >= {40: 1, 80: 10, 200: 60}[columns]
    assert found[1][1].startswith("  0: map" if columns == 40 else "  0: map of fetch {")


def test_a_failed_run_leaves_its_bars_and_says_which_elements_failed(seen):
    """By their labels; every bar and table keeps to the width."""
    finish(seen)
    lines = seen.text.splitlines()
    at = next(place for place, line in enumerate(lines) if "46/46" in line)
    assert [re.search(r"━+ +(\d+/\d+)", line)[1] for line in lines[at : at + 4]] == ["46/46", "40/40", "2/2", "3/3"]
    told = "".join(line.ljust(seen.screen.columns) for line in lines)  # as it was before it was broken into lines
    places = "task 0.3 (fetch page 3), task 0.13 (fetch page 13), task 0.23 (fetch page 23), task 0.33 (fetch page 33)"
    assert f"OSError × 5 in {places}, task 1 (fetch file 3): nothing there" in told
    table = lines[lines.index(next(line for line in lines if line.startswith("slowest"))) :]
    assert sum(re.match(r"[0-3] ", line) is not None for line in table) == 4
    assert table[-1].startswith("→ procession show") or table[-2].startswith("→ procession show")
    assert seen.screen.margins in (None, (0, seen.screen.lines - 1))
