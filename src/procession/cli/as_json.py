"""Recorded runs as JSON, for programs. Like the tables, it has no value that was recorded: only text and numbers."""

import dataclasses
from typing import TYPE_CHECKING, Any

from procession.cli.recorded import open_journal
from procession.cli.terminal import say_json

if TYPE_CHECKING:
    from procession.journal import Reader, RunInfo


def print_runs_json(where: str, limit: int) -> int:
    """Print an array of runs, the newest first, each with the fields of `RunInfo`."""
    with open_journal(where) as journal:
        infos = journal.runs(limit)
    say_json([_run(info) for info in infos])
    return 0


def print_run_json(where: str, run_id: str, limit: int, *, failed: bool) -> int:
    """Print an object with a run, its tasks (or what failed), the calls these made, and the runs nested in it."""
    with open_journal(where, run_id) as journal, journal.reader() as reader:
        key = reader.key(run_id)
        info = reader.run(key)
        tasks = _failed(reader, key, limit) if failed else _tasks(reader, key, info, limit)
        calls = reader.calls(key, sorted({task["task"] for task in tasks}), limit=limit)
        nested = [_run(found.run) for found in reader.runs(parent=key, limit=limit)]
    say_json({"run": _run(info), "tasks": tasks, "calls": list(map(dataclasses.asdict, calls)), "nested": nested})
    return 0


def _run(info: "RunInfo") -> dict[str, Any]:
    progress = None if info.progress is None else info.progress._asdict()
    return {**dataclasses.asdict(info), "progress": progress}


def _failed(reader: "Reader", key: int, limit: int) -> list[dict[str, Any]]:
    return [dataclasses.asdict(task) for task in reader.failed(key, limit)]


def _tasks(reader: "Reader", key: int, info: "RunInfo", limit: int) -> list[dict[str, Any]]:
    definition = reader.definition(key)
    statuses = reader.statuses(key, info, range(min(limit, definition.tasks)))
    return [
        {
            "task": one.task,
            "element": None,
            "name": definition.called(one.task),
            "label": one.label,
            "state": one.state,
            "since": one.since,
        }
        if one.ended is None
        else {**dataclasses.asdict(one.ended), "state": one.state}
        for one in statuses
    ]
