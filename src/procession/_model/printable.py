"""Text for people, reduced to the characters that standard output can show."""

import codecs
import sys

_PLAINER = {"…": "...", "·": "-", "µ": "u"}
_REPLACED = "procession.replaced"


def printable(text: str) -> str:
    """Return text that `print` can write: characters that the encoding of standard output lacks are replaced."""
    encoding: str = getattr(sys.stdout, "encoding", None) or "utf-8"
    errors: str = getattr(sys.stdout, "errors", None) or "strict"
    try:
        text.encode(encoding, errors)
    except UnicodeEncodeError:
        return text.encode(encoding, _REPLACED).decode(encoding)
    return text


def _replaced(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(_PLAINER.get(c, "?") for c in error.object[error.start : error.end]), error.end


codecs.register_error(_REPLACED, _replaced)
