"""How texts, numbers and times stand on the page.

Texts of users are made harmless here; templates escape them as HTML.
"""

import json
from datetime import UTC, datetime
from typing import Final

from markupsafe import Markup

from procession._model.text import shown, shown_lines

_LEVELS: Final = {"CRITICAL": "error", "ERROR": "error", "WARNING": "warning"}


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


def json_text(value: bytes) -> str:
    r"""Return recorded JSON as text: laid out, if it is short enough to be there as a whole.

    >>> print(json_text(b'{"pages":[1]}'))
    {
      "pages": [
        1
      ]
    }
    >>> json_text(b'["a", "b')
    '["a", "b…'
    """
    try:
        return lines(json.dumps(json.loads(value), ensure_ascii=False, indent=2))
    except (ValueError, RecursionError):
        return lines(value.decode("utf-8", "replace")) + "…"


def entries(log: str) -> list[tuple[str, str]]:
    r"""Return the lines of a log, made harmless, each with the class of its level: "error", "warning" or "".

    >>> entries("2026-11-29T18:52:59.962Z ERROR etl: no rate\nof any day\n")
    [('error', '2026-11-29T18:52:59.962Z ERROR etl: no rate'), ('', 'of any day')]
    """
    return [(_LEVELS.get(line[:60].partition(" ")[2].partition(" ")[0], ""), line) for line in lines(log).split("\n")]


def file(path: str) -> str:
    r"""Return the last part of a path of any system.

    >>> file("/srv/etl/jobs.py"), file(r"C:\\etl\\jobs.py")
    ('jobs.py', 'jobs.py')
    """
    return path.replace("\\", "/").rpartition("/")[2]


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
