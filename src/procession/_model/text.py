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
    return _described(error, _message_of(error))


def in_a_line(error: BaseException) -> str:
    r"""Return the type of an error and the first line of its message.

    >>> in_a_line(ValueError("no such column\nhint: load it first"))
    'ValueError: no such column …'
    """
    first, _, more = _message_of(error).strip().partition("\n")
    return _described(error, f"{first.rstrip()} …" if more else first)


def _message_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as failure:
        return f"<no text: its __str__ raised {type(failure).__name__}>"


def _described(error: BaseException, message: str) -> str:
    name = shown(type(error).__name__)
    return f"{name}: {shown(message)}" if message else name


def untold(name: str) -> str:
    """Return the text that stands in place of an error's message where messages are not kept.

    >>> untold("PermissionError")
    'PermissionError (what it said is not kept)'
    """
    return f"{name} (what it said is not kept)"


def answer_of(text: str) -> object:
    """Return the answer that somebody has written: what the text is as JSON, or else the text itself.

    >>> answer_of("[1, true]"), answer_of("yes, do")
    ([1, True], 'yes, do')
    """
    import json  # few need it

    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def headline(error: str) -> str:
    r"""Return the first line of a recorded error, which says what was raised; its traceback stands below.

    >>> headline("KeyError: 'x'\n\nTraceback (most recent call last):\n")
    "KeyError: 'x'"
    """
    return error.partition("\n")[0]
