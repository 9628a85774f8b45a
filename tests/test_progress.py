"""Progress as a person sees it: on a terminal, in a notebook, in a file."""

import io
import logging
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time

import pytest

from procession import Process, Progress, current_task, task
from procession.observe import progress as displays
from procession.observe import screen as screens
from procession.observe.meter import Meter, Reading, told
from procession.observe.screen import Lines
from terminals import COLUMNS, ROWS, bars, terminal

LOG_IS_SHOWN = displays._log_is_shown

SCRIPT = """
import subprocess, sys
from procession import Process
def press(): sys.stdin.readline()
def noise():
    for number in range(100):
        print("line", number)
    print("." * 5, end="", flush=True)
    sys.stdout.buffer.write(b"bytes")
    sys.stdout.buffer.flush()
    print()
    print("x" * 200, flush=True)
    subprocess.run(["echo", "a child"], check=True)
    sys.stderr.write("no newline")
    sys.stderr.flush()
process = Process("noisy", "hybrid", 4)
process.add_task(press)
process.add_task(noise)
process.add_task(press)
process.map(abs, range(50))
process.add_task(press)
process.add_task(len, "abc")
process.execute(progress=True)
print("after")
"""


def throw():
    raise KeyError("no")


# On a terminal


def test_bars_stand_at_the_bottom_and_what_the_program_prints_above_them(terminal):
    """Whoever prints it, however long, with or without a newline: it is all there, in order, and unchanged."""
    seen = terminal(SCRIPT)
    seen.until(lambda rows: bars(rows) == [("noisy: in order", "0/3"), ("noisy: at once", "0/52")])
    seen.key()
    seen.until(lambda rows: bars(rows) == [("noisy: in order", "2/3"), ("noisy: at once", "0/52")])
    seen.key()
    last = [("noisy: in order", "3/3"), ("noisy: at once", "51/52"), ("3: map of abs", "50/50")]
    seen.until(lambda rows: bars(rows) == last)
    seen.key()
    seen.end()
    printed = [f"line {number}" for number in range(100)]
    printed += [".....bytes", "x" * COLUMNS, "x" * COLUMNS, "x" * (200 - 2 * COLUMNS), "a child", "no newline"]
    lines = seen.text.splitlines()
    assert lines[-len(printed) - 4 : -4] == printed
    assert [line.split("━")[0].strip() for line in lines[-4:]] == [
        "noisy: in order",
        "noisy: at once",
        "3: map of abs",
        "after",
    ]
    assert "".join(lines[: -len(printed) - 4]).strip("\n") == ""
    assert seen.screen.margins in (None, (0, ROWS - 1))


def test_standard_output_that_goes_elsewhere_is_left_alone(terminal, tmp_path):
    """`program > file` has in the file what the tasks print and nothing else."""
    with (tmp_path / "out").open("wb") as out:
        seen = terminal(SCRIPT, stdout=out)
        for _ in range(3):
            seen.key()
        seen.end()
    lines = [f"line {number}" for number in range(100)] + [".....bytes", "x" * 200, "a child", "after"]
    assert (tmp_path / "out").read_text() == "\n".join(lines) + "\n"


def test_failures_and_retries_are_said_as_they_happen(terminal):
    """In a line each above the bars, in which no text of an error can command the terminal."""
    seen = terminal(
        "import sys, tenacity\n"
        "from procession import Process, task, current_task\n"
        "rules = tenacity.Retrying(stop=tenacity.stop_after_attempt(2), wait=tenacity.wait_none())\n"
        "def throw(): raise ValueError('bad\\x1b[2J\\nworse')\n"
        "process = Process('failing', 'parallel', 1, on_error='return')\n"
        "process.add_task(sys.stdin.readline)\n"
        "process.add_task(throw)\n"
        "process.add_task(task(retries=rules)(lambda: 7 // (current_task().attempt - 1)))\n"
        "process.add_task(sys.stdin.readline)\n"
        "process.execute(progress=True)\n"
    )
    seen.until(lambda rows: "0/4" in rows[-1])
    seen.key()
    seen.until(lambda rows: "3/4" in rows[-1] and "1 failed" in rows[-1])
    said = "".join(seen.rows[:-1])
    assert said == (
        r"failing: task 1 (throw) failed: ValueError: bad\x1b[2J …"
        "failing: task 2 (<lambda>), attempt 1 failed: "
        "ZeroDivisionError: integer division or modulo by zero · trying again"
    ) or ("trying again" in said and said.startswith(r"failing: task 1 (throw) failed: ValueError: bad\x1b[2J …"))
    seen.key()
    seen.end()


