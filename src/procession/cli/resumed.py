"""Whether a recorded command line may be executed again: what it would run, and whether that is the caller's own."""

import os
import shlex
import stat
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

from procession._model.text import shown
from procession.cli.target import is_file, split
from procession.cli.terminal import tell

if TYPE_CHECKING:
    from procession.journal import RunInfo

_LINE = 2000
"""Characters of a command line that are shown, at most."""


def agreed(info: "RunInfo", folder: Path, command: Sequence[str], target: str | None, *, yes: bool) -> bool:
    """Return whether to go on with a run; where that is not certain, say what would run, and ask if that is possible.

    `target` is what the command line runs, `None` for the demonstration. `yes` stands for the answer.
    """
    file, name = _located(target, folder)
    doubts = list(_doubts(info, folder, file))
    if not doubts:
        return True
    what = "the demonstration" if target is None else f"{shown(name)} of {shown(str(file or target), _LINE)}"
    _say(f"to resume run {shown(info.id)} runs {what}, in {shown(str(folder), _LINE)}, as its journal has it:")
    _say(f"  procession {shown(shlex.join(command), _LINE)}")
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


def _located(target: str | None, folder: Path) -> tuple[Path | None, str]:
    """Return the file that a target lies in, `None` where that is not known, and the name in it."""
    if target is None:
        return None, ""
    place, name = split(target)
    if is_file(place):
        return folder / place, name
    spec = PathFinder.find_spec(place.partition(".")[0], [str(folder), *sys.path])
    where = None if spec is None else spec.origin or next(iter(spec.submodule_search_locations or ()), None)
    return None if where is None else Path(where), name


def _doubts(info: "RunInfo", folder: Path, file: Path | None) -> Iterator[str]:
    from procession.journal.origin import is_own

    if not is_own(info.id, info.origin):
        yield "nothing shows that you began this run: whoever has written to the journal may have written this"
    places = [folder] if file is None else [folder, file.resolve().parent, file]
    for place in dict.fromkeys(places):
        if sys.platform != "win32" and place.exists():
            status = place.stat()
            if status.st_uid not in (os.geteuid(), 0):
                yield f"{place} belongs to user {status.st_uid}"
            elif status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
                yield f"anybody can write to {place}"
