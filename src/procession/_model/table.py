"""Tables and figures as text for people."""

from collections.abc import Collection, Iterable, Sequence

from procession._model.text import shown

_CELL = 60


def table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Collection[str] = ()) -> str:
    """Return rows under their head, aligned to the left, or to the right in the columns named.

    >>> print(table(("n", "task"), [("10", "load"), ("9", "save")], right={"n"}))
     n  task
    10  load
     9  save
    """
    cells = [tuple(head), *(tuple(shown(cell, _CELL) for cell in row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    aligned = [str.rjust if name in right else str.ljust for name in head]
    return "\n".join(
        "  ".join(align(cell, width) for align, cell, width in zip(aligned, row, widths, strict=True)).rstrip()
        for row in cells
    )


def duration(seconds: float) -> str:
    """Return a time in a unit that suits it.

    >>> duration(12.34), duration(0.00051)
    ('12.3 s', '510 µs')
    """
    for unit, size in ("s", 1.0), ("ms", 1e-3):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}" if seconds < 1000 * size else f"{seconds / size:,.0f} {unit}"
    return f"{seconds * 1e6:.3g} µs"
