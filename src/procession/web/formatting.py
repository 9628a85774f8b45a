"""How texts, numbers and times stand on the page.

Texts of users are made harmless here; templates escape them as HTML.
"""

from datetime import UTC, datetime

from markupsafe import Markup

from procession._model.text import shown, shown_lines


def plain(text: str, limit: int = 200) -> str:
    r"""Return text on one line, of bounded length, with control characters and marks of direction escaped.

    >>> plain("<b>\u202e\n")
    '<b>\\u202e\\n'
    """
    return shown(text, limit)


def lines(text: str) -> str:
    r"""Return text of several lines, each made as harmless as `plain` makes it.

    >>> lines("Traceback:\n\tx\x1b")
    'Traceback:\n    x\\x1b'
    """
    return shown_lines(text).rstrip()


def traceback(error: str) -> str:
    r"""Return how a recorded error came about: what stands below its first line, "" if there is nothing.

    >>> traceback("KeyError: 'x'\n\nTraceback (most recent call last):\n")
    'Traceback (most recent call last):'
    """
    return lines(error.partition("\n")[2].lstrip("\n"))


def count(number: int) -> str:
    """Return a number with its thousands set apart."""
    return f"{number:,}"


def moment(seconds: float, now: float) -> Markup:
    """Return a time of day, with the day unless it is today's, in the time zone of the server."""
    then = datetime.fromtimestamp(seconds, UTC).astimezone()
    today = datetime.fromtimestamp(now, UTC).astimezone()
    said = then.strftime("%H:%M:%S") if then.date() == today.date() else then.strftime("%Y-%m-%d %H:%M")
    whole = then.strftime("%Y-%m-%d %H:%M:%S %Z")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(then.isoformat(), whole, said)


def size(octets: int) -> str:
    """Return a number of bytes in a unit that suits it.

    >>> size(12), size(2_500), size(31_000_000)
    ('12 bytes', '2.5 kB', '31 MB')
    """
    for unit, factor in ("MB", 1_000_000), ("kB", 1000):
        if octets >= factor:
            return f"{octets / factor:.3g} {unit}"
    return f"{octets} bytes"
