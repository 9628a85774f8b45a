"""Log records on the standard error stream of the command line: a line each, for people or as JSON."""

import logging
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Final, TextIO

from procession import TaskLogHandler
from procession._model.shared_handler import SharedHandler
from procession._model.table import lasting
from procession._model.text import described, shown, sketch

FORMATS: Final = ("text", "json")
LEVELS: Final = ("debug", "info", "warning", "error")
DEFAULT_LEVELS: Final = {"text": "warning", "json": "info"}

_LINE: Final = 10_000


@contextmanager
def logs_shown(chosen: str | None, level: str | None) -> Generator[None, None, None]:
    """Show log records within the block, in the chosen format, from a level on.

    Where none is chosen and the program has set up its logging itself, that is left as it is. Raises `ImportError` for
    JSON without the extra `cli`.
    """
    root = logging.getLogger()
    if chosen is None and level is None and root.handlers:
        yield
        return
    chosen = chosen or "text"
    handler = _Handler(chosen)
    before = root.level
    root.addHandler(handler)
    root.setLevel((level or DEFAULT_LEVELS[chosen]).upper())
    logging.captureWarnings(capture=True)  # which are printed as they are otherwise
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        root.setLevel(before)
        root.removeHandler(handler)


@contextmanager
def logs_loaded(chosen: str | None) -> Generator[None, None, None]:
    """Show in the chosen format what is logged within the block, as long as the program has set up no logging."""
    before, logging.lastResort = logging.lastResort, _Handler(chosen or "text", logging.WARNING)
    try:
        yield
    finally:
        logging.lastResort = before


@contextmanager
def logs_kept() -> Generator[None, None, None]:
    """Keep what tasks log within the block with their records."""
    root, handler = logging.getLogger(), TaskLogHandler()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


class _Handler(logging.StreamHandler[TextIO], SharedHandler):
    """Writes records on the standard error stream, in this process and in those that make calls for it."""

    def __init__(self, chosen: str, level: int = logging.NOTSET) -> None:
        super().__init__(sys.stderr)
        self.setLevel(level)
        self._chosen = chosen
        self.setFormatter(_json_formatter() if chosen == "json" else TextFormatter())

    def elsewhere(self) -> Callable[[], object]:
        """Return a function that shows records in the same format, and from the same level on, in another process."""
        return partial(_show_here, self._chosen, logging.getLogger().level)

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record; of one that cannot be made, what it would have been made of."""
        try:
            return super().format(record)
        except Exception as error:
            told = {name: getattr(record, name) for name in ("name", "levelno", "levelname", "created", "msecs")}
            text = f"a record that cannot be shown, {sketch(record.msg)}: {described(error)}"
            return super().format(logging.makeLogRecord({**told, "msg": text}))


def _show_here(chosen: str, level: int) -> None:
    """Show logs in this process, until it ends, as in the one that it makes calls for."""
    root = logging.getLogger()
    if root.handlers:  # set up already: by us, or by a program that is not ours
        return
    root.addHandler(_Handler(chosen))
    root.setLevel(level)
    logging.captureWarnings(capture=True)


class TextFormatter(logging.Formatter):
    r"""One line for each record, whatever it says, and its traceback in lines of its own that no record looks like.

    >>> record = logging.makeLogRecord({"msg": "all\nERROR forged", "name": "app", "levelname": "INFO", "created": 0})
    >>> TextFormatter().format(record)[9:]
    'INFO    app: all\\nERROR forged'
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record."""
        when = time.strftime("%H:%M:%S", time.localtime(record.created))
        line = f"{when} {shown(record.levelname, 20):<7} {shown(self._said(record), _LINE)}"
        text = self.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else ""
        return "\n".join([line, *(f"    {shown(part, _LINE)}" for part in text.splitlines())])

    def _said(self, record: logging.LogRecord) -> str:
        if record.name != "procession" or not hasattr(record, "process_name"):
            return f"{record.name}: {record.getMessage()}"
        fields = vars(record)
        parts = [record.getMessage().replace("_", " ")]
        if "task_name" in fields:
            element = f", element {fields['element']}" if "element" in fields else ""
            parts.append(f"task {fields['index']} ({fields['task_name']}){element}")
            parts.append(f"attempt {fields['attempt']}")
        if "observer" in fields:
            parts.append(str(fields["observer"]))
        if "dropped" in fields:
            parts.append(f"{fields['dropped']:,} of its events")
        if "duration_s" in fields:
            parts.append(lasting(fields["duration_s"]))
        if "error_type" in fields:
            parts.append(str(fields.get("error", fields["error_type"])))
        return f"{fields['process_name']}: {' · '.join(parts)}"


def _json_formatter() -> logging.Formatter:
    try:
        from pythonjsonlogger.json import JsonFormatter  # of an extra
    except ModuleNotFoundError:
        raise ImportError('--log-format json takes python-json-logger: pip install "procession[cli]"') from None
    names = {"levelname": "level", "name": "logger"}
    return JsonFormatter("{levelname}{name}{message}", style="{", rename_fields=names, timestamp=True)
