"""Tables that fit the terminal: where it is too narrow, long cells are cut, and then columns are left out."""

import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

from procession._model.columns import columns as columns_of
from procession._model.columns import shortened
from procession._model.text import shown
from procession.cli.terminal import DIM, STATE_COLOURS, Styled, say_styled, width_of

_CELL: Final = 60
_GAP: Final = 2
_STATES: Final = ("state", "status")
_SENTENCES: Final = ("error",)
"""Columns whose cells are cut at their end: all others have names."""


class Column(NamedTuple):
    """A column of a table.

    `least` is to how many characters its cells may be cut, `None` for not at all. Where that is not enough, the columns
    with the highest `rank` are left out first, and those of rank 0 never.
    """

    head: str
    rank: int = 0
    least: int | None = None
    right: bool = False


def say_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on standard output."""
    cuts = [shown if column.head in _SENTENCES else shortened for column in columns]
    cells = [[cut(cell, _CELL) for cut, cell in zip(cuts, row, strict=True)] for row in rows]
    fitted = fit(columns, cells, width_of(sys.stdout))
    lines = [[Styled(_aligned(column.head, width, column)) for _, column, width in fitted]]
    lines += [[_styled(row[place], width, column) for place, column, width in fitted] for row in cells]
    gap = Styled(" " * _GAP)
    say_styled([part for cell in line for part in (cell, gap)] for line in lines)


def fit(columns: Sequence[Column], rows: Sequence[Sequence[str]], limit: int | None) -> list[tuple[int, Column, int]]:
    """Return the columns that a line of `limit` characters has room for: the place of each, itself, and its width.

    >>> columns = Column("task"), Column("error", rank=1, least=5)
    >>> [(column.head, width) for _, column, width in fit(columns, [("load", "OSError: no")], 12)]
    [('task', 4), ('error', 6)]
    >>> [(column.head, width) for _, column, width in fit(columns, [("load", "OSError: no")], 10)]
    [('task', 4)]
    """
    wanted = [
        (place, column, max([len(column.head), *(columns_of(row[place]) for row in rows)]))
        for place, column in enumerate(columns)
    ]
    if limit is None:
        return wanted
    wanted = [one for one in wanted if one[1].rank == 0 or any(row[one[0]] for row in rows)]
    while True:
        fitted = _cut(wanted, limit)
        last = max(wanted, key=lambda one: one[1].rank)
        if _total(fitted) <= limit or last[1].rank == 0:
            return fitted
        wanted.remove(last)


def _cut(wanted: Sequence[tuple[int, Column, int]], limit: int) -> list[tuple[int, Column, int]]:
    """Return the columns with those cut that may be, the widest first, as far as that is needed."""
    widths = [width for _, _, width in wanted]
    while (over := sum(widths) + _GAP * (len(widths) - 1) - limit) > 0:
        least = [column.least for _, column, _ in wanted]
        loose = [place for place, low in enumerate(least) if low is not None and widths[place] > low]
        if not loose:
            break
        widest = max(loose, key=lambda place: widths[place])
        others = max((widths[place] for place in loose if place != widest), default=0)
        down_to = max(least[widest] or 0, min(others, widths[widest] - 1), widths[widest] - over)
        widths[widest] = down_to
    return [(place, column, width) for (place, column, _), width in zip(wanted, widths, strict=True)]


def _total(fitted: Sequence[tuple[int, Column, int]]) -> int:
    return sum(width for _, _, width in fitted) + _GAP * (len(fitted) - 1)


def _styled(cell: str, width: int, column: Column) -> Styled:
    colour = STATE_COLOURS.get(cell, DIM) if column.head in _STATES else ""
    return Styled(_aligned(cell, width, column), colour)


def _aligned(cell: str, width: int, column: Column) -> str:
    if columns_of(cell) > width:
        cell = _begun(cell, width) if column.head in _SENTENCES else shortened(cell, width)
    room = " " * (width - columns_of(cell))
    return room + cell if column.right else cell + room


def _begun(text: str, width: int) -> str:
    while columns_of(text) >= width and text:
        text = text[:-1]
    return f"{text}…"
