"""The note that says where an exception comes from."""

from contextlib import suppress

from procession._model.record import WHOLE
from procession._model.text import shown


def annotate(
    error: BaseException, process_name: str, index: int, name: str, attempt: int, element: int = WHOLE
) -> None:
    """Add the note (PEP 678) with process, task and attempt, once for each task that the exception passes."""
    start = f"in process {shown(process_name)!r}, task {index} ({shown(name)})"
    # An exception may refuse attributes (a frozen dataclass), or have notes that are none.
    with suppress(Exception):
        notes: list[object] = getattr(error, "__notes__", None) or []
        if not any(isinstance(note, str) and note.startswith(start) for note in notes):
            place = "" if element == WHOLE else f", element {element}"
            object.__setattr__(error, "__notes__", [*notes, f"{start}{place}, attempt {attempt}"])
