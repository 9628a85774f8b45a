"""Commands about the runs of a journal. They read no value that was recorded: only text and numbers."""

import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from procession._model.table import lasting, table
from procession._model.text import counted, shown

if TYPE_CHECKING:
    from procession.journal import Journal, RunInfo, TaskInfo

DEFAULT_JOURNAL = "runs.db"
_DAY_S = 86_400.0


def open_journal(where: str) -> "Journal":
    """Return the journal at a path or URL."""
    from procession.journal import Journal  # an extra, and slow to import

    return Journal(where)


def print_runs(where: str, limit: int) -> int:
    """Print a table of runs, the newest first."""
    with open_journal(where) as journal:
        infos = journal.runs(limit)
    print(table(("run", "process", "status", "tasks", "failed", "started", "took"), map(_run_row, infos)))
    return 0


def print_run(where: str, run_id: str, limit: int, *, failed: bool) -> int:
    """Print how a run stands, and a table of its tasks."""
    with open_journal(where) as journal:
        info = journal.run(run_id)
        tasks = journal.tasks(run_id, limit, state="failed" if failed else None)
        nested = journal.runs(limit, within=run_id)
    times = "once" if info.executions == 1 else f"{info.executions:,} times"
    print(f"{shown(info.id)} of process {shown(info.process)}: {info.status}, executed {times}")
    if info.host is not None:
        print(f"by process {info.pid} on {info.host}{', asked to stop' if info.cancelling else ''}")
    if info.error is not None:
        print(shown(info.error, 1000))
    for running in info.running:
        print(f"running: {running.task} {shown(running.name)}, for {lasting(time.time() - running.started_at)}")
    print(table(("#", "task", "state", "attempts", "started", "took", "error"), map(_task_row, tasks)))
    if failed:
        for task in tasks:
            print(f"\n{task.task} {shown(task.name)}")
            print(*(shown(line, 1000) for line in (task.error or "").splitlines()), sep="\n")
            if task.log:
                print("\nit logged:", *(shown(line, 1000) for line in task.log.splitlines()), sep="\n")
    if nested:
        print("\nnested in it:")
        print(table(("run", "process", "status", "tasks", "failed", "started", "took"), map(_run_row, nested)))
    return 0


def cancel_run(where: str, run_id: str) -> int:
    """Ask whoever executes a run to stop."""
    with open_journal(where) as journal:
        asked = journal.cancel(run_id)
    print(f"run {shown(run_id)} was asked to stop" if asked else f"nobody executes run {shown(run_id)}")
    return 0 if asked else 1


def prune_runs(where: str, run_ids: Sequence[str], older_than: int | None) -> int:
    """Delete runs by their ids, or all that ended so many days ago."""
    if not run_ids and older_than is None:
        print("procession: name runs to delete, or say --older-than DAYS", file=sys.stderr)
        return 2
    with open_journal(where) as journal:
        for run_id in run_ids:
            journal.delete(run_id)
            print(f"deleted {shown(run_id)}")
        if older_than is not None:
            pruned = journal.prune(time.time() - older_than * _DAY_S)
            print(f"deleted {counted(len(pruned), 'run')}")
    return 0


def resumable(origin: Mapping[str, Any]) -> list[str] | None:
    """Return the arguments of the `procession run` that began a run; `None` if it was begun in another way."""
    program, *arguments = map(str, origin.get("argv") or [""])
    path = PurePath(program)
    ours = path.stem == "procession" or (path.stem == "__main__" and path.parent.name == "procession")
    return arguments if ours and arguments[:1] in (["run"], ["demo"]) else None


def _run_row(info: "RunInfo") -> tuple[str, ...]:
    progress = info.progress
    took = (info.ended_at or time.time()) - info.started_at
    return (
        info.id,
        info.process,
        info.status,
        "" if progress is None else f"{progress.ended:,} of {progress.total:,}",
        "" if progress is None else f"{progress.failed:,}",
        _moment(info.started_at),
        lasting(took) if info.ended_at is not None or info.status == "running" else "",
    )


def _task_row(task: "TaskInfo") -> tuple[str, ...]:
    return (
        str(task.task),
        task.name,
        task.state,
        str(task.attempts),
        _moment(task.started_at),
        lasting(task.duration),
        (task.error or "").partition("\n")[0],
    )


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().isoformat(" ", "seconds")
