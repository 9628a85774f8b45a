"""Debian's Chromium, driven by Playwright, and the programs whose runs it shows; skipped where one is missing."""

import os
import re
import select
import shutil
import subprocess
import sys
import time

import pytest

from procession import JournalError, RunUnknownError
from procession.journal import Journal

try:
    from playwright.sync_api import expect, sync_playwright
except ImportError:
    expect = sync_playwright = None

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
HOSTILE = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>\"' onload='window.hacked=1"

missing = None
if sync_playwright is None:
    missing = 'no Playwright here: pip install "procession[browser]"'
elif CHROMIUM is None:
    missing = "no Chromium here: apt-get install chromium"

NEEDS_A_BROWSER = pytest.mark.skipif(
    missing is not None and not os.environ.get("BROWSER_TESTS_REQUIRED"), reason=str(missing)
)

# Each task of `live` ends when the test sends a line.
PIPELINE = """
import logging, sys
from procession import Process, TaskLogHandler, current_task, task

logging.getLogger().addHandler(TaskLogHandler())

def step(number):
    line = sys.stdin.readline()
    if line.startswith("fail"):
        raise ValueError(f"step {number} was told to fail")
    return number

def hold():
    while not current_task().cancelled:
        current_task().sleep(0.01)

def good(number):
    return number

def bad(number):
    logging.warning("asks for %s", number)
    if number % 3 == 1:
        raise LookupError(f"nothing at {number}")

@task(name=HOSTILE)
def hostile():
    logging.warning(HOSTILE)
    raise ValueError(HOSTILE)

live = Process("live")
for number in range(4):
    live.add_task(step, number)

endless = Process("endless", "parallel", 2)
for _ in range(3):
    endless.add_task(hold)

nightly = Process("nightly", "parallel", 2, on_error="continue")
def build(function):
    for number in range(12):
        nightly.add_task(function, number)
    nightly.map(good, range(5))
    inner = Process("inner")
    inner.add_task(good, 1)
    nightly.add_task(inner)
    return nightly

@task(name="ask {host} {what}", retries=1)
def ask(host, what):
    if current_task().attempt == 1:
        raise ConnectionError(f"{host} has refused the connection: " + "x" * 200)

tried = Process("tried")
tried.add_task(ask, "https://example.org/" + "path/" * 60, what="all")

evil = Process(HOSTILE, "parallel", 1, on_error="return")
evil.add_task(hostile)

which, where, run_id = sys.argv[1:]
process = {"good": lambda: build(good), "bad": lambda: build(bad)}.get(which, lambda: globals()[which])()
try:
    process.execute(journal=where, run_id=run_id)
except BaseException as error:
    sys.exit(type(error).__name__)
""".replace("HOSTILE", repr(HOSTILE))


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


class Pipeline:
    """Executes processes of a file in other interpreters, by default the file above, and serves the page in a third."""

    def __init__(self, folder, file=None):
        self.file, self.where = file or folder / "pipeline.py", folder / "runs.db"
        if file is None:
            self.file.write_text(PIPELINE)
        self.children = []

    def start(self, which, run_id):
        child = subprocess.Popen(
            [sys.executable, self.file, which, self.where, run_id],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.children.append(child)
        until = time.monotonic() + 50
        while child.poll() is None and not self.has(run_id):
            assert time.monotonic() < until
            time.sleep(0.02)
        return child

    def has(self, run_id):
        """Return whether the journal knows of a run."""
        try:
            with Journal(self.where) as journal:
                return bool(journal.run(run_id))
        except (JournalError, RunUnknownError):
            return False

    def run(self, which, run_id):
        child = self.start(which, run_id)
        child.communicate(timeout=50)
        return child.returncode

    def serve(self, port=0):
        command = [sys.executable, "-m", "procession", "ui", "--journal", self.where, "--port", str(port)]
        self.server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.children.append(self.server)
        while select.select([self.server.stdout], [], [], 50)[0]:
            found = re.search(r"(http://\S+)/\?key=\S+", self.server.stdout.readline())
            if found:
                self.entrance = found[0]
                return found[1]
        raise AssertionError("no server")

    def close(self):
        for child in self.children:
            child.kill()
            child.wait(30)
            for stream in (child.stdin, child.stdout, child.stderr):
                if stream is not None:
                    try:
                        stream.close()
                    except BrokenPipeError:
                        pass


@pytest.fixture
def pipeline(tmp_path):
    made = Pipeline(tmp_path)
    yield made
    made.close()


@pytest.fixture
def open_page(browser, pipeline):
    """Opens a page, by the address with the key, and fails if anything is wrong in the browser's own eyes."""
    yield from opening_pages(browser, pipeline)


def opening_pages(browser, pipeline):
    """Yield what opens pages of a pipeline."""
    contexts, wrong = [], []

    def opening(address, **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("console", lambda message: message.type == "error" and wrong.append(message.text))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.goto(pipeline.entrance)
        page.goto(address)
        return page

    opening.wrong = wrong
    yield opening
    for context in contexts:
        context.close()
    assert wrong == []
