"""What the command line says. Names, messages and paths come from anywhere, and a terminal obeys what stands in them.

So all of it goes through here, where it is made harmless as a whole; ruff lets nothing else of the command print.
Colours are added last, and only for a terminal that is meant to have them (https://no-color.org).
"""

import json
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, TextIO

from procession._model.printable import printable
from procession._model.text import shown_lines

_LINE: Final = 10_000
_RESET: Final = "\x1b[0m"

GREEN, RED, YELLOW, BLUE, DIM = "\x1b[32m", "\x1b[31m", "\x1b[33m", "\x1b[34m", "\x1b[2m"

STATE_COLOURS: Final = {
    "completed": GREEN,
    "failed": RED,
    "running": BLUE,
    "cancelled": YELLOW,
    "suspended": YELLOW,
    "interrupted": YELLOW,
}
"""The colours of the states of runs and tasks; all others are dim."""


class OutputError(OSError):
    """Standard output takes no more: its reader is gone, or the disk is full."""


class Styled(NamedTuple):
    """A text of one line, and its colour; the empty string is none."""

    text: str
    colour: str = ""


def say(text: str, *, at_once: bool = False) -> None:
    """Print a text on standard output."""
    _print(printable(shown_lines(text, _LINE)), at_once=at_once)


def say_styled(lines: Iterable[Sequence[Styled]]) -> None:
    """Print lines on standard output, in colours if that is a terminal."""
    coloured = _takes_colours(sys.stdout)
    for line in lines:
        parts = [(printable(shown_lines(text, _LINE)), colour) for text, colour in line]
        _print("".join(f"{colour}{text}{_RESET}" if coloured and colour else text for text, colour in parts).rstrip())


def say_json(value: object) -> None:
    """Print a value as JSON on standard output, in which every character that a terminal could obey is escaped."""
    _print(json.dumps(value, indent=2).replace("\x7f", "\\u007f"))


def tell(text: str) -> None:
    """Print a text on standard error: what went wrong, and how a run went."""
    print(shown_lines(text, _LINE), file=sys.stderr)  # noqa: T201


def width_of(stream: TextIO) -> int | None:
    """Return how many columns a terminal has; `None` for a file or a pipe, whose lines may be as long as they are."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def in_words_of_the_command_line(error: BaseException) -> str:
    """Return the text of an error, with options of the command line where it speaks of arguments in Python."""
    return str(error).replace("allow_changes=True", "--allow-changes")


def _print(line: str, *, at_once: bool = False) -> None:
    try:
        print(line, flush=at_once)  # noqa: T201
    except OSError as error:
        raise OutputError(error.errno, error.strerror) from error


def _takes_colours(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