def test_an_attempt_of_an_element_is_said_with_its_place(terminal):
    """Of a thousand calls of one function, it says which one is made again."""
    seen = terminal(
        "import sys\n"
        "from procession import Process, task, current_task\n"
        "def halve(number): return number // 2 // (current_task().attempt - (number == 6))\n"
        "process = Process('halves', 'parallel', 1)\n"
        "process.add_task(sys.stdin.readline)\n"
        "process.map(task(retries=1)(halve), [2, 4, 6])\n"
        "process.add_task(sys.stdin.readline)\n"
        "process.execute(progress=True)\n"
    )
    seen.until(lambda rows: "0/" in rows[-1])
    seen.key()
    seen.until(lambda rows: "trying again" in "".join(rows))
    said = "".join(seen.rows)
    assert "halves: task 1 (map of halve), element 2, attempt 1 failed: ZeroDivisionError" in said
    seen.key()
    seen.end()


def test_of_two_runs_at_the_same_time_one_has_the_bottom_of_the_terminal(terminal):
    """The other one says a line now and then, above its bars."""
    seen = terminal(
        "import sys\n"
        "from procession import Process\n"
        "from procession.observe import screen\n"
        "screen.LINES_S = 0.0\n"
        "inner = Process('inner')\n"
        "inner.add_task(len, 'abc')\n"
        "inner.add_task(sys.stdin.readline)\n"
        "def nested(): return inner.execute(progress=True)\n"
        "outer = Process('outer')\n"
        "outer.add_task(sys.stdin.readline)\n"
        "outer.add_task(nested)\n"
        "outer.execute(progress=True)\n"
    )
    seen.until(lambda rows: "outer" in rows[-1] and "0/2" in rows[-1])
    seen.key()
    seen.until(lambda rows: any(row.startswith("inner: 1 of 2") for row in rows) and "1/2" in rows[-1])
    seen.key()
    seen.end()


def test_more_bars_than_the_terminal_has_rows_are_cut(terminal):
    """Some rows are left to whatever is printed."""
    seen = terminal(
        "import sys\n"
        "from procession import Process\n"
        "from procession.observe import meter\n"
        "meter.PARTS = 50\n"
        "process = Process('tall', 'parallel', 40)\n"
        "for _ in range(30): process.map(lambda _: sys.stdin.readline(), range(1))\n"
        "process.execute(progress=True)\n"
        "print('after')\n"
    )
    seen.until(lambda rows: sum("━" in row for row in rows) >= ROWS - 3)
    assert seen.rows[:2] == ["", ""]
    for _ in range(30):
        seen.key()
    seen.end()
    assert seen.text.endswith("after")


