"""Bars at the bottom of a terminal, drawn with rich."""

import os
from collections.abc import Sequence
from typing import Final, TextIO

from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from procession.observe.footer import Footer
from procession.observe.meter import Reading, clock, pace

_LINES: Final = 6
_COLUMNS: Final = 40


def bars_on(stream: TextIO) -> "Bars | None":
    """Return bars for a terminal; `None` where it is too simple or too small, or its bottom taken."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except OSError:
        return None
    console, footer = Console(file=stream), Footer(stream)
    simple = console.is_dumb_terminal or console.legacy_windows or not console.is_terminal
    if simple or size.lines < _LINES or size.columns < _COLUMNS or not footer.take():
        return None
    return Bars(stream, console, footer)


class Bars:
    """A bar for each part of a run."""

    def __init__(self, stream: TextIO, console: Console, footer: Footer) -> None:
        self._stream = stream
        self._console = console
        self._footer = footer

    def show(self, readings: Sequence[Reading], now: float) -> None:
        """Draw."""
        self._footer.draw(lambda columns: self._drawn(readings, now, columns))

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        print(line, file=self._stream, flush=True)

    def close(self, readings: Sequence[Reading], now: float) -> None:
        """Leave the bars behind as what they were at the end."""
        final = [reading._replace(rate=None, left_s=None) for reading in readings]
        self._footer.close(self._drawn(final, now, self._console.width))

    def _drawn(self, readings: Sequence[Reading], now: float, columns: int) -> list[str]:
        rows = Table.grid(padding=(0, 1), expand=True)
        rows.add_column(no_wrap=True, max_width=max(10, columns // 3))
        rows.add_column(ratio=1)
        for width in 0, 0, 7, 9:  # so that the bars do not change their length all the time
            rows.add_column(no_wrap=True, justify="right", min_width=width)
        for label, ended, failed, total, rate, left in readings:
            over = ended >= total
            rows.add_row(
                Text(label),
                ProgressBar(total=max(total, 1), completed=ended if total else 1),
                Text(f"{ended:,}/{total:,}"),
                Text(f"{failed:,} failed" if failed else "", style="red"),
                Text("" if over or rate is None else pace(rate)),
                Text(clock(now) if over or left is None else f"{clock(left)} left"),
            )
        self._console.width = columns
        with self._console.capture() as captured:
            self._console.print(rows)
        return captured.get().splitlines()
