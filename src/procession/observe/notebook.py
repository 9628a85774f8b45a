"""Bars in the page of a notebook, which IPython updates in their place."""

import html
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from procession.observe.meter import Reading, told


class NotebookBars:
    """A bar for each part of a run, below the cell that runs it."""

    def __init__(self) -> None:
        # By its name: it has no types.
        self._ipython: Any = import_module("IPython.display")
        self._place = self._ipython.display(self._ipython.HTML(""), display_id=True)

    def show(self, readings: Sequence[Reading], now: float) -> None:  # noqa: ARG002
        """Draw."""
        self._place.update(self._ipython.HTML("".join(map(_row, readings))))

    def say(self, line: str) -> None:
        """Print a line below the cell."""
        print(line)  # noqa: T201

    def close(self, readings: Sequence[Reading], now: float) -> None:
        """Draw how the parts stood at the end."""
        self.show([reading._replace(rate=None, left_s=None) for reading in readings], now)


def _row(reading: Reading) -> str:
    # The browser has its own colours for bars; red stands for a part in which something failed.
    red = ' style="accent-color:#c8431b"' if reading.failed else ""
    known = "" if reading.total is None else f' value="{reading.ended}" max="{max(reading.total, 1)}"'
    return f"<div><progress{known}{red}></progress> {html.escape(told(reading))}</div>"
