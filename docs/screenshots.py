"""Makes the pictures of the page that stand in the documentation: real runs, in a real browser.

    pip install -e ".[browser]" && python docs/screenshots.py

Needs Chromium, and some two minutes. The pictures go to docs/images, each in the dark and in the light, for a desk and
for a phone: the pages of the documentation show the one that suits their reader.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).with_name("images")
PHONE = 390
SCREENS = {"desk": 1240, "phone": PHONE}
"""The widths for which pictures are made."""
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)

NIGHTLY = """
import logging, random, time
from procession import Process, TaskLogHandler, task

logger = logging.getLogger("weather")
logger.addHandler(TaskLogHandler())
logger.setLevel("INFO")

DAY = 1
chance = random.Random(7)

def stations():
    time.sleep(0.15)
    return [f"station-{number:03}" for number in range(150)]

@task(retries=2, retry_on=ConnectionError, name="download {station}")
def download(station):
    time.sleep(chance.uniform(0.02, 0.12))
    if chance.random() < 0.05:
        raise ConnectionError(f"{station} did not answer within 30 s")
    return station

def clean(month, measured=None):
    logger.info("month %d: %d stations, %d of them without a gap", month, 150, 150 - month)
    time.sleep(chance.uniform(0.1, 0.5))
    if DAY == 5 and month in (4, 9):
        raise ValueError(f"month {month}: the column 'rainfall' has no unit")

def summarise(months):
    time.sleep(0.2)

def hold(month, measured):
    time.sleep(chance.uniform(1, 9))

def build(day, step=None):
    global DAY
    DAY = day
    process = Process("weather", "parallel", 6, on_error="continue")
    measured = process.map(download, process.task(stations))
    months = range(1, 37) if day < 5 else range(day - 4, day + 32)
    cleaned = [process.task(step or clean, month, measured) for month in months]
    process.task(summarise, cleaned)
    return process

def thumbnails():
    process = Process("thumbnails", "parallel", 4)
    for number in range(40):
        process.add_task(clean, number)
    return process
"""

RUNS = [
    ("weather", "2026-11-20", "build(1)"),
    ("thumbnails", "thumbnails-41", "thumbnails()"),
    ("weather", "2026-11-21", "build(2)"),
    ("weather", "2026-11-22", "build(3)"),
    ("thumbnails", "thumbnails-42", "thumbnails()"),
    ("weather", "2026-11-23", "build(4)"),
    ("weather", "2026-11-24", "build(5)"),
]
"""The runs to show; the last of them fails."""

START = "import nightly; nightly.{}.execute(journal='runs.db', run_id='{}')"


def start(folder: Path, run_id: str, call: str) -> "subprocess.Popen[bytes]":
    """Execute a process in an interpreter of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", START.format(call, run_id)],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def opened(pages: dict[str, Page], address: str, *late: str) -> None:
    """Open an address on every screen, and wait for the parts of it that come late."""
    for page in pages.values():
        page.goto(address)
        for selector in late:
            page.locator(selector).first.wait_for(state="attached")  # a phone shows other parts than a desk
        page.evaluate("document.fonts.ready")


def take(pages: dict[str, Page], name: str, height: int = 760, part: str | None = None) -> None:
    """Take the picture of what the page, or a part of it, shows on every screen; a phone shows less of it."""
    for screen, page in pages.items():
        if part is not None:
            page.locator(part).first.screenshot(path=IMAGES / f"{name}-{screen}.png")
            continue
        width = SCREENS[screen.rpartition("-")[0]]
        page.set_viewport_size({"width": width, "height": height if width > PHONE else min(height, 640)})
        page.screenshot(path=IMAGES / f"{name}-{screen}.png")


def main(folder: Path) -> None:
    """Make all pictures, of runs in a new folder, whose name they show."""
    IMAGES.mkdir(exist_ok=True)
    chromium = shutil.which("chromium")
    assert chromium is not None, "Chromium is needed"
    with sync_playwright() as playwright:
        folder.mkdir()
        (folder / "nightly.py").write_text(NIGHTLY, encoding="utf-8")
        for _, run_id, call in RUNS:
            start(folder, run_id, call).wait()
        live = start(folder, "2026-11-25", "build(6, nightly.hold)")
        command = [sys.executable, "-m", "procession", "ui", "--port", "0"]
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as server, ExitStack() as ending:
            ending.callback(server.terminate)  # before it is waited for, whatever happens
            assert server.stdout is not None
            found = re.search(r"(http://\S+)/\?key=\S+", server.stdout.readline())
            assert found is not None
            entrance, base = found[0], found[1]
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS.split())
            pages = {
                f"{screen}-{scheme}": browser.new_page(
                    color_scheme=scheme, viewport={"width": width, "height": 800}, device_scale_factor=2 - width // 1000
                )
                for screen, width in SCREENS.items()
                for scheme in ("light", "dark")
            }
            opened(pages, entrance)
            opened(pages, f"{base}/run?id=2026-11-25", "#time figure svg", "#graph svg")
            time.sleep(3)
            take(pages, "run-live", 900)
            opened(pages, base)
            take(pages, "runs", 420)
            opened(pages, f"{base}/run?id=2026-11-24", "#time figure svg", "#graph svg")
            take(pages, "run", 1040)
            take(pages, "graph", part="#drawn")
            take(pages, "timeline", part="#spent")
            for page in pages.values():
                page.get_by_role("link", name="Show what failed").click()
                page.locator("#time figure svg").first.wait_for(state="attached")
                page.locator("table.tasks tbody a").first.click()
                page.locator(".traceback").first.wait_for()
            take(pages, "task", 600)
            opened(pages, f"{base}/run?id=2026-11-24")
            for page in pages.values():
                page.get_by_role("link", name="Compare").click()
                page.locator("#failures").wait_for()
            take(pages, "compared", 640)
            browser.close()
        live.kill()
        live.wait()


if __name__ == "__main__":
    weather = Path(tempfile.gettempdir(), "weather")
    try:
        main(weather)
    finally:
        shutil.rmtree(weather, ignore_errors=True)
