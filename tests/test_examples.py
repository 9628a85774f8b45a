"""The examples run as a reader would run them, and come to what they say."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(script: str, *arguments: object, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLES / script, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        encoding="utf-8",
        env={"PYTHONIOENCODING": "utf-8", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_source_audit_measures_every_file_of_the_standard_library(tmp_path: Path) -> None:
    out = run("source_audit.py", cwd=tmp_path)
    library = Path(subprocess.__file__).parent
    others = {"site-packages", "dist-packages", "__pycache__"}
    files = [path for path in library.rglob("*.py") if others.isdisjoint(path.parts)]
    assert f"{len(files):,} files" in out
    asyncio_files = [path for path in files if path.relative_to(library).parts[0] == "asyncio"]
    lines = sum(path.read_bytes().count(b"\n") for path in asyncio_files)
    row = next(line for line in out.splitlines() if line.startswith("asyncio "))
    assert row.split()[1:3] == [f"{len(asyncio_files):,}", f"{lines:,}"]
    assert "source_audit: completed in" in out
    assert f"{len(files):,} of {len(files):,} elements completed" in out
    assert "times as fast as one after another" in out


def test_csv_to_sqlite_loads_every_row_and_sums_up(tmp_path: Path) -> None:
    out = run("csv_to_sqlite.py", EXAMPLES / "data" / "seattle-weather.csv", tmp_path / "w.db", cwd=tmp_path)
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
        run("csv_to_sqlite.py", bad, tmp_path / "w.db", cwd=tmp_path)
    assert not (tmp_path / "w.db").exists()


def test_fetch_flaky_gets_every_page_that_is_there(tmp_path: Path) -> None:
    out = run("fetch_flaky.py", cwd=tmp_path).splitlines()
    assert out[0] == "57 of 60 pages fetched, 3 not found"
    assert out[1] == "48 after 1 attempts, 3 after 2 attempts, 9 after 3 attempts"
