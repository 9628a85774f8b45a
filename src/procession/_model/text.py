"""Text that came from a user, made harmless and short enough to show."""

_LIMIT = 200


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


def described(error: BaseException) -> str:
    """Return type and message of an error; an error that cannot be turned into text is shown by its type alone."""
    try:
        message = str(error)
    except Exception as failure:
        message = f"<no text: its __str__ raised {type(failure).__name__}>"
    name = type(error).__name__
    return f"{name}: {shown(message)}" if message else name
