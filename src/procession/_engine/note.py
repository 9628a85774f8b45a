"""The note that says where an exception comes from."""

from procession._model.record import WHOLE
from procession._model.text import shown


def annotate(
    error: BaseException, process_name: str, index: int, name: str, attempt: int, element: int = WHOLE
) -> None:
    """Add the note (PEP 678) with process, task and attempt, once for each task that the exception passes."""
    start = f"in process {shown(process_name)!r}, task {index} ({shown(name)})"
    if any(note.startswith(start) for note in getattr(error, "__notes__", ())):
        return
    place = "" if element == WHOLE else f", element {element}"
    error.add_note(f"{start}{place}, attempt {attempt}")