def test_a_command_line_that_is_left_at_once_leaves_a_terminal_that_scrolls(terminal, tmp_path):
    """After the second Ctrl-C."""
    (tmp_path / "stuck.py").write_text(
        "import threading\nfrom procession import Process\nprocess = Process('stuck', 'parallel', 1)\n"
        "process.add_task(threading.Event().wait)\n"
    )
    seen = terminal(
        "import sys\nfrom procession.cli.main import console\n"
        f"sys.argv = ['procession', 'run', {str(tmp_path / 'stuck.py')!r} + ':process']\nconsole()"
    )
    seen.until(lambda rows: bars(rows) == [("stuck", "0/1")])
    assert seen.screen.margins is not None
    while seen.child.poll() is None:  # the first one may not have been seen when the second comes: then they are one
        seen.child.send_signal(signal.SIGINT)
        try:
            seen.child.wait(0.2)
        except subprocess.TimeoutExpired:
            continue
    assert seen.child.returncode == 130
    while seen.read():
        pass
    os.close(seen.leader)
    assert seen.screen.margins in (None, (0, ROWS - 1))


# Elsewhere


@pytest.fixture
def shown(monkeypatch):
    """Return a stream in place of the standard error stream, and have progress shown at once."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(displays, "DELAY_S", 0.0)
    monkeypatch.setattr(displays, "PERIOD_S", 0.001)
    monkeypatch.setattr(screens, "LINES_S", 0.0)
    monkeypatch.setattr(displays, "_log_is_shown", lambda: False)  # pytest's handlers look as if it were
    return stream


def test_a_stream_that_is_no_terminal_gets_plain_lines(shown):
    """How many of how many have ended, how fast, and how long it will take."""
    heard = threading.Event()

    class Listening(io.StringIO):
        def write(self, text):
            if "plain: 1 of 3" in text:
                heard.set()
            return super().write(text)

    sys.stderr = stream = Listening()
    process = Process("plain", "parallel", 1)
    process.add_task(len, "abc")
    process.add_task(heard.wait, 50)
    process.add_task(len, "abc")
    assert process.execute(progress=True) == [3, True, 3]
    assert stream.getvalue().startswith("plain: 1 of 3")
    assert re.fullmatch(r"plain: 3 of 3 · \d+ s", stream.getvalue().splitlines()[-1])
    assert "\x1b" not in stream.getvalue()


def test_lines_come_every_few_seconds_for_parts_that_go_on():
    """Not for those that have ended or not begun."""
    stream = io.StringIO()
    lines = Lines(stream)
    readings = [
        Reading("first", 4, 0, 4, 2.0, 0.0),
        Reading("then", 1, 1, 3, 0.5, 4.0),
        Reading("  map", 0, 0, 3, None, None),
    ]
    for now in (0.1, 4.9, 5.0, 9.9, 10.1):
        lines.show(readings, now)
    assert stream.getvalue().splitlines() == ["then: 1 of 3 · 1 failed · 30/min · 4 s left"] * 2


def test_a_short_run_shows_nothing(capfd):
    """It is over before anybody could read it."""
    process = Process("short", "parallel", 2)
    for _ in range(100):
        process.add_task(len, "abc")
    process.execute(progress=True)
    process.start(progress=True).result()
    assert capfd.readouterr() == ("", "")


def test_many_failures_are_counted_rather_than_listed(shown, monkeypatch):
    """Ten at a time are said in full."""
    monkeypatch.setattr(displays, "DELAY_S", 0.05)
    release = threading.Event()

    class Listening(io.StringIO):
        def write(self, text):
            if "more failures" in text:
                release.set()
            return super().write(text)

    sys.stderr = stream = Listening()
    process = Process("many", "parallel", 1, on_error="return")
    for _ in range(500):
        process.add_task(throw)
    process.add_task(release.wait, 50)
    process.execute(progress=True)
    lines = [line for line in stream.getvalue().splitlines() if "fail" in line and "task" in line]
    assert lines[-1] == "many: task 499 (throw) failed: KeyError: 'no'"
    assert len(lines) < 500
    assert "more failures" in stream.getvalue()


@pytest.mark.parametrize("by_key", [True, False])
def test_a_run_that_is_cancelled_says_what_it_waits_for(shown, by_key):
    """And what another Ctrl-C does, if it was one."""
    begun, told = threading.Barrier(3), threading.Event()

    class Listening(io.StringIO):
        def write(self, text):
            if "Stopping" in text:
                told.set()
            return super().write(text)

    def work():
        begun.wait(50)
        told.wait(50)

    sys.stderr = stream = Listening()
    process = Process("stopping", "parallel", 2)
    for _ in range(3):
        process.add_task(work)
    run = process.start(progress=True)
    begun.wait(50)
    if by_key:
        run._run_state.interrupt(KeyboardInterrupt())
    else:
        run.cancel()
    assert run.wait(50)
    more = " Ctrl-C again leaves now." if by_key else ""
    assert f"Stopping: waiting for 2 tasks.{more}\n" in stream.getvalue()
    assert stream.getvalue().count("Stopping") == 1


INTERRUPTED = """
import os, signal, sys, time
from procession import Process, current_task

