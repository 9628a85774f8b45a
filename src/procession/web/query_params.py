"""The parameters of a request's address, read strictly."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar, get_args

from starlette.exceptions import HTTPException
from starlette.requests import Request

from procession.journal import Order, Recorded, Status

LONGEST_TEXT = 200
_DIGITS = 18

State = Literal["failed", "running", "waiting", "retried", "completed"]
_RECORDED: Final[tuple[Recorded, ...]] = get_args(Recorded)

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


@dataclass(frozen=True)
class Wanted:
    """Which tasks, or elements, a table is asked to show."""

    state: State | None
    """How they stand, `None` for any way."""
    text: str
    """What their names contain."""
    begin: int
    """The place, or rank, of the first."""
    order: Order | None
    """Which come first, instead of those of the lowest place."""

    @property
    def recorded(self) -> Recorded | None:
        """The state, if records have it."""
        return next((known for known in _RECORDED if known == self.state), None)


def wanted(request: Request) -> Wanted:
    """Return which tasks the table of a page is asked to show."""
    orders: tuple[Order, ...] = get_args(Order)
    return Wanted(state(request), text(request, "q"), number(request, "from") or 0, _known(request, "order", orders))


def _known(request: Request, name: str, known: Sequence[_Word]) -> _Word | None:
    given = request.query_params.get(name)
    if not given:
        return None
    for word in known:
        if word == given:
            return word
    raise HTTPException(400, f"{name} is none of {', '.join(map(str, known))}")
