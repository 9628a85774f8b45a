"""Where a journal is: addresses that mean nothing, and their passwords, which nobody sees."""

import subprocess
import sys
import traceback
from textwrap import dedent

import pytest

from journals import SIX
from procession import JournalError, Process
from procession.journal import Journal
from procession.journal.origin import begun_by


@pytest.mark.parametrize("where", ["nowhere://x", "://", "", "sqlite+none:///x", "postgresql+none://x/y"])
def test_a_place_that_means_nothing_is_refused(where, tmp_path, monkeypatch):
    """At once, and nothing is made."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError):
        Journal(where)
    with pytest.raises(ValueError, match="'process' and 'power'"):
        Journal("x", durability="paper")
    assert list(tmp_path.iterdir()) == []


SECRETS = [
    "postgresql://user:s3cret@127.0.0.1:1/name",
    "postgresql://user@127.0.0.1:1/name?password=s3cret",
    "postgresql://user@127.0.0.1:1/name?sslmode=disable&sslpassword=s3cret",
    "postgresql://user:s3%40cret@127.0.0.1:1/name",
    "postgresql://user:s3cret@more@127.0.0.1:1/name",
    "postgresql://user:more@s3cret@127.0.0.1:1/name",
    "postgresql://user:s3cret/more@127.0.0.1:1/name",
    "postgresql://user:more#s3cret@127.0.0.1:1/name",
    "postgresql://user:more?s3cret@127.0.0.1:1/name",
    "postgresql://user:s3cret@127.0.0.1:port/name",
    "nothing://user:s3cret@127.0.0.1/name?password=s3cret",
]


@pytest.mark.parametrize("url", SECRETS)
def test_a_password_is_not_shown(url):
    """Wherever it stands in the address of a database: errors say which was meant, or what one looks like."""
    with pytest.raises((JournalError, ValueError)) as caught:
        Journal(url).begin("run", SIX)
    said = "".join(traceback.format_exception(caught.value))
    assert "user" in str(caught.value)
    assert "s3cret" not in said and "s3%40cret" not in said


@pytest.mark.parametrize("url", SECRETS)
def test_a_password_on_the_command_line_is_not_recorded(url, tmp_path, monkeypatch):
    """How a run was begun is shown, and kept."""
    monkeypatch.setattr("sys.argv", ["program", "--database", url, f"--other={url}", "plain"])
    with Journal(tmp_path / "runs.db") as journal:
        Process("p").execute(run_id="run", journal=journal)
        with begun_by(["procession", "run", f"pipeline.py:{url}"]):
            Process("p").execute(run_id="other", journal=journal)
        argv, command = (journal.run(run_id).origin["argv"] for run_id in ("run", "other"))
    assert (argv, command[:2]) == (["program"], ["procession", "run"])
    assert "s3cret" not in (tmp_path / "runs.db").read_bytes().decode("utf-8", "replace")


def test_what_is_no_secret_of_an_address_is_shown():
    """Which server, database and user is meant."""
    with pytest.raises(JournalError, match=r"user@127.0.0.1:1/name\?passfile=\*\*\*&sslmode=disable"):
        Journal("postgresql://user@127.0.0.1:1/name?sslmode=disable&passfile=/none").runs()


@pytest.mark.parametrize("missing", ["sqlalchemy", "psycopg"])
def test_a_missing_extra_is_named(tmp_path, missing):
    """Without what the extra brings, the error says what to install."""
    script = f"""
    import sys
    sys.modules[{missing!r}] = None
    try:
        from procession.journal import Journal
        Journal(sys.argv[1])
    except ImportError as error:
        print(error)
    """
    command = [sys.executable, "-c", dedent(script), "postgresql://nobody@127.0.0.1:1/none"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=40, check=True).stdout
    assert 'pip install "procession[journal]"' in said