signal.signal(signal.SIGINT, signal.default_int_handler)

def work(until):
    os.write(1, b"begun\\n")
    while not (os.path.exists(until) if until else current_task().cancelled):
        time.sleep(0.01)

if __name__ == "__main__":
    executor, progress, until = sys.argv[1:]
    process = Process("stopping", "parallel", 2, executor=executor)
    for _ in range(3):
        process.add_task(work, until)
    try:
        process.execute(progress=progress == "True")
    except KeyboardInterrupt:
        print("left")
"""


@pytest.mark.parametrize("executor", ["threads", "processes"])
@pytest.mark.parametrize("progress", [False, True])
def test_ctrl_c_at_a_terminal_says_what_is_waited_for(tmp_path, terminal, executor, progress):
    """Once, whether or not progress is shown; then the running tasks finish, and no other starts."""
    program, until = tmp_path / "program.py", tmp_path / "until"
    program.write_text(INTERRUPTED)
    arguments = [str(program), executor, str(progress), str(until)]
    script = f"import runpy, sys; sys.argv = {arguments}; runpy.run_path(sys.argv[0], run_name='__main__')"
    shown = terminal(script)
    shown.until(lambda rows: sum("begun" in row for row in rows) == 2)
    os.kill(shown.child.pid, signal.SIGINT)
    shown.until(lambda rows: any("Stopping" in row for row in rows))
    until.touch()
    shown.end()
    assert shown.text.count("Stopping") == 1
    assert "Stopping: waiting for 2 tasks. Ctrl-C again leaves now." in shown.text
    assert shown.text.count("begun") == 2
    assert "left" in shown.text


def test_ctrl_c_adds_no_line_to_the_json_of_the_command_line(tmp_path, terminal):
    """Whatever reads standard error there gets JSON lines and nothing else, on a terminal, too."""
    program = tmp_path / "program.py"
    program.write_text(INTERRUPTED.partition("if __name__")[0])
    with program.open("a") as file:
        file.write("process = Process('stopping', 'parallel', 2)\nprocess.add_task(work, '')\n")
    command = ["run", f"{program}:process", "--log-format", "json"]
    shown = terminal(f"from procession.cli.main import main; assert main({command}) == 130")
    shown.until(lambda rows: "begun" in rows)
    os.kill(shown.child.pid, signal.SIGINT)
    shown.end()
    assert "run_cancelled" in shown.text
    assert "Stopping" not in shown.text


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_ctrl_c_away_from_a_terminal_says_nothing():
    """Standard error may be a file that something reads."""
    child = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, "threads", "False", ""],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert [child.stdout.readline() for _ in range(2)] == ["begun\n"] * 2
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=20) == ("left\n", "")


def test_failures_that_the_log_shows_are_not_said_twice(shown, monkeypatch):
    """Where a handler of the program prints the log."""
    monkeypatch.setattr(displays, "_log_is_shown", LOG_IS_SHOWN)

    handler = logging.StreamHandler(shown)
    logging.getLogger("procession").addHandler(handler)
    try:
        process = Process("logged", on_error="return")
        process.add_task(throw)
        process.execute(progress=True)
    finally:
        logging.getLogger("procession").removeHandler(handler)
    assert "task_failed" in shown.getvalue()
    assert "KeyError" not in shown.getvalue()


def test_without_rich_a_terminal_gets_lines(shown, monkeypatch):
    """The extra that bars need may not be installed."""
    monkeypatch.setattr(shown, "isatty", lambda: True)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.delitem(sys.modules, "procession.observe.bars", raising=False)
    assert isinstance(screens.screen_for(shown), Lines)


def test_a_program_without_an_error_stream_shows_nothing(monkeypatch):
    """As one without a console."""
    monkeypatch.setattr(sys, "stderr", None)
    process = Process("none")
    process.add_task(len, "abc")
    assert process.execute(progress=True) == [3]


def test_a_stream_that_fails_harms_no_run(shown, caplog):
    """It is logged, once."""
    monkey = threading.Event()

    class Broken(io.StringIO):
        def write(self, text):
            monkey.set()
            raise OSError("broken pipe")

    sys.stderr = Broken()
    process = Process("broken", "parallel", 1)
    process.add_task(len, "abc")
    process.add_task(monkey.wait, 50)
    assert process.execute(progress=True) == [3, True]
    assert [record.getMessage() for record in caplog.records] == ["observer_failed"]


def test_a_stopped_terminal_holds_up_the_end_of_a_run_for_a_moment_only(shown, monkeypatch):
    """As after Ctrl-S."""
    monkeypatch.setattr(displays, "_PATIENCE_S", 0.1)
    stuck, go_on = threading.Event(), threading.Event()

    class Stopped(io.StringIO):
        def write(self, text):
            stuck.set()
            go_on.wait(50)
            return len(text)

    sys.stderr = Stopped()
    process = Process("stopped", "parallel", 1)
    process.add_task(len, "abc")
    process.add_task(stuck.wait, 50)
    try:
        assert process.execute(progress=True) == [3, True]
    finally:
        go_on.set()
    for thread in threading.enumerate():
        if thread.name == "procession-progress":
            thread.join(50)


# How far, how fast


class Books:
    process_name = "books"

    class plan:
        stages, calls = (), ()

    class ledger:
        ends, errors, stopped = [], {}, ()

    admission = labels = None

    def __init__(self, part):
        self.maps, self.nested = {0: part}, {}
        self.ledger.ends = [None]

    def name(self, index):
        return "each"

    def label(self, index):
        return None


def test_the_time_left_follows_from_the_rate_of_the_last_seconds():
    """And is unknown while the total grows, as that of an iterable whose length nobody knows."""

    class part:
        progress, total = Progress(0, 0, 100), 100

    meter = Meter(Books(part))
    (first,) = meter.read(0.0)
    assert (first.rate, first.left_s) == (None, None)
    part.progress = Progress(20, 1, 100)
    (second,) = meter.read(2.0)
    assert second == ("  0: each", 20, 1, 100, 10.0, 8.0, "", "")
    for now in range(3, 20):
        part.progress = Progress(20 + now, 1, 100)
        (later,) = meter.read(float(now))
    assert later.rate == pytest.approx(1.0)
    part.progress = Progress(90, 1, 200)
    (grown,) = meter.read(21.0)
    assert grown.rate is not None
    assert grown.left_s is None
    part.total = None
    (unknown,) = meter.read(22.0)
    assert (unknown.ended, unknown.total, unknown.left_s) == (90, None, None)


def test_elements_of_maps_and_tasks_of_nested_processes_count():
    """From the start, where it is known how many there are; of a source of unknown length, no number is made up."""
    gate, reached = threading.Event(), threading.Barrier(2)

    def held(value):
        if value == 4:
            reached.wait(50)
            gate.wait(50)
        return value

    def lazily():
        yield from range(3)
        reached.wait(50)
        gate.wait(50)

    inner = Process("inner")
    for number in range(5):
        inner.add_task(held, number)
    outer = Process("outer", "parallel", 4, on_error="return")
    outer.add_task(inner)
    outer.map(len, ["a", "b"])
    run = outer.start()
    meter = Meter(run._run_state)
    reached.wait(50)
    while (first := meter.read(0.0)[0]).ended != 6:
        time.sleep(0.001)
    assert first[:4] == ("outer", 6, 0, 7)
    assert meter.read(0.0)[1][:4] == ("  0: inner", 4, 0, 5)
    gate.set()
    run.result(50)
    assert meter.read(1.0)[0][:4] == ("outer", 7, 0, 7)

    gate.clear()
    lazy = Process("lazy", "parallel", 1)
    lazy.map(abs, lazily())
    run = lazy.start()
    meter = Meter(run._run_state)
    reached.wait(50)
    stage, part = meter.read(0.0)
    assert (stage[:4], part.total) == (("lazy", 0, 0, 1), None)
    assert re.fullmatch(r"0: map of abs: \d", told(part))
    gate.set()
    run.result(50)
    assert meter.read(1.0)[1][:4] == ("  0: map of abs", 3, 0, 3)


def test_a_bar_is_red_for_what_failed_and_never_green():
    """Few failures among many can be seen; without colours, what is to come is empty."""
    from rich.console import Console

    from procession.observe.bars import _Bar

    def drawn(*counts, **options):
        console = Console(width=20, file=io.StringIO(), force_terminal=True, color_system="standard", **options)
        with console.capture() as captured:
            console.print(_Bar(*counts))
        return captured.get().rstrip("\n")

    blue, red, dim = "\x1b[34m", "\x1b[31m", "\x1b[90m"
    assert drawn(10, 0, 20) == f"{blue}{'━' * 10}\x1b[0m{dim}{'━' * 10}\x1b[0m"
    assert drawn(20_000, 37, 20_000) == f"{blue}{'━' * 19}\x1b[0m{red}━\x1b[0m"
    assert drawn(5, 0, None) == f"{dim}{'━' * 20}\x1b[0m"
    assert drawn(10, 5, 20, no_color=True).rstrip() == "━" * 10


# In a notebook


def test_a_notebook_shows_bars_below_the_cell(tmp_path):
    """In one place that is updated, with names as text."""
    script = """
