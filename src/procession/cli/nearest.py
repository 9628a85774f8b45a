"""What somebody may have meant who has mistyped a name."""

from collections.abc import Iterable
from difflib import get_close_matches

from procession._model.text import shown


def meant(word: str, known: Iterable[str]) -> str:
    """Return the end of a sentence that asks for the known name that is nearest; nothing if none is near.

    >>> meant("shwo", ["run", "show"]), meant("fly", ["run", "show"])
    ("; did you mean 'show'?", '')
    """
    near = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {shown(near[0])!r}?" if near else ""
