"""Lines that stay at the bottom of a terminal, while everyone else goes on printing above them.

    ┌────────────────────┐
    │ whatever is printed│  the region that scrolls: all but the last rows
    │ by whomever        │
    ├────────────────────┤
    │ ━━━━━━━━━━ 3/10    │  the footer: drawn in one write, which puts the cursor back to where it was
    └────────────────────┘

The terminal itself keeps the two apart. So nothing that is printed is redirected, held back or changed, be it by this
program, a worker process or any other child, with or without a newline at its end.
"""

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, TextIO

_SAVE, _BACK = "\x1b7", "\x1b8"
_CLEAR = "\x1b[2K"
_NO_REGION = f"{_SAVE}\x1b[r{_BACK}"
_LEFT_FOR_OTHERS: Final = 3

_taken = threading.Lock()
"""Held by the display that has the footer of the terminal: there is one for all."""


class Footer:
    """The last rows of a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._rows = 0
        self._size = os.terminal_size((0, 0))

    def take(self) -> bool:
        """Take the rows; return whether they were free."""
        return _taken.acquire(blocking=False)

    def draw(self, render: Callable[[int], Sequence[str]]) -> None:
        """Show lines, which `render` makes for so many columns; none of them may be wider."""
        size = os.get_terminal_size(self._stream.fileno())
        lines = list(render(size.columns))[: max(1, size.lines - _LEFT_FOR_OTHERS)]
        text = ""
        if size != self._size or len(lines) != self._rows:
            text = self._reserved(len(lines), size)
        first = size.lines - len(lines) + 1
        drawn = "".join(f"\x1b[{first + place};1H{_CLEAR}{line}" for place, line in enumerate(lines))
        self._write(f"{text}{_SAVE}\x1b[?7l{drawn}\x1b[?7h{_BACK}")

    def close(self, lines: Sequence[str]) -> None:
        """Give the rows back, and print these lines below whatever was printed."""
        text = ""
        if self._rows:
            first = self._size.lines - self._rows + 1
            text = f"{_SAVE}\x1b[{first};1H\x1b[J\x1b[r{_BACK}"
            # Where the cursor is not at the start of a line, these spaces are more than fit, and it comes to the next.
            text += " " * (self._size.columns - 1) + "\r\x1b[K"
            self._rows = 0
        try:
            self._stream.flush()
            self._write(text + "".join(f"{line}\n" for line in lines))
        finally:
            _taken.release()

    def _reserved(self, rows: int, size: os.terminal_size) -> str:
        """Return the control sequence that keeps the last rows out of the region that scrolls."""
        clear = ""
        if self._rows and size == self._size:
            clear = f"{_SAVE}\x1b[{size.lines - self._rows + 1};1H\x1b[J{_BACK}"
        # What stands in the rows has to make room, and the cursor goes along: new lines scroll as far as that takes,
        # and from where it was, the cursor gets down, and up again, by so much less.
        more = max(0, rows - self._rows) if size == self._size else rows
        lines = "\n" * more
        room = f"{_SAVE}{lines}{_BACK}\x1b[{more}B\x1b[{more}A" if more else ""
        self._rows, self._size = rows, size
        return f"{clear}{room}{_SAVE}\x1b[1;{size.lines - rows}r{_BACK}"

    def _write(self, text: str) -> None:
        # Past the stream, whose buffer another thread may be busy with.
        data = text.encode(self._stream.encoding or "utf-8", "replace")
        while data:
            data = data[os.write(self._stream.fileno(), data) :]


def release_terminal(stream: TextIO) -> None:
    """Make a terminal scroll as usual again, for a program that is about to end without closing anything."""
    if _taken.locked():
        with suppress(OSError, ValueError):
            os.write(stream.fileno(), _NO_REGION.encode())
