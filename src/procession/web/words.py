"""How the page says things. What came from users is made harmless here; templates escape it as HTML."""

import re
from datetime import UTC, datetime

from markupsafe import Markup

from procession._model.text import shown

_LINES = 2_000
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_INDENT = re.compile(r"^\s")
_FRAME = re.compile(r"^\s+(File \"|\| )")


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
    return "\n".join(shown(line, _LINES) for line in text.expandtabs(4).split("\n")).rstrip()


def headline(error: str) -> str:
    r"""Return the line of a traceback that says what was raised.

    >>> headline("Traceback (most recent call last):\n  File \"a.py\", line 1\n    x()\nKeyError: 'x'\nin task 3\n")
    "KeyError: 'x'"
    """
    said = [line for line in error.split("\n") if line.strip()]
    frames = [place for place, line in enumerate(said) if _FRAME.match(line)]
    after = said[frames[-1] + 1 :] if frames else said
    return next((line for line in after if not _INDENT.match(line)), said[-1] if said else "")


def count(number: int) -> str:
    """Return a number with its thousands set apart."""
    return f"{number:,}"


def lasting(seconds: float) -> str:
    """Return a time as people say it.

    >>> [lasting(s) for s in (0, 0.0000021, 0.25, 2, 12.34, 75, 7265, 200_000)]
    ['0 s', '2.1 µs', '250 ms', '2 s', '12.3 s', '1 min 15 s', '2 h 1 min', '2 d 7 h']
    """
    whole = round(seconds)
    for unit, much, lesser, part in ("d", _DAY, "h", _HOUR), ("h", _HOUR, "min", _MINUTE), ("min", _MINUTE, "s", 1):
        if whole >= much:
            rest = whole % much // part
            return f"{whole // much} {unit} {rest} {lesser}" if rest else f"{whole // much} {unit}"
    for unit, size in ("s", 1.0), ("ms", 1e-3), ("µs", 1e-6):
        if seconds >= size * 0.9995:
            return f"{seconds / size:.3g} {unit}"
    return "0 s"


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
