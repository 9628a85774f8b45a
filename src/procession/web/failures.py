"""What failed in a run and in the runs inside it: failures that are alike told once, each where a user looks for it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from procession._model.text import headline
from procession.journal import GROUPED, Found, Reader, RunInfo

GROUPS = 6
"""Groups that are told, at most."""

RUNS = 20
"""Runs that are looked into, at most."""

_LOGGED = 6
_TRACEBACK = 60
"""Lines, at most."""

_FRAME = re.compile(r'File "([^"\n]+)", line (\d+), in ([^\n]+)(?:\n[ |+]*([^\n]+))?')
_FOREIGN = re.compile(r"[/\\](site-packages|dist-packages|lib[/\\]python3[^/\\]*|procession)[/\\]|^<frozen ")


@dataclass(frozen=True)
class Frame:
    """A line of code of a traceback."""

    file: str
    line: int
    function: str
    code: str


@dataclass(frozen=True)
class Group:
    """Failures of one kind at one place: how many there are, and the first of them in full."""

    kind: str
    calls: int
    path: Sequence[str]
    """The processes that lie between the run and the call, then the name of the task."""
    key: int
    task: int
    element: int | None
    message: str
    error: str = field(repr=False)
    log: str = field(repr=False)

    @property
    def frame(self) -> Frame | None:
        """The innermost line of the traceback that is the user's own, `None` if there is no traceback."""
        found = _FRAME.findall(self.error)
        own = [frame for frame in found if not _FOREIGN.search(frame[0])] or found
        return Frame(own[-1][0], int(own[-1][1]), own[-1][2], own[-1][3].strip()) if own else None

    @property
    def traceback(self) -> str:
        """The end of the traceback, under the head line that an error of a journal begins with."""
        lines = self.error.partition("\n")[2].strip("\n").split("\n")
        return "\n".join(lines if len(lines) <= _TRACEBACK else ["…", *lines[-_TRACEBACK:]])

    @property
    def logged(self) -> str:
        """The last lines that the call has logged."""
        return "\n".join(self.log.rstrip("\n").split("\n")[-_LOGGED:])


@dataclass(frozen=True)
class Failures:
    """What failed in a run."""

    groups: Sequence[Group]
    more: int
    """Groups that are not told."""
    partial: bool
    """Whether there may be failures that were not looked at."""
    error: str | None
    """Why the run itself failed, where no group says so."""


def failures_of(reader: Reader, key: int, info: RunInfo) -> Failures:
    """Return the failures of a run."""
    found: dict[tuple[str, str], Group] = {}
    runs: list[tuple[Found, tuple[str, ...]]] = [(Found(key, info), ())]
    partial = False
    for (at, run), path in runs:  # which grows
        partial |= run.progress is not None and run.progress.failed > GROUPED
        for one in _groups(reader, at, path):
            known = found.get((one.kind, one.path[-1]))
            found[one.kind, one.path[-1]] = one if known is None else replace(known, calls=known.calls + one.calls)
        inside = reader.runs(parent=at, status="failed", limit=RUNS + 1)
        runs += [(one, (*path, one.run.process)) for one in sorted(inside[:RUNS], key=_place)]
        partial |= len(inside) > RUNS or len(runs) > RUNS
        del runs[RUNS:]
    most_first = sorted(found.values(), key=lambda one: -one.calls)
    told = [_told(reader, one) for one in most_first[:GROUPS]]
    error = info.error if info.status != "running" else None
    if error is not None and any(headline(error) == one.message for one in told):
        error = None
    return Failures(told, len(most_first) - len(told), partial, error)


def _place(nested: Found) -> list[int]:
    """Return the task, and the element, that a nested run is."""
    return [int(number) for number in nested.run.id.rpartition("/")[2].split(".") if number.isdecimal()]


def _groups(reader: Reader, key: int, path: tuple[str, ...]) -> Iterator[Group]:
    """Yield the groups of one run, without what only the record of their first call has."""
    for one in reader.alike(key):
        name = one.name if one.element is None else one.name.removeprefix("map of ")
        yield Group(one.kind, one.calls, (*path, name), key, one.task, one.element, "", "", "")


def _told(reader: Reader, group: Group) -> Group:
    ended = reader.task(group.key, group.task, group.element)
    if ended is None:  # it has been called again meanwhile
        return group
    error = ended.error or ""
    path = (*group.path[:-1], ended.label or group.path[-1])
    return replace(group, path=path, message=headline(error), error=error, log=ended.log or "")
