"""Commands about the runs of a journal. They read no value that was recorded: only text and numbers."""

import shlex
import sys
import time
from argparse import Namespace
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from textwrap import wrap
from typing import TYPE_CHECKING

from procession import RunUnknownError
from procession._model.secret import masked
from procession._model.table import lasting
from procession._model.text import answer_of, counted, headline, shown
from procession.cli.nearest import meant
from procession.cli.tables import Column, say_table
from procession.cli.terminal import say, tell, width_of

if TYPE_CHECKING:
    from procession.journal import CallInfo, Journal, Reader, RunInfo, TaskInfo, WaitInfo

DEFAULT_JOURNAL = "runs.db"
_DAY_S = 86_400.0
_ERROR_LINES = 20
_ROUNDING_S = 1e-3
_KNOWN = 500
_RUN_COLUMNS = (
    Column("run", least=24),
    Column("process", least=10),
    Column("status"),
    Column("tasks", rank=1, right=True),
    Column("failed", rank=4, right=True),
    Column("started", rank=2),
    Column("took", rank=5, right=True),
    Column("error", rank=3, least=12),
)
_TASK_COLUMNS = (
    Column("#", right=True),
    Column("task", least=12),
    Column("state"),
    Column("attempts", rank=4, right=True),
    Column("started", rank=2, right=True),
    Column("took", rank=1, right=True),
    Column("error", rank=3, least=12),
)


@contextmanager
def open_journal(where: str, *run_ids: str) -> "Generator[Journal]":
    """Open the journal at a path or URL. Where it does not know one of these runs, say which may be meant."""
    from procession.journal import Journal  # an extra, and slow to import

    with Journal(where) as journal:
        try:
            yield journal
        except RunUnknownError as error:
            known = [info.id for info in journal.runs(_KNOWN)]
            near = next((meant(run_id, known) for run_id in run_ids if repr(run_id) in str(error)), "")
            raise RunUnknownError(f"{error}{near}") from None


def print_runs(where: str, limit: int) -> int:
    """Print a table of runs, the newest first."""
    with open_journal(where) as journal:
        infos = journal.runs(limit)
    say_table(_RUN_COLUMNS, [_run_row(info) for info in infos])
    return 0


def print_run(where: str, run_id: str, limit: int, *, failed: bool) -> int:
    """Print a run, and a table of its tasks, or of the calls that failed with what they raised and logged."""
    with open_journal(where, run_id) as journal, journal.reader() as reader:
        key = reader.key(run_id)
        info = reader.run(key)
        say("\n".join(_head(info, limit)))
        if failed:
            _print_failed(reader, key, info, limit)
        else:
            _print_tasks(reader, key, info, limit)
        nested = [found.run for found in reader.runs(parent=key, limit=limit)]
    if nested:
        say("\nnested runs:")
        say_table(_RUN_COLUMNS, [_run_row(found) for found in nested])
    return 0


def _head(info: "RunInfo", limit: int) -> Iterator[str]:
    times = "once" if info.executions == 1 else f"{info.executions:,} times"
    progress = info.progress
    how_far = "" if progress is None else f", {progress.ended:,} of {counted(progress.total, 'task')} ended"
    bad = f", {progress.failed:,} failed" if progress is not None and progress.failed else ""
    head = f"{shown(info.id)} of process {shown(info.process)}: {info.status}, executed {times}{how_far}{bad}"
    yield from wrap(head, width_of(sys.stdout) or len(head), break_long_words=False)
    if info.host is not None:
        yield f"by process {info.pid} on {info.host}{', asked to stop' if info.cancelling else ''}"
    for wait in info.waits[:limit]:
        yield _wait_line(wait)
    if info.error is not None:
        yield from islice(info.error.split("\n"), _ERROR_LINES)
    if info.status == "running":
        for running in info.running[:limit]:
            name = shown(running.label or running.name)
            yield f"running: {running.task} {name}, for {lasting(time.time() - running.started_at)}"
        for pausing in info.pausing[:limit]:
            yield f"waiting for its next attempt: {pausing.task} {shown(pausing.label or pausing.name)}"


def _print_tasks(reader: "Reader", key: int, info: "RunInfo", limit: int) -> None:
    """Print how tasks stand, by place, whether or not they have ended."""
    definition = reader.definition(key)
    count = min(limit, definition.tasks)
    calls = reader.calls(key, range(count), limit=limit + 1)
    inside: dict[int, list[tuple[str, ...]]] = {}
    for call in calls[:limit]:
        inside.setdefault(call.task, []).append(_call_row(call, info.started_at))
    rows: list[tuple[str, ...]] = []
    statuses = reader.statuses(key, info, range(count))
    elements = reader.elements(key, [one.task for one in statuses if one.state == "cancelled"])
    for one in statuses:
        waits: tuple[str, ...] = str(one.task), one.label or definition.called(one.task), one.state
        if one.task in elements:
            waits = *waits, *[""] * 3, f"after {counted(elements[one.task][0], 'element')}"
        rows += [waits if one.ended is None else _task_row(one.ended, info.started_at), *inside.get(one.task, ())]
    _print_table(rows, definition.tasks - count)
    if len(calls) > limit:
        say("… and more calls that tasks made: see --limit")


