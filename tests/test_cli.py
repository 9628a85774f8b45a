"""The command line, as a person meets it: in a process of its own."""

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from procession.cli.main import main

PIPELINE = """
import sys, threading
from procession import Process

good = Process("good", "parallel", 2)
good.add_task(print, "hello")
good.add_task(len, "four")

bad = Process("bad")
bad.add_task(int, "1")
bad.add_task(int, "x")
bad.add_task(int, "3")

number = 3

class Holder:
    inside = good

def build():
    return good

def build_number():
    return 3

def build_badly():
    raise LookupError("no such thing")

def wait_for_signal():
    print("ready", flush=True)
    threading.Event().wait(0.5)
    print("let end", flush=True)

def never():
    print("ready", flush=True)
    threading.Event().wait()

waiting = Process("waiting", "parallel", 1)
waiting.add_task(wait_for_signal)
waiting.add_task(print, "never printed")

hanging = Process("hanging", "parallel", 1)
hanging.add_task(never)

def throw(error):
    raise error

exiting = Process("exiting")
exiting.add_task(sys.exit)
exiting.add_task(print, "never printed")

colourful = Process("colourful")
colourful.add_task(throw, ValueError("\\x1b[31mred\\x07\\u202e\\n\\tand more"))

mapped = Process("mapped", on_error="return")
mapped.map(int, ["1", "x"])

lasting = Process("lasting", executor="ray")
lasting.add_task(len, "four")

def write_nowhere():
    return Process("inner").execute(journal="nowhere/runs.db")

inner = Process("outer")
inner.add_task(write_nowhere)

def build_and_exit():
    sys.exit()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    return tmp_path


def procession(*arguments: str, cwd: Path, **options: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "procession", *arguments], cwd=cwd, capture_output=True, encoding="utf-8", **options
    )


@pytest.mark.parametrize("target", ["pipeline.py:good", "pipeline:good", "pipeline.py:build", "pipeline:Holder.inside"])
def test_run_takes_a_file_or_a_module_and_a_process_or_a_function(folder: Path, target: str) -> None:
    done = procession("run", target, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "hello\n"
    assert "good: completed in" in done.stderr
    assert "2 completed" in done.stderr


def test_run_takes_a_file_in_another_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    done = procession("run", f"{folder / 'pipeline.py'}:good", cwd=tmp_path_factory.mktemp("elsewhere"))
    assert (done.returncode, done.stdout) == (0, "hello\n")


def test_a_failure_is_exit_status_1_with_traceback_note_and_summary(folder: Path) -> None:
    done = procession("run", "pipeline.py:bad", cwd=folder)
    assert done.returncode == 1
    assert "ValueError: invalid literal for int() with base 10: 'x'" in done.stderr
    assert "in process 'bad', task 1 (int), attempt 1" in done.stderr
    assert "bad: failed in" in done.stderr
    assert "1 completed, 1 failed, 1 skipped" in done.stderr
    assert "_engine" not in done.stderr


def test_options_override_the_process(folder: Path) -> None:
    command = ["run", "pipeline.py:bad", "--on-error", "return", "--strategy", "parallel", "--max-workers", "1"]
    done = procession(*command, cwd=folder)
    assert done.returncode == 1, done.stderr
    assert "2 completed, 1 failed" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_map_with_a_failed_element_is_exit_status_1(folder: Path) -> None:
    """With on_error="return" the process completes, but not all of it went well."""
    done = procession("run", "pipeline.py:mapped", cwd=folder)
    assert done.returncode == 1, done.stderr
    assert "mapped: completed in" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["good", "--journal", "nowhere/runs.db"], "the folder '{folder}/nowhere' of the journal does not exist"),
        (["good", "--journal", "pipeline.py"], "it is not a database, or damaged"),
        (["good", "--run-id", "x" * 501], "a run id has 1 to 500 characters, and this one has 501"),
        (["lasting"], 'pip install "procession[ray]"'),
    ],
)
def test_a_run_that_cannot_be_begun_is_told_in_a_line(folder: Path, arguments: list[str], said: str) -> None:
    """What is wrong is not in the user's code, so no traceback is shown."""
    (folder / "ray.py").write_text("raise ImportError('ray is hidden from this test')")
    done = procession("run", f"pipeline.py:{arguments[0]}", *arguments[1:], cwd=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("procession: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert said.format(folder=folder) in done.stderr


def test_in_json_a_run_that_cannot_be_begun_is_a_record_without_a_traceback(folder: Path) -> None:
    command = ["run", "pipeline.py:good", "--journal", "nowhere/runs.db", "--log-format", "json"]
    done = procession(*command, cwd=folder)
    assert done.returncode == 1
    record = json.loads(done.stderr)
    assert (record["message"], record["error_type"]) == ("execute_raised", "JournalError")
    assert "nowhere" in record["error"]
    assert "exc_info" not in record


def test_an_error_of_the_library_that_a_task_raised_has_its_traceback(folder: Path) -> None:
    """It is the task's failure, whatever its type."""
    done = procession("run", "pipeline.py:inner", cwd=folder)
    assert done.returncode == 1
    assert "in write_nowhere" in done.stderr
    assert "in process 'outer', task 0 (write_nowhere), attempt 1" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "pipeline.py"], "is not FILE_OR_MODULE:NAME"),
        (["run", "pipeline.py"], "such as pipeline.py:process"),
        (["run", "nowhere.py:good"], "there is no file nowhere.py"),
        (["run", "pipline.py:good"], "there is no file pipline.py; did you mean 'pipeline.py'?"),
        (["run", "pipline:good"], "no file of that name; did you mean 'pipeline'?"),
        (["run", "pipeline.py:biuld"], "has no 'biuld'; did you mean 'build'? processes in it: bad, "),
        (["run", "pipeline.py:good", "--max-worker=2", "--jurnal", "x"], "--jurnal x; did you mean '--journal'?"),
        (["run", "nowhere:good"], "there is no module 'nowhere'"),
        (
            ["run", "pipeline.py:missing"],
            "has no 'missing'; processes in it: bad, colourful, exiting, good, hanging, inner, lasting, mapped, waiting",
        ),
        (["run", "pipeline.py:number"], "is of type int, and neither a Process nor a function that returns one"),
        (["run", "pipeline.py:build_number"], "is of type int, and neither"),
        (["run", "pipeline.py:good", "--max-workers", "0"], "a number of at least 1 is needed, not '0'"),
        (["run", "pipeline.py:good", "--strategy", "both"], "invalid choice: 'both'"),
        (["fly"], "there is no command 'fly'; there are run, graph, "),
        (["shwo"], "there is no command 'shwo'; did you mean 'show'?"),
        ([], "procession run FILE_OR_MODULE:NAME "),
    ],
)
def test_a_wrong_command_line_is_exit_status_2_and_says_what_is_wrong(
    folder: Path, arguments: list[str], said: str
) -> None:
    done = procession(*arguments, cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_code_that_cannot_be_loaded_is_exit_status_1_with_its_traceback(folder: Path) -> None:
    done = procession("run", "pipeline.py:build_badly", cwd=folder)
    assert done.returncode == 1
    assert "LookupError: no such thing" in done.stderr
    assert "pipeline.py:build_badly could not be loaded" in done.stderr


@pytest.mark.parametrize(
    ("target", "said"), [("exiting", "exiting: failed in"), ("build_and_exit", "build_and_exit could not be loaded")]
)
def test_code_that_exits_has_not_completed(folder: Path, target: str, said: str) -> None:
    done = procession("run", f"pipeline.py:{target}", cwd=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "SystemExit" in done.stderr
    assert said in done.stderr


def test_the_text_of_an_exception_cannot_command_the_terminal(folder: Path) -> None:
    done = procession("run", "pipeline.py:colourful", cwd=folder)
    assert done.returncode == 1
    assert "ValueError: \\x1b[31mred\\x07\\u202e\n    and more\n" in done.stderr
    assert all(character.isprintable() or character in "\n\t" for character in done.stderr)


def test_help_and_version(tmp_path: Path) -> None:
    asked = procession("--help", cwd=tmp_path)
    assert asked.returncode == 0
    for word in "run", "demo", "exit status", "130":
        assert word in asked.stdout
    for option in "FILE_OR_MODULE:NAME", "--strategy", "--max-workers", "--on-error":
        assert option in procession("run", "--help", cwd=tmp_path).stdout
    assert procession("--version", cwd=tmp_path).stdout.startswith("procession 0.")


def test_demo_runs_the_main_example(tmp_path: Path) -> None:
    """Here on a standard library of two files: the real one takes half a minute of processor time."""
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "one.py").write_text("def long():\n    return 1\n")
    (tmp_path / "two.py").write_text("")
    program = f"import sysconfig; sysconfig.get_path = lambda name: {str(tmp_path)!r}; "
    program += "from procession.cli.main import console; console()"
    command = [sys.executable, "-c", program, "demo", "--max-workers", "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert "long (2 lines, one.py)" in done.stdout
    assert "2 files, 0 of them not valid Python on purpose\n" in done.stdout
    assert "source_audit: completed in" in done.stderr
    assert "times as fast as one after another" in done.stderr


def begin(folder: Path, target: str) -> "subprocess.Popen[str]":
    child = subprocess.Popen(
        [sys.executable, "-m", "procession", "run", target],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_what_runs_end_and_starts_nothing_new(folder: Path, number: int, status: int) -> None:
    child = begin(folder, "pipeline.py:waiting")
    os.kill(child.pid, number)
    out, err = child.communicate(timeout=30)
    assert out == "let end\n"
    assert child.returncode == status
    assert "waiting: cancelled in" in err
    assert "1 completed, 1 cancelled" in err
    assert "Traceback" not in err


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_second_ctrl_c_leaves_at_once(folder: Path) -> None:
    child = begin(folder, "pipeline.py:hanging")
    while child.poll() is None:  # the first one may not have been seen when the second comes: then they are one
        os.kill(child.pid, signal.SIGINT)
        try:
            child.wait(0.2)
        except subprocess.TimeoutExpired:
            continue
    assert child.returncode == 130
    child.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("target", "status"), [("well", 0), ("badly", 1)])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_after_the_end_of_a_run_leaves_its_status(tmp_path, target, status, number) -> None:
    """It is known by then, and said in the summary."""
    (tmp_path / "late.py").write_text(
        "import atexit, os\n"
        "from procession import Process\n"
        f"atexit.register(os.kill, os.getpid(), {int(number)})\n"
        "well, badly = Process('well'), Process('badly')\n"
        "well.add_task(int, '1')\n"
        "badly.add_task(int, 'x')\n"
    )
    command = [sys.executable, "-m", "procession", "run", f"late.py:{target}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=50)
    assert done.returncode == status
    assert f"{target}: {'completed' if not status else 'failed'} in" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_a_reader_that_goes_away_sees_to_no_traceback(tmp_path) -> None:
    """As `head` does, when it has read enough."""
    read, write = os.pipe()
    os.close(read)
    (tmp_path / "one.py").write_text("from procession import Process\none = Process('one')\none.add_task(int)\n")
    for command in ["run", "one.py:one", "--run-id", "a"], ["runs"], ["show", "a"], ["graph", "one.py:one"]:
        command = [sys.executable, "-m", "procession", *command]
        done = subprocess.run(command, cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, encoding="utf-8", timeout=50)
        assert "Traceback" not in done.stderr, command
    os.close(write)


def test_progress_of_a_short_run_shows_nothing_where_there_is_no_terminal(folder: Path) -> None:
    """The summary is all; what a terminal shows is tested with progress."""
    quiet = procession("run", "pipeline.py:waiting", cwd=folder)
    assert quiet.stderr.startswith("waiting: completed in")


OBEYED = "e\x1b[31m\u202e\x9b\x07"


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", f"{OBEYED}.py:x"],
        ["run", f"pipeline.py:{OBEYED}"],
        ["run", OBEYED],
        ["run", "pipeline.py:good", f"--{OBEYED}"],
        ["run", "pipeline.py:good", "--journal", f"{OBEYED}://x"],
        ["run", "pipeline.py:good", "--timeline", f"{OBEYED}/x.svg"],
        ["graph", "pipeline.py:good", "-o", f"{OBEYED}.svg", "--format", "mermaid"],
        ["runs", "--journal", f"{OBEYED}.db"],
        ["resume", OBEYED],
        ["show", OBEYED],
        ["ui", "--host", OBEYED, "--port", "0"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_nothing_on_the_command_line_can_command_the_terminal(folder, arguments, monkeypatch, capfd):
    """Whatever of it a refusal says again: file, name, option, journal, run, host."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "pipeline", raising=False)
    try:
        status = main(arguments)
    except SystemExit as left:
        status = left.code
    monkeypatch.delitem(sys.modules, "pipeline", raising=False)
    assert status in (1, 2)
    said = "".join(capfd.readouterr())
    assert said
    assert all(character.isprintable() or character == "\n" for character in said)


def test_an_error_that_nobody_foresaw_cannot_command_the_terminal(monkeypatch, capsys):
    """It is shown with its traceback, as an error of ours would be."""
    monkeypatch.setattr("procession.cli.recorded.open_journal", lambda where: throw(RuntimeError(OBEYED)))
    assert main(["runs"]) == 1
    said = capsys.readouterr().err
    assert "RuntimeError: e\\x1b[31m" in said
    assert all(character.isprintable() or character == "\n" for character in said)


def test_what_the_pages_server_logs_cannot_command_the_terminal(monkeypatch, capsys):
    """Tracebacks of what a request came to, say."""

    def serve(*_):
        try:
            throw(RuntimeError(OBEYED))
        except RuntimeError:
            logging.getLogger("uvicorn.error").exception("a request %s", OBEYED)

    monkeypatch.setattr("procession.web.serve", serve)
    assert main(["ui"]) == 0
    said = capsys.readouterr().err
    assert "    RuntimeError: e\\x1b[31m" in said
    assert all(character.isprintable() or character == "\n" for character in said)


def throw(error):
    raise error
