"""The page of a large journal: how soon its first byte is there, how heavy it is, and how soon it has news.

    pip install -e ".[web,browser]" && python benchmarks/page.py [FOLDER]

Makes a journal of 10,000 runs, one of 100,000 tasks, in FOLDER (kept, and used again) or a temporary one. News is
measured in Chromium, where that and Playwright are installed.
"""

import http.client
import logging
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median

from procession import Process
from procession.journal import Journal

RUNS, TASKS, ROUNDS = 10_000, 100_000, 30
FIRST_BYTE_S, NEWS_S, WEIGHT = 0.1, 0.5, 150_000

LIVE = """
import sys
from procession import Process

def step():
    sys.stdin.readline()

live = Process("live")
for _ in range(int(sys.argv[2])):
    live.add_task(step)
live.execute(journal=sys.argv[1], run_id=sys.argv[3])
"""
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
WAIT = """number => new Promise(done => {
    const row = document.getElementById(`row${number}`);
    const look = () => row.textContent.includes("completed") ? done() : requestAnimationFrame(look);
    look();
})"""


def fetch(number: int) -> int:
    """Fail now and then."""
    if number % 997 == 0:
        raise LookupError(f"nothing at {number}")
    return number


def make(where: Path) -> None:
    """Record the runs."""
    logging.disable()
    with Journal(where) as journal:
        for number in range(RUNS):
            count = TASKS if number == RUNS // 2 else 20
            process = Process(("crawl", "report", "train")[number % 3], "parallel", 8, on_error="continue")
            for task in range(count):
                process.add_task(fetch, number * 31 + task)
            with suppress(ExceptionGroup):
                process.execute(journal=journal, run_id="big" if count == TASKS else f"run-{number}")


@contextmanager
def served(where: Path) -> Iterator[tuple[int, str]]:
    """Serve the page, and say on which port and with which key."""
    command = [sys.executable, "-m", "procession", "ui", "--journal", str(where), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        found = re.search(r":(\d+)/\?key=(\S+)", server.stdout.readline())
        assert found is not None
        yield int(found[1]), found[2]
        server.terminate()


def asked(page: tuple[int, str], path: str) -> tuple[float, bytes]:
    """Return how long the first byte of a page takes, in seconds, and the page."""
    port, key = page
    connection = http.client.HTTPConnection("127.0.0.1", port)
    began = time.perf_counter()
    connection.request("GET", path, headers={"cookie": f"procession-{port}={key}"})
    answer = connection.getresponse()
    took = time.perf_counter() - began
    text = answer.read()
    connection.close()
    return took, text


def pages(page: tuple[int, str], big: int) -> bool:
    """Print how soon pages are there and how heavy they are, and return whether that is good."""
    good = True
    print(f"{'page':44} {'median':>8} {'worst':>8} {'with all it needs':>18}")
    for path in (
        "/",
        "/?status=failed",
        "/?q=no+such+thing",
        "/?process=crawl&status=completed",
        f"/run/{big}",
        f"/run/{big}?from={TASKS // 2}",
        f"/run/{big}?state=failed",
        f"/run/{big}?state=failed&q=fetch&from={TASKS // 2}",
        f"/run/{big}?q=fetch",
        f"/run/{big}?q=no+such+thing",
        f"/run/{big}/task/{TASKS - 1}",
        f"/run/{big}/compared",
        f"/run/{big}/graph",
        f"/run/{big}/time",
    ):
        times = [asked(page, path)[0] for _ in range(ROUNDS)]
        text = asked(page, path)[1]
        needed = set(re.findall(r'(?:href|src|data-source)="(/static/[^"]*|/run/\d+/(?:time|graph))"', text.decode()))
        weight = len(text) + sum(len(asked(page, one)[1]) for one in needed - {path})
        good &= median(times) < FIRST_BYTE_S and weight < WEIGHT
        print(f"{path:44} {median(times) * 1e3:5.1f} ms {max(times) * 1e3:5.1f} ms {weight / 1e3:15.1f} kB")
    return good


def news(page: tuple[int, str], where: Path, count: int = 20) -> bool:
    """Print how long it takes from the end of a task to an open page, and return whether that is good."""
    chromium = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        chromium = None
    if chromium is None:
        print("news: not measured, for Chromium or Playwright is not installed")
        return True
    run_id = f"live-{time.time_ns()}"
    command = [sys.executable, "-c", LIVE, str(where), str(count), run_id]
    times: list[float] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as runner, sync_playwright() as playwright:
        assert runner.stdin is not None
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS.split())
        tab = browser.new_page()
        while asked(page, f"/run?id={run_id}")[1]:  # nothing, once it leads somewhere
            assert runner.poll() is None
            time.sleep(0.05)
        tab.goto("http://127.0.0.1:{}/?key={}".format(*page))
        tab.goto(f"http://127.0.0.1:{page[0]}/run?id={run_id}")
        tab.locator("#link.live").wait_for()
        for number in range(count):
            # A little off the beat of the one who looks.
            time.sleep(1.0 + number * 0.013)
            began = time.perf_counter()
            runner.stdin.write("\n")
            runner.stdin.flush()
            tab.evaluate(WAIT, number)
            times.append(time.perf_counter() - began)
        browser.close()
    print(
        f"\nfrom the end of a task to the open page: median {median(times) * 1e3:.0f} ms, worst {max(times) * 1e3:.0f}"
    )
    return median(times) < NEWS_S


def main() -> None:
    """Measure, and exit with 1 unless all goals are reached."""
    with tempfile.TemporaryDirectory() as folder:
        where = Path(sys.argv[1] if len(sys.argv) > 1 else folder) / "page.db"
        if not where.exists():
            make(where)
        with Journal(where) as journal, journal.reader() as reader:
            big = reader.key("big")
        with served(where) as page:
            asked(page, "/")
            good = pages(page, big)
            good &= news(page, where)
    sys.exit(not good)


if __name__ == "__main__":
    main()
