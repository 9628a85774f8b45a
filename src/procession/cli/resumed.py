"""Executing again what began a run, and whether that may be: what would run, and whether that is the caller's own."""

import os
import shlex
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, get_args

from procession._model.text import shown
from procession.cli.target import is_file, split
from procession.cli.terminal import tell

if TYPE_CHECKING:
    from procession.journal import Journal, RunInfo

_LOOK_S: Final = 0.5
_PASSED_ON: Final = (signal.SIGINT, signal.SIGTERM)
SUSPENDED, IN_USE, INTERRUPTED, TERMINATED = 4, 75, 130, 143
"""Exit statuses: the run waits; somebody else executes it; Ctrl-C; SIGTERM."""

Many = Literal["interrupted", "answered", "due"]
MANY: Final[tuple[Many, ...]] = get_args(Many)
"""Runs that are gone on with in one go."""

_MANY = 1_000_000
"""Runs that are gone on with in one go, at most."""

_LINE = 2000
"""Characters of a command line that are shown, at most."""


class Located(NamedTuple):
    """What a command line runs, in words, and the file it lies in; `None` where that is not known."""

    what: str
    file: Path | None


def resume_script(
    info: "RunInfo",
    script: str,
    journal: "Journal",
    begin: Callable[[], object],
    *,
    allow_changes: bool,
    yes: bool,
) -> int:
    """Run the script again that began a run, in the folder where that was, and return its exit status.

    `begin` is called before, when it is certain that the script is run.
    """
    folder = Path(info.origin["folder"])
    file = folder / script
    if allow_changes:
        _say(f"{shown(script)} itself says what may have changed: have it pass allow_changes=True")
        return 1
    if not file.is_file():
        _say(f"run {shown(info.id)} was begun by {shown(str(file), _LINE)}, which is not there")
        return 1
    if not agreed(info, folder, ["python", script], Located(shown(str(file), _LINE), file), yes=yes):
        return 1
    begin()
    code = _called([sys.executable, str(file)], folder)  # the caller has agreed
    now = journal.run(info.id)
    if code == 1 and now.status == "suspended" and now.executions > info.executions:
        return SUSPENDED  # the script has not caught what says so
    if code == 0 and now.executions == info.executions:
        _say(f"{shown(script)} exited without an error, but did not execute run {shown(info.id)} again")
        return 1
    return code


def resume_all(where: str, which: Many, arguments: Sequence[str]) -> int:
    """Go on with each run that was interrupted, was answered or is due, one after another, in a program of its own.

    Return 0 if all have gone well, also those that wait again and those that somebody else goes on with now, else the
    first other exit status.
    """
    from procession.journal import Journal  # an extra, and slow to import

    with Journal(where) as journal, journal.reader() as reader:
        if which == "interrupted":
            ids = [found.run.id for found in reader.runs(status="interrupted", limit=_MANY)][::-1]  # as they were begun
        else:
            ids = reader.ready(which)
    status = 0
    for run_id in ids:
        _say(f"resuming {shown(run_id)}")
        code = _called([sys.executable, "-m", "procession", "resume", f"--journal={where}", *arguments, "--", run_id])
        status = status or (0 if code in (IN_USE, SUSPENDED) else code)
        if code in (INTERRUPTED, TERMINATED):
            break
    return status


def _called(command: Sequence[str], folder: Path | None = None) -> int:
    """Return the exit status of a program, which is told of signals as this one is."""
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in _PASSED_ON}
    try:
        child = subprocess.Popen(command, cwd=folder)  # noqa: S603  # this program, or what the caller has agreed to
        while child.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                child.wait(_LOOK_S)
            while came:  # Ctrl-C has reached it by itself
                if (number := came.pop()) != signal.SIGINT:
                    child.send_signal(number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def agreed(info: "RunInfo", folder: Path, command: Sequence[str], located: Located, *, yes: bool) -> bool:
    """Return whether to go on with a run; where that is not certain, say what would run, and ask if that is possible.

    `yes` stands for the answer.
    """
    doubts = list(_doubts(info, folder, located.file))
    if not doubts:
        return True
    _say(f"to resume run {shown(info.id)} runs {located.what}, in {shown(str(folder), _LINE)}, as its journal has it:")
    _say(f"  {shown(shlex.join(command), _LINE)}")
    for doubt in doubts:
        _say(shown(doubt, _LINE))
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        _say("nothing was run; if you trust all of this, and the values in the journal, say --yes")
        return False
    print("Run it, and trust the values in the journal? [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _say(text: str) -> None:
    tell(f"procession: {text}")


def located(target: str | None, folder: Path) -> Located:
    """Return a target in words; `None` is the demonstration."""
    if target is None:
        return Located("the demonstration", None)
    file, name = _file_of(target, folder)
    return Located(f"{shown(name)} of {shown(str(file or target), _LINE)}", file)


def _file_of(target: str, folder: Path) -> tuple[Path | None, str]:
    """Return the file that a target lies in, `None` where that is not known, and the name in it."""
    place, name = split(target)
    if is_file(place):
        return folder / place, name
    spec = PathFinder.find_spec(place.partition(".")[0], [str(folder), *sys.path])
    where = None if spec is None else spec.origin or next(iter(spec.submodule_search_locations or ()), None)
    return None if where is None else Path(where), name


def _doubts(info: "RunInfo", folder: Path, file: Path | None) -> Iterator[str]:
    from procession.journal.origin import is_own

    if not is_own(info.id, info.origin):
        yield "nothing shows that you began this run: another user who can write to the journal may have written this"
    places = [folder] if file is None else [folder, file.resolve().parent, file]
    for place in dict.fromkeys(places):
        if sys.platform != "win32" and place.exists():
            status = place.stat()
            if status.st_uid not in (os.geteuid(), 0):
                yield f"{place} belongs to user {status.st_uid}"
            elif status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
                yield f"every user can write to {place}"
