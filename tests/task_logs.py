"""What is kept of what tasks log."""

import logging
import re
import threading

import pytest

from logging_tasks import LOGGER
from procession import TaskLogHandler
from procession.journal import Journal

TURNS = threading.Barrier(2, timeout=20)
BROKEN = set()
STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.fixture
def handler():
    """A handler as a user adds it, on the logger of the tests, from level `INFO` on."""
    handler = TaskLogHandler()
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    yield handler
    LOGGER.removeHandler(handler)
    LOGGER.setLevel(logging.NOTSET)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "runs.db")


def logs(where, run_id="run", **which):
    """Return what each task of a run logged, by place, without the time of day."""
    with Journal(where) as journal:
        tasks = journal.tasks(run_id, **which)
    texts = [one.log and re.sub(f"^{STAMP} ", "", one.log, flags=re.MULTILINE) for one in tasks]
    return {one.task if one.element is None else one.element: text for one, text in zip(tasks, texts, strict=True)}


def kept(process, where, run_id="run", raises=None):
    if raises is None:
        process.execute(journal=where, run_id=run_id)
    else:
        with pytest.raises(raises):
            process.execute(journal=where, run_id=run_id)
