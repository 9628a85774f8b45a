"""A journal on PostgreSQL behind PgBouncer, whose connections are other programs' after each transaction."""

import os
import shutil
import subprocess

import psycopg
import pytest

from procession import Process
from procession.journal import Journal

PGBOUNCER = shutil.which("pgbouncer")

pytestmark = pytest.mark.skipif(
    PGBOUNCER is None and not os.environ.get("POOLER_TESTS_REQUIRED"),
    reason="no PgBouncer here: apt-get install pgbouncer",
)


@pytest.fixture
def pooled(postgres, comes_true):
    """The URL of a database behind a pooler in transaction mode, which has two connections for all."""
    with postgres.pooler() as url:
        assert comes_true(lambda: is_up(url))
        yield url


def is_up(url):
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def test_runs_share_the_connections_of_a_pooler_with_other_programs(pooled):
    """Several runs at once, more than it has connections, are recorded whole; it says to nobody else how to commit."""
    processes = [Process(f"run{number}", "parallel", 4) for number in range(3)]
    for process in processes:
        process.map(str, range(200))
        for number in range(30):
            process.add_task(abs, number)
    with Journal(pooled) as journal:
        runs = [process.start(run_id=process.name, journal=journal) for process in processes]
        for run in runs:
            assert run.result()[1:] == list(range(30))
        assert {run.status for run in journal.runs()} == {"completed"}
    for _ in range(4):
        with psycopg.connect(pooled, prepare_threshold=None) as other:
            assert other.execute("SHOW synchronous_commit").fetchone() == ("on",)


def test_an_address_may_say_what_a_pooler_needs(pooled):
    """Words of the driver's own, as other programs need them there."""
    process = Process("one")
    process.add_task(abs, -1)
    assert process.execute(run_id="a", journal=f"{pooled}&prepare_threshold=0") == [1]
