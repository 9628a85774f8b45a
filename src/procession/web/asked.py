"""What the address of a request asks for, read strictly."""

from collections.abc import Sequence
from typing import Literal, TypeVar, get_args

from starlette.exceptions import HTTPException
from starlette.requests import Request

from procession.journal import Status

LONGEST_TEXT = 200
_DIGITS = 18

State = Literal["completed", "failed"]

_Word = TypeVar("_Word")


def number(request: Request, name: str) -> int | None:
    """Return a number of the query, `None` if it is not there. What is no number is refused."""
    return digits(text, name) if (text := request.query_params.get(name)) else None


def place(request: Request, name: str) -> int:
    """Return a number of the path."""
    return digits(request.path_params[name], name)


def digits(text: str, name: str) -> int:
    """Return the number that a text is."""
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        raise HTTPException(400, f"{name} is not a number")
    return int(text)


def words(request: Request, name: str, longest: int = LONGEST_TEXT) -> str:
    """Return a text of the query, "" if it is not there."""
    text = request.query_params.get(name, "").strip()
    if len(text) > longest:
        raise HTTPException(400, f"{name} is longer than {longest} characters")
    if "\0" in text:
        raise HTTPException(400, f"{name} has a character that no journal keeps")
    return text


def status(request: Request) -> Status | None:
    """Return which status of a run is asked for, `None` for any."""
    known: tuple[Status, ...] = get_args(Status)
    return _known(request, "status", known)


def state(request: Request) -> State | None:
    """Return which state of a task is asked for, `None` for any."""
    known: tuple[State, ...] = get_args(State)
    return _known(request, "state", known)


def _known(request: Request, name: str, known: Sequence[_Word]) -> _Word | None:
    text = request.query_params.get(name)
    if not text:
        return None
    for word in known:
        if word == text:
            return word
    raise HTTPException(400, f"{name} is none of {', '.join(map(str, known))}")
