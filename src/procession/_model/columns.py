"""How wide text is where all letters are equally wide."""

import unicodedata


def columns(text: str) -> int:
    """Return how many columns of a terminal or typewriter a text takes: wide characters take two.

    >>> columns("abc"), columns("日本")
    (3, 4)
    """
    return len(text) if text.isascii() else sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in text)
