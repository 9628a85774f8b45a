"""Calling a part of a run again, in two steps: the page says what is forgotten, and a form has that forgotten."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from starlette.exceptions import HTTPException

from procession.errors import RunInUseError
from procession.journal import Forgotten, Journal, Reader
from procession.journal.rerun import REASONS, name_of, place_in
from procession.web import query_params

ROWS: Final = 100
"""Tasks and elements that the first step names, at most."""


class Chosen(NamedTuple):
    """What is to be called again: a task, an element of a map, or all that failed."""

    task: int | None
    element: int | None

    @property
    def fields(self) -> dict[str, int]:
        """The fields of a form, or of an address, that say so."""
        return {name: value for name, value in self._asdict().items() if value is not None}

    @property
    def named(self) -> dict[str, Any]:
        """The same as `Journal.rerun` takes it."""
        if self.task is None:
            return {"failed": True}
        return {"tasks": [self.task]} if self.element is None else {"elements": [(self.task, self.element)]}


class Asked(NamedTuple):
    """What the first step says."""

    chosen: Chosen
    rows: Sequence[tuple[str, str, str]]
    """The place of each task or element, its name, and why it is called again; `ROWS` at most."""
    total: int
    """How many there are."""
    seen: str
    """A text that is another one when something else would be called again."""


def chosen_by(fields: Mapping[str, str]) -> Chosen:
    """Return what the fields of a form, or of an address, name; all that failed if they name nothing."""
    task, element = (
        query_params.digits(fields[name], name) if fields.get(name) else None for name in ("task", "element")
    )
    if task is None and element is not None:
        raise HTTPException(400, "an element is that of a task")
    return Chosen(task, element)


def run_id_of(reader: Reader, key: int) -> str:
    """Return the id of a run of which a part can be called again."""
    if reader.outer(key):
        raise HTTPException(409, "a run inside another one is called again as a task of that")
    return reader.run(key).id


def asked(journal: Journal, run_id: str, chosen: Chosen) -> Asked:
    """Return what would be called again."""
    forgotten = _rerun(journal, run_id, chosen, dry_run=True)
    rows = [(place_in(run_id, one), name_of(one), REASONS[one.reason]) for one in forgotten[:ROWS]]
    return Asked(chosen, rows, len(forgotten), _seen(forgotten))


def forget(journal: Journal, run_id: str, chosen: Chosen, seen: str) -> None:
    """Forget what was shown in the first step, unless that would be something else by now."""
    if _seen(_rerun(journal, run_id, chosen, dry_run=True)) != seen:
        raise HTTPException(409, "what would be called again is no longer what the page had said; look at it again")
    _rerun(journal, run_id, chosen, dry_run=False)


def _rerun(journal: Journal, run_id: str, chosen: Chosen, *, dry_run: bool) -> Sequence[Forgotten]:
    try:
        return journal.rerun(run_id, **chosen.named, dry_run=dry_run)
    except RunInUseError as error:
        raise HTTPException(409, f"{error}") from None
    except ValueError as error:
        raise HTTPException(404, f"{error}") from None


def _seen(forgotten: Sequence[Forgotten]) -> str:
    places = [(one.run, one.task, one.element) for one in forgotten]
    return hashlib.blake2b(repr(places).encode(), digest_size=12).hexdigest()
