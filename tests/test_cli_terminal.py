"""What the commands print on a terminal: in its width, and in colours."""

import io
import sys
import time
from datetime import datetime

import pytest

from procession import Process
from procession.cli.main import main

JOURNAL = "runs.db"


class Terminal(io.StringIO):
    """A terminal of so many columns, as an emulator shows it."""

    def isatty(self):
        return True

    def rows(self, columns):
        import pyte

        screen = pyte.HistoryScreen(columns, 100)
        pyte.Stream(screen).feed(self.getvalue().replace("\n", "\r\n"))
        return [row.rstrip() for row in screen.display if row.strip()]


@pytest.fixture
def on_terminal(monkeypatch, tmp_path):
    """Return a function that gives a command on a terminal of so many columns, and returns what it shows there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def give(columns, *arguments):
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr(sys, "stdout", Terminal())
        main(arguments)
        return sys.stdout

    return give


def fail(number):
    raise OSError(f"disk {number} of a large array of disks is broken\nand more")


@pytest.fixture
def recorded(tmp_path):
    """Record a run that completed, and one of which much failed."""
    where = tmp_path / JOURNAL
    good = Process("good")
    good.add_task(len, "abc")
    good.execute(run_id="a-good-run", journal=where)
    bad = Process("a_process_with_quite_a_long_name", on_error="continue")
    bad.map(fail, range(3))
    bad.add_task(abs, -1)
    with pytest.raises(ExceptionGroup):
        bad.execute(run_id="a-run-of-2026-11-28", journal=where)


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_the_tables_fit_the_width_of_the_terminal(recorded, on_terminal, columns):
    """Each row is one line of it, and ids and states are whole."""
    rows = on_terminal(columns, "runs").rows(columns)
    assert [row.split()[0] for row in rows] == ["run", "a-run-of-2026-11-28", "a-good-run"]
    assert rows[1].split()[2] == "failed" and rows[2].split()[2] == "completed"
    assert ("is broken" in rows[1]) == (columns == 200)
    rows = on_terminal(columns, "show", "a-run-of-2026-11-28").rows(columns)
    table = rows[[row.startswith("#") for row in rows].index(True) :]
    assert [row.split()[0] for row in table] == ["#", "0", "1"]
    assert all(len(row) <= columns for row in rows)


def test_states_have_colours_on_a_terminal_that_is_to_have_them(recorded, on_terminal, monkeypatch):
    """And nothing else has; what goes to a file or a pipe has none."""
    said = on_terminal(200, "runs").getvalue()
    assert "\x1b[31mfailed" in said and "\x1b[32mcompleted" in said
    assert said.count("\x1b[0m") == 2
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in on_terminal(200, "runs").getvalue()


def test_without_a_terminal_lines_are_as_long_as_they_are(recorded, monkeypatch, tmp_path, capsys):
    """Programs read them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["runs"]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "OSError: disk 0 of a large array of disks is broken" in said


def test_times_are_short_and_local(recorded, on_terminal, monkeypatch):
    """Those of today are times of day, and tasks began so long after their run."""
    began = on_terminal(200, "runs").rows(200)[1].split()[5]
    assert datetime.strptime(began, "%H:%M:%S")  # noqa: DTZ007
    assert on_terminal(200, "show", "a-good-run").rows(200)[2].split()[4].startswith("+")
    now = time.time()
    monkeypatch.setattr("procession.cli.recorded.datetime", Later)
    Later.now_ = datetime.fromtimestamp(now + 86_400).astimezone()
    began = " ".join(on_terminal(200, "runs").rows(200)[1].split()[5:7])
    assert datetime.strptime(began, "%Y-%m-%d %H:%M")  # noqa: DTZ007


class Later(datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.now_
