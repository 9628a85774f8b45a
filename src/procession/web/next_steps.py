"""The commands that go on with a run: to resume it, and to have what failed, or any one call, called again."""

import shlex
from typing import NamedTuple

from procession.journal import RunInfo
from procession.journal.origin import resumable, script_of


class NextStep(NamedTuple):
    """How a run is gone on with. What does not apply is empty."""

    command: str
    """The command line that resumes it, if one began it, or a script without arguments did."""
    code: str
    """What else its own program has to execute."""
    rerun: str
    """The command line that forgets what failed, and what follows from it, and goes on with the run."""


def next_step(info: RunInfo, where: str) -> NextStep | None:
    """Return how to go on with a run of the journal at an address; `None` if it is running, or has completed well."""
    failed = info.progress is not None and info.progress.failed > 0
    if info.status == "running" or (info.status == "completed" and not failed):
        return None
    command, code, rerun = "", "", ""
    if failed:
        rerun = shlex.join(["procession", "rerun", "--failed", "--journal", where, info.id])
    if info.status != "completed":
        if resumable(info.origin.get("argv", [])) is not None or script_of(info.origin) is not None:
            command = shlex.join(["procession", "resume", "--journal", where, info.id])
        else:
            code = f"process.execute(journal={where!r}, run_id={info.id!r})"
    return NextStep(command, code, rerun)


def rerun_of(info: RunInfo, where: str, task: int, element: int | None) -> str:
    """Return the command line that calls a task, or an element of a map, again; "" for a run that is running."""
    if info.status == "running":
        return ""
    named = ["--from", f"{task}"] if element is None else ["--element", f"{task}:{element}"]
    return shlex.join(["procession", "rerun", *named, "--journal", where, info.id])
