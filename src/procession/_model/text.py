"""Text from elsewhere, made harmless and short enough to show."""

from contextlib import suppress

_LIMIT = 200
_SIMPLE = frozenset({str, bytes, int, float, complex, bool, type(None)})


def shown(text: str, limit: int = _LIMIT) -> str:
    r"""Return `text` on one line of at most `limit` characters, with every control character escaped.

    Terminal escapes, newlines and marks that turn the writing direction would otherwise act on the reader's screen.

    >>> shown("all\x1b[31m red")
    'all\\x1b[31m red'
    """
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    if cut.isprintable():
        return cut
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)


def shown_lines(text: str, limit: int = 2_000) -> str:
    r"""Return text of several lines, each of at most `limit` characters and escaped as `shown` does it.

    >>> shown_lines("Traceback:\n\tx\x1b")
    'Traceback:\n    x\\x1b'
    """
    return "\n".join(shown(line, limit) for line in text.expandtabs(4).split("\n"))


def counted(count: int, what: str) -> str:
    """Return a number and the noun for the things that it counts, in the singular for 1.

    >>> counted(1, "task"), counted(0, "task"), counted(12_000, "task")
    ('1 task', '0 tasks', '12,000 tasks')
    """
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def sketch(value: object) -> str:
    """Return words for a value that a message refuses: a simple value as it is written, any other by its type.

    The `__repr__` of a user's class is not called, for it may raise, never end, be huge or tell a secret.

    >>> sketch("4"), sketch(2.5), sketch(KeyError), sketch([1, 2])
    ("'4'", '2.5', 'class KeyError', 'an object of type list')
    """
    if type(value) in _SIMPLE:
        with suppress(ValueError):  # an int of more digits than Python is willing to write
            return shown(repr(value))
    name = shown((value if isinstance(value, type) else type(value)).__name__)
    return f"class {name}" if isinstance(value, type) else f"an object of type {name}"


def described(error: BaseException) -> str:
    """Return the type and message of an error; where its `__str__` raises, the type and that failure."""
    try:
        message = str(error)
    except Exception as failure:
        message = f"<no text: its __str__ raised {type(failure).__name__}>"
    name = shown(type(error).__name__)
    return f"{name}: {shown(message)}" if message else name


def untold(name: str) -> str:
    """Return the text that stands in place of an error's message where messages are not kept.

    >>> untold("PermissionError")
    'PermissionError (what it said is not kept)'
    """
    return f"{name} (what it said is not kept)"


def headline(error: str) -> str:
    r"""Return the first line of a recorded error, which says what was raised; its traceback stands below.

    >>> headline("KeyError: 'x'\n\nTraceback (most recent call last):\n")
    "KeyError: 'x'"
    """
    return error.partition("\n")[0]
