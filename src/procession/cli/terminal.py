"""What the command line says. Names, messages and paths come from anywhere, and a terminal obeys what stands in them.

So all of it goes through here, where it is made harmless as a whole; ruff lets nothing else of the command print.
"""

import sys
from typing import Final

from procession._model.printable import printable
from procession._model.text import shown_lines

_LINE: Final = 10_000


def say(text: str, *, at_once: bool = False) -> None:
    """Say something on standard output."""
    print(printable(shown_lines(text, _LINE)), flush=at_once)  # noqa: T201


def tell(text: str) -> None:
    """Say something on standard error: what went wrong, and how a run went."""
    print(shown_lines(text, _LINE), file=sys.stderr)  # noqa: T201
