"""Where progress is shown: bars at the bottom of a terminal, bars in a notebook, or else a line now and then."""

import sys
from collections.abc import Sequence
from typing import Final, Protocol, TextIO

from procession.observe.meter import Reading, clock, told

LINES_S: Final = 5.0
"""Seconds between two lines, where there is no terminal."""


class Screen(Protocol):
    """Shows how the parts of a run stand. Times are in seconds since the run began."""

    def show(self, readings: Sequence[Reading], now: float) -> None:
        """Show them."""
        ...

    def say(self, line: str) -> None:
        """Print a text once."""
        ...

    def close(self, readings: Sequence[Reading], now: float) -> None:
        """Show how they stood at the end, and let go."""
        ...


def screen_for(stream: TextIO) -> Screen:
    """Return a screen in a notebook, else in the terminal that the stream leads to, else lines on the stream."""
    ipython = sys.modules.get("IPython")
    if ipython is not None and "ZMQ" in type(ipython.get_ipython()).__name__:
        from procession.observe.notebook import NotebookBars  # for notebooks only

        return NotebookBars()
    if stream.isatty():
        try:
            from procession.observe.bars import bars_on  # takes a while to load
        except ModuleNotFoundError:  # rich is of an extra
            return Lines(stream)
        return bars_on(stream) or Lines(stream)
    return Lines(stream)


class Lines:
    """A line every few seconds for each part that has begun and has not ended."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last = 0.0

    def show(self, readings: Sequence[Reading], now: float) -> None:
        """Print, if it is time."""
        if now - self._last >= LINES_S:
            self._last = now
            for reading in readings:
                if reading.ended and (reading.total is None or reading.ended < reading.total):
                    self.say(told(reading))

    def say(self, line: str) -> None:
        """Print a line."""
        print(line, file=self._stream, flush=True)

    def close(self, readings: Sequence[Reading], now: float) -> None:
        """Print how the stages ended, if the run took long enough for lines."""
        if self._last:
            for reading in readings:
                self.say(f"{told(reading._replace(rate=None, left_s=None))} · {clock(now)}")
