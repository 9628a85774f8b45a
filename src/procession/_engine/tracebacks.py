"""What the exception of a task carries: a traceback that begins at the task, and a note that says where it is from."""

from contextlib import suppress
from types import TracebackType
from typing import cast

from procession._model.text import shown


def annotate(error: BaseException, process_name: str, index: int, name: str, attempt: int, elements: str = "") -> None:
    """Add the note (PEP 678) with process, task and attempt, once for each task that the exception passes.

    `elements` are those of a map that failed with it, in words.
    """
    start = f"in process {shown(process_name)!r}, task {index} ({shown(name)})"
    # An exception may refuse attributes (a frozen dataclass), or have notes that are none.
    with suppress(Exception):
        notes: list[object] = getattr(error, "__notes__", None) or []
        if not any(isinstance(note, str) and note.startswith(start) for note in notes):
            place = f", {elements}" if elements else ""
            object.__setattr__(error, "__notes__", [*notes, f"{start}{place}, attempt {attempt}"])


def stripped(traceback: TracebackType | None) -> TracebackType | None:
    """Return a traceback without its leading frames that are not the task's own.

    They hold every argument and value of the run, and would keep them alive for as long as the exception lives.
    """
    while traceback is not None and _is_ours(traceback.tb_frame.f_globals.get("__name__", "")):
        traceback = traceback.tb_next
    return traceback


def let_go(error: BaseException) -> None:
    """Empty the frames of ours that called the task, as far as they have returned.

    The frame of a task keeps its callers (`f_back`), and they would keep the run, and all it holds, as long as the
    exception lives.
    """
    if isinstance(error, BaseExceptionGroup):
        for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            let_go(inner)
    traceback = error.__traceback__
    frame = None if traceback is None else traceback.tb_frame.f_back
    while frame is not None and frame.f_globals.get("__name__", "").startswith(_CALLERS):
        with suppress(RuntimeError):  # it is running still
            frame.clear()
        frame = frame.f_back


_CALLERS = ("procession.", "tenacity", "concurrent.futures", "threading")
_OURS = (
    "procession._engine.",
    "procession._remote.",
    "procession._loop.",
    "procession._model.batched",
    "tenacity",
    "concurrent.futures",
)


def _is_ours(module: str) -> bool:
    return module.startswith(_OURS)
