"""The examples run as a reader would run them, and come to what they say."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
ENVIRONMENT = {**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONDONTWRITEBYTECODE": "1"}


def run(*arguments: object, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        encoding="utf-8",
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_source_audit_measures_every_file_of_a_library(tmp_path: Path) -> None:
    """Of a small one, to the last number; the standard library of each Python is read in `.ci/run`."""
    files = {
        "alone.py": "def short(): pass\n",
        "pack/__init__.py": "",
        "pack/inner.py": "class A:\n    def long(self):\n        '''Say.'''\n        return 1\n    async def b(self): pass\n",
        "pack/broken.py": "def (:\n",
        "site-packages/other.py": "def installed(): pass\n",
    }
    for name, code in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(code)
    library = f"import sysconfig; sysconfig.get_path = lambda name: {str(tmp_path)!r}"
    start = f"{library}; import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"
    out = run("-c", start, EXAMPLES / "source_audit.py", cwd=tmp_path)
    rows = {words[0]: words[1:] for words in map(str.split, out.splitlines()[:5])}
    assert rows["pack"] == ["3", "6", "2", "50%", "long", "(3", "lines,", "inner.py)"]
    assert rows["alone"] == ["1", "1", "1", "100%", "short", "(1", "lines,", "alone.py)"]
    assert rows["all"] == ["4", "7", "3", "67%", "long", "(3", "lines,", "inner.py)"]
    assert "4 files, 1 of them not valid Python on purpose\n" in out
    assert "source_audit: completed in" in out
    assert "4 of 4 elements completed" in out
    assert "times as fast as one after another" in out


def test_csv_to_sqlite_loads_every_row_and_sums_up(tmp_path: Path) -> None:
    out = run(EXAMPLES / "csv_to_sqlite.py", EXAMPLES / "data" / "seattle-weather.csv", tmp_path / "w.db", cwd=tmp_path)
    assert out.startswith("1,461 days in ")
    connection = sqlite3.connect(tmp_path / "w.db")
    (days, rain) = connection.execute("SELECT count(*), round(sum(rain_mm), 1) FROM day").fetchone()
    assert (days, rain) == (1461, 4426.0)
    assert connection.execute("SELECT count(*), round(sum(rain_mm), 1) FROM month").fetchone() == (48, 4426.0)
    assert connection.execute("SELECT sum(days) FROM kind").fetchone() == (1461,)
    connection.close()


def test_csv_to_sqlite_names_the_line_that_is_wrong_and_writes_nothing(tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text(
        "date,precipitation,temp_max,temp_min,wind,weather\n2012/01/01,0,1,2,3,sun\n2012/01/02,x,1,2,3,sun\n"
    )
    with pytest.raises(AssertionError, match=r"line 3 is no day(.|\n)*in process 'csv_to_sqlite', task 1 \(check\)"):
        run(EXAMPLES / "csv_to_sqlite.py", bad, tmp_path / "w.db", cwd=tmp_path)
    assert not (tmp_path / "w.db").exists()


def test_fetch_flaky_gets_every_page_that_is_there(tmp_path: Path) -> None:
    out = run(EXAMPLES / "fetch_flaky.py", cwd=tmp_path).splitlines()
    assert out[0] == "57 of 60 pages fetched, 3 not found"
    assert out[1] == "48 after 1 attempts, 3 after 2 attempts, 9 after 3 attempts"


def test_orders_are_answered_and_paid_once_though_the_service_is_killed(tmp_path: Path) -> None:
    out = run(EXAMPLES / "orders.py", cwd=tmp_path).splitlines()
    assert out[0] == "120 orders answered; the service was killed after 40 and started again"
    assert out[1].startswith("120 orders charged, each once; ")


def test_agent_pays_for_no_question_twice_when_it_is_killed(tmp_path: Path) -> None:
    """Killed in the middle and gone on with, then asked once more: the answer is the one of an agent left in peace."""
    agent = EXAMPLES / "agent.py"
    with pytest.raises(AssertionError):
        run(agent, "--die-after", "3", cwd=tmp_path)
    bill = tmp_path / "agent-bill.txt"
    assert len(bill.read_text().splitlines()) == 3
    asked = run(agent, cwd=tmp_path)
    assert "is suspended: task 0 (agent) waits for 'order'" in asked
    assert asked.endswith("\n6 questions, 0 of them paid twice, 12 cents in all\n")
    answer(tmp_path)
    said = "apples, pears, plums: ordered for 3.25\n7 questions, 0 of them paid twice, 14 cents in all\n"
    assert run(agent, cwd=tmp_path) == said
    assert run(agent, cwd=tmp_path) == said
    undisturbed = tmp_path / "other"
    undisturbed.mkdir()
    run(agent, cwd=undisturbed)
    answer(undisturbed)
    assert run(agent, cwd=undisturbed) == said


def test_prompts_are_each_written_once_and_no_recorded_answer_is_paid_for_again(tmp_path: Path) -> None:
    """Killed in the middle, and started again; and the service had to refuse only a few calls."""
    arguments = [str(EXAMPLES / "prompts.py"), "--prompts", "300", "--rate", "100"]
    answers, bill = tmp_path / "answers.jsonl", tmp_path / "bill.txt"
    killed = subprocess.Popen([sys.executable, *arguments], cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    while not answers.exists() or len(answers.read_text().splitlines()) < 20:
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    prompts, calls = (tmp_path / "prompts.txt").read_text().splitlines(), len(bill.read_text().splitlines())
    with closing(sqlite3.connect(tmp_path / "prompts.db")) as journal:
        recorded = journal.execute("SELECT element FROM procession_records WHERE task = 0 AND element >= 0").fetchall()
    assert len(recorded) >= 20

    out = run(*arguments, cwd=tmp_path).splitlines()
    assert [json.loads(line)["prompt"] for line in answers.read_text().splitlines()] == prompts
    billed = [line.partition(" ") for line in bill.read_text().splitlines()]
    assert not {prompts[element] for (element,) in recorded} & {prompt for _, _, prompt in billed[calls:]}
    paid = Counter(prompt for status, _, prompt in billed if status == "200")
    assert set(paid) == set(prompts)
    assert paid.total() <= len(prompts) + 32 + 64  # what was under way, and what had ended and was not recorded yet
    refused = sum(status == "429" for status, _, _ in billed)
    assert refused <= 96  # some 200 without the limit; each time that calls come too close, those under way are
    assert (
        out[0]
        == f"300 rows in answers.jsonl; {len(billed) - paid.total() - refused} calls failed, {refused} were refused"
    )
    assert out[1].startswith(f"paid: {paid.total()} answers, ")

    assert run(*arguments, cwd=tmp_path).splitlines()[:2] == out[:2]  # it is complete: nothing is asked, nor written


def answer(folder: Path) -> None:
    """Give the answer that the agent waits for, on the command line."""
    command = [sys.executable, "-m", "procession", "answer", "fruit", "order", "true", "--journal", "agent.db"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=50)
