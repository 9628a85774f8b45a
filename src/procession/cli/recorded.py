"""Commands about the runs of a journal. They read no value that was recorded: only text and numbers."""

import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING

from procession._model.table import lasting, table
from procession._model.text import counted, headline, shown
from procession.cli.terminal import say, tell

if TYPE_CHECKING:
    from procession.journal import Journal, Reader, RunInfo, TaskInfo

DEFAULT_JOURNAL = "runs.db"
_DAY_S = 86_400.0
_ERROR_LINES = 20
_RUN_HEAD = ("run", "process", "status", "tasks", "failed", "started", "took", "error")


def open_journal(where: str) -> "Journal":
    """Return the journal at a path or URL."""
    from procession.journal import Journal  # an extra, and slow to import

    return Journal(where)


def print_runs(where: str, limit: int) -> int:
    """Print a table of runs, the newest first."""
    with open_journal(where) as journal:
        infos = journal.runs(limit)
    say(table(_RUN_HEAD, map(_run_row, infos)))
    return 0


def print_run(where: str, run_id: str, limit: int, *, failed: bool) -> int:
    """Print a run, and a table of its tasks, or of the calls that failed with what they raised and logged."""
    with open_journal(where) as journal, journal.reader() as reader:
        key = reader.key(run_id)
        info = reader.run(key)
        say("\n".join(_head(info, limit)))
        if failed:
            _print_failed(reader, key, limit)
        else:
            _print_tasks(reader, key, info, limit)
        nested = [found.run for found in reader.runs(parent=key, limit=limit)]
    if nested:
        say("\nnested in it:")
        say(table(_RUN_HEAD, map(_run_row, nested)))
    return 0


def _head(info: "RunInfo", limit: int) -> Iterator[str]:
    times = "once" if info.executions == 1 else f"{info.executions:,} times"
    progress = info.progress
    how_far = "" if progress is None else f", {progress.ended:,} of {counted(progress.total, 'task')} ended"
    bad = f", {progress.failed:,} failed" if progress is not None and progress.failed else ""
    yield f"{shown(info.id)} of process {shown(info.process)}: {info.status}, executed {times}{how_far}{bad}"
    if info.host is not None:
        yield f"by process {info.pid} on {info.host}{', asked to stop' if info.cancelling else ''}"
    if info.error is not None:
        yield from islice(info.error.split("\n"), _ERROR_LINES)
    if info.status == "running":
        for running in info.running[:limit]:
            yield f"running: {running.task} {shown(running.name)}, for {lasting(time.time() - running.started_at)}"


def _print_tasks(reader: "Reader", key: int, info: "RunInfo", limit: int) -> None:
    """Print how tasks stand, by place, whether or not they have ended."""
    definition = reader.definition(key)
    count = min(limit, definition.tasks)
    rows = [
        (str(one.task), definition.called(one.task), one.state) if one.ended is None else _task_row(one.ended)
        for one in reader.statuses(key, info, range(count))
    ]
    _print_table(rows, definition.tasks - count)


def _print_failed(reader: "Reader", key: int, limit: int) -> None:
    """Print which calls failed, and what each has raised and logged."""
    failures = reader.failed(key, limit)
    more = reader.count_failed(key) - len(failures) if len(failures) == limit else 0
    _print_table([_task_row(task) for task in failures], more)
    for task, next_one in zip(failures, [*failures[1:], None], strict=True):
        if task.element is None and next_one is not None and next_one.task == task.task:
            continue  # a map: its elements say what was wrong
        say(f"\n{_place(task)} {shown(task.name)}")
        say(task.error or "")
        if task.log:
            say(f"\nit logged:\n{task.log}")


def _print_table(rows: Sequence[Sequence[str]], more: int) -> None:
    head = ("#", "task", "state", "attempts", "started", "took", "error")
    say(table(head, ((*row, *[""] * (len(head) - len(row))) for row in rows)))
    if more:
        say(f"… and {more:,} more: see --limit")


def cancel_run(where: str, run_id: str) -> int:
    """Ask whoever executes a run to stop."""
    with open_journal(where) as journal:
        asked = journal.cancel(run_id)
    say(f"run {shown(run_id)} was asked to stop" if asked else f"nobody executes run {shown(run_id)}")
    return 0 if asked else 1


def prune_runs(where: str, run_ids: Sequence[str], older_than: int | None) -> int:
    """Delete runs by their ids, or all that ended so many days ago."""
    if not run_ids and older_than is None:
        tell("procession: name runs to delete, or say --older-than DAYS")
        return 2
    with open_journal(where) as journal:
        for run_id in run_ids:
            journal.delete(run_id)
            say(f"deleted {shown(run_id)}")
        if older_than is not None:
            pruned = journal.prune(time.time() - older_than * _DAY_S)
            say(f"deleted {counted(len(pruned), 'run')}")
    return 0


def command_of(options: Namespace) -> list[str]:
    """Return the command line that begins the same run again, without the journal's address: it may have a password."""
    words = ["procession", options.command]
    if options.command == "run":
        words.append(options.target)
    names = ("run_id", "strategy", "max_workers", "on_error", "log_format", "log_level", "timeline")
    given = ((name, getattr(options, name)) for name in names)
    return words + [f"--{name.replace('_', '-')}={value}" for name, value in given if value is not None]


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
        headline(info.error or ""),
    )


def _task_row(task: "TaskInfo") -> tuple[str, ...]:
    return (
        _place(task),
        task.name,
        task.state,
        str(task.attempts),
        _moment(task.started_at),
        lasting(task.duration),
        headline(task.error or ""),
    )


def _place(task: "TaskInfo") -> str:
    return str(task.task) if task.element is None else f"{task.task}.{task.element}"


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().isoformat(" ", "seconds")
