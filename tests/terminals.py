"""Terminals with programs in them, as their users see them."""

import os
import re
import select
import subprocess
import sys
import time

import pytest

ROWS, COLUMNS = 20, 90


class Terminal:
    """A terminal with a program in it: a real pseudo-terminal, and an emulator that shows what one would see."""

    def __init__(self, script, *arguments, columns=COLUMNS, stdout=None):
        import fcntl
        import pty
        import struct
        import termios

        import pyte

        self.screen = pyte.HistoryScreen(columns, ROWS, history=1000)
        self.stream = pyte.ByteStream(self.screen)
        self.leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
        modes = termios.tcgetattr(follower)
        modes[3] &= ~termios.ECHO
        termios.tcsetattr(follower, termios.TCSANOW, modes)
        self.child = subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            stdin=follower,
            stdout=follower if stdout is None else stdout,
            stderr=follower,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color"},
        )
        os.close(follower)

    def read(self):
        """Take in what is there within 20 s; return whether the program goes on."""
        ready, _, _ = select.select([self.leader], [], [], 20)
        assert ready, self.text
        try:
            chunk = os.read(self.leader, 4096)
        except OSError:  # how Linux says that the other side is closed
            chunk = b""
        self.stream.feed(chunk)
        return bool(chunk)

    def until(self, condition):
        """Take in what comes until the screen looks like this."""
        deadline = time.monotonic() + 20
        while not condition(self.rows):
            assert time.monotonic() < deadline, self.text
            assert self.read(), self.text

    def key(self):
        os.write(self.leader, b"\n")

    def end(self, status=0):
        while self.read():
            pass
        os.close(self.leader)
        assert self.child.wait(20) == status, self.text

    @property
    def rows(self):
        return [row.rstrip() for row in self.screen.display]

    @property
    def text(self):
        """Return everything that can be seen, scrolling back as far as possible."""
        above = [
            "".join(line[column].data for column in range(self.screen.columns)).rstrip()
            for line in self.screen.history.top
        ]
        return "\n".join(above + self.rows).rstrip()


@pytest.fixture
def terminal():
    if sys.platform == "win32":
        pytest.skip("a pseudo-terminal")
    opened = []

    def start(*script, **options):
        opened.append(Terminal(*script, **options))
        return opened[-1]

    yield start
    for one in opened:
        one.child.kill()
        one.child.wait()


def bars(rows):
    """Return label and count of each bar."""
    found = [re.match(r"\s*(.+?) +[━╸╺]+ +(\S+)", row) for row in rows]
    return [match.groups() for match in found if match]
