"""How wide text is where all letters are equally wide, and names that are made short enough for it."""

import unicodedata

from procession._model.text import shown


def columns(text: str) -> int:
    """Return how many columns of a terminal or typewriter a text takes: wide characters take two.

    >>> columns("abc"), columns("日本")
    (3, 4)
    """
    return len(text) if text.isascii() else sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def shortened(name: str, limit: int) -> str:
    """Return a name or label in at most `limit` columns, made as harmless as `shown` makes it.

    It is shortened in its middle: the addresses of two pages, or two functions of a module, differ at their ends.

    >>> shortened("package.module.<locals>.function", 16)
    'package.…unction'
    """
    if len(name) > 2 * limit:
        name = f"{name[:limit]}{name[-limit:]}"  # the rest is not seen
    said = shown(name, len(name))
    if columns(said) <= limit:
        return said
    if limit <= 1:
        return "…"[:limit]
    head, tail = 0, 0
    while True:
        longer = (head + 1, tail) if columns(said[:head]) <= columns(said[-tail or len(said) :]) else (head, tail + 1)
        if columns(said[: longer[0]]) + columns(said[-longer[1] or len(said) :]) > limit - 1:
            return f"{said[:head]}…{said[-tail or len(said) :]}"
        head, tail = longer
