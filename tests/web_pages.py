"""The page of a journal, opened as a browser would, and the processes that it shows."""

import re
import threading
from html import unescape

import pytest
from starlette.testclient import TestClient

from procession import Process, RunCancelledError, current_task, task
from procession.journal import Journal
from procession.web import application

HOSTILE = "<script>alert('x')</script>\"'>\u202e\x1b[31m\n"
BASE = "http://127.0.0.1:8765"
KEY = "the-key-that-the-terminal-shows"
COOKIE = {"procession-8765": KEY}
BROKEN = set()
HELD, BEGUN = threading.Semaphore(0), threading.Semaphore(0)


def hold():
    """Goes on until the test lets it, or somebody cancels the run."""
    BEGUN.release()
    while not HELD.acquire(timeout=0.02) and not current_task().cancelled:
        pass


@pytest.fixture(autouse=True)
def _nothing_broken():
    BROKEN.clear()


def work(number):
    if number in BROKEN:
        raise ValueError(f"number {number} is odd\nand so is this line")
    return number


def double(number):
    return 2 * work(number)


@task(retries=2)
def stubborn():
    attempt = current_task().attempt
    if attempt < 3:
        raise ConnectionError("not yet")
    return attempt


def numbers(count, name="numbers", **options):
    process = Process(name, "parallel", 2, **options)
    for number in range(count):
        process.add_task(work, number)
    return process


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "runs.db")


@pytest.fixture
def opened():
    """Opens the page of a journal, with its key unless `cookies` says what else to bring."""
    closing = []

    def open_page(where, cookies=COOKIE, **options):
        journal = Journal(where)
        app = application(journal, KEY, **options)
        client = TestClient(app, base_url=BASE, headers={"origin": BASE}, cookies=cookies)
        closing.append(journal)
        return client

    yield open_page
    for journal in closing:
        journal.close()


def rows_of(page):
    """Return the words of each row of a page's tables."""
    body = "".join(re.findall(r"<tbody.*?</tbody>", page, re.DOTALL))
    return [" ".join(re.sub(r"<[^>]*>", " ", row).split()) for row in re.findall(r"<tr.*?</tr>", body, re.DOTALL)]


def failing(process, where, run_id):
    with pytest.raises((ValueError, ExceptionGroup)):
        process.execute(journal=where, run_id=run_id)


def nodes_of(page):
    """Return what each node of a page's graph says of itself, and where it leads."""
    nodes = re.findall(r'<a class="node [a-z]+" href="([^"]*)" aria-label="([^"]*)"', page)
    return [(unescape(said), unescape(address)) for address, said in nodes]


def token_of(page, address="/run/1"):
    return re.search(r'name="token" value="([^"]+)"', page.get(address).text)[1]


@pytest.fixture
def going(path):
    """A run that goes on."""
    process = Process("going", "parallel", 1)
    process.add_task(hold)
    process.add_task(work, 1)
    run = process.start(journal=path, run_id="run")
    BEGUN.acquire(timeout=30)
    yield run
    run.cancel()
    with pytest.raises(RunCancelledError):
        run.result()
