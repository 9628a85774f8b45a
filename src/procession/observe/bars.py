"""Bars at the bottom of a terminal, drawn with rich."""

import os
from collections.abc import Sequence
from typing import Final, TextIO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from procession._model.columns import shortened
from procession.observe.footer import Footer
from procession.observe.meter import Reading, clock, pace

_LINES: Final = 6
_COLUMNS: Final = 40

_LABEL: Final = 10
_BAR: Final = 10
"""Columns for the name of a part, and for its bar, at least."""
_PACE: Final = 7
_LEFT: Final = 9
"""Columns for rate and time left, at least, so that the bars do not change their length all the time."""
_GAPS: Final = 5
_WIDE: Final = 100
"""Columns of a terminal that has room for the label of what runs, too."""
_RUNNING: Final = 40
"""Columns for such a label, at most."""


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
        final = [reading._replace(rate=None, left_s=None, running="") for reading in readings]
        self._footer.close(self._drawn(final, now, self._console.width))

    def _drawn(self, readings: Sequence[Reading], now: float, columns: int) -> list[str]:
        figures = [_figures(reading, now) for reading in readings]
        count, told, pace_, left = (max(map(len, column)) for column in zip(*figures, strict=True))
        told = min(told, columns // 4)
        pace_, left = max(pace_, _PACE), max(left, _LEFT)
        room = columns - (count + told + pace_ + left) - _GAPS - _BAR
        if room < _LABEL:  # it is the count that matters most
            room, pace_ = room + pace_, 0
        rows = Table.grid(padding=(0, 1), expand=True)
        rows.add_column(no_wrap=True, max_width=max(_LABEL, min(room, columns // 3)))
        rows.add_column(ratio=1)
        for width in count, told, pace_, left:
            rows.add_column(no_wrap=True, justify="right", width=width)
        room = min(_RUNNING, columns // 3) if columns >= _WIDE and any(one.running for one in readings) else 0
        if room:
            rows.add_column(no_wrap=True, width=room)
        for reading, (counted, *said) in zip(readings, figures, strict=True):
            style = "red" if reading.failed else "yellow"
            bar = _Bar(reading.ended, reading.failed, reading.total)
            said += [shortened(reading.running, room)] * bool(room)  # noqa: PLW2901
            rows.add_row(Text(reading.label), bar, Text(counted), Text(said[0], style=style), *map(Text, said[1:]))
        self._console.width = columns
        with self._console.capture() as captured:
            self._console.print(rows)
        return captured.get().splitlines()


def _figures(reading: Reading, now: float) -> tuple[str, str, str, str]:
    """Return how far a part has come, what is wrong with it, its rate, and the time left, or that it took."""
    _, ended, failed, total, rate, left, held_back, _ = reading
    over = total is not None and ended >= total
    return (
        f"{ended:,}" if total is None else f"{ended:,}/{total:,}",
        f"{failed:,} failed" if failed else held_back,
        "" if over or rate is None else pace(rate),
        clock(now) if over or left is None else f"{clock(left)} left",
    )


class _Bar:
    """A bar in the width that is left: blue for what has succeeded, red for what failed, dim for what is to come.

    These are colours of the terminal's own palette, which can be read on light and on dark. Without colours, what is to
    come stays empty. A bar for an unknown number is dim, or empty, as a whole.
    """

    def __init__(self, ended: int, failed: int, total: int | None) -> None:
        self._ended, self._failed, self._total = ended, failed, total

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, total = options.max_width, self._total
        done = bad = 0
        if total is not None:
            done = width if self._ended >= total else width * self._ended // total
            # Few failures among many can be seen, too.
            bad = min(done, max(1, round(width * self._failed / total))) if self._failed and total else 0
        line = "-" if options.ascii_only else "━"
        rest = line if console.color_system is not None and not console.no_color else " "
        yield Segment(line * (done - bad), Style(color="blue"))
        yield Segment(line * bad, Style(color="red"))
        yield Segment(rest * (width - done), Style(color="bright_black"))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(4, options.max_width)
