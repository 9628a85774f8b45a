"""What to do next with a run that has not completed, or not well: how it is resumed, and what failed called again."""

import shlex
from typing import NamedTuple

from procession.journal import RunInfo
from procession.journal.origin import resumable


class NextStep(NamedTuple):
    """How a run is gone on with. What does not apply is empty."""

    command: str
    """The command line that resumes it, if that began it."""
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
        if resumable(info.origin.get("argv", [])) is not None:
            command = shlex.join(["procession", "resume", "--journal", where, info.id])
        else:
            code = f"process.execute(journal={where!r}, run_id={info.id!r})"
    return NextStep(command, code, rerun)
