"""Makes the moving picture of the terminal that stands in the documentation: a real run, in a real terminal.

    pip install -e ".[test]" && python docs/terminal.py

Not on Windows. Takes some ten seconds. The picture, an SVG that any browser plays, goes to docs/images/terminal.svg.
"""

import os
import pty
import sys
import tempfile
import termios
import time
from html import escape
from itertools import groupby
from pathlib import Path
from select import select

import pyte

PICTURE = Path(__file__).with_name("images") / "terminal.svg"
COLUMNS, LINES = 96, 18
PERIOD_S = 0.25
STILL_S = 4.0
"""How long the last frame stays."""

WIDTH, HEIGHT = 7.8, 17
PAPER, INK = "#16181d", "#d7dae0"
INKS = {
    "black": "#5c6370",
    "red": "#f0717b",
    "green": "#98c379",
    "brown": "#e5c07b",
    "blue": "#61afef",
    "magenta": "#c678dd",
    "cyan": "#56b6c2",
    "white": INK,
    "default": INK,
}

SITE = """
import random, time
from procession import Process, task

chance = random.Random(3)

def sitemap(site):
    time.sleep(0.5)
    return [f"{site}/{number}" for number in range(400)]

@task(retries=2, retry_on=ConnectionError)
def fetch(url):
    time.sleep(chance.uniform(0.05, 0.25))
    if chance.random() < 0.01:
        raise ConnectionError(f"{url} is busy")
    return url

def thumbnail(number):
    time.sleep(chance.uniform(0.02, 0.2))
    if number in (60, 61):
        raise ValueError("no picture in the page")

def site():
    process = Process("site", "parallel", max_workers=16, on_error="continue")
    pages = process.map(fetch, process.task(sitemap, "https://example.org"))
    process.map(thumbnail, range(150))
    process.task(len, pages)
    return process
"""


def recorded(folder: str) -> list[list[str]]:
    """Run the process in a terminal, and return what that shows every so often, each line as SVG."""
    Path(folder, "site_map.py").write_text(SITE, encoding="utf-8")
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        termios.tcsetwinsize(0, (LINES, COLUMNS))
        os.environ["TERM"] = "xterm-256color"
        os.execv(sys.executable, [sys.executable, "-m", "procession", "run", "site_map.py:site"])  # noqa: S606
    stream.feed(b"$ procession run site_map.py:site\r\n")
    frames = [lines_of(screen)]
    due = time.monotonic() + PERIOD_S
    while True:
        if select([terminal], [], [], max(due - time.monotonic(), 0))[0]:
            try:
                said = os.read(terminal, 65536)
            except OSError:  # Linux's way to say that nobody writes any more
                said = b""
            if not said:
                break
            stream.feed(said)
        else:
            due += PERIOD_S
            frames.append(lines_of(screen))
    os.waitpid(pid, 0)
    os.close(terminal)
    return [*frames, lines_of(screen)]


def lines_of(screen: pyte.Screen) -> list[str]:
    """Return the lines of a screen as SVG, each run of characters in its colour."""
    lines = []
    for number in range(LINES):
        row, spans, column = screen.buffer[number], [], 0
        for (ink, bold), group in groupby((row[place] for place in range(COLUMNS)), lambda cell: (cell.fg, cell.bold)):
            text = "".join(cell.data for cell in group)
            if text.strip():
                x = column * WIDTH + 14
                weight = ' font-weight="bold"' if bold else ""
                spans.append(
                    f'<tspan x="{x:.1f}" textLength="{len(text) * WIDTH:.1f}" fill="{colour(ink)}"{weight}>'
                    f"{escape(text)}</tspan>"
                )
            column += len(text)
        lines.append(f'<text y="{number * HEIGHT + 40}">{"".join(spans)}</text>' if spans else "")
    return lines


def colour(ink: str) -> str:
    """Return a colour of the terminal as SVG has it: some have names, the others are numbers already."""
    return INKS.get(ink.removeprefix("bright"), f"#{ink}")


def picture(frames: list[list[str]]) -> str:
    """Return the frames as one picture, in which each line is drawn for as long as it stays."""
    total = (len(frames) - 1) * PERIOD_S + STILL_S
    drawn, styles = [], []
    for number in range(LINES):
        begin = 0
        for line, group in groupby(frame[number] for frame in frames):
            end = begin + len(list(group))
            if line:
                name = f"l{len(drawn)}"
                shown, hidden = (
                    begin * PERIOD_S / total * 100,
                    100 if end == len(frames) else end * PERIOD_S / total * 100,
                )
                steps = f"0%{{opacity:{int(begin == 0)}}}{shown:.2f}%{{opacity:1}}"
                steps += "" if end == len(frames) else f"{hidden:.2f}%{{opacity:0}}"
                styles.append(f"@keyframes {name}{{{steps}}}#{name}{{animation:{name} {total:.2f}s step-end infinite}}")
                last = "" if end == len(frames) else ' class="earlier"'
                drawn.append(f'<g id="{name}"{last}>{line}</g>')
            begin = end
    width, height = COLUMNS * WIDTH + 28, LINES * HEIGHT + 44
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" role="img" '
        'aria-label="A run in the terminal: bars that move, failures as they come, and a summary at the end">'
        f"<style>text{{font:13px ui-monospace,Menlo,Consolas,monospace;white-space:pre}}{''.join(styles)}"
        "@media(prefers-reduced-motion:reduce){g{animation:none!important}.earlier{display:none}}</style>"
        f'<rect width="100%" height="100%" rx="8" fill="{PAPER}"/>'
        + "".join(f'<circle cx="{18 + 16 * place}" cy="16" r="5" fill="#3a3f4b"/>' for place in range(3))
        + f"{''.join(drawn)}</svg>\n"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        PICTURE.write_text(picture(recorded(folder)), encoding="utf-8")