import sys
from queue import Empty
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="python3")
try:
    client.execute('''
from procession import Process, task
from procession.observe import progress
import threading
progress.DELAY_S = 0.0
gate = threading.Event()
process = Process("<b>notebook", "parallel", 2)
process.add_task(gate.wait, 50)
process.add_task(len, "abc")
run = process.start(progress=True)
''')
    seen, opened = [], False
    while True:
        message = client.get_iopub_msg(timeout=30)
        kind, content = message["msg_type"], message["content"]
        if kind == "error":
            sys.exit("\\n".join(content["traceback"]))
        if kind in ("display_data", "update_display_data"):
            seen.append((kind, content["transient"]["display_id"], content["data"]["text/html"]))
            if "1 of 2" in seen[-1][2] and not opened:
                opened = True
                client.execute("gate.set(); run.result()")
            if "2 of 2" in seen[-1][2]:
                break
    assert [kind for kind, _, _ in seen[:2]] == ["display_data", "update_display_data"], seen
    assert {kind for kind, _, _ in seen[1:]} == {"update_display_data"}
    assert len({place for _, place, _ in seen}) == 1
    assert '<progress value="1" max="2"></progress> &lt;b&gt;notebook: 1 of 2' in "".join(text for _, _, text in seen)
    print("well")
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=True)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        timeout=110,
        cwd=tmp_path,
        env={**os.environ, "JUPYTER_RUNTIME_DIR": str(tmp_path), "IPYTHONDIR": str(tmp_path)},
    )
    assert done.stdout == "well\n", done.stderr