def _print_failed(reader: "Reader", key: int, info: "RunInfo", limit: int) -> None:
    """Print which calls failed, and what each has raised and logged."""
    failures = reader.failed(key, limit)
    more = reader.count_failed(key) - len(failures) if len(failures) == limit else 0
    _print_table([_task_row(task, info.started_at) for task in failures], more)
    for task, next_one in zip(failures, [*failures[1:], None], strict=True):
        if task.element is None and next_one is not None and next_one.task == task.task:
            continue  # a map: its elements say what was wrong
        say(f"\n{_place(task)} {shown(task.label or task.name)}")
        say(task.error or "")
        if task.log:
            say(f"\nit logged:\n{task.log}")


def _print_table(rows: Sequence[Sequence[str]], more: int) -> None:
    say_table(_TASK_COLUMNS, [(*row, *[""] * (len(_TASK_COLUMNS) - len(row))) for row in rows])
    if more:
        say(f"… and {more:,} more: see --limit")


def journal_option(address: str) -> str:
    """Return what a command needs to find the journal at an address, after a blank; nothing for the default."""
    return "" if address == DEFAULT_JOURNAL else f" --journal {shlex.quote(masked(address))}"


def cancel_run(where: str, run_id: str) -> int:
    """Ask the program that executes a run to cancel it."""
    with open_journal(where, run_id) as journal:
        asked = journal.cancel(run_id)
    say(f"run {shown(run_id)} was asked to stop" if asked else f"nobody executes run {shown(run_id)}")
    return 0 if asked else 1


def answer_run(where: str, run_id: str, name: str, text: str, *, task: int | None, element: int | None) -> int:
    """Give a run the answer that it waits for: what the text is as JSON, or else the text itself."""
    with open_journal(where, run_id) as journal:
        journal.answer(run_id, name, answer_of(text), task=task, element=element)
        info = journal.run(run_id)
    goes_on = "goes on" if info.status == "running" else _how_resumed(info, where)
    say(f"run {shown(run_id)} has its answer {shown(name)}, and {goes_on}")
    return 0


def _how_resumed(info: "RunInfo", where: str) -> str:
    """Say what resumes a run: a command, unless its program has to be begun with arguments that are not kept."""
    from procession.journal.origin import resumable, script_of

    if resumable(info.origin.get("argv", [])) is None and script_of(info.origin) is None:
        return "is resumed when its program executes it again"
    return f"is resumed with: procession resume {shlex.quote(info.id)}{journal_option(where)}"


def _wait_line(wait: "WaitInfo") -> str:
    """Return a line that says what a task waits for."""
    place = f"{wait.task}" if wait.element is None else f"{wait.task}.{wait.element}"
    what = "sleeps" if wait.kind == "sleep" else f"waits for {shown(wait.name)!r}"
    until = "" if wait.due is None else f" until {_moment(wait.due)}"
    return f"{shown(wait.run)}, task {place} {what} since {_moment(wait.since)}{until}{', answered' * wait.answered}"


def prune_runs(where: str, run_ids: Sequence[str], older_than: int | None) -> int:
    """Delete runs by their ids, or all that ended so many days ago."""
    if not run_ids and older_than is None:
        tell("procession: name runs to delete, or say --older-than DAYS")
        return 2
    with open_journal(where, *run_ids) as journal:
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
        "" if progress is None else f"{progress.ended:,}/{progress.total:,}",
        "" if progress is None else f"{progress.failed:,}",
        _moment(info.started_at),
        lasting(took) if info.ended_at is not None or info.status == "running" else "",
        headline(info.error or _waits(info)),
    )


def _waits(info: "RunInfo") -> str:
    """Return a few words that say what a suspended run waits for."""
    names = [
        "its time" if wait.kind == "sleep" else f"{shown(wait.name)!r}{' (answered)' * wait.answered}"
        for wait in info.waits
    ]
    return f"waits for {', '.join(dict.fromkeys(names))}" if names else ""


def _task_row(task: "TaskInfo", began: float) -> tuple[str, ...]:
    return (
        _place(task),
        task.label or task.name,
        task.state,
        str(task.attempts),
        _after(began, task.started_at),
        lasting(task.duration),
        headline(task.error or ""),
    )


def _call_row(call: "CallInfo", began: float) -> tuple[str, ...]:
    place = str(call.task) if call.element is None else f"{call.task}.{call.element}"
    return (
        f"{place}#{call.call}",
        f"  {call.name}",
        call.state,
        str(call.attempts),
        _after(began, call.started_at),
        lasting(call.duration),
        headline(call.error or ""),
    )


def _place(task: "TaskInfo") -> str:
    return str(task.task) if task.element is None else f"{task.task}.{task.element}"


def _moment(at: float) -> str:
    """Return a local time: that of a day before with its date."""
    then = datetime.fromtimestamp(at).astimezone()
    today = datetime.now().astimezone().date()
    return f"{then:%H:%M:%S}" if then.date() == today else f"{then:%Y-%m-%d %H:%M}"


def _after(began: float, at: float) -> str:
    """Return when something began, from the begin of its run on, or the local time of what an earlier execution did."""
    return f"+{lasting(max(at - began, 0.0))}" if at - began > -_ROUNDING_S else _moment(at)
