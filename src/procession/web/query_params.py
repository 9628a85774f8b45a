"""The parameters of a request's address, read strictly."""

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
    return digits(given, name) if (given := request.query_params.get(name)) else None


def path_number(request: Request, name: str) -> int:
    """Return a number of the path."""
    return digits(request.path_params[name], name)


def digits(given: str, name: str) -> int:
    """Return the number that the parameter called `name` holds."""
    if not (given.isascii() and given.isdigit() and len(given) <= _DIGITS):
        raise HTTPException(400, f"{name} is not a number")
    return int(given)


def text(request: Request, name: str, longest: int = LONGEST_TEXT) -> str:
    """Return a text of the query, "" if it is not there."""
    given = request.query_params.get(name, "").strip()
    if len(given) > longest:
        raise HTTPException(400, f"{name} is longer than {longest} characters")
    if "\0" in given:
        raise HTTPException(400, f"{name} has a character that no journal keeps")
    return given


def status(request: Request) -> Status | None:
    """Return the status that listed runs have to have, `None` for any."""
    known: tuple[Status, ...] = get_args(Status)
    return _known(request, "status", known)


def state(request: Request) -> State | None:
    """Return the state that listed tasks have to have, `None` for any."""
    known: tuple[State, ...] = get_args(State)
    return _known(request, "state", known)


def _known(request: Request, name: str, known: Sequence[_Word]) -> _Word | None:
    given = request.query_params.get(name)
    if not given:
        return None
    for word in known:
        if word == given:
            return word
    raise HTTPException(400, f"{name} is none of {', '.join(map(str, known))}")
