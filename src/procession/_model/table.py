"""Tables and figures as text for people."""

from collections.abc import Collection, Iterable, Sequence

from procession._model.text import shown

_CELL = 60


def table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Collection[str] = ()) -> str:
    """Lay rows out under their head, columns aligned to the left, or to the right where `right` names them.

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


def lasting(seconds: float) -> str:
    """Write a duration in seconds as people say it.

    >>> [lasting(s) for s in (0, 0.0000021, 0.25, 2, 12.34, 75, 7265)]
    ['0 s', '2.1 µs', '250 ms', '2 s', '12.3 s', '1 min 15 s', '2 h 1 min']
    """
    if seconds >= 3600:  # noqa: PLR2004
        minutes = round(seconds / 60)
        return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"
    if seconds >= 60:  # noqa: PLR2004
        whole = round(seconds)
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    for unit, size in ("s", 1.0), ("ms", 1e-3), ("µs", 1e-6):
        if seconds >= size * 0.9995 or unit == "µs":
            return f"{seconds / size:.3g} {unit}" if seconds > 0 else "0 s"
    raise AssertionError("unreachable")
